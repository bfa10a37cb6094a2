//! Time is asked of a [`Clock`] that is handed in, so that tests can run on their own.

use edgeveil_wire::ClockState;
use jiff::Timestamp;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// A point in time as a record carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the wall clock.
    pub timestamp: Timestamp,
    /// Whether the wall clock was set.
    pub clock: ClockState,
    /// Since the agent started, by the monotonic clock.
    pub uptime: Duration,
}

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Moment;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Counts uptime from here.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let timestamp = Timestamp::now();
        Moment { timestamp, clock: state(timestamp), uptime: self.started.elapsed() }
    }
}

/// The release's own time: a clock that shows less was never set. 2026-01-01 00:00:00 UTC.
const NOT_BEFORE: i64 = 1_767_225_600;

/// systemd-timesyncd leaves `synchronized` in its folder once it has heard from a server. Where it does not run, a
/// clock that is not in the past counts as set.
fn state(timestamp: Timestamp) -> ClockState {
    let timesync = Path::new("/run/systemd/timesync");
    let set =
        timestamp.as_second() >= NOT_BEFORE && (timesync.join("synchronized").exists() || !timesync.exists());
    if set { ClockState::Synced } else { ClockState::Unsynced }
}
