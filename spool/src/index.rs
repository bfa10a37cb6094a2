//! The index: one sled tree, opened so that it is easy on SD cards, and made durable by a real fsync.
//!
//! sled 0.34 panics on some faults of the disk, and after any of them answers every call with the same error.
//! So every call is guarded, and whoever gets an error back drops the index and opens it again.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::SpoolError;
use crate::format::{Key, span};

/// sled keeps pages in memory up to this; the spool reads in order, so more would not help.
const CACHE_BYTES: u64 = 2 << 20;
/// The key of everything that is not a record. Slots stay far below.
const META_KEY: [u8; 1] = [0xff];

#[derive(Debug, Clone)]
pub(crate) struct Index {
    db: sled::Db,
    log: std::sync::Arc<File>,
    path: PathBuf,
}

/// What the index keeps beside the records, written with every batch, so that it always fits them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Which opening of the spool this is. It is the upper part of every order given since.
    pub epoch: u32,
    /// Records and bytes by slot.
    pub slots: Vec<(u64, u64)>,
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
        let log = File::open(&log).map_err(|e| SpoolError::io("open", &log, e))?;
        let index = Self { db, log: log.into(), path: path.to_owned() };
        crate::disk::sync_dir(path)?;
        Ok(index)
    }

    pub fn apply(&self, batch: sled::Batch) -> Result<(), SpoolError> {
        guard(&self.path, "write to", || self.db.apply_batch(batch))
    }

    /// Makes everything that was applied durable. sled's flush hands it to the system without asking for
    /// more; the fsync of the same file, by our own descriptor, makes it survive a power cut.
    pub fn sync(&self) -> Result<(), SpoolError> {
        guard(&self.path, "flush", || self.db.flush())?;
        self.log.sync_data().map_err(|e| SpoolError::io("fsync", &self.path, e))
    }

    /// The records of a slot, from one order up to and including another.
    pub fn scan(&self, slot: u8, from: u64, to: u64) -> Scan {
        Scan { inner: (from <= to).then(|| self.db.range(span(slot, from..=to))), path: self.path.clone() }
    }

    pub fn is_empty(&self) -> Result<bool, SpoolError> {
        guard(&self.path, "read", || Ok(self.db.is_empty()))
    }

    /// Whether the records that are there are those that were counted.
    pub fn counts_fit(&self, meta: &Meta) -> Result<bool, SpoolError> {
        for (slot, counted) in (0..=u8::MAX).zip(&meta.slots) {
            let mut found = (0, 0);
            let mut scan = self.scan(slot, 0, u64::MAX);
            while let Some((key, _)) = scan.next()? {
                found.0 += 1;
                found.1 += u64::from(key.cost);
            }
            if found != *counted {
                return Ok(false);
            }
        }
        Ok(true)
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

impl Meta {
    const VERSION: u8 = 1;

    pub fn insert_into(&self, batch: &mut sled::Batch) {
        batch.insert(&META_KEY, self.encode());
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![Self::VERSION];
        out.extend_from_slice(&self.epoch.to_le_bytes());
        for (records, bytes) in &self.slots {
            out.extend_from_slice(&records.to_le_bytes());
            out.extend_from_slice(&bytes.to_le_bytes());
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc32fast::hash(body).to_le_bytes() != crc || body.first() != Some(&Self::VERSION) {
            return None;
        }
        let (epoch, slots) = body[1..].split_at_checked(4)?;
        let word =
            |b: &[u8]| u64::from_le_bytes(b.try_into().expect("chunks of 16 bytes have two halves of 8"));
        Some(Self {
            epoch: u32::from_le_bytes(epoch.try_into().ok()?),
            slots: slots.chunks_exact(16).map(|c| (word(&c[..8]), word(&c[8..]))).collect(),
        })
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

#[cfg(test)]
mod tests {
    use super::Meta;

    #[test]
    fn meta_survives_the_round_trip_and_no_flipped_bit_does() {
        let meta = Meta { epoch: 7, slots: vec![(1, 2), (3, u64::MAX)] };
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Some(meta));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Meta::decode(&bad), None, "bit {bit}");
        }
    }
}
