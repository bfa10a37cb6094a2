//! `edgeveil-agent spool`: for people with a broken device, or its card, in their hands.
//!
//! Nothing here can show an uncovered face: no image comes into a spool unveiled.

use super::Failure;
use anyhow::{Context, Result, anyhow, bail};
use edgeveil_spool::{
    Durability, Inspector, Lane, LaneOptions, LeaseLimit, Options, Payload, RecordId, Repair, Spool, WhenFull,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Records that `drain` takes at once.
const BATCH: LeaseLimit = LeaseLimit::new(1000, 32 << 20);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// The spool's folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edgeveil/spool", global = true)]
    dir: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists the lanes, or the records of the lanes that are named
    Ls {
        /// Lanes whose records are listed
        #[arg(value_name = "LANE")]
        lanes: Vec<String>,
    },
    /// Reads everything and says what is damaged; ends with 1 if anything is
    Verify,
    /// Copies payloads out: images as files, everything else as lines of a file for each lane
    Export {
        /// Folder for them; it is made when it is missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Lanes that are copied [default: all]
        #[arg(value_name = "LANE")]
        lanes: Vec<String>,
    },
    /// As export, and removes from the spool what was copied
    Drain {
        /// Folder for the copies; it is made when it is missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// To say that the records are to be removed: they will never be sent then
        #[arg(long)]
        remove: bool,
    },
}

/// Does what was asked.
pub fn spool(arguments: &Arguments) -> Result<(), Failure> {
    let dir = &arguments.dir;
    match &arguments.action {
        Action::Ls { lanes } => ls(dir, lanes)?,
        Action::Verify => verify(dir)?,
        Action::Export { out, lanes } => export(dir, out, lanes)?,
        Action::Drain { out, remove: true } => drain(dir, out)?,
        Action::Drain { .. } => {
            return Err(anyhow!("drain removes records from the spool: say --remove if you want that").into());
        }
    }
    Ok(())
}

fn inspect(dir: &Path) -> Result<Inspector> {
    let inspector =
        Inspector::open(dir).with_context(|| format!("cannot look into the spool {}", dir.display()))?;
    if let Some(repair) = inspector.repair() {
        eprintln!("edgeveil-agent: {}", words(repair));
    }
    Ok(inspector)
}

fn words(repair: &Repair) -> String {
    format!(
        "the index is damaged ({}); this shows what could be read: {} records from the index, {} from files, {} lost",
        repair.found, repair.salvaged, repair.adopted, repair.lost
    )
}

/// The lanes by name, or those that are asked for.
fn lanes<'a>(inspector: &'a Inspector, wanted: &[String]) -> Result<Vec<(Lane, &'a str)>> {
    let all = (0..).map(Lane).zip(inspector.lanes().iter().map(String::as_str));
    let all: Vec<_> = all.collect();
    if let Some(unknown) = wanted.iter().find(|w| all.iter().all(|(_, name)| name != w)) {
        let names: Vec<_> = all.iter().map(|(_, name)| *name).collect();
        bail!("there is no lane {unknown}; there are {}", names.join(", "));
    }
    Ok(all.into_iter().filter(|(_, name)| wanted.is_empty() || wanted.iter().any(|w| w == name)).collect())
}

fn ls(dir: &Path, wanted: &[String]) -> Result<()> {
    let inspector = inspect(dir)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for (lane, name) in lanes(&inspector, wanted)? {
        let (mut records, mut bytes) = (0u64, 0u64);
        for listed in inspector.iter(lane) {
            let listed = listed?;
            records += 1;
            bytes += listed.payload_len;
            if !wanted.is_empty() {
                let id = listed.id.map_or_else(|| "damaged".to_owned(), |id| id.to_string());
                let header = String::from_utf8_lossy(&listed.header).escape_default().to_string();
                writeln!(out, "{name} {:016x} {id} {:>9} {header}", listed.order, listed.payload_len)?;
            }
        }
        if wanted.is_empty() {
            writeln!(out, "{name:10} {records:>9} records {bytes:>12} bytes")?;
        }
    }
    Ok(out.flush()?)
}

