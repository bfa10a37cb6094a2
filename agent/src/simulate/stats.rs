//! What is counted, and what is told of it.

use super::{Fleet, Until, histogram::Histogram};
use edgeveil_wire::Lane;
use serde::Serialize;
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Alerts whose forwarding is waited for, at most; those beyond are not looked at.
const MAX_FORWARDING: usize = 100_000;
/// Looks at the backlog that are kept: once there are so many, every second one goes.
const MAX_LOOKS: usize = 128;

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Of a sensor group.
    Reading,
    /// Over a reading.
    Alert,
    /// Of a camera.
    Image,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reading, Self::Alert, Self::Image];

    /// Where its records are counted.
    pub fn lane(self) -> Lane {
        match self {
            Self::Reading => Lane::Reading,
            Self::Alert => Lane::Alert,
            Self::Image => Lane::Image,
        }
    }
}

#[derive(Default)]
struct Count {
    made: AtomicU64,
    delivered: AtomicU64,
}

/// Counters of the whole fleet.
pub struct Stats {
    counts: [Count; 3],
    latencies: [Histogram; 3],
    forwarded: Histogram,
    forwarded_count: AtomicU64,
    /// Alerts that the webhook has not posted, and when they were due.
    forwarding: Mutex<HashMap<[u8; 16], Instant>>,
    watches: bool,
    /// How many records may still be made.
    left: AtomicI64,
    pub held_back: AtomicU64,
    pub repeated: AtomicU64,
    pub connections: AtomicU64,
    pub lost: AtomicU64,
    pub failed: AtomicU64,
    pub refused: AtomicU64,
    times: Mutex<Times>,
    looks: Mutex<Looks>,
}

#[derive(Default)]
struct Times {
    made_all: Option<Instant>,
    last_delivery: Option<Instant>,
    /// Open records when no more were made.
    open: u64,
    /// Why the first connection was lost that no storm has broken, or the first publish refused.
    trouble: Option<String>,
}

