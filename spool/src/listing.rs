//! Looking at a spool without sending anything.

use std::fs::File;
use std::path::Path;

use crate::files::{Files, Found, Tidy, Unreadable};
use crate::format::{Body, Key, decode};
use crate::index::Index;
use crate::spool::lock_dir;
use crate::{Lane, Listed, Payload, Record, SpoolError, Verified};

/// Entries read at once.
pub(crate) const PAGE: usize = 256;

type Page = Vec<(Key, sled::IVec)>;
type ReadPage<'a> = dyn FnMut(u64) -> Result<Page, SpoolError> + 'a;

/// Stored records, oldest first.
pub struct Listing<'a> {
    read: Box<ReadPage<'a>>,
    page: std::vec::IntoIter<(Key, sled::IVec)>,
    from: Option<u64>,
}

impl<'a> Listing<'a> {
    pub(crate) fn new(read: impl FnMut(u64) -> Result<Page, SpoolError> + 'a) -> Self {
        Self { read: Box::new(read), page: Vec::new().into_iter(), from: Some(0) }
    }

    fn next_entry(&mut self) -> Result<Option<(Key, sled::IVec)>, SpoolError> {
        if self.page.len() == 0
            && let Some(from) = self.from
        {
            let page = (self.read)(from).inspect_err(|_| self.from = None)?;
            self.from = page.last().map(|(key, _)| key.place.order + 1);
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }
}

impl Iterator for Listing<'_> {
    type Item = Result<Listed, SpoolError>;

    /// Ends after an error.
    fn next(&mut self) -> Option<Self::Item> {
        let (key, bytes) = match self.next_entry() {
            Ok(found) => found?,
            Err(e) => return Some(Err(e)),
        };
        let entry = decode(key, &bytes);
        Some(Ok(Listed {
            order: key.place.order,
            id: entry.map(|e| e.id),
            header: entry.map_or_else(Vec::new, |e| e.header.to_vec()),
            payload_len: entry.map_or(0, |e| u64::from(e.payload_len)),
            payload: key.payload,
        }))
    }
}

/// A spool opened for looking at it: nothing is sent, swept or mended. It keeps the spool locked, so the agent
/// cannot run beside it. (sled itself may rewrite its snapshot when it opens.)
pub struct Inspector {
    index: Index,
    files: Files,
    names: Vec<String>,
    _lock: File,
}

impl Inspector {
    /// Opens a spool that exists. Here a [`Lane`] is a lane's number on disk: its index in [`Self::lanes`].
    ///
    /// # Errors
    /// If there is none, another process has it open, or its index is damaged.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        let db = dir.join("db");
        std::fs::metadata(&db).map_err(|e| SpoolError::io("find a spool in", dir, e))?;
        let lock = lock_dir(dir)?;
        Ok(Self {
            index: Index::open(&db)?,
            files: Files::new(dir),
            names: crate::lanes::read(dir)?,
            _lock: lock,
        })
    }

    /// The names of all lanes the spool ever had, by number.
    #[must_use]
    pub fn lanes(&self) -> &[String] {
        &self.names
    }

    /// The stored records of a lane, oldest first, without their payloads.
    #[must_use]
    pub fn iter(&self, lane: Lane) -> Listing<'_> {
        Listing::new(move |from| {
            let mut page = Vec::new();
            let mut scan = self.index.scan(lane.0, from, u64::MAX);
            while page.len() < PAGE
                && let Some(found) = scan.next()?
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
        let Some((key, bytes)) = self.index.scan(lane.0, order, order).next()? else { return Ok(None) };
        let Some(entry) = decode(key, &bytes) else { return Ok(None) };
        let payload = match entry.body {
            Body::Inline(bytes) => bytes.to_vec(),
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
        let mut found = Verified::default();
        for slot in 0..u8::try_from(self.names.len()).unwrap_or(u8::MAX) {
            let mut scan = self.index.scan(slot, 0, u64::MAX);
            while let Some((key, bytes)) = scan.next()? {
                let damaged = (Lane(slot), key.place.order);
                match decode(key, &bytes).map(|e| (e.body, e.payload_len)) {
                    None => found.corrupt.push(damaged),
                    Some((Body::Inline(_), _)) => found.sound += 1,
                    Some((Body::File(crc), len)) => match self.files.read(key.place, len, crc) {
                        Ok(_) => found.sound += 1,
                        Err(Unreadable::Corrupt) => found.corrupt.push(damaged),
                        Err(Unreadable::Missing) => found.missing.push(damaged),
                        Err(Unreadable::Io(e)) => return Err(e),
                    },
                }
            }
        }
        let mut fault = None;
        let walked = self.files.walk(Tidy::No, |file| match file {
            Found::Unfinished(_) => found.orphans += 1,
            Found::Payload(place) => match self.index.scan(place.slot, place.order, place.order).next() {
                Ok(Some((key, _))) if key.payload == Payload::File => {}
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
