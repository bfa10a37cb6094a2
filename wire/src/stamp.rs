//! What every record carries: who it is and when it was.

use crate::{BootId, Lane, RecordId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether the device's wall clock was set when the record was made. Boards without a clock battery start in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockState {
    /// The kernel says that the clock is synchronised.
    Synced,
    /// It was not: trust `boot`, `seq` and `uptime_ms`, not `timestamp`.
    Unsynced,
}

/// Identity and time of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Made of `boot`, the lane and `seq`.
    pub id: RecordId,
    /// The start of the agent that made it.
    pub boot: BootId,
    /// Counts the records of its lane from 0 within `boot`.
    pub seq: u64,
    /// When it was measured, by the device's clock; UTC, milliseconds.
    pub timestamp: Timestamp,
    /// Whether that clock was set.
    pub clock: ClockState,
    /// Milliseconds since the agent started, by the monotonic clock.
    pub uptime_ms: u64,
}

/// `id`, `boot`, `seq` and the lane contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("id {id} does not belong to boot {boot}, lane {lane}, seq {seq}")]
pub struct StampError {
    id: RecordId,
    boot: BootId,
    lane: Lane,
    seq: u64,
}

impl Stamp {
    /// Stamps the `seq`-th record of a lane.
    pub fn new(
        boot: BootId,
        lane: Lane,
        seq: u64,
        timestamp: Timestamp,
        clock: ClockState,
        uptime_ms: u64,
    ) -> Self {
        let seq = seq & RecordId::MAX_SEQ;
        let mut stamp = Self { id: RecordId::new(boot, lane, seq), boot, seq, timestamp, clock, uptime_ms };
        stamp.retime(timestamp, clock);
        stamp
    }

    /// The same record, at another time.
    pub fn retime(&mut self, timestamp: Timestamp, clock: ClockState) {
        self.timestamp = Timestamp::from_millisecond(timestamp.as_millisecond()).unwrap_or(timestamp);
        self.clock = clock;
    }

    pub(crate) fn check(&self, lane: Lane) -> Result<(), StampError> {
        if self.seq <= RecordId::MAX_SEQ && self.id == RecordId::new(self.boot, lane, self.seq) {
            return Ok(());
        }
        Err(StampError { id: self.id, boot: self.boot, lane, seq: self.seq })
    }
}
