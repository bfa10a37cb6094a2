//! Pictures that others put into a folder: cameras that upload by FTP or scp.
//!
//! A file is taken when it has stopped changing. It is done with when its veiled image is durable, and not before: then
//! it is deleted or remembered, as the settings say. One picture is under way at a time, so none gives way to another.
//!
//! What is remembered are 8 bytes a file, of its name, size and time of change, in a file of the agent's data folder.
//! Files that have gone are forgotten.

use super::{CaptureError, LIMITS, Shot, Source, replay};
use crate::{
    record::{Fate, Receipt},
    settings::Then,
};
use edgeveil_veil::Frame;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::{self, Metadata},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant, SystemTime},
};

/// A file that has not changed for so long is whole.
const SETTLED: Duration = Duration::from_secs(2);
/// The folder is looked through so often, and less often when that takes long.
const LOOK: Duration = Duration::from_secs(1);
/// A file that could not be used is tried again after this, and then at doubled times. An upload may have stalled.
const FIRST_RETRY: Duration = Duration::from_secs(10);
const LAST_RETRY: Duration = Duration::from_secs(3600);
/// More files than that are too many to look through.
const MAX_FILES: usize = 100_000;
/// Cameras make folders by day and hour.
const MAX_DEPTH: usize = 8;
/// A look at a picture that is under way waits so long.
const WAIT: Duration = Duration::from_millis(200);

/// A folder that is watched.
pub struct Folder {
    path: PathBuf,
    then: Then,
    memory: Memory,
    /// Files that have not been whole for long enough yet, and since when they are as they are.
    changing: HashMap<u64, Instant>,
    /// Files that could not be used: how often, and when they are tried again.
    failed: HashMap<u64, (u32, Instant)>,
    queue: VecDeque<Upload>,
    under_way: Option<(Upload, Receiver<Fate>)>,
    next_look: Instant,
}

struct Upload {
    path: PathBuf,
    /// Of name, size and time of change.
    print: u64,
    changed: SystemTime,
}

impl Upload {
    fn is_as_it_was(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|meta| print(&self.path, &meta) == self.print)
    }
}

impl Folder {
    /// Looks through it once, so that what is wrong with it is known at once.
    pub fn open(path: &Path, then: Then, memory: &Path) -> Result<Self, CaptureError> {
        let read = |source| CaptureError::Read { path: path.to_owned(), source };
        fs::read_dir(path).map_err(read)?;
        if then == Then::Delete {
            rustix::fs::access(path, rustix::fs::Access::WRITE_OK)
                .map_err(|e| CaptureError::Delete { path: path.to_owned(), source: e.into() })?;
        }
        let memory = Memory::open(memory)?;
        let mut folder = Self {
            path: path.to_owned(),
            then,
            memory,
            changing: HashMap::new(),
            failed: HashMap::new(),
            queue: VecDeque::new(),
            under_way: None,
            next_look: Instant::now(),
        };
        folder.look()?;
        Ok(folder)
    }

    /// Puts what can be taken into the queue, the oldest first.
    fn look(&mut self) -> Result<(), CaptureError> {
        let now = Instant::now();
        let mut uploads = Vec::new();
        list(&self.path, 0, &mut uploads)?;
        let there: HashSet<u64> = uploads.iter().map(|upload| upload.print).collect();
        self.memory.forget(&there);
        self.failed.retain(|print, _| there.contains(print));
        self.changing.retain(|print, _| there.contains(print));
        uploads.retain(|upload| {
            if self.memory.knows(upload.print) {
                return false;
            }
            let since = *self.changing.entry(upload.print).or_insert(now);
            let due = self.failed.get(&upload.print).is_none_or(|(_, due)| *due <= now);
            now.duration_since(since) >= SETTLED && due
        });
        uploads.sort_by(|a, b| (a.changed, &a.path).cmp(&(b.changed, &b.path)));
        self.queue = uploads.into();
        self.next_look = Instant::now() + LOOK.max(now.elapsed() * 20);
        Ok(())
    }

