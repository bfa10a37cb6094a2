//! What the owner of a spool decides once, at open.

use std::path::PathBuf;
use std::time::Duration;

use crate::SpoolError;

/// The most lanes a spool can have. Lane names that are no longer configured keep their slot on disk.
pub const MAX_LANES: usize = 32;

/// Everything [`Spool::open`](crate::Spool::open) needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The spool's own folder. It is created if missing; nothing else may live in it.
    pub dir: PathBuf,
    /// The lanes by priority: index 0 is the most important one and is dropped from last.
    pub lanes: Vec<LaneOptions>,
    /// Bound over all lanes, in bytes as [`Stats`](crate::Stats) counts them.
    pub max_bytes: u64,
    /// The spool stops growing when less than this is free on its disk.
    pub min_free_bytes: u64,
    /// A bound on the age of all records, whatever their lane allows: see [`LaneOptions::max_age`].
    pub max_age: Option<Duration>,
    /// Bytes that may be written a day, so that a card lasts. [`Spool::pace`](crate::Spool::pace) then stretches
    /// the commit interval; records are stored and alerts are durable at once all the same.
    pub write_budget: Option<u64>,
}

impl Options {
    /// A spool of at most 2 GiB that leaves 256 MiB of its disk to others.
    #[must_use]
    pub fn new(dir: &std::path::Path, lanes: Vec<LaneOptions>) -> Self {
        Self {
            dir: dir.to_owned(),
            lanes,
            max_bytes: 2 << 30,
            min_free_bytes: 256 << 20,
            max_age: None,
            write_budget: None,
        }
    }
}

/// One lane.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// The lane's name. Records find their lane by it after a restart, so lanes may be reordered freely.
    pub name: &'static str,
    /// Bound of this lane, in bytes as [`Stats`](crate::Stats) counts them.
    pub max_bytes: u64,
    /// Where payloads go.
    pub payload: Payload,
    /// When a push is on disk.
    pub durability: Durability,
    /// What gives way when the lane is full.
    pub when_full: WhenFull,
    /// What becomes of its records when the disk is full and nothing less important is left that could give way.
    pub when_low: WhenLow,
    /// Records older than this are dropped by [`Spool::expire`](crate::Spool::expire). None keeps them however old
    /// they are.
    pub max_age: Option<Duration>,
}

impl LaneOptions {
    /// A lane that may take all of the spool, and whose records may grow old in it.
    #[must_use]
    pub const fn new(
        name: &'static str,
        payload: Payload,
        durability: Durability,
        when_full: WhenFull,
    ) -> Self {
        Self {
            name,
            max_bytes: u64::MAX,
            payload,
            durability,
            when_full,
            when_low: WhenLow::GiveWay,
            max_age: None,
        }
    }
}

/// Where a lane's payloads are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// With others of its lane in one file. A record over [`INLINE_MAX`](crate::INLINE_MAX) bytes gets a file of
    /// its own all the same.
    Inline,
    /// In a file of its own.
    File,
}

/// When a pushed record survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before `push` returns. Everything pushed earlier, to any lane, becomes durable with it.
    Immediate,
    /// With the next [`commit`](crate::Spool::commit), by whichever thread. Until then it is in memory only.
    Group,
}

/// What gives way when a lane has reached its own bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The lane's oldest records that are not in flight.
    DropOldest,
    /// The record being pushed.
    DropNewest,
    /// Records spread evenly over all that are stored: first every second one, then every second of those that
    /// are left, and so on. So a time lapse stays one. For lanes of `Payload::File` only.
    Thin,
}

/// What becomes of a record for which the disk has no room, or no more than `min_free_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenLow {
    /// Older ones of its lane go, or it is refused.
    GiveWay,
    /// It is kept all the same: in what `min_free_bytes` leaves to others, then in the ballast's room, then in memory, as
    /// far as the bounds in bytes allow. For lanes of a few small records.
    Insist,
}

/// How much one [`lease`](crate::Spool::lease) may hand out.
///
/// `bytes` counts headers and payloads. A record larger than `bytes` could never be sent, so it is handed out
/// all the same, as the last of its batch: a batch holds at most `bytes` plus one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLimit {
    /// At most so many records.
    pub records: usize,
    /// At most so many bytes.
    pub bytes: u64,
    /// Of `records`, at most so many from the backlog of lanes other than lane 0.
    pub backlog_records: usize,
    /// Of `bytes`, at most so many from the backlog of lanes other than lane 0. Once it is above zero, one
    /// record may exceed it, so that a small allowance cannot hold a large image back for ever.
    pub backlog_bytes: u64,
    /// Only from so many lanes, the most important ones.
    pub lanes: usize,
}

impl LeaseLimit {
    /// A limit without a separate allowance for the backlog.
    #[must_use]
    pub const fn new(records: usize, bytes: u64) -> Self {
        Self { records, bytes, backlog_records: usize::MAX, backlog_bytes: u64::MAX, lanes: MAX_LANES }
    }

    /// Bounds the share of the backlog. `with_backlog(0, 0)` leases live records and lane 0 only.
    #[must_use]
    pub const fn with_backlog(mut self, records: usize, bytes: u64) -> Self {
        self.backlog_records = records;
        self.backlog_bytes = bytes;
        self
    }

    /// Leaves out all but the most important lanes.
    #[must_use]
    pub const fn with_lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), SpoolError> {
        let fault = |why: String| Err(SpoolError::Options(why));
        if self.lanes.is_empty() || self.lanes.len() > MAX_LANES {
            return fault(format!("a spool has 1 to {MAX_LANES} lanes, not {}", self.lanes.len()));
        }
        for (i, lane) in self.lanes.iter().enumerate() {
            if lane.name.is_empty() || lane.name.len() > 64 || lane.name.contains(['\n', '\0']) {
                return fault(format!("lane {i}: a name has 1 to 64 bytes and no line breaks"));
            }
            if self.lanes[..i].iter().any(|l| l.name == lane.name) {
                return fault(format!("two lanes are called {:?}", lane.name));
            }
            if lane.when_full == WhenFull::Thin && lane.payload != Payload::File {
                return fault(format!(
                    "lane {:?}: only records with files of their own can be thinned",
                    lane.name
                ));
            }
            if lane.max_bytes == 0 {
                return fault(format!("lane {:?} may hold 0 bytes", lane.name));
            }
        }
        if self.max_bytes == 0 {
            return fault("the spool may hold 0 bytes".into());
        }
        Ok(())
    }
}
