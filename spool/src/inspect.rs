//! Looking at a spool without changing anything of it.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::disk::create_dir;
use crate::files::{Files, Found, Tidy, Unreadable};
use crate::format::{Body, Kind, decode, decode_prefix};
use crate::index::Index;
use crate::listing::PAGE;
use crate::repair::{Trust, open_index};
use crate::segments::Segments;
use crate::spool::lock_dir;
use crate::walk::Walk;
use crate::{Lane, Listing, Record, Repair, SpoolError, Verified};

/// A spool opened for looking at it: nothing is sent, swept or mended. The index is copied to a folder for
/// temporary files and mended there if it needs to be, so that the original stays as it was found. The agent cannot
/// run beside it.
pub struct Inspector {
    index: Index,
    files: Files,
    segments: RefCell<Segments>,
    names: Vec<String>,
    repair: Option<Repair>,
    lost_at_open: Vec<(Lane, u64)>,
    uncommitted: u64,
    _copy: Scratch,
    _lock: Option<File>,
}

impl Inspector {
    /// Opens a spool that exists. Here a [`Lane`] is a lane's number on disk: its index in [`Self::lanes`].
    ///
    /// # Errors
    /// If there is none, another process has it open, or the disk cannot be read.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        let db = dir.join("db");
        let names = crate::lanes::read(dir)?;
        if names.is_empty() {
            fs::metadata(&db).map_err(|e| SpoolError::io("find a spool in", dir, e))?;
        }
        let lock = match lock_dir(dir) {
            Ok(lock) => Some(lock),
            // On a card that is mounted for reading only, nobody else writes either.
            Err(SpoolError::Denied { .. }) => None,
            Err(e) => return Err(e),
        };
        let copy = Scratch::new()?;
        let copied = copy.0.join("db");
        copy_files(&db, &copied)?;
        // Tells how far the index had come; there may be none.
        let _ = fs::copy(dir.join("closed"), copy.0.join("closed"));
        let files = Files::new(dir);
        let (index, _, repair) = open_index(&copy.0, &files, &Trust::AsItIs)?;
        let uncommitted = take_in(&index, &files).map_err(|e| SpoolError::io("read the files of", dir, e))?;
        let mut segments = Segments::new(dir);
        segments.load(index.notes()?, Tidy::No)?;
        let lost_at_open = segments.take_damage().iter().map(|d| (Lane(d.slot), d.records)).collect();
        Ok(Self {
            index,
            files,
            segments: RefCell::new(segments),
            names,
            repair,
            lost_at_open,
            uncommitted: uncommitted?,
            _copy: copy,
            _lock: lock,
        })
    }

    /// The names of all lanes the spool ever had, by number.
    #[must_use]
    pub fn lanes(&self) -> &[String] {
        &self.names
    }

    /// What an agent would have to mend before it could work with this spool. None if it is whole.
    #[must_use]
    pub const fn repair(&self) -> Option<&Repair> {
        self.repair.as_ref()
    }

    fn walk(&self, lane: Lane, from: u64, to: u64) -> Walk {
        Walk::new(lane.0, from, to, self.index.scan(lane.0, from, to))
    }

    /// The stored records of a lane, oldest first, without their payloads.
    #[must_use]
    pub fn iter(&self, lane: Lane) -> Listing<'_> {
        Listing::new(move |from| {
            let mut page = Vec::new();
            let mut walk = self.walk(lane, from, u64::MAX);
            while page.len() < PAGE
                && let Some(found) = walk.next(&mut self.segments.borrow_mut())?
            {
                page.push(found);
            }
            Ok(page)
        })
    }

    /// One whole record. None if there is none, or it is damaged or its file is missing.
    ///
    /// # Errors
    /// If the disk or the index cannot be read.
    pub fn read(&self, lane: Lane, order: u64) -> Result<Option<Record>, SpoolError> {
        let found = self.walk(lane, order, order).next(&mut self.segments.borrow_mut())?;
        let Some((key, bytes)) = found else { return Ok(None) };
        let Some(entry) = decode(key, &bytes) else { return Ok(None) };
        let payload = match entry.body {
            Body::Inline(bytes) | Body::Packed(bytes) => bytes.to_vec(),
            Body::File(crc) => match self.files.read(key.place, entry.payload_len, crc) {
                Ok(payload) => payload,
                Err(Unreadable::Missing | Unreadable::Corrupt) => return Ok(None),
                Err(Unreadable::Io(e)) => return Err(e),
            },
        };
        Ok(Some(Record { id: entry.id, lane, header: entry.header.to_vec(), payload, live: false }))
    }

    /// Reads every record and every file and checks them.
    ///
    /// # Errors
    /// If the disk or the index cannot be read.
    pub fn verify(&self) -> Result<Verified, SpoolError> {
        let mut found = Verified {
            lost: self.lost_at_open.clone(),
            uncommitted: self.uncommitted,
            ..Verified::default()
        };
        for slot in 0..u8::try_from(self.names.len()).unwrap_or(u8::MAX) {
            let mut walk = self.walk(Lane(slot), 0, u64::MAX);
            while let Some((key, bytes)) = walk.next(&mut self.segments.borrow_mut())? {
                let damaged = (Lane(slot), key.place.order);
                match decode(key, &bytes).map(|e| (e.body, e.payload_len)) {
                    None => found.corrupt.push(damaged),
                    Some((Body::Inline(_) | Body::Packed(_), _)) => found.sound += 1,
                    Some((Body::File(crc), len)) => match self.files.read(key.place, len, crc) {
                        Ok(_) => found.sound += 1,
                        Err(Unreadable::Corrupt) => found.corrupt.push(damaged),
                        Err(Unreadable::Missing) => found.missing.push(damaged),
                        Err(Unreadable::Io(e)) => return Err(e),
                    },
                }
            }
        }
        let damage = self.segments.borrow_mut().take_damage();
        found.lost.extend(damage.iter().map(|d| (Lane(d.slot), d.records)));
        let mut fault = None;
        let walked = self.files.walk(Tidy::No, |file| match file {
            Found::Unfinished(_) => found.unfinished += 1,
            Found::Payload(place) => match self.index.scan(place.slot, place.order, place.order).next() {
                Ok(Some((key, _))) if key.kind == Kind::File => {}
                Ok(_) => found.orphans += 1,
                Err(e) => fault = Some(e),
            },
        });
        walked.map_err(|e| SpoolError::Io {
            action: "read the files of",
            path: "the spool".into(),
            source: e,
        })?;
        fault.map_or(Ok(found), Err)
    }
}