    /// What became of the picture under way. Whether the next one can go.
    fn settle(&mut self) -> Result<bool, CaptureError> {
        let Some((upload, fate)) = self.under_way.take() else { return Ok(true) };
        match fate.recv_timeout(WAIT) {
            Err(RecvTimeoutError::Timeout) => {
                self.under_way = Some((upload, fate));
                return Ok(false);
            }
            Err(RecvTimeoutError::Disconnected) => self.put_off(upload.print),
            Ok(fate) => self.done(upload, fate)?,
        }
        Ok(true)
    }

    fn done(&mut self, upload: Upload, fate: Fate) -> Result<(), CaptureError> {
        if fate == Fate::Covered || self.then == Then::Keep {
            return self.memory.remember(upload.print);
        }
        // What has changed is another picture.
        if !upload.is_as_it_was() {
            return Ok(());
        }
        fs::remove_file(&upload.path).or_else(|source| {
            // Else it would be sent for ever.
            self.memory.remember(upload.print)?;
            Err(CaptureError::Delete { path: upload.path, source })
        })
    }

    fn put_off(&mut self, print: u64) {
        let tries = self.failed.get(&print).map_or(0, |(tries, _)| *tries);
        let wait = FIRST_RETRY.saturating_mul(1 << tries.min(12)).min(LAST_RETRY);
        self.failed.insert(print, (tries + 1, Instant::now() + wait));
    }

    fn read(&mut self, upload: Upload) -> Result<Option<Shot>, CaptureError> {
        let picture = |source| CaptureError::Picture { path: upload.path.clone(), source };
        let frame = replay::read(&upload.path).map_err(picture).and_then(|bytes| {
            Frame::decode(&bytes, &LIMITS)
                .map_err(|source| CaptureError::Decode { what: upload.path.display().to_string(), source })
        });
        // It changes again: its new shape is waited for.
        if !upload.is_as_it_was() {
            return Ok(None);
        }
        match frame {
            Ok(frame) => {
                let (receipt, fate) = Receipt::new();
                let age = upload.changed.elapsed().unwrap_or_default();
                self.under_way = Some((upload, fate));
                Ok(Some(Shot { frame, age, receipt: Some(receipt) }))
            }
            Err(error) => {
                self.put_off(upload.print);
                Err(error)
            }
        }
    }
}

impl Source for Folder {
    fn next(&mut self) -> Result<Option<Shot>, CaptureError> {
        if !self.settle()? {
            return Ok(None);
        }
        if self.queue.is_empty() && self.next_look <= Instant::now() {
            self.look()?;
        }
        match self.queue.pop_front() {
            Some(upload) => self.read(upload),
            None => Ok(None),
        }
    }
}

impl Drop for Folder {
    /// The last picture may have become durable in the meantime. What is undecided comes again with the next start.
    fn drop(&mut self) {
        if let Some((upload, fate)) = self.under_way.take()
            && let Ok(fate) = fate.try_recv()
        {
            let _ = self.done(upload, fate);
        }
    }
}

fn list(dir: &Path, depth: usize, uploads: &mut Vec<Upload>) -> Result<(), CaptureError> {
    let read = |source| CaptureError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        // A folder below may go while it is looked at.
        Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(read)?,
    };
    for entry in entries {
        let path = entry.map_err(read)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_bytes().starts_with(b"."));
        // Links are not followed: they could lead anywhere.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if hidden {
            continue;
        }
        if meta.is_dir() && depth < MAX_DEPTH {
            list(&path, depth + 1, uploads)?;
        } else if meta.is_file() && replay::is_picture(&path) {
            if uploads.len() == MAX_FILES {
                return Err(CaptureError::TooMany(MAX_FILES));
            }
            let changed = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            uploads.push(Upload { print: print(&path, &meta), path, changed });
        }
    }
    Ok(())
}

