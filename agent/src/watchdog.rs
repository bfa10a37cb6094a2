//! Feeds systemd's watchdog for as long as the parts that carry data make progress.
//!
//! A camera or a sensor that hangs does not count: it is told of in the status, and a restart would cost the others their
//! records. Without `WatchdogSec=` in the unit nothing of this does anything.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// A part that must not stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Writes records to the spool.
    Writer,
    /// Delivers them, or waits to try again.
    Link,
    /// Veils frames.
    Vision,
}

impl Part {
    const ALL: [Self; 3] = [Self::Writer, Self::Link, Self::Vision];
}

/// A part that has nothing to do says so that often, or oftener.
pub const BEAT: Duration = Duration::from_secs(5);

/// When each part has last shown that it goes on. A part counts from its first beat.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    /// Milliseconds after `started`, and one more; 0 for a part that has not begun.
    last: [AtomicU64; Part::ALL.len()],
}

impl Default for Progress {
    fn default() -> Self {
        Self { started: Instant::now(), last: Default::default() }
    }
}

impl Progress {
    /// The part goes on.
    pub fn beat(&self, part: Part) {
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last[part as usize].store(passed + 1, Relaxed);
    }

    /// A part that has begun and not gone on for so long.
    fn standing_still(&self, patience: Duration) -> Option<Part> {
        let now = self.started.elapsed();
        Part::ALL.into_iter().find(|part| {
            let last = self.last[*part as usize].load(Relaxed);
            last > 0 && now.saturating_sub(Duration::from_millis(last - 1)) > patience
        })
    }
}

/// Feeds the watchdog until it is told to stop, or until a part stands still for as long as the watchdog waits.
pub async fn feed(progress: &Progress, stop: CancellationToken) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = interval(patience / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match progress.standing_still(patience) {
            None => {
                told = false;
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            Some(part) if !told => {
                told = true;
                tracing::error!(?part, seconds = patience.as_secs(), "stands still: the watchdog is not fed");
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_never_began_is_not_missed_and_one_that_stopped_is() {
        let progress = Progress::default();
        assert_eq!(progress.standing_still(Duration::ZERO), None);
        progress.beat(Part::Link);
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(progress.standing_still(Duration::ZERO), Some(Part::Link));
        assert_eq!(progress.standing_still(Duration::from_secs(3600)), None);
    }
}
