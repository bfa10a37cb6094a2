//! Payloads that have a file of their own: `files/<slot>/<order without its low 10 bits>/<order>`, in hex.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::SpoolError;
use crate::disk::{Disk, Site, create_dir, sync_dir};
use crate::format::{FILE_TAIL_MAX, Place, entry_in_tail};

/// Orders in one folder: 2^10.
const FOLDER_BITS: u32 = 10;
const UNFINISHED: &str = "part";

#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
}

/// Why a payload cannot be had.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Missing,
    Corrupt,
    /// Nothing is wrong with the file as far as one can tell.
    Io(SpoolError),
}

/// A file below the root.
#[derive(Debug)]
pub(crate) enum Found {
    Payload(Place),
    /// Left by a crash between creating and renaming.
    Unfinished(PathBuf),
}

impl Files {
    pub fn new(dir: &Path) -> Self {
        Self { root: dir.join("files") }
    }

    fn folder(&self, place: Place) -> PathBuf {
        self.root.join(format!("{:02x}", place.slot)).join(format!("{:014x}", place.order >> FOLDER_BITS))
    }

    pub fn path(&self, place: Place) -> PathBuf {
        self.folder(place).join(format!("{:016x}", place.order))
    }

    /// Returns once the file and its name are durable. Leaves nothing behind if it fails.
    pub fn write(&self, place: Place, payload: &[u8], tail: &[u8], disk: &Disk) -> Result<(), SpoolError> {
        let folder = self.folder(place);
        create_dir(&self.root)?;
        create_dir(folder.parent().expect("a folder lies in its slot's"))?;
        create_dir(&folder)?;
        let path = self.path(place);
        let unfinished = path.with_extension(UNFINISHED);
        let write = || {
            disk.at(Site::WriteFile)?;
            let mut file = File::create(&unfinished)?;
            file.write_all(payload)?;
            file.write_all(tail)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)
        };
        let written = write().map_err(|e| SpoolError::io("write", &path, e)).and_then(|()| sync_dir(&folder));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
            let _ = fs::remove_file(&path);
        }
        written
    }

    pub fn read(&self, place: Place, len: u32, crc: u32) -> Result<Vec<u8>, Unreadable> {
        let path = self.path(place);
        let fail = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Unreadable::Missing,
            // A bad sector stays bad: waiting would hold the lane up for ever.
            _ if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Unreadable::Corrupt,
            _ => Unreadable::Io(SpoolError::io("read", &path, e)),
        };
        let file = File::open(&path).map_err(fail)?;
        let mut payload = Vec::new();
        // The length on disk bounds the buffer, so that a damaged length cannot ask for memory.
        let on_disk = file.metadata().map_err(fail)?.len();
        if on_disk < u64::from(len) {
            return Err(Unreadable::Corrupt);
        }
        payload.reserve_exact(len as usize);
        file.take(u64::from(len)).read_to_end(&mut payload).map_err(fail)?;
        if payload.len() == len as usize && crc32fast::hash(&payload) == crc {
            Ok(payload)
        } else {
            Err(Unreadable::Corrupt)
        }
    }

    /// Removes the file of a record whose removal from the index is durable.
    pub fn remove(&self, place: Place) {
        let path = self.path(place);
        if let Err(e) = fs::remove_file(&path)
            && e.kind() != io::ErrorKind::NotFound
        {
            // The next open sweeps it.
            tracing::warn!(path = %path.display(), error = %e, "could not remove a spooled file");
        }
        let low_bits = (1 << FOLDER_BITS) - 1;
        if place.order & low_bits == low_bits {
            // Fails, as it should, while the folder has files; the sweep at open takes what this leaves.
            let _ = fs::remove_dir(self.folder(place));
        }
    }

    /// The highest order that a file here can have, as far as the names of folders tell.
    pub fn highest_order(&self) -> Result<u64, SpoolError> {
        let fail = |e| SpoolError::io("read the folder", &self.root, e);
        let mut highest = 0;
        for slot in folders(&self.root).map_err(fail)? {
            for folder in folders(&slot).map_err(fail)? {
                let number = folder.file_name().and_then(|n| u64::from_str_radix(n.to_str()?, 16).ok());
                highest = highest.max(number.map_or(0, |n| n << FOLDER_BITS));
            }
        }
        Ok(highest)
    }

    /// The entry that the file of a record carries at its end.
    pub fn entry(&self, place: Place) -> Option<Vec<u8>> {
        let mut file = File::open(self.path(place)).ok()?;
        let len = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(FILE_TAIL_MAX as u64))).ok()?;
        let mut end = Vec::with_capacity(FILE_TAIL_MAX);
        file.read_to_end(&mut end).ok()?;
        entry_in_tail(&end).map(<[u8]>::to_vec)
    }

    /// Shows every file to `each`, folder by folder; removes folders that are empty if `tidy`. Names that the
    /// spool never gives are not its own and are left alone.
    pub fn walk(&self, tidy: Tidy, mut each: impl FnMut(Found)) -> io::Result<()> {
        for slot_dir in folders(&self.root)? {
            let Some(slot) = slot_dir.file_name().and_then(|n| u8::from_str_radix(n.to_str()?, 16).ok())
            else {
                continue;
            };
            for folder in folders(&slot_dir)? {
                for file in fs::read_dir(&folder)? {
                    let path = file?.path();
                    let order = path.file_stem().and_then(|n| u64::from_str_radix(n.to_str()?, 16).ok());
                    match (order, path.extension()) {
                        (Some(order), None) => {
                            let place = Place { slot, order };
                            if self.path(place) == path {
                                each(Found::Payload(place));
                            }
                        }
                        (Some(_), Some(e)) if e == UNFINISHED => each(Found::Unfinished(path)),
                        _ => {}
                    }
                }
                if tidy == Tidy::Yes {
                    let _ = fs::remove_dir(&folder);
                }
            }
        }
        Ok(())
    }
}

/// Whether a walk removes empty folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tidy {
    Yes,
    No,
}

pub(crate) fn folders(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing?,
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
