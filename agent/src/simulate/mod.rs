//! A fleet in one process, to see what a broker and a bridge carry: devices with certificates of their own that publish
//! as the agent does, each over a connection of its own, and keep each record until the bridge has acknowledged it.
//!
//! It has the link's window and MQTT client, and the payloads of `edgeveil-wire`, numbered without gaps, so that
//! `edgeveil-bridge verify --gapless` can judge a run. It has no spool: what was not acknowledged when it ends is lost, and
//! counted. Bounds: a device has at most [`MAX_OPEN`] records open, of which it keeps numbers and not payloads, and the
//! window's bytes under way; what would be made beyond is left out and counted. Latencies are counted in fixed buckets.

mod certs;
mod device;
mod histogram;
mod record;
mod stats;
mod webhook;

pub use certs::{Authority, CertsError, Member};
pub use record::Picture;
pub use stats::{Kind, Latency, Report, Row};

use crate::settings::MqttVersion;
use edgeveil_wire::Topics;
use stats::Stats;
use std::{net::SocketAddr, num::NonZeroU64, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Records of one device that are made and not acknowledged, at most: 64 bytes each.
const MAX_OPEN: usize = 1000;
/// How often the open records are counted, and the backlog is looked at in so many points at most.
const LEAST_SPAN: Duration = Duration::from_secs(1);
const MOST_POINTS: u32 = 60;

/// What is simulated.
pub struct Fleet {
    /// Name or address of the broker; its certificate must be made out to it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Version of MQTT.
    pub mqtt_version: MqttVersion,
    /// Topic prefix.
    pub topics: Topics,
    /// Who the devices are; one connection each.
    pub members: Vec<Member>,
    /// Readings a second, of all devices together.
    pub readings: f64,
    /// Share of the readings that an alert is raised over.
    pub alerts: f64,
    /// Images a second, of all devices together.
    pub images: f64,
    /// What they show.
    pub picture: Option<Picture>,
    /// The connections are made one after the other within so long, before the first record.
    pub ramp: Duration,
    /// When no more records are made.
    pub until: Until,
    /// All connections break at once so often.
    pub storm: Option<Duration>,
    /// Records of one device sent and not acknowledged, at most.
    pub window: usize,
    /// A record that nobody acknowledged for so long is sent again.
    pub ack_timeout: Duration,
    /// How long acknowledgements are waited for at the end.
    pub wait: Duration,
    /// Where the bridge's webhook posts alerts.
    pub webhook: Option<SocketAddr>,
}

/// When no more records are made.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so long.
    Time(Duration),
    /// After so many.
    Count(NonZeroU64),
}

/// What all devices share.
struct Shared {
    fleet: Fleet,
    stats: Stats,
    /// When the first records are made, and what the wall clock shows then.
    begin: Instant,
    begin_timestamp: jiff::Timestamp,
    /// No more records are made.
    made: CancellationToken,
    /// The patience is over, or somebody wants it to end.
    over: CancellationToken,
    /// Counts storms.
    storms: watch::Receiver<u64>,
}

/// Runs it to its end, or until it is stopped.
pub async fn run(fleet: Fleet, stop: CancellationToken) -> anyhow::Result<Report> {
    let began = Instant::now();
    let (storm, storms) = watch::channel(0);
    let made = stop.child_token();
    let over = CancellationToken::new();
    let stats = Stats::new(fleet.until, fleet.webhook.is_some());
    let listener = match fleet.webhook {
        Some(address) => Some(webhook::listen(address).await?),
        None => None,
    };
    let begin = began + fleet.ramp;
    let shared = Arc::new(Shared {
        begin,
        begin_timestamp: jiff::Timestamp::now() + jiff::SignedDuration::try_from(fleet.ramp)?,
        fleet,
        stats,
        made: made.clone(),
        over: over.clone(),
        storms,
    });
    let hook = listener.map(|listener| tokio::spawn(webhook::serve(listener, shared.clone())));
    let mut devices = JoinSet::new();
    let count = shared.fleet.members.len();
    for n in 0..count {
        let start = began + shared.fleet.ramp.mul_f64(n as f64 / count as f64);
        devices.spawn(device::run(n, start, shared.clone()));
    }
    make(&shared, &storm).await;
    made.cancel();
    shared.stats.made_all();
    // A second wish to stop ends the wait, too.
    let last = Instant::now() + shared.fleet.wait;
    tokio::select! {
        () = sleep_until(last) => {}
        () = async { while devices.join_next().await.is_some() {} } => {}
    }
    // Alerts are forwarded after they were acknowledged.
    if shared.fleet.webhook.is_some() {
        while Instant::now() < last && shared.stats.awaits_forwarding() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    over.cancel();
    while devices.join_next().await.is_some() {}
    if let Some(hook) = hook {
        hook.abort();
    }
    Ok(shared.stats.report(&shared.fleet, shared.begin))
}

/// Waits while records are made, lets storms break out, and counts what is open.
async fn make(shared: &Shared, storm: &watch::Sender<u64>) {
    let fleet = &shared.fleet;
    tokio::select! {
        () = sleep_until(shared.begin) => {}
        () = shared.made.cancelled() => return,
    }
    let (end, span) = match fleet.until {
        Until::Time(time) => (Some(shared.begin + time), (time / MOST_POINTS).max(LEAST_SPAN)),
        Until::Count(_) => (None, LEAST_SPAN),
    };
    let mut look = interval(span);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_storm = fleet.storm.map(|every| shared.begin + every);
    loop {
        let never = Instant::now() + Duration::from_secs(86_400);
        tokio::select! {
            () = shared.made.cancelled() => return,
            () = sleep_until(end.unwrap_or(never)) => if end.is_some() { return },
            () = sleep_until(next_storm.unwrap_or(never)) => if let (Some(at), Some(every)) = (next_storm, fleet.storm) {
                storm.send_modify(|count| *count += 1);
                next_storm = Some(at + every);
            },
            _ = look.tick() => shared.stats.look(),
        }
    }
}
