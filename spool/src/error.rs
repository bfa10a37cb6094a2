//! What can go wrong, by what the caller should do about it.

use std::io;
use std::path::{Path, PathBuf};

/// A failed operation on the spool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// Settings that make no spool. Refuse at start.
    #[error("spool settings: {0}")]
    Options(String),
    /// Another process has the spool open. Refuse at start.
    #[error("the spool {} is in use by another process: stop that one first (only one may open a spool)", dir.display())]
    Locked {
        /// The spool's folder.
        dir: PathBuf,
    },
    /// The user may not write there. Refuse at start.
    #[error("no permission to {action} {}: the spool's folder and all in it must belong to the user the agent runs as", path.display())]
    Denied {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The disk is full. Stored records are safe; the spool recovers by itself when there is room.
    #[error("the disk of the spool is full, while trying to {action}: {why}")]
    DiskFull {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        why: String,
    },
    /// The disk failed otherwise. Try again later.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The index is damaged; the spool rebuilds it at the next commit. Try again later.
    #[error("the index of the spool is damaged ({what}); it is rebuilt at the next commit")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// A record that no spool takes, whatever room there is. A fault of the caller.
    #[error("record {id}: {what} has {len} bytes, at most {max} are possible")]
    TooLarge {
        /// The record.
        id: crate::RecordId,
        /// Its header or its payload.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A lane number beyond [`Options::lanes`](crate::Options::lanes). A fault of the caller.
    #[error("there is no lane {0}")]
    NoSuchLane(u8),
}

impl SpoolError {
    /// True for the kinds that go away by themselves or by making room: keep running and try again.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::Io { .. } | Self::Damaged { .. })
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { action, path: path.to_owned() }
            }
            _ if is_full(&source) => Self::DiskFull { action, why: source.to_string() },
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }

    pub(crate) const fn is_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }
}

pub(crate) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