fn verify(dir: &Path) -> Result<()> {
    let inspector = inspect(dir)?;
    let found = inspector.verify()?;
    let name = |lane: Lane| inspector.lanes().get(usize::from(lane.0)).map_or("unknown", String::as_str);
    for (lane, order) in &found.corrupt {
        println!("{} {order:016x}: damaged", name(*lane));
    }
    for (lane, order) in &found.missing {
        println!("{} {order:016x}: its file is missing", name(*lane));
    }
    for (lane, records) in &found.lost {
        println!("{}: {records} records cannot be read any more", name(*lane));
    }
    for (count, what) in [
        (found.uncommitted, "files are whole and not in the index: the next start takes them in"),
        (found.unfinished, "files were being written when the power went: the next start removes them"),
        (found.orphans, "files tell nothing of their record"),
    ] {
        if count > 0 {
            println!("{count} {what}");
        }
    }
    println!("{} records are sound", found.sound);
    if !found.is_sound() || inspector.repair().is_some() {
        bail!("the spool {} is damaged", dir.display());
    }
    Ok(())
}

fn export(dir: &Path, out: &Path, wanted: &[String]) -> Result<()> {
    let inspector = inspect(dir)?;
    let mut copies = Copies::new(out)?;
    let mut unreadable = 0;
    for (lane, name) in lanes(&inspector, wanted)? {
        for listed in inspector.iter(lane) {
            match inspector.read(lane, listed?.order)? {
                Some(record) => copies.add(name, record.id, &record.header, &record.payload)?,
                None => unreadable += 1,
            }
        }
    }
    copies.finish()?;
    println!("{} records are in {}", copies.count, out.display());
    if unreadable > 0 {
        bail!("{unreadable} records are damaged and were left out; `spool verify` says which");
    }
    Ok(())
}

fn drain(dir: &Path, out: &Path) -> Result<()> {
    let names: Vec<String> = inspect(dir)?.lanes().to_vec();
    // The spool keeps names for as long as the program runs, and this one ends soon.
    let lane = |name: &String| {
        let name: &'static str = Box::leak(name.clone().into_boxed_str());
        LaneOptions::new(name, Payload::File, Durability::Group, WhenFull::DropNewest)
    };
    let options = Options::new(dir, names.iter().map(lane).collect());
    let (spool, report) = Spool::open(options).context("cannot open the spool")?;
    if let Some(repair) = &report.repair {
        eprintln!("edgeveil-agent: {}", words(repair));
    }
    let mut copies = Copies::new(out)?;
    loop {
        let records = spool.lease(BATCH)?;
        if records.is_empty() {
            break;
        }
        for record in &records {
            copies.add(&names[usize::from(record.lane.0)], record.id, &record.header, &record.payload)?;
        }
        // First durable there, then gone here.
        copies.finish()?;
        let ids: Vec<RecordId> = records.iter().map(|record| record.id).collect();
        let _ = spool.done(&ids)?;
        spool.commit()?;
    }
    let lost: u64 = spool.stats().lanes.iter().flat_map(|lane| lane.dropped).sum();
    println!("{} records are in {} and no longer in the spool", copies.count, out.display());
    if lost > 0 {
        bail!("{lost} records were damaged and are gone");
    }
    Ok(())
}

/// Where payloads are copied to.
struct Copies {
    out: PathBuf,
    count: u64,
    lines: BTreeMap<String, File>,
    folders: Vec<PathBuf>,
}

impl Copies {
    fn new(out: &Path) -> Result<Self> {
        fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
        Ok(Self { out: out.to_owned(), count: 0, lines: BTreeMap::new(), folders: Vec::new() })
    }