#[derive(Default)]
struct Looks {
    every: u64,
    count: u64,
    open: Vec<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stats {
    /// `watches`: alerts are looked for at the webhook.
    pub fn new(until: Until, watches: bool) -> Self {
        let left = match until {
            Until::Time(_) => i64::MAX,
            Until::Count(count) => i64::try_from(count.get()).unwrap_or(i64::MAX),
        };
        Self {
            counts: Default::default(),
            latencies: [(); 3].map(|()| Histogram::new()),
            forwarded: Histogram::new(),
            forwarded_count: AtomicU64::new(0),
            forwarding: Mutex::default(),
            watches,
            left: AtomicI64::new(left),
            held_back: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            times: Mutex::default(),
            looks: Mutex::new(Looks { every: 1, ..Looks::default() }),
        }
    }

    /// Whether one more record may be made; it is counted then.
    pub fn make(&self, kind: Kind) -> bool {
        if self.left.fetch_sub(1, Relaxed) <= 0 {
            return false;
        }
        self.counts[kind as usize].made.fetch_add(1, Relaxed);
        true
    }

    pub fn alert(&self, id: [u8; 16], due: Instant) {
        if self.watches {
            let mut forwarding = lock(&self.forwarding);
            if forwarding.len() < MAX_FORWARDING {
                forwarding.insert(id, due);
            }
        }
    }

    pub fn delivered(&self, kind: Kind, took: Duration) {
        self.counts[kind as usize].delivered.fetch_add(1, Relaxed);
        self.latencies[kind as usize].count(took);
        lock(&self.times).last_delivery = Some(Instant::now());
    }

    /// The webhook has been posted an alert.
    pub fn forwarded(&self, id: [u8; 16]) {
        if let Some(due) = lock(&self.forwarding).remove(&id) {
            self.forwarded.count(due.elapsed());
            self.forwarded_count.fetch_add(1, Relaxed);
        }
    }

    pub fn awaits_forwarding(&self) -> bool {
        !lock(&self.forwarding).is_empty()
    }

    pub fn trouble(&self, why: impl FnOnce() -> String) {
        lock(&self.times).trouble.get_or_insert_with(why);
    }

    fn open(&self) -> u64 {
        let sum = |of: fn(&Count) -> &AtomicU64| {
            self.counts.iter().map(|count| of(count).load(Relaxed)).sum::<u64>()
        };
        // What is delivered in between counts, what is made in between does not.
        let made = sum(|count| &count.made);
        made.saturating_sub(sum(|count| &count.delivered))
    }

    pub fn made_all(&self) {
        let open = self.open();
        let mut times = lock(&self.times);
        times.made_all.get_or_insert_with(Instant::now);
        times.open = open;
    }

    /// Notes how many records are open.
    pub fn look(&self) {
        let open = self.open();
        let mut looks = lock(&self.looks);
        looks.count += 1;
        if !looks.count.is_multiple_of(looks.every) {
            return;
        }
        looks.open.push(open);
        if looks.open.len() >= MAX_LOOKS {
            let mut n = 0;
            looks.open.retain(|_| {
                n += 1;
                n % 2 == 0
            });
            looks.every *= 2;
        }
    }

    pub fn report(&self, fleet: &Fleet, begin: Instant) -> Report {
        let times = lock(&self.times);
        let seconds =
            |at: Option<Instant>| at.map_or(0.0, |at| at.saturating_duration_since(begin).as_secs_f64());
        let (making, all) = (seconds(times.made_all), seconds(times.last_delivery));
        let latency = |histogram: &Histogram| {
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            let of = |share| histogram.quantile(share).map(ms);
            Some(Latency {
                p50: of(0.5)?,
                p90: of(0.9)?,
                p95: of(0.95)?,
                p99: of(0.99)?,
                max: histogram.most().map(ms)?,
            })
        };
        let rows = Kind::ALL.map(|kind| {
            let count = &self.counts[kind as usize];
            let delivered = count.delivered.load(Relaxed);
            Row {
                kind,
                made: count.made.load(Relaxed),
                delivered,
                per_second: if all > 0.0 { delivered as f64 / all } else { 0.0 },
                latency_ms: latency(&self.latencies[kind as usize]),
            }
        });
        let unacknowledged = rows.iter().map(|row| row.made - row.delivered).sum();
        Report {
            schema: "edgeveil.simulate/1",
            devices: fleet.members.len(),
            seconds: making,
            records: rows,
            forwarded: fleet.webhook.is_some().then(|| Forwarded {
                alerts: self.forwarded_count.load(Relaxed),
                missing: lock(&self.forwarding).len() as u64,
                latency_ms: latency(&self.forwarded),
            }),
            connections: self.connections.load(Relaxed),
            connections_lost: self.lost.load(Relaxed),
            connections_failed: self.failed.load(Relaxed),
            repeated: self.repeated.load(Relaxed),
            refused: self.refused.load(Relaxed),
            held_back: self.held_back.load(Relaxed),
            backlog: lock(&self.looks).open.clone(),
            backlog_at_end: times.open,
            unacknowledged,
            trouble: times.trouble.clone(),
        }
    }
}

/// What a run came to.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    /// As many connections.
    pub devices: usize,
    /// How long records were made.
    pub seconds: f64,
    /// By kind.
    pub records: [Row; 3],
    /// With a webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<Forwarded>,
    /// That came about, storms included.
    pub connections: u64,
    /// That broke, storms included.
    pub connections_lost: u64,
    /// That did not come about.
    pub connections_failed: u64,
    /// Records that were sent again.
    pub repeated: u64,
    /// Publishes that the broker has refused; MQTT 5 only.
    pub refused: u64,
    /// Records that were due and not made, because too many of the device were open.
    pub held_back: u64,
    /// Open records at evenly spaced moments.
    pub backlog: Vec<u64>,
    /// And when the last one was made.
    pub backlog_at_end: u64,
    /// Records that were made and not acknowledged.
    pub unacknowledged: u64,
    /// Of what went wrong first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Of one kind.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which.
    pub kind: Kind,
    /// Records.
    pub made: u64,
    /// Those that the bridge has acknowledged.
    pub delivered: u64,
    /// From the first moment to the last acknowledgement.
    pub per_second: f64,
    /// From the record's time on its device to its acknowledgement.
    pub latency_ms: Option<Latency>,
}

/// Alerts at the webhook.
#[derive(Debug, Serialize)]
pub struct Forwarded {
    /// As many came.
    pub alerts: u64,
    /// As many did not.
    pub missing: u64,
    /// From the record's time on its device.
    pub latency_ms: Option<Latency>,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// 90 % are not above.
    pub p90: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}
