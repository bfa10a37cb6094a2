//! The connection to the broker: takes records out of the spool, publishes them, and lets the spool forget them once
//! their receiver has them.
//!
//! rumqttc keeps a queue and a set of in-flight packets of its own, and forgets them when a broker comes back without
//! the session. So nothing is left to it: each connection has a client and an event loop of its own, a [`Window`]
//! knows which record is behind which packet id, and whatever was not acknowledged when a connection ends goes back
//! to the spool. A record that arrives twice is recognised by its id.

mod explain;
mod identity;
mod limit;
pub(crate) mod mqtt;
mod restamp;
mod session;
mod trial;
pub(crate) mod window;

pub use explain::{explain, find};
pub use identity::{Identity, IdentityError};

use crate::{
    clock::Clock,
    enroll::Folder,
    random_share, settings,
    state::State,
    tuning::Afar,
    watchdog::{BEAT, Part, Progress},
};
use edgeveil_spool::Spool;
use edgeveil_wire::{BootId, DeviceName};
use limit::Limiter;
use restamp::Restamp;
use session::{End, Lost, Setting};
use std::{mem, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use trial::Trial;

/// What the link needs.
pub struct Link {
    /// What it was told.
    pub settings: settings::Link,
    /// The device's name: it is the common name of the certificate.
    pub device: DeviceName,
    /// Where the day's bytes are noted.
    pub data_dir: PathBuf,
    /// This start of the agent.
    pub boot: BootId,
    /// Where the records are.
    pub spool: Spool,
    /// Told when there are new ones.
    pub committed: Arc<Notify>,
    /// The newest `health` payload.
    pub health: watch::Receiver<Vec<u8>>,
    /// Counts, and shows what is wrong.
    pub state: Arc<State>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Settings from afar, unless they are not wanted.
    pub afar: Option<Afar>,
    /// Told that the link goes on, connected or not.
    pub progress: Arc<Progress>,
}

/// Of MQTT 3.1.1 without a bridge's acknowledgements.
pub const BLIND: &str = "with MQTT 3.1.1 and link.acknowledgement = \"broker\", what the broker's ACL denies or its bounds forbid counts as delivered, since its PUBACK does not say so";

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// A link that is too slow for a ping behind a large image gets a longer keep-alive, up to what AWS IoT Core allows.
const SLOWEST_KEEP_ALIVE: Duration = Duration::from_secs(1200);
/// A connection that lasted so long was a good one, as is one that delivered something: the next attempt comes soon.
const GOOD: Duration = Duration::from_secs(5);

impl Link {
    /// Keeps connected until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        if self.settings.believes_blindly() {
            tracing::warn!("{BLIND}");
        }
        let mut retry = FIRST_RETRY;
        let mut limiter = Limiter::new(&self.settings.limits, &self.data_dir, Instant::now());
        let mut restamp = Restamp::new(self.boot);
        let mut keep_alive = self.settings.keep_alive;
        let mut trial = Trial::new(self.settings.folder.clone().map(Folder::new));
        let mut unanswered = 0;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let next = trial.due().map(|files| self.settings.with(&files));
            let setting = Setting {
                keep_alive,
                next: next.as_ref(),
                trial: &trial,
                unanswered: mem::take(&mut unanswered),
            };
            let end = session::run(&self, &mut limiter, &mut restamp, setting, &stop).await;
            self.spool.release_all();
            limiter.close();
            self.state.disconnected(self.clock.now().uptime);
            let Lost { why, had_connected, was_refused, had_delivered, was_slow } = match end {
                End::Stopped => return,
                End::Renewed => {
                    trial.current(true);
                    tracing::info!("certificate files have changed: connecting with the new ones");
                    continue;
                }
                End::Silent(rounds) => {
                    unanswered = rounds;
                    tracing::info!(
                        rounds,
                        "the bridge has not answered for long: connecting anew, in case the broker has stopped passing its answers on"
                    );
                    continue;
                }
                End::Lost(lost) => lost,
            };
            if next.is_none() {
                trial.current(had_connected);
            } else if !had_connected {
                trial.failed(was_refused, &why, &self.state);
                continue;
            }
            if self.state.problem("link", &why) {
                tracing::warn!(error = %why, "not connected; records wait on disk");
            }
            if began.elapsed() > GOOD || had_delivered {
                retry = FIRST_RETRY;
            }
            keep_alive =
                if was_slow { (keep_alive * 2).min(SLOWEST_KEEP_ALIVE) } else { self.settings.keep_alive };
            // Half of the time is random, so that a thousand devices do not come back at once.
            let wait = retry.mul_f64(0.5 + 0.5 * random_share());
            retry = (retry * 2).min(LAST_RETRY);
            stop.run_until_cancelled(self.rest(wait)).await;
        }
    }

    async fn rest(&self, wait: Duration) {
        let end = Instant::now() + wait;
        while Instant::now() < end {
            self.progress.beat(Part::Link);
            sleep_until(end.min(Instant::now() + BEAT)).await;
        }
    }
}