    /// JSON becomes a line, a picture a file that a viewer knows by its name.
    fn add(&mut self, lane: &str, id: RecordId, header: &[u8], payload: &[u8]) -> Result<()> {
        self.count += 1;
        let lane = sane(lane.as_bytes());
        if payload.starts_with(b"{") && !payload.contains(&b'\n') {
            let path = self.out.join(format!("{lane}.jsonl"));
            let open = || File::options().append(true).create(true).open(&path);
            let lines = match self.lines.entry(lane) {
                std::collections::btree_map::Entry::Occupied(file) => file.into_mut(),
                std::collections::btree_map::Entry::Vacant(gap) => {
                    gap.insert(open().with_context(|| format!("cannot write {}", path.display()))?)
                }
            };
            let line = [payload, b"\n"].concat();
            return lines.write_all(&line).with_context(|| format!("cannot write {}", path.display()));
        }
        let folder = self.out.join(&lane);
        if !self.folders.contains(&folder) {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
            self.folders.push(folder.clone());
        }
        let kind = if payload.starts_with(&[0xff, 0xd8]) { "jpg" } else { "bin" };
        let path = folder.join(format!("{:08}-{}-{id}.{kind}", self.count, sane(header)));
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(payload)?;
            file.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Returns once all that was added is durable.
    fn finish(&self) -> Result<()> {
        for file in self.lines.values() {
            file.sync_all().context("cannot fsync the copies")?;
        }
        for folder in self.folders.iter().chain([&self.out]) {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .with_context(|| format!("cannot fsync {}", folder.display()))?;
        }
        Ok(())
    }
}

/// A name for a file: nothing in it leads elsewhere.
fn sane(name: &[u8]) -> String {
    let fit = |b: &u8| if b.is_ascii_alphanumeric() || b"_-".contains(b) { char::from(*b) } else { '_' };
    name.iter().take(80).map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeveil_spool::NewRecord;

    fn stored(dir: &Path) {
        let lanes = [("reading", Payload::Inline), ("image", Payload::File)];
        let lane = |(name, payload)| LaneOptions::new(name, payload, Durability::Group, WhenFull::DropOldest);
        let options = Options { min_free_bytes: 0, ..Options::new(dir, lanes.map(lane).to_vec()) };
        let (spool, _) = Spool::open(options).unwrap();
        for n in 0..3 {
            let json = format!("{{\"n\":{n}}}");
            let reading = NewRecord { id: RecordId([n; 16]), header: b"reading/a", payload: json.as_bytes() };
            let _ = spool.push(Lane(0), reading).unwrap();
            let jpeg = [&[0xff, 0xd8, n][..], &[7; 5000]].concat();
            let image = NewRecord { id: RecordId([10 + n; 16]), header: b"image/../x", payload: &jpeg };
            let _ = spool.push(Lane(1), image).unwrap();
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_export_leaves_the_spool_and_a_drain_empties_it() {
        let home = tempfile::tempdir().unwrap();
        let (dir, out) = (home.path().join("spool"), home.path().join("out"));
        stored(&dir);
        ls(&dir, &[]).unwrap();
        ls(&dir, &["image".to_owned()]).unwrap();
        assert!(ls(&dir, &["picture".to_owned()]).unwrap_err().to_string().contains("reading, image"));
        verify(&dir).unwrap();
        export(&dir, &out, &[]).unwrap();
        assert_eq!(
            fs::read_to_string(out.join("reading.jsonl")).unwrap(),
            "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n"
        );
        let images = names(&out.join("image"));
        assert_eq!(images.len(), 3);
        assert!(images[0].ends_with(&format!("-image____x-{}.jpg", "0a".repeat(16))), "{images:?}");

        let drained = home.path().join("drained");
        let drain_it = |remove| {
            let action = Action::Drain { out: drained.clone(), remove };
            spool(&Arguments { action, dir: dir.clone() }).is_ok()
        };
        assert!(!drain_it(false));
        assert!(drain_it(true));
        assert_eq!(names(&drained.join("image")).len(), 3);
        export(&dir, &home.path().join("none"), &[]).unwrap();
        assert_eq!(names(&home.path().join("none")), [""; 0]);
    }

    #[test]
    fn damage_is_told_and_what_is_sound_is_exported() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("spool");
        stored(&dir);
        let segments = dir.join("segments/00");
        let segment = segments.join(&names(&segments)[0]);
        let mut bytes = fs::read(&segment).unwrap();
        let at = bytes.len() - 3;
        bytes[at] ^= 1;
        fs::write(&segment, &bytes).unwrap();
        assert!(verify(&dir).is_err());
        export(&dir, &home.path().join("out"), &["reading".to_owned()]).unwrap();
        let lines = fs::read_to_string(home.path().join("out/reading.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), 2);
        // Looking changes nothing.
        assert!(verify(&dir).is_err());
    }
}
