//! How much the link may send: the backlog at a rate, and everything but alerts and events within a day's budget.
//!
//! The budget counts headers and payloads, since what TLS and TCP add is not seen here: some 100 bytes a record. A day
//! is one of UTC. What was used is kept in a file, so that a restart does not begin a new day.

use crate::{clock::Moment, settings};
use edgeveil_spool::LeaseLimit;
use edgeveil_wire::{ClockState, Lane};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

/// The file is written after so many bytes: a power cut forgets at most as much.
const NOTE_EVERY: u64 = 1 << 20;
/// A pause fills a bucket no further than for so long.
const BURST: Duration = Duration::from_secs(2);
const DAY_SECONDS: i64 = 86_400;

/// Lanes that pass when the day's budget is used: alerts and events.
const ALWAYS: usize = Lane::Status as usize + 1;
/// Lanes that are sent at all.
const SENT: usize = Lane::ALL.len();

/// What may still go out.
#[derive(Debug)]
pub struct Limiter {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    day: Option<Day>,
}

/// Fills at a rate.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    level: f64,
    since: Instant,
}

impl Bucket {
    fn new(rate: f64, now: Instant) -> Self {
        Self { rate, level: rate, since: now }
    }

    /// Whole units that are in it. A debt counts as none.
    fn level(&mut self, now: Instant) -> f64 {
        let full = (self.rate * BURST.as_secs_f64()).max(1.0);
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.level = (self.level + self.rate * passed).min(full);
        self.since = now;
        self.level.max(0.0).floor()
    }
}

/// A day's budget.
#[derive(Debug)]
struct Day {
    budget: u64,
    file: PathBuf,
    used: Used,
    noted: u64,
}

/// What is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    /// Days since 1970, UTC.
    day: i64,
    bytes: u64,
}

impl Limiter {
    /// Reads what was used of the day from `data_dir`.
    pub fn new(limits: &settings::Limits, data_dir: &Path, now: Instant) -> Self {
        let bucket = |rate: Option<f64>| rate.map(|rate| Bucket::new(rate, now));
        let day = limits.daily_bytes.map(|budget| {
            let file = data_dir.join("link-budget.json");
            let read = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
            let used = read.unwrap_or(Used { day: 0, bytes: 0 });
            Day { budget, file, used, noted: used.bytes }
        });
        Self { messages: bucket(limits.backlog_messages), bytes: bucket(limits.backlog_bytes), day }
    }

    /// Narrows what is to be leased.
    pub fn narrow(&mut self, limit: LeaseLimit, now: Instant, today: Moment) -> LeaseLimit {
        let records = self.messages.as_mut().map_or(usize::MAX, |bucket| bucket.level(now) as usize);
        let bytes = self.bytes.as_mut().map_or(u64::MAX, |bucket| bucket.level(now) as u64);
        let lanes = if self.is_spent(today) { ALWAYS } else { SENT };
        limit.with_backlog(records, bytes).with_lanes(lanes)
    }

    /// A record goes out.
    pub fn sent(&mut self, bytes: u64, from_backlog: bool, today: Moment) {
        if from_backlog {
            for (bucket, amount) in [(&mut self.messages, 1.0), (&mut self.bytes, bytes as f64)] {
                if let Some(bucket) = bucket {
                    bucket.level -= amount;
                }
            }
        }
        if let Some(day) = &mut self.day {
            day.turn(today);
            day.used.bytes += bytes;
            if day.used.bytes.abs_diff(day.noted) >= NOTE_EVERY {
                day.note();
            }
        }
    }

    /// Whether the day's budget is used.
    pub fn is_spent(&mut self, today: Moment) -> bool {
        self.day.as_mut().is_some_and(|day| {
            day.turn(today);
            day.used.bytes >= day.budget
        })
    }

    /// Bytes of records sent today, when a budget counts them.
    pub fn used_today(&self) -> Option<u64> {
        self.day.as_ref().map(|day| day.used.bytes)
    }

    /// Keeps what was used.
    pub fn close(&mut self) {
        if let Some(day) = &mut self.day {
            day.note();
        }
    }
}

