//! Time is asked of a [`Clock`] that is handed in, so that tests can run on their own.

use edgeveil_wire::ClockState;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
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

impl Moment {
    /// The moment that was so long before.
    pub fn earlier(self, age: Duration) -> Self {
        let before = SignedDuration::try_from(age).ok().and_then(|age| self.timestamp.checked_sub(age).ok());
        let timestamp = before.unwrap_or(self.timestamp);
        Self { timestamp, uptime: self.uptime.saturating_sub(age), ..self }
    }
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

/// The zone that `timedatectl set-timezone` has set; UTC where there is none.
pub fn local_zone() -> TimeZone {
    let zone = std::fs::read("/etc/localtime").ok().and_then(|data| TimeZone::tzif("local", &data).ok());
    zone.unwrap_or(TimeZone::UTC)
}

/// Tells whether the wall clock can be believed when records are held to be too old: not while it is unset, and not for
/// an hour after it has leapt ahead. What a wrong clock would drop in that hour could not be had back.
#[derive(Debug, Default)]
pub struct Trust {
    last: Option<Moment>,
    from: Duration,
}

impl Trust {
    /// The clocks may drift apart by so much between two looks.
    const LEAP: Duration = Duration::from_secs(60);
    const WAIT: Duration = Duration::from_secs(3600);

    /// Looks at the clock. Called every minute or more often.
    pub fn is_due(&mut self, now: Moment) -> bool {
        if now.clock == ClockState::Unsynced {
            self.last = None;
            return false;
        }
        let leapt = self.last.is_some_and(|last| {
            let passed = now.uptime.saturating_sub(last.uptime) + Self::LEAP;
            // One that is put back makes nothing older.
            Duration::try_from(now.timestamp.duration_since(last.timestamp)).is_ok_and(|by| by > passed)
        });
        self.last = Some(now);
        if leapt {
            tracing::warn!(now = %now.timestamp, "the clock has leapt ahead: no record is held to be too old for an hour");
            self.from = now.uptime + Self::WAIT;
        }
        now.uptime >= self.from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(timestamp: &str, clock: ClockState, uptime: u64) -> Moment {
        Moment { timestamp: timestamp.parse().unwrap(), clock, uptime: Duration::from_secs(uptime) }
    }

    #[test]
    fn a_clock_that_leaps_ahead_is_not_believed_at_once() {
        let mut trust = Trust::default();
        let mut look = |timestamp, clock, uptime| trust.is_due(moment(timestamp, clock, uptime));
        assert!(!look("1970-01-01T00:00:05Z", ClockState::Unsynced, 5));
        assert!(look("2026-11-21T10:00:00Z", ClockState::Synced, 10), "it is set: that is no leap");
        assert!(look("2026-11-21T10:01:30Z", ClockState::Synced, 70));
        assert!(!look("2027-11-21T10:01:30Z", ClockState::Synced, 71));
        assert!(!look("2026-11-21T10:02:00Z", ClockState::Synced, 100), "back again");
        assert!(!look("2026-11-21T11:01:00Z", ClockState::Synced, 3640));
        assert!(look("2026-11-21T11:02:00Z", ClockState::Synced, 3700));
    }
}
