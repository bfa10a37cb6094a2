//! The index: one sled tree, opened so that it is easy on SD cards, and made durable by a real fsync.
//!
//! sled 0.34 panics on some faults of the disk, and after any of them answers every call with the same error.
//! So every call is guarded, and whoever gets an error back drops the index and opens it again.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::SpoolError;
use crate::ages::{self, Ages};
use crate::format::{Key, span};
use crate::meta::Meta;
use crate::segment::Segment;
use crate::segments::Notes;

/// sled keeps pages in memory up to this; the spool reads in order, so more would not help.
const CACHE_BYTES: u64 = 2 << 20;
/// The key of the counts. Notes of segments and the marks of ages have others. Slots stay far below.
const META_KEY: [u8; 1] = [0xff];

/// Room that sled's log is given ahead of its end, and what of it is enough for a batch and for what sled writes with it.
const AHEAD: u64 = 2 << 20;
const ENOUGH: u64 = 1 << 20;

#[derive(Debug, Clone)]
pub(crate) struct Index {
    db: sled::Db,
    log: Arc<File>,
    /// Up to where the log's file has its room.
    reserved: Arc<AtomicU64>,
    /// Whether sled has met a fault: it answers nothing else from then on.
    failed: Arc<AtomicBool>,
    path: PathBuf,
}