/// Enters in the copy of the index what an agent would take in at its start.
fn take_in(index: &Index, files: &Files) -> std::io::Result<Result<u64, SpoolError>> {
    let mut places = Vec::new();
    files.walk(Tidy::No, |found| {
        if let Found::Payload(place) = found {
            places.push(place);
        }
    })?;
    let mut taken = 0;
    let mut batch = sled::Batch::default();
    for place in places {
        match index.scan(place.slot, place.order, place.order).next() {
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(e) => return Ok(Err(e)),
        }
        let Some(entry) = files.entry(place) else { continue };
        if let Some((decoded, _)) = decode_prefix(&entry)
            && decoded.key.place == place
        {
            batch.insert(&decoded.key.encode()[..], &entry[..]);
            taken += 1;
        }
    }
    Ok(index.apply(batch).map(|()| taken))
}

/// A folder that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, SpoolError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("edgeveil-spool-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies an index: files in one folder, and in folders of it.
fn copy_files(from: &Path, to: &Path) -> Result<(), SpoolError> {
    let fail = |path: &Path, e| SpoolError::io("copy", path, e);
    let listing = match fs::read_dir(from) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listing => listing.map_err(|e| fail(from, e))?,
    };
    create_dir(to)?;
    for entry in listing {
        let entry = entry.map_err(|e| fail(from, e))?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(|e| fail(from, e))?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(|e| fail(&entry.path(), e))?;
        }
    }
    Ok(())
}
