//! What the spool tells about itself.

use crate::{Lane, Reason, WriteBudget};

/// A snapshot of the spool. Counters count since open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// By lane, in the order of [`Options::lanes`](crate::Options::lanes).
    pub lanes: Vec<LaneStats>,
    /// Bytes in all lanes. A record's bytes are its header, its payload (rounded up to whole 4 KiB blocks if
    /// it has a file) and 64 bytes for its entry; sled needs some more on disk, see `disk_bytes`.
    pub bytes: u64,
    /// Records that a power cut now would take: pushed, but not committed.
    pub uncommitted: u64,
    /// Bytes written since open, in the pages that the disk has to write for them. What the file system writes for
    /// itself is not among them.
    pub bytes_written: u64,
    /// The write budget, if there is one.
    pub budget: Option<WriteBudget>,
    /// Successful commits that had something to make durable.
    pub commits: u64,
    /// Size of the spool's index on disk. Files are not in it; `bytes` counts them exactly.
    pub index_bytes: u64,
    /// Free bytes on the spool's disk for this user, if it could be asked.
    pub free_bytes: Option<u64>,
    /// None when all is well.
    pub degraded: Option<Degraded>,
}

impl Stats {
    /// Records in all lanes.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.lanes.iter().map(|l| l.records).sum()
    }
}

/// One lane of [`Stats`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStats {
    /// Its name.
    pub name: &'static str,
    /// Records stored or accepted, in flight or not.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that are leased now.
    pub leased: u64,
    /// Records accepted since open.
    pub pushed: u64,
    /// Records that were done since open.
    pub done: u64,
    /// Records dropped since open, by reason, in the order of [`Reason::ALL`].
    pub dropped: [u64; Reason::ALL.len()],
}

impl LaneStats {
    /// How many were dropped for one reason.
    #[must_use]
    pub fn dropped_for(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize]
    }
}

/// Why the spool does not work as it should. It recovers by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Degraded {
    /// Less than `min_free_bytes` is free: no growth, older and less important records give way.
    DiskLow,
    /// The disk took no more. New records wait in memory, up to a small bound.
    DiskFull(String),
    /// Another fault of the disk or of the index.
    Fault(String),
}

/// What [`Spool::open`](crate::Spool::open) found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Records by lane that were stored, in the order of [`Options::lanes`](crate::Options::lanes).
    pub records: Vec<u64>,
    /// Damage that was met, and what became of it. None in a normal start.
    pub repair: Option<Repair>,
    /// Files that were not yet in the index when the process ended, and were taken in. (One that was just out of
    /// it again is taken in as well, and is delivered twice.)
    pub adopted: u64,
    /// Files that a crash had left unfinished, or that tell nothing of their record: removed.
    pub orphans_removed: u64,
    /// Lanes on disk that the settings no longer name, with their records. They are left as they are.
    pub unknown_lanes: Vec<(String, u64)>,
    /// The disk was too full to open the index. Nothing is lost; the spool opens it when there is room.
    pub waiting_for_room: bool,
}

/// How a damaged index was mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What was found.
    pub found: String,
    /// Where the damaged index went, for whoever wants to look at it; None if it could be kept.
    pub set_aside: Option<std::path::PathBuf>,
    /// Records with small payloads that were read out of the damaged index. Some of them may have been
    /// delivered before: they go out once more, under their old ids.
    pub salvaged: u64,
    /// Records whose file told everything about them, and were taken back in from there.
    pub adopted: u64,
    /// Records that the index had and that were not found again.
    pub lost: u64,
}

/// What [`Inspector::verify`](crate::Inspector::verify) found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records whose entry and payload are as they were written.
    pub sound: u64,
    /// Records whose entry or payload fails its checksum.
    pub corrupt: Vec<(Lane, u64)>,
    /// Records whose file is not there.
    pub missing: Vec<(Lane, u64)>,
    /// Records of segments that are damaged or missing, by lane: so many cannot be read any more.
    pub lost: Vec<(Lane, u64)>,
    /// Files that a crash kept from being entered in the index, and that are whole: the next start takes them in.
    pub uncommitted: u64,
    /// Files that a crash left unfinished: nothing had been promised of them.
    pub unfinished: u64,
    /// Files that tell nothing of their record.
    pub orphans: u64,
}

impl Verified {
    /// False if a record was lost. What a crash leaves over is no damage.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.corrupt.is_empty() && self.missing.is_empty() && self.lost.is_empty() && self.orphans == 0
    }
}