impl Day {
    fn turn(&mut self, now: Moment) {
        let day = now.timestamp.as_second().div_euclid(DAY_SECONDS);
        if day > self.used.day {
            self.used = Used { day, bytes: 0 };
            self.note();
        } else if day + 1 < self.used.day && now.clock == ClockState::Synced {
            // The clock had been far ahead. It gives no second budget for that, but tomorrow is tomorrow again.
            self.used.day = day;
            self.note();
        }
    }

    fn note(&mut self) {
        self.noted = self.used.bytes;
        let text = serde_json::to_vec(&self.used).expect("two numbers are JSON");
        let part = self.file.with_extension("part");
        let written = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &self.file));
        if let Err(error) = written {
            tracing::debug!(%error, file = %self.file.display(), "cannot note the day's bytes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(messages: Option<f64>, bytes: Option<f64>, daily: Option<u64>) -> settings::Limits {
        settings::Limits { backlog_messages: messages, backlog_bytes: bytes, daily_bytes: daily }
    }

    fn at(timestamp: &str, clock: ClockState) -> Moment {
        Moment { timestamp: timestamp.parse().unwrap(), clock, uptime: Duration::ZERO }
    }

    const ALL: LeaseLimit = LeaseLimit::new(100, 1 << 20);

    #[test]
    fn the_backlog_goes_at_its_rate_and_what_is_live_does_not_wait() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut limiter = Limiter::new(&limits(Some(10.0), Some(1000.0), None), dir.path(), now);
        let day = at("1970-01-01T00:00:00Z", ClockState::Unsynced);
        let limit = limiter.narrow(ALL, now, day);
        assert_eq!((limit.records, limit.backlog_records, limit.backlog_bytes), (100, 10, 1000));
        (0..10).for_each(|_| limiter.sent(300, true, day));
        limiter.sent(1 << 20, false, day);
        let later = now + Duration::from_secs(1);
        assert_eq!(limiter.narrow(ALL, later, day).backlog_records, 10);
        // 3000 bytes went out on an allowance of 1000: that is paid for first.
        assert_eq!(limiter.narrow(ALL, later, day).backlog_bytes, 0);
        let later = now + Duration::from_secs(600);
        assert_eq!(limiter.narrow(ALL, later, day).backlog_records, 20, "two seconds' worth");
    }

    #[test]
    fn a_spent_day_lets_alerts_through_and_outlives_a_restart() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let daily = limits(None, None, Some(5000));
        let today = at("2026-11-21T10:00:00Z", ClockState::Synced);
        let mut limiter = Limiter::new(&daily, dir.path(), now);
        assert_eq!(limiter.narrow(ALL, now, today).lanes, SENT);
        limiter.sent(5000, false, today);
        assert_eq!(limiter.narrow(ALL, now, today).lanes, ALWAYS);
        limiter.close();

        let mut limiter = Limiter::new(&daily, dir.path(), now);
        assert_eq!(limiter.used_today(), Some(5000));
        let yesterday = at("2026-11-20T10:00:00Z", ClockState::Synced);
        assert!(limiter.is_spent(today) && limiter.is_spent(yesterday));
        assert!(!limiter.is_spent(at("2026-11-22T00:00:00Z", ClockState::Synced)));
    }

    #[test]
    fn a_clock_that_was_far_ahead_does_not_end_the_budget_for_years() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut limiter = Limiter::new(&limits(None, None, Some(5000)), dir.path(), now);
        let day = |timestamp| at(timestamp, ClockState::Synced);
        limiter.sent(5000, false, day("2099-01-01T00:00:00Z"));
        // Back to the present: no second budget for today.
        assert!(limiter.is_spent(day("2026-11-21T10:00:00Z")));
        // A start without a clock, in 1970, changes nothing.
        assert!(limiter.is_spent(at("1970-01-01T00:00:10Z", ClockState::Unsynced)));
        assert!(limiter.is_spent(day("2026-11-21T12:00:00Z")));
        assert!(!limiter.is_spent(day("2026-11-22T10:00:00Z")));
    }
}
