//! What goes in and comes out: records, their ids, and what was dropped on the way.

use std::fmt;

/// A lane by its index in [`Options::lanes`](crate::Options::lanes); 0 is the most important one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u8);

/// A 128-bit id chosen by the caller, opaque to the spool. The same id means the same record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub [u8; 16]);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({self})")
    }
}

/// A record to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// Unique among the records that are stored.
    pub id: RecordId,
    /// What the receiver of the record needs besides the payload: at most [`HEADER_MAX`](crate::HEADER_MAX) bytes.
    pub header: &'a [u8],
    /// At most [`PAYLOAD_MAX`](crate::PAYLOAD_MAX) bytes.
    pub payload: &'a [u8],
}

/// A record on its way out. It stays stored until [`done`](crate::Spool::done).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// As pushed.
    pub id: RecordId,
    /// As pushed.
    pub lane: Lane,
    /// As pushed.
    pub header: Vec<u8>,
    /// As pushed, checked against its checksum.
    pub payload: Vec<u8>,
    /// Pushed since the last [`mark_backlog`](crate::Spool::mark_backlog) or open.
    pub live: bool,
}

/// A stored record as a listing shows it; its payload was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The record's place in its lane: grows with every push, never used twice.
    pub order: u64,
    /// None if the entry fails its checksum.
    pub id: Option<RecordId>,
    /// Empty if the entry fails its checksum.
    pub header: Vec<u8>,
    /// In bytes; 0 if the entry fails its checksum.
    pub payload_len: u64,
    /// Where the payload lies.
    pub payload: crate::Payload,
}

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a refused record is gone, and older ones may have been dropped for it"]
pub struct Pushed {
    /// Where the record is now.
    pub kept: Kept,
    /// What had to go, oldest first; includes the record itself if it was refused.
    pub dropped: Vec<Dropped>,
}

/// Where a pushed record is when `push` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// On disk, fsynced.
    Durable,
    /// Accepted, and durable with the next successful commit. An `Immediate` lane answers this only when the
    /// disk just failed; [`Stats::degraded`](crate::Stats::degraded) then says how.
    NextCommit,
    /// Not stored: there was no room that its lane may take. Counted and in `dropped`.
    Refused,
}

/// A record that left the spool without having been delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Its lane.
    pub lane: Lane,
    /// None if the entry could not be read any more.
    pub id: Option<RecordId>,
    /// As [`Stats`](crate::Stats) counts bytes.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// Why a record was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its lane's bound was reached.
    LaneFull,
    /// The bound over all lanes was reached.
    SpoolFull,
    /// Less than `min_free_bytes` was free on the disk.
    DiskLow,
    /// The disk took no more, and memory was full as well.
    DiskFull,
    /// Its entry or its file is damaged.
    Corrupt,
    /// Its file is not there.
    FileMissing,
    /// The receiver refused it for ever.
    Rejected,
    /// A record with the same id is in flight.
    Duplicate,
    /// It was older than its lane allows.
    Expired,
}

impl Reason {
    /// Every reason, in the order in which [`LaneStats::dropped`](crate::LaneStats::dropped) is kept.
    pub const ALL: [Self; 9] = [
        Self::LaneFull,
        Self::SpoolFull,
        Self::DiskLow,
        Self::DiskFull,
        Self::Corrupt,
        Self::FileMissing,
        Self::Rejected,
        Self::Duplicate,
        Self::Expired,
    ];

    /// A short name for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LaneFull => "lane_full",
            Self::SpoolFull => "spool_full",
            Self::DiskLow => "disk_low",
            Self::DiskFull => "disk_full",
            Self::Corrupt => "corrupt",
            Self::FileMissing => "file_missing",
            Self::Rejected => "rejected",
            Self::Duplicate => "duplicate",
            Self::Expired => "expired",
        }
    }
}