/// FNV-1a, 64 bits: among 100,000 files two have the same with a chance of one in a billion.
fn print(path: &Path, meta: &Metadata) -> u64 {
    let numbers = [meta.len(), meta.mtime() as u64, meta.mtime_nsec() as u64];
    let bytes =
        path.as_os_str().as_bytes().iter().copied().chain(numbers.into_iter().flat_map(u64::to_le_bytes));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Which files are done with.
struct Memory {
    path: PathBuf,
    known: HashSet<u64>,
    /// Numbers in the file, of which some may be of files that have gone.
    written: usize,
}

impl Memory {
    fn open(path: &Path) -> Result<Self, CaptureError> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.map_err(|source| CaptureError::Memory { path: path.to_owned(), source })?,
        };
        // The last number may be half written.
        let known: HashSet<u64> =
            bytes.as_chunks::<8>().0.iter().map(|print| u64::from_le_bytes(*print)).collect();
        Ok(Self { path: path.to_owned(), written: bytes.len().div_ceil(8), known })
    }

    fn knows(&self, print: u64) -> bool {
        self.known.contains(&print)
    }

    fn remember(&mut self, print: u64) -> Result<(), CaptureError> {
        if !self.known.insert(print) {
            return Ok(());
        }
        if self.written > 2 * self.known.len() + 1000 {
            return self.rewrite();
        }
        let append = || {
            if let Some(dir) = self.path.parent() {
                fs::create_dir_all(dir)?;
            }
            let mut file = fs::File::options().create(true).append(true).open(&self.path)?;
            // Behind a half written number every other would be shifted.
            let length = file.metadata()?.len();
            file.set_len(length - length % 8)?;
            file.write_all(&print.to_le_bytes())?;
            file.sync_data()
        };
        self.written += 1;
        append().map_err(|source| CaptureError::Memory { path: self.path.clone(), source })
    }

    /// Keeps only what is there. The file stays as it is: a folder may be opened just to look at it.
    fn forget(&mut self, there: &HashSet<u64>) {
        self.known.retain(|print| there.contains(print));
    }

    /// Writes the file without the files that have gone, once those are most of it.
    fn rewrite(&mut self) -> Result<(), CaptureError> {
        let part = self.path.with_extension("part");
        let bytes: Vec<u8> = self.known.iter().flat_map(|print| print.to_le_bytes()).collect();
        let rewrite = || {
            let mut file = fs::File::create(&part)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            fs::rename(&part, &self.path)
        };
        rewrite().map_err(|source| CaptureError::Memory { path: self.path.clone(), source })?;
        self.written = self.known.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::encoded::tests::jpeg;

    struct Site {
        dir: tempfile::TempDir,
    }

    impl Site {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("in")).unwrap();
            Self { dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join("in").join(name)
        }

        /// Puts a file that has not changed for a while.
        fn put(&self, name: &str, bytes: &[u8], seconds_ago: u64) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            let changed = SystemTime::now() - Duration::from_secs(seconds_ago);
            fs::File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
        }

        fn open(&self, then: Then) -> Folder {
            Folder::open(&self.path(""), then, &self.dir.path().join("cameras/door.seen")).unwrap()
        }
    }

    /// As if all waits were over.
    fn hurry(folder: &mut Folder) {
        folder.settle().unwrap();
        folder.look().unwrap();
        let now = Instant::now();
        let past = now.checked_sub(SETTLED).unwrap();
        folder.changing.values_mut().for_each(|since| *since = past);
        folder.failed.values_mut().for_each(|(_, due)| *due = now);
        folder.queue.clear();
        folder.next_look = now;
    }

    fn next(folder: &mut Folder) -> Option<Shot> {
        hurry(folder);
        folder.next().unwrap()
    }

    /// The width of the next picture, which then is kept, covered wholly, or lost.
    fn take(folder: &mut Folder, fate: Option<Fate>) -> Option<u32> {
        let shot = next(folder)?;
        let receipt = shot.receipt.unwrap();
        match fate {
            Some(Fate::Kept) => receipt.done(),
            Some(Fate::Covered) => receipt.of_a_cover().done(),
            _ => drop(receipt),
        }
        Some(shot.frame.width())
    }

    #[test]
    fn whole_files_are_taken_in_their_order_and_only_once() {
        let site = Site::new();
        site.put("b.jpg", &jpeg(16, 16), 30);
        site.put("2026/11/a.JPG", &jpeg(32, 16), 20);
        site.put(".hidden.jpg", &jpeg(48, 16), 40);
        site.put("c.jpg.part", &jpeg(48, 16), 40);
        std::os::unix::fs::symlink(site.path("b.jpg"), site.path("link.jpg")).unwrap();
        let mut folder = site.open(Then::Keep);
        // They may still be growing.
        folder.changing.values_mut().for_each(|since| *since = Instant::now() + SETTLED);
        assert!(folder.next().unwrap().is_none());
        let kept = || Some(Fate::Kept);
        assert_eq!([take(&mut folder, kept()), take(&mut folder, kept())], [Some(16), Some(32)]);
        assert_eq!(take(&mut folder, kept()), None);
        drop(folder);
        let mut folder = site.open(Then::Keep);
        assert_eq!(take(&mut folder, kept()), None, "a restart forgets nothing");
        site.put("b.jpg", &jpeg(64, 16), 10);
        assert_eq!(take(&mut folder, kept()), Some(64), "the same name with another picture");
        assert!(site.path("2026/11/a.JPG").exists());
    }

    #[test]
    fn a_file_is_deleted_once_it_is_durable_and_not_before() {
        let site = Site::new();
        site.put("a.jpg", &jpeg(16, 16), 10);
        let mut folder = site.open(Then::Delete);
        let shot = next(&mut folder).unwrap();
        assert!(shot.age >= Duration::from_secs(9));
        assert!(folder.next().unwrap().is_none() && site.path("a.jpg").exists());
        shot.receipt.unwrap().done();
        assert!(next(&mut folder).is_none() && !site.path("a.jpg").exists());

        // What was lost on the way comes again.
        site.put("b.jpg", &jpeg(32, 16), 10);
        assert_eq!([take(&mut folder, None), take(&mut folder, None)], [Some(32), Some(32)]);
        assert!(site.path("b.jpg").exists());
        // Of what was covered wholly the file is the only picture.
        assert_eq!(take(&mut folder, Some(Fate::Covered)), Some(32));
        assert!(next(&mut folder).is_none() && site.path("b.jpg").exists());

        // What changed while it was under way is another picture.
        site.put("c.jpg", &jpeg(48, 16), 10);
        let shot = next(&mut folder).unwrap();
        site.put("c.jpg", &jpeg(64, 16), 5);
        shot.receipt.unwrap().done();
        assert_eq!(take(&mut folder, Some(Fate::Kept)), Some(64));
        assert!(next(&mut folder).is_none() && !site.path("c.jpg").exists());
    }

    #[test]
    fn a_bad_file_is_left_alone_and_hides_nothing() {
        let site = Site::new();
        let whole = jpeg(64, 64);
        site.put("a.jpg", &whole[..whole.len() / 2], 20);
        site.put("b.jpg", &jpeg(32, 16), 10);
        let mut folder = site.open(Then::Delete);
        hurry(&mut folder);
        assert!(folder.next().expect_err("a.jpg is half").is_one_frame_only());
        folder.failed.values_mut().for_each(|(_, due)| *due += LAST_RETRY);
        assert_eq!(folder.next().unwrap().map(|shot| shot.frame.width()), Some(32));
        assert!(site.path("a.jpg").exists());
        // The rest of it arrives.
        site.put("a.jpg", &whole, 1);
        drop(folder);
        let mut folder = site.open(Then::Delete);
        let mut widths = [take(&mut folder, Some(Fate::Kept)), take(&mut folder, Some(Fate::Kept))];
        widths.sort_unstable();
        assert_eq!(widths, [Some(32), Some(64)]);
    }

    #[test]
    fn the_memory_is_bounded_by_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door.seen");
        let mut memory = Memory::open(&path).unwrap();
        (0..1500).for_each(|print| memory.remember(print).unwrap());
        memory.forget(&HashSet::from([7]));
        assert_eq!(fs::metadata(&path).unwrap().len(), 8 * 1500, "a look changes nothing");
        memory.remember(9).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 8 * 2);
        // A power cut in the middle of a number.
        fs::write(&path, [&fs::read(&path).unwrap()[..], &[1, 2, 3]].concat()).unwrap();
        let mut memory = Memory::open(&path).unwrap();
        memory.remember(11).unwrap();
        let memory = Memory::open(&path).unwrap();
        assert_eq!(memory.known, HashSet::from([7, 9, 11]));
    }

    #[test]
    fn a_wrong_folder_is_known_at_once() {
        let site = Site::new();
        let seen = site.dir.path().join("seen");
        assert!(matches!(
            Folder::open(&site.path("none"), Then::Keep, &seen),
            Err(CaptureError::Read { .. })
        ));
    }
}
