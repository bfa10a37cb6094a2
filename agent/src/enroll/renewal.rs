//! Asks for the next certificate while the current one is still good, and puts it beside it for the link to try.

use super::{
    ask::{self, BridgeUrl},
    folder::{Folder, Place},
};
use crate::{clock::Clock, link::Identity, random_share, settings, state::State};
use edgeveil_wire::{ClockState, DeviceName};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// What it needs.
pub struct Renewal {
    /// Where the identities are.
    pub folder: Folder,
    /// When, and where.
    pub settings: settings::Renew,
    /// How the current identity is found.
    pub link: settings::Link,
    /// Whose it is.
    pub device: DeviceName,
    /// Shows what is wrong.
    pub state: Arc<State>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// The part of it that is shown in the status.
pub const PART: &str = "renewal";
/// Somebody may put other files there, or set the clock.
const LOOK: Duration = Duration::from_secs(60);
/// While an identity is tried.
const TRIAL: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_secs(30);
const LAST_RETRY: Duration = Duration::from_secs(6 * 3600);
/// Devices that were enrolled together are spread over this share of the lifetime.
const SPREAD: f64 = 0.05;

/// When a certificate is to be renewed: after a share of its lifetime. `random` is in [0, 1).
pub fn due(begins: Timestamp, ends: Timestamp, share: f64, random: f64) -> Timestamp {
    let lifetime = ends.duration_since(begins).as_secs_f64().max(0.0);
    let share = (share + SPREAD * random).min(1.0);
    begins.checked_add(SignedDuration::from_secs_f64(lifetime * share)).unwrap_or(ends)
}

/// How long to wait after so many failures in a row: longer each time, but near the end of the certificate not longer than
/// a quarter of what is left of it.
fn retry(failures: u32, left: SignedDuration, random: f64) -> Duration {
    let wait = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(LAST_RETRY);
    let left = Duration::try_from(left).unwrap_or_default();
    let bound = if left.is_zero() { LAST_RETRY } else { (left / 4).max(Duration::from_secs(1)) };
    wait.min(bound).mul_f64(0.5 + 0.5 * random)
}

/// What has happened since the agent started.
struct Progress {
    /// Of this certificate's lifetime.
    random: f64,
    failures: u32,
    not_before: Instant,
    /// What waits to be tried, or was tried last.
    given: Option<String>,
}

impl Renewal {
    /// Renews until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut progress =
            Progress { random: random_share(), failures: 0, not_before: Instant::now(), given: None };
        let work = async {
            loop {
                let wait = self.step(&mut progress).await;
                sleep(wait).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Does what is to be done now, and tells when to look again.
    async fn step(&self, progress: &mut Progress) -> Duration {
        if self.folder.next().is_some() {
            return TRIAL;
        }
        // What is wrong with the current identity is the link's to tell.
        let Ok(identity) = block_in_place(|| Identity::load(&self.link)) else { return LOOK };
        let now = self.clock.now();
        let left = identity.not_after.duration_since(now.timestamp);
        if let Some(given) = progress.given.take() {
            let taken =
                std::fs::read_to_string(self.folder.current().cert).is_ok_and(|current| current == given);
            if taken {
                (progress.random, progress.failures) = (random_share(), 0);
            } else {
                // The link has said why.
                self.put_off(progress, left);
            }
        }
        // Nobody knows when, before the clock is set.
        if now.clock == ClockState::Unsynced || identity.device != self.device {
            return LOOK;
        }
        let due = due(identity.not_before, identity.not_after, self.settings.after, progress.random);
        let until_due = Duration::try_from(due.duration_since(now.timestamp)).unwrap_or_default();
        let rest = until_due.max(progress.not_before.saturating_duration_since(Instant::now()));
        if !rest.is_zero() {
            return rest.min(LOOK);
        }
        // One that was put here by hand is whoever's who put it.
        let Some(url) = self.settings.url.clone().or_else(|| self.folder.current().url()?.parse().ok())
        else {
            return LOOK;
        };
        let asked = if left.is_positive() {
            self.ask(&url, &identity).await
        } else {
            Err("it cannot be renewed any more; enrol anew with a token (`edgeveil-bridge enroll token`), with --force".to_owned())
        };
        match asked {
            Ok(given) => {
                tracing::info!(bridge = %url, "there is a new certificate; the next connection tries it");
                progress.given = given;
                TRIAL
            }
            Err(why) => {
                let what =
                    format!("the certificate ends on {} and was not renewed: {why}", identity.not_after);
                if self.state.problem(PART, &what) {
                    tracing::warn!("{what}");
                }
                self.put_off(progress, left);
                LOOK.min(progress.not_before.saturating_duration_since(Instant::now()))
            }
        }
    }

    fn put_off(&self, progress: &mut Progress, left: SignedDuration) {
        progress.failures = progress.failures.saturating_add(1);
        progress.not_before = Instant::now() + retry(progress.failures, left, random_share());
    }

    async fn ask(&self, url: &BridgeUrl, current: &Identity) -> Result<Option<String>, String> {
        let prepared = block_in_place(|| self.folder.prepare()).map_err(|error| error.to_string())?;
        let Some(pending) = prepared else { return Ok(None) };
        let enrolled = ask::renew(url, current, &pending.key).await.map_err(|error| error.to_string())?;
        let url = url.to_string();
        block_in_place(|| self.folder.complete(pending, ask::given(&enrolled, &url), Place::Next))
            .map_err(|error| error.to_string())?;
        Ok(Some(enrolled.certificate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_certificate_is_due_after_a_share_of_its_lifetime_and_not_all_at_once() {
        let (begins, ends) = (at("2026-01-01T00:00:00Z"), at("2026-04-01T00:00:00Z"));
        assert_eq!(due(begins, ends, 0.5, 0.0), at("2026-02-15T00:00:00Z"));
        assert_eq!(due(begins, ends, 0.5, 0.5), at("2026-02-17T06:00:00Z"));
        assert_eq!(due(begins, ends, 0.99, 0.9), ends);
        // Nonsense is due at once and does not panic.
        assert_eq!(due(ends, begins, 0.5, 0.0), ends);
    }

    #[test]
    fn failures_space_out_and_the_end_brings_them_closer() {
        let (day, year) = (SignedDuration::from_hours(24), SignedDuration::from_hours(24 * 365));
        assert_eq!(retry(1, year, 0.0), FIRST_RETRY / 2);
        assert!(retry(1, year, 0.99) > FIRST_RETRY * 9 / 10);
        assert_eq!(retry(4, year, 0.0), FIRST_RETRY * 4);
        assert_eq!(retry(u32::MAX, year, 0.0), LAST_RETRY / 2);
        assert_eq!(retry(u32::MAX, day / 24, 0.0), Duration::from_secs(450));
        assert_eq!(retry(9, SignedDuration::from_secs(1), 0.0), Duration::from_millis(500));
        assert_eq!(retry(u32::MAX, SignedDuration::from_secs(-5), 0.0), LAST_RETRY / 2);
    }
}
