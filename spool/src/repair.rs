//! Opening an index that may be damaged.
//!
//! What sled writes about its own state (`snap.*`) can be made again from its log, so it is removed first. If
//! that does not help, the log is read as a heap of bytes: entries carry their own magic and checksum and lie
//! in it in one piece. Files carry their entry at their end. A new index is made of both, in a folder beside,
//! and takes the old one's place, which is set aside. Each step may be cut off by a crash and is then repeated.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::carve::{Carved, Survey, carve, survey};
use crate::disk::sync_dir;
use crate::files::{Files, Found, Tidy};
use crate::format::{Kind, Place, decode_prefix};
use crate::index::Index;
use crate::meta::{Meta, Slot};
use crate::queue::{EPOCH_BITS, EPOCH_MAX};
use crate::{Repair, SpoolError};

/// So many damaged indexes are kept, for whoever wants to look at one.
const KEEP_BROKEN: usize = 2;
const BATCH_BYTES: usize = 1 << 20;

/// Whether an index that opens may still be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    AsItIs,
    /// Reading it met damage.
    No(String),
}

/// Opens the index of a spool, whatever state it is in; fails only for reasons outside of it.
pub(crate) fn open_index(
    dir: &Path,
    files: &Files,
    trust: &Trust,
) -> Result<(Index, Meta, Option<Repair>), SpoolError> {
    let db = dir.join("db");
    finish_swap(dir, &db)?;
    let survey = survey(&db.join("db"))?;
    let found = match trust {
        Trust::No(found) => found.clone(),
        Trust::AsItIs => match open_sound(&db) {
            Ok((index, meta)) => return put_back(dir, &survey, index, meta, None),
            Err(SpoolError::Damaged { what }) => what,
            Err(e) => return Err(e),
        },
    };
    tracing::error!(path = %db.display(), error = found, "the spool's index is damaged; mending it");
    if *trust == Trust::AsItIs && remove_snapshots(&db)? {
        match open_sound(&db).and_then(|(index, meta)| Ok((counts_fit(&index, &meta)?, index, meta))) {
            Ok((true, index, meta)) => return put_back(dir, &survey, index, meta, Some(found)),
            Ok(_) | Err(SpoolError::Damaged { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    let (salvaged, adopted) = rebuild(dir, &db, files, &survey)?;
    let set_aside = swap(dir, &db)?;
    let (index, meta) = open_sound(&db)?;
    let lost = lost(&survey, &meta);
    tracing::error!(salvaged, adopted, lost, set_aside = %set_aside.display(), "the spool's index was rebuilt");
    Ok((index, meta, Some(Repair { found, set_aside: Some(set_aside), salvaged, adopted, lost })))
}

fn open_sound(db: &Path) -> Result<(Index, Meta), SpoolError> {
    let index = Index::open(db)?;
    let meta = match index.meta()? {
        Some(meta) => meta,
        None if index.is_empty()? => Meta::default(),
        None => return Err(SpoolError::Damaged { what: "its counts are missing".into() }),
    };
    Ok((index, meta))
}

/// How many records less there are than the last counts said. The files of images are looked at later.
fn lost(survey: &Survey, meta: &Meta) -> u64 {
    let less = |(slot, then): (u8, &Slot)| then.records.saturating_sub(meta.slot(slot).records);
    (0..=u8::MAX).zip(&survey.meta.slots).map(less).sum()
}

fn counts_fit(index: &Index, meta: &Meta) -> Result<bool, SpoolError> {
    for (slot, counted) in (0..=u8::MAX).zip(&meta.slots) {
        if index.count(slot)? != (counted.records, counted.bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts back the newest records if sled came up with less than was committed: see [`crate::carve`]. A crash may
/// leave traces of the one commit that it interrupted; that one promised nothing.
fn put_back(
    dir: &Path,
    survey: &Survey,
    index: Index,
    mut meta: Meta,
    damage: Option<String>,
) -> Result<(Index, Meta, Option<Repair>), SpoolError> {
    let committed = survey.meta.commit.saturating_sub(1).max(closed_at(dir));
    if meta.commit >= committed {
        let repair = |found| Repair { found, set_aside: None, salvaged: 0, adopted: 0, lost: 0 };
        return Ok((index, meta, damage.map(repair)));
    }
    let found = damage.unwrap_or_else(|| format!("its log ends at commit {} of {committed}", meta.commit));
    let mut writer = Writer::new(&index);
    for entry in survey.entries.values() {
        if decode_prefix(entry).is_some_and(|(e, _)| meta.is_before(e.key.place)) {
            writer.put_if(entry, Kind::Inline)?;
        }
    }
    let salvaged = writer.seen.len() as u64;
    let epoch = writer.epoch();
    let Writer { batch, .. } = writer;
    index.apply(batch)?;
    for slot in 0..=u8::MAX {
        let (records, bytes) = index.count(slot)?;
        if records > 0 || usize::from(slot) < meta.slots.len() {
            let slot = meta.slot_mut(slot);
            (slot.records, slot.bytes) = (records, bytes);
        }
    }
    let lost = lost(survey, &meta);
    meta.epoch = meta.epoch.max(epoch);
    meta.commit = committed + 1;
    let mut batch = sled::Batch::default();
    Index::put_meta(&mut batch, &meta);
    index.apply(batch)?;
    index.sync()?;
    tracing::error!(error = found, salvaged, "the spool's index had lost its end; it was put back");
    Ok((index, meta, Some(Repair { found, set_aside: None, salvaged, adopted: 0, lost })))
}

/// Notes how far the commits went, in a file that no damage to the index touches.
pub(crate) fn note_closed(dir: &Path, commit: u64) {
    let path = dir.join("closed");
    if closed_at(dir) < commit
        && let Err(e) = fs::write(&path, format!("{commit}\n"))
    {
        tracing::debug!(path = %path.display(), error = %e, "could not note the last commit");
    }
}

/// The last commit when the spool was last closed in order; 0 if that is not known.
fn closed_at(dir: &Path) -> u64 {
    fs::read_to_string(dir.join("closed")).ok().and_then(|n| n.trim_end().parse().ok()).unwrap_or(0)
}

fn remove_snapshots(db: &Path) -> Result<bool, SpoolError> {
    let fail = |e| SpoolError::io("remove the snapshots of", db, e);
    let mut any = false;
    for file in fs::read_dir(db).map_err(fail)? {
        let file = file.map_err(fail)?;
        if file.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(file.path()).map_err(fail)?;
            any = true;
        }
    }
    Ok(any)
}

/// Fills a new index from the bytes of the old one and from the files.
fn rebuild(dir: &Path, db: &Path, files: &Files, survey: &Survey) -> Result<(u64, u64), SpoolError> {
    let new = dir.join("db.new");
    remove_all(&new)?;
    let index = Index::open(&new)?;
    let mut writer = Writer::new(&index);
    // Entries of files are left to the files: they are the truth, and the log has those of removed ones too.
    carve(&db.join("db"), |carved| match carved {
        Carved::Entry(_, bytes) => writer.put_if(bytes, Kind::Inline),
        Carved::Meta(_) => Ok(()),
    })?;
    // sled may have wiped these when it tried to open the log.
    survey.entries.values().try_for_each(|entry| writer.put_if(entry, Kind::Inline))?;
    let salvaged = writer.seen.len() as u64;

    let mut places = Vec::new();
    let fail = |e| SpoolError::io("read the folder of files in", dir, e);
    files.walk(Tidy::No, |found| places.extend(payload_place(found))).map_err(fail)?;
    for place in places {
        if let Some(entry) = files.entry(place)
            && decode_prefix(&entry).is_some_and(|(e, _)| e.key.place == place)
        {
            writer.put_if(&entry, Kind::File)?;
        }
    }
    let adopted = writer.seen.len() as u64 - salvaged;

    writer.finish(survey.meta.commit.max(closed_at(dir)))?;
    index.sync()?;
    Ok((salvaged, adopted))
}

fn payload_place(found: Found) -> Option<Place> {
    match found {
        Found::Payload(place) => Some(place),
        Found::Unfinished(_) => None,
    }
}

struct Writer<'a> {
    index: &'a Index,
    batch: sled::Batch,
    batch_bytes: usize,
    seen: BTreeMap<Place, u32>,
}

impl<'a> Writer<'a> {
    fn new(index: &'a Index) -> Self {
        Self { index, batch: sled::Batch::default(), batch_bytes: 0, seen: BTreeMap::new() }
    }

    fn put_if(&mut self, entry: &[u8], kind: Kind) -> Result<(), SpoolError> {
        let Some((decoded, _)) = decode_prefix(entry) else { return Ok(()) };
        let key = decoded.key;
        if key.kind != kind || self.seen.insert(key.place, key.cost).is_some() {
            return Ok(());
        }
        self.batch.insert(&key.encode()[..], entry);
        self.batch_bytes += entry.len();
        if self.batch_bytes > BATCH_BYTES {
            self.batch_bytes = 0;
            self.index.apply(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }

    fn epoch(&self) -> u32 {
        let highest = self.seen.keys().map(|place| place.order >> EPOCH_BITS).max().unwrap_or(0);
        u32::try_from(highest).unwrap_or(EPOCH_MAX)
    }

    fn finish(mut self, commit: u64) -> Result<(), SpoolError> {
        let mut meta = Meta { epoch: self.epoch(), commit: commit + 1, slots: Vec::new() };
        for (place, cost) in &self.seen {
            let slot = meta.slot_mut(place.slot);
            slot.records += 1;
            slot.bytes += u64::from(*cost);
            slot.next = slot.next.max(place.order + 1);
        }
        Index::put_meta(&mut self.batch, &meta);
        self.index.apply(self.batch)
    }
}

/// `db` -> `db.broken-<n>`, `db.new` -> `db`.
fn swap(dir: &Path, db: &Path) -> Result<PathBuf, SpoolError> {
    let mut broken = broken_indexes(dir)?;
    let number = broken.last().map_or(1, |(n, _)| n + 1);
    while broken.len() >= KEEP_BROKEN {
        remove_all(&broken.remove(0).1)?;
    }
    let set_aside = dir.join(format!("db.broken-{number}"));
    let fail = |e| SpoolError::io("set aside", db, e);
    fs::rename(db, &set_aside).map_err(fail)?;
    fs::rename(dir.join("db.new"), db).map_err(fail)?;
    sync_dir(dir)?;
    Ok(set_aside)
}

/// A crash between the two renames leaves a complete `db.new` and no `db`; one before them leaves both.
fn finish_swap(dir: &Path, db: &Path) -> Result<(), SpoolError> {
    let new = dir.join("db.new");
    if db.exists() {
        return remove_all(&new);
    }
    if new.exists() {
        fs::rename(&new, db).map_err(|e| SpoolError::io("put in place", &new, e))?;
        sync_dir(dir)?;
    }
    Ok(())
}

fn broken_indexes(dir: &Path) -> Result<Vec<(u32, PathBuf)>, SpoolError> {
    let fail = |e| SpoolError::io("read the folder", dir, e);
    let mut found = Vec::new();
    for file in fs::read_dir(dir).map_err(fail)? {
        let file = file.map_err(fail)?;
        let name = file.file_name();
        if let Some(n) = name.to_str().and_then(|n| n.strip_prefix("db.broken-")).and_then(|n| n.parse().ok())
        {
            found.push((n, file.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn remove_all(path: &Path) -> Result<(), SpoolError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(SpoolError::io("remove", path, e)),
        _ => Ok(()),
    }
}