impl Index {
    /// Opens or creates the index in a folder.
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        let config = sled::Config::default()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(None);
        // sled's own threads hold its file a moment longer than its handles; the spool's lock is held, so no
        // other process can be the one.
        let mut tries = 0;
        let db = loop {
            match guard(path, "open", || config.open()) {
                Err(SpoolError::Io { source, .. })
                    if tries < 200 && source.to_string().contains("could not acquire lock") =>
                {
                    tries += 1;
                    sleep(Duration::from_millis(10));
                }
                other => break other?,
            }
        };
        let log = path.join("db");
        let log =
            File::options().read(true).write(true).open(&log).map_err(|e| SpoolError::io("open", &log, e))?;
        // Whoever read the log left it in the page cache in large pieces, and Linux then counts, and some file
        // systems write, a whole piece for each small write into it.
        let _ = rustix::fs::fadvise(&log, 0, None, rustix::fs::Advice::DontNeed);
        let index = Self {
            db,
            log: log.into(),
            reserved: Arc::default(),
            failed: Arc::default(),
            path: path.to_owned(),
        };
        crate::disk::sync_dir(path)?;
        Ok(index)
    }

    /// Takes room for what sled writes next, so that it never meets a full disk: it would fail for good then, and at
    /// times it hangs. False if the disk has not so much.
    pub fn reserve(&self) -> bool {
        let Ok(length) = self.log.metadata().map(|m| m.len()) else { return false };
        let reserved = self.reserved.load(Relaxed);
        // sled gives the end of its file back at times, and the room behind it goes with that.
        if (length + ENOUGH..=length + AHEAD).contains(&reserved) {
            return true;
        }
        match fallocate(&*self.log, FallocateFlags::KEEP_SIZE, length, AHEAD) {
            Ok(()) => {
                self.reserved.store(length + AHEAD, Relaxed);
                true
            }
            // A file system that cannot: then it is as it was without.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => true,
            Err(_) => {
                self.reserved.store(0, Relaxed);
                false
            }
        }
    }

    pub fn apply(&self, batch: sled::Batch) -> Result<(), SpoolError> {
        guard(&self.path, "write to", || self.db.apply_batch(batch)).inspect_err(|_| self.fail())
    }

    fn fail(&self) {
        self.failed.store(true, Relaxed);
    }

    /// Whether it can go on: no write to it has failed.
    pub fn is_sound(&self) -> bool {
        !self.failed.load(Relaxed)
    }

    /// Makes everything that was applied durable. sled's flush hands it to the system without asking for
    /// more; the fsync of the same file, by our own descriptor, makes it survive a power cut.
    pub fn sync(&self) -> Result<(), SpoolError> {
        let flushed = guard(&self.path, "flush", || self.db.flush());
        flushed
            .and_then(|_| self.log.sync_data().map_err(|e| SpoolError::io("fsync", &self.path, e)))
            .inspect_err(|_| self.fail())
    }

    /// The records of a slot, from one order up to and including another.
    pub fn scan(&self, slot: u8, from: u64, to: u64) -> Scan {
        Scan { inner: (from <= to).then(|| self.db.range(span(slot, from..=to))), path: self.path.clone() }
    }

    pub fn is_empty(&self) -> Result<bool, SpoolError> {
        guard(&self.path, "read", || Ok(self.db.is_empty()))
    }

    /// Records and bytes of a slot, by what is there.
    pub fn count(&self, slot: u8) -> Result<(u64, u64), SpoolError> {
        let mut found = (0, 0);
        let mut scan = self.scan(slot, 0, u64::MAX);
        while let Some((key, _)) = scan.next()? {
            found.0 += 1;
            found.1 += u64::from(key.cost);
        }
        Ok(found)
    }

    pub fn put_notes(batch: &mut sled::Batch, notes: &Notes) {
        for (slot, first) in &notes.stale {
            batch.remove(&Segment::note_key(*slot, *first));
        }
        for (slot, segment) in &notes.put {
            batch.insert(&Segment::note_key(*slot, segment.first), segment.note(*slot));
        }
    }

    /// What it knows of segments. A damaged note is as none: the segment is read instead.
    pub fn notes(&self) -> Result<Vec<(u8, Segment)>, SpoolError> {
        let mut notes = Vec::new();
        let mut found = self.db.range(Segment::notes_of_all());
        while let Some((_, note)) = guard(&self.path, "read", || found.next().transpose())? {
            notes.extend(Segment::from_note(&note));
        }
        Ok(notes)
    }

    pub fn put_ages(batch: &mut sled::Batch, ages: &Ages) {
        batch.insert(&ages::KEY, ages.encode());
    }

    pub fn ages(&self) -> Result<Ages, SpoolError> {
        let bytes = guard(&self.path, "read", || self.db.get(ages::KEY))?;
        Ok(bytes.map_or_else(Ages::default, |b| Ages::decode(&b)))
    }

    pub fn put_meta(batch: &mut sled::Batch, meta: &Meta) {
        batch.insert(&META_KEY, meta.encode());
    }

    pub fn meta(&self) -> Result<Option<Meta>, SpoolError> {
        let bytes = guard(&self.path, "read", || self.db.get(META_KEY))?;
        Ok(bytes.and_then(|b| Meta::decode(&b)))
    }

    pub fn bytes_on_disk(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.log.metadata().map_or(0, |m| m.blocks() * 512)
    }
}

/// Records in order, with their undecoded entries.
pub(crate) struct Scan {
    /// None if there is nothing to look at.
    inner: Option<sled::Iter>,
    path: PathBuf,
}

impl Scan {
    /// None at the end. After an error there is nothing more to be had from this scan.
    pub fn next(&mut self) -> Result<Option<(Key, sled::IVec)>, SpoolError> {
        loop {
            let Some(inner) = &mut self.inner else { return Ok(None) };
            let Some((key, value)) = guard(&self.path, "read", || inner.next().transpose())? else {
                return Ok(None);
            };
            if let Some(key) = Key::decode(&key) {
                return Ok(Some((key, value)));
            }
        }
    }
}

/// Runs a call into sled and turns its panics and errors into ours.
fn guard<T>(
    path: &Path,
    action: &'static str,
    call: impl FnOnce() -> sled::Result<T>,
) -> Result<T, SpoolError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(e))) => Err(SpoolError::io(action, path, e)),
        Ok(Err(e)) => Err(SpoolError::Damaged { what: e.to_string() }),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(SpoolError::Damaged { what: format!("sled panicked: {what}") })
        }
    }
}
