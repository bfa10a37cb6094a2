//! Measures the agent and its board at an interval, for `health`; and records drops as events.

use crate::{board, clock::Clock, record::Records, sense::celsius, state::State};
use edgeveil_spool::{Degraded, Reason, Spool, Stats};
use edgeveil_wire::{Board, BootId, EventKind, Health, Lane, LaneHealth};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::block_in_place,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// Measures the agent and its board.
pub struct Meter {
    /// This start of the agent.
    pub boot: BootId,
    /// Where the kernel shows its devices.
    pub sysfs: PathBuf,
    /// What the lanes hold.
    pub spool: Spool,
    /// What the parts have counted.
    pub state: Arc<State>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// What the task needs.
pub struct Monitor {
    /// Measures.
    pub meter: Arc<Meter>,
    /// How often it does.
    pub every: Duration,
    /// Where drops are recorded.
    pub records: Records,
    /// The newest payload.
    pub newest: watch::Sender<Vec<u8>>,
}

/// How often it is looked whether the board holds its processor back, where `health` is published less often.
const LOOK: Duration = Duration::from_secs(10);

impl Meter {
    /// All of it as it is now. May block where a disk does.
    pub fn measure(&self) -> Health {
        let counted = self.state.counted();
        let stats = self.spool.stats();
        let now = self.clock.now();
        match &stats.degraded {
            Some(degraded) => _ = self.state.problem("spool disk", &words(degraded)),
            None => self.state.solved("spool disk"),
        }
        Health {
            boot: self.boot,
            timestamp: now.timestamp,
            clock: now.clock,
            uptime_ms: u64::try_from(now.uptime.as_millis()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            spool: lanes(&stats, &counted.dropped),
            link: counted.link,
            cameras: counted.cameras,
            sensors: counted.sensors,
            board: measured(&self.sysfs, stats.free_bytes),
        }
    }
}

impl Monitor {
    /// Measures until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let [mut ticks, mut looks] = [self.every, self.every.min(LOOK)].map(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = BTreeMap::new();
        loop {
            let stopping = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                _ = looks.tick() => {
                    self.look().await;
                    continue;
                }
                _ = ticks.tick() => false,
            };
            let health = block_in_place(|| self.meter.measure());
            self.tell_drops(&health, &mut told).await;
            if stopping {
                // The counters end with the process; what they have not told yet is a record now.
                return;
            }
            self.newest.send_replace(health.to_json());
        }
    }

    /// Tells of a board that holds its processor back: cameras then take fewer pictures.
    async fn look(&self) {
        let throttling = block_in_place(|| board::throttling(&self.meter.sysfs)).unwrap_or_default();
        let state = &self.meter.state;
        if throttling.now.is_empty() {
            if state.throttle(false) {
                state.solved("board");
                tracing::info!("the board no longer holds its processor back");
                let what = "it runs at full speed again".to_owned();
                self.records.event_async(EventKind::BoardRecovered, None, what).await;
            }
            return;
        }
        let reasons: Vec<_> = throttling.now.iter().map(board::advice).collect();
        let what = format!("{}; cameras go down to camera.throttled_fps", reasons.join(", "));
        state.problem("board", &what);
        if state.throttle(true) {
            tracing::warn!("the board holds its processor back: {what}");
            self.records.event_async(EventKind::BoardThrottled, None, what).await;
        }
    }

    /// One event for all that was dropped since this start, when there is more than the last one told. On a full disk
    /// such an event may be dropped itself, which is news again: the next one then tells the same and more.
    async fn tell_drops(&self, health: &Health, told: &mut BTreeMap<String, BTreeMap<String, u64>>) {
        let all = health.spool.iter().filter(|(_, lane)| !lane.dropped.is_empty());
        let all: BTreeMap<_, _> = all.map(|(name, lane)| (name.clone(), lane.dropped.clone())).collect();
        if all == *told {
            return;
        }
        let lane = |(name, dropped): (&String, &BTreeMap<String, u64>)| {
            let counts: Vec<_> = dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            format!("{name}: {}", counts.join(", "))
        };
        let lanes: Vec<_> = all.iter().map(lane).collect();
        let detail = format!("records dropped since the start: {}", lanes.join("; "));
        self.records.event_async(EventKind::Dropped, None, detail).await;
        *told = all;
    }
}

/// The spool by lane. Its maps have an entry for each lane and reason, of which there are few.
fn lanes(stats: &Stats, not_taken: &[u64; 4]) -> BTreeMap<String, LaneHealth> {
    let lane = |(lane, stats): (Lane, &edgeveil_spool::LaneStats)| {
        let counts = Reason::ALL.map(|reason| (reason.as_str(), stats.dropped_for(reason)));
        let not_taken = ("not_taken", not_taken[lane as usize]);
        let dropped = counts.into_iter().chain([not_taken]).filter(|(_, count)| *count > 0);
        let health = LaneHealth {
            records: stats.records,
            bytes: stats.bytes,
            accepted: stats.pushed,
            delivered: stats.done,
            dropped: dropped.map(|(reason, count)| (reason.to_owned(), count)).collect(),
        };
        (lane.as_str().to_owned(), health)
    };
    Lane::ALL.into_iter().zip(&stats.lanes).map(lane).collect()
}

fn words(degraded: &Degraded) -> String {
    match degraded {
        Degraded::DiskLow => {
            "little free space: the oldest and least important records give way, or new ones find no room; free some, or lower spool.min_free".to_owned()
        }
        Degraded::DiskFull(why) => format!("the disk is full ({why}): free some space"),
        Degraded::Fault(why) => why.clone(),
    }
}

fn measured(sysfs: &Path, disk_free_bytes: Option<u64>) -> Board {
    Board {
        temperature_c: hottest(&sysfs.join("class/thermal")),
        load_1m: fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|text| text.split(' ').next()?.parse().ok()),
        memory_available_bytes: kib("/proc/meminfo", "MemAvailable:"),
        resident_bytes: kib("/proc/self/status", "VmRSS:"),
        disk_free_bytes,
        throttling: board::throttling(sysfs),
        wireless: board::wireless(Path::new("/proc/net/wireless")),
    }
}

fn hottest(zones: &Path) -> Option<f64> {
    let zones = fs::read_dir(zones).ok()?.flatten();
    zones.filter_map(|zone| celsius(&zone.path().join("temp")).ok()).max_by(f64::total_cmp)
}

/// A line such as `VmRSS:  1234 kB` of a file of the kernel, in bytes.
fn kib(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}
