//! The disk below: how much is free, and the ballast that is thrown off when it is full.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::SpoolError;

/// Room that is held back for the moment in which the disk is full: sled needs some even to delete.
pub const BALLAST_BYTES: u64 = 8 << 20;

/// A place where a test can let the disk fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    /// Before an image's file is begun.
    WriteFile,
    /// Before a pack is written.
    Append,
    /// After it was written, before its fsync.
    SyncSegment,
    /// Before the index is given a batch.
    Commit,
    /// Before what the index does not know any more is removed.
    Remove,
}

type Probe = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;
type Fault = dyn Fn(Site) -> io::Result<()> + Send + Sync;

/// How the spool sees its disk. Tests put their own in place.
pub(crate) struct Disk {
    free: Box<Probe>,
    fault: Box<Fault>,
}

impl Default for Disk {
    fn default() -> Self {
        Self { free: Box::new(free_bytes), fault: Box::new(|_| Ok(())) }
    }
}

impl Disk {
    #[cfg(test)]
    pub fn faked(
        free: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static,
        fault: impl Fn(Site) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { free: Box::new(free), fault: Box::new(fault) }
    }

    /// Bytes free for this user, or None if the system does not say: then only the bounds in bytes hold.
    pub fn free(&self, dir: &Path) -> Option<u64> {
        (self.free)(dir).ok()
    }

    pub fn at(&self, site: Site) -> io::Result<()> {
        (self.fault)(site)
    }
}

fn free_bytes(dir: &Path) -> io::Result<u64> {
    let s = statvfs(dir)?;
    Ok(s.f_bavail.saturating_mul(s.f_frsize))
}

/// A preallocated file, there to be removed.
pub(crate) struct Ballast {
    path: PathBuf,
    held: bool,
}

impl Ballast {
    pub fn at(dir: &Path) -> Self {
        let path = dir.join("ballast");
        let held = fs::metadata(&path).is_ok_and(|m| m.len() >= BALLAST_BYTES);
        Self { path, held }
    }

    /// What must stay free so that the ballast can be taken back.
    pub const fn missing(&self) -> u64 {
        if self.held { 0 } else { BALLAST_BYTES }
    }

    /// True if there was ballast to throw off.
    pub fn release(&mut self) -> bool {
        let had = self.held;
        self.held = false;
        match fs::remove_file(&self.path) {
            Ok(()) => had,
            Err(e) => {
                if e.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %self.path.display(), error = %e, "could not release the spool's ballast");
                }
                false
            }
        }
    }

    /// Takes the ballast in again if the disk can spare it.
    pub fn restore(&mut self, free: Option<u64>, min_free: u64) {
        if self.held || free.is_none_or(|f| f < min_free.saturating_add(2 * BALLAST_BYTES)) {
            return;
        }
        match allocate(&self.path) {
            Ok(()) => self.held = true,
            Err(e) => {
                let _ = fs::remove_file(&self.path);
                tracing::debug!(error = %e, "no room for the spool's ballast yet");
            }
        }
    }
}

fn allocate(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let block = [0xb5; 64 << 10];
            (0..BALLAST_BYTES / block.len() as u64).try_for_each(|_| file.write_all(&block))
        }
        Err(e) => Err(e.into()),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), SpoolError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| SpoolError::io("fsync the folder", dir, e))
}

/// Creates a folder, only for this user, and makes its name durable.
pub(crate) fn create_dir(dir: &Path) -> Result<(), SpoolError> {
    use std::os::unix::fs::DirBuilderExt;
    if dir.is_dir() {
        return Ok(());
    }
    let fail = |e| SpoolError::io("create the folder", dir, e);
    fs::DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(fail)?;
    dir.parent().filter(|p| !p.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
}
