//! Alerts of which one message tells: of each sensor group how many, how bad, and the worst of them.

use crate::catalog::OutboxRow;
use edgeveil_wire::Severity;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Alerts of one message at the most; more go into the next one.
pub const MAX_ALERTS: usize = 100_000;
/// Sensor groups that are told apart. Of more only the number of alerts is told.
const MAX_SOURCES: usize = 200;
/// Of these the worst are put into a message.
const SHOWN: usize = 10;

/// What is read of an alert's JSON.
#[derive(Debug, Deserialize)]
struct Told {
    id: String,
    source: String,
    timestamp: Timestamp,
    severity: Severity,
    score: f64,
    threshold: f64,
    #[serde(default)]
    contributions: BTreeMap<String, f64>,
    /// The values by name, among other things.
    #[serde(flatten)]
    others: HashMap<String, serde_json::Value>,
}

impl Told {
    fn unknown(row: &OutboxRow) -> Self {
        Self {
            id: row.record.clone(),
            source: "unknown".to_owned(),
            timestamp: Timestamp::now(),
            severity: Severity::Warning,
            score: 0.0,
            threshold: 0.0,
            contributions: BTreeMap::new(),
            others: HashMap::new(),
        }
    }
}

/// The alerts since the last message.
#[derive(Debug, Default)]
pub struct Group {
    numbers: Vec<i64>,
    sources: BTreeMap<(String, String), Source>,
    worst: Option<Severity>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

#[derive(Debug)]
struct Source {
    count: usize,
    worst: Told,
    first: Timestamp,
    last: Timestamp,
}

impl Group {
    /// Puts an alert to it, unless it is less severe.
    pub fn add(&mut self, row: &OutboxRow, least: Severity) -> bool {
        let told: Option<Told> = serde_json::from_str(&row.payload).ok();
        if told.as_ref().is_some_and(|told| told.severity < least) {
            return false;
        }
        self.numbers.push(row.number);
        // One that cannot be read is told of all the same: there is always a source.
        let told = told.unwrap_or_else(|| Told::unknown(row));
        self.worst = self.worst.max(Some(told.severity));
        self.first = Some(self.first.map_or(told.timestamp, |first| first.min(told.timestamp)));
        self.last = self.last.max(Some(told.timestamp));
        let key = (row.device.clone(), told.source.clone());
        if let Some(source) = self.sources.get_mut(&key) {
            source.count += 1;
            source.first = source.first.min(told.timestamp);
            source.last = source.last.max(told.timestamp);
            if (told.severity, told.score) > (source.worst.severity, source.worst.score) {
                source.worst = told;
            }
        } else if self.sources.len() < MAX_SOURCES {
            let (first, last) = (told.timestamp, told.timestamp);
            self.sources.insert(key, Source { count: 1, worst: told, first, last });
        }
        // Of more only the number is told.
        true
    }

    /// Its rows.
    pub fn numbers(&self) -> &[i64] {
        &self.numbers
    }

    /// The worst of it.
    pub fn worst(&self) -> Option<Severity> {
        self.worst
    }

    /// For a template. `pages` is where people reach the pages.
    pub fn summary(&self, zone: &TimeZone, pages: Option<&str>) -> Summary {
        let time =
            |moment: Timestamp| moment.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        let link = |path: &str| pages.map(|pages| format!("{}{path}", pages.trim_end_matches('/')));
        let mut sources: Vec<_> = self.sources.iter().collect();
        sources.sort_by(|(_, a), (_, b)| {
            (b.worst.severity.cmp(&a.worst.severity)).then(b.worst.score.total_cmp(&a.worst.score))
        });
        let shown: Vec<_> = sources
            .iter()
            .take(SHOWN)
            .map(|((device, name), source)| {
                let worst = &source.worst;
                let cause = worst.contributions.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
                Shown {
                    device: device.clone(),
                    source: name.clone(),
                    count: source.count,
                    severity: worst.severity,
                    score: worst.score,
                    threshold: worst.threshold,
                    time: time(worst.timestamp),
                    first: time(source.first),
                    last: time(source.last),
                    cause: cause.map(|(name, _)| name.clone()),
                    share: cause.map(|(_, share)| *share),
                    value: cause.and_then(|(name, _)| worst.others.get(name)?.as_f64()),
                    link: link(&format!("/alerts/{device}/{}", worst.id)),
                }
            })
            .collect();
        let devices =
            self.sources.keys().map(|(device, _)| device).collect::<std::collections::BTreeSet<_>>().len();
        let told: usize = sources.iter().take(SHOWN).map(|(_, source)| source.count).sum();
        let link = match shown.as_slice() {
            [only] if self.numbers.len() == 1 => only.link.clone(),
            _ => link("/alerts"),
        };
        Summary {
            count: self.numbers.len(),
            devices,
            severity: self.worst.unwrap_or(Severity::Warning),
            first: self.first.map(time),
            last: self.last.map(time),
            more: self.numbers.len() - told,
            sources: shown,
            link,
        }
    }
}

/// What a template sees.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Alerts.
    pub count: usize,
    /// Devices that they are of.
    pub devices: usize,
    /// The worst.
    pub severity: Severity,
    /// The earliest, by the devices' clocks.
    pub first: Option<String>,
    /// The latest.
    pub last: Option<String>,
    /// The worst sensor groups, the worst first.
    pub sources: Vec<Shown>,
    /// Alerts of others than these.
    pub more: usize,
    /// The page that tells more.
    pub link: Option<String>,
}

/// One sensor group.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    pub device: String,
    pub source: String,
    /// Alerts of it.
    pub count: usize,
    /// From here on of the worst alert.
    pub severity: Severity,
    pub score: f64,
    pub threshold: f64,
    pub time: String,
    /// Of all of them.
    pub first: String,
    pub last: String,
    /// The value that contributed most, its share and how much it was.
    pub cause: Option<String>,
    pub share: Option<f64>,
    pub value: Option<f64>,
    pub link: Option<String>,
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use edgeveil_wire::{Alert, BootId, ClockState, Lane, RecordId, Stamp};

    pub fn row(number: u32, device: &str, score: f64) -> OutboxRow {
        let boot = BootId::from_random([1; 10]);
        let time: Timestamp = "2026-11-26T10:00:00Z".parse().unwrap();
        let time = time + jiff::SignedDuration::from_secs(i64::from(number));
        let value = |name: &str, value| (name.parse().unwrap(), value);
        let alert = Alert {
            stamp: Stamp::new(boot, Lane::Alert, u64::from(number), time, ClockState::Synced, 1),
            reading: RecordId::new(boot, Lane::Reading, u64::from(number)),
            anomaly: true,
            score,
            threshold: 0.6,
            contributions: [value("temperature", 0.7), value("humidity", 0.3)].into(),
            severity: Severity::of(score, 0.6),
            values: [value("temperature", 41.25), value("humidity", 20.0)].into(),
        };
        OutboxRow {
            number: i64::from(number),
            device: device.to_owned(),
            record: alert.stamp.id.to_string(),
            payload: crate::forward::payload(&device.parse().unwrap(), &"env".parse().unwrap(), &alert),
            attempts: 0,
            refusals: 0,
            last_error: None,
        }
    }

    pub fn group(rows: &[OutboxRow]) -> Group {
        let mut group = Group::default();
        rows.iter().for_each(|row| _ = group.add(row, Severity::Warning));
        group
    }

    #[test]
    fn a_storm_is_told_by_its_worst() {
        let mut rows: Vec<_> = (0..1000).map(|n| row(n, &format!("pi-{}", n % 300), 0.65)).collect();
        rows.push(row(1000, "pi-7", 0.95));
        rows.push(OutboxRow { payload: "{}".to_owned(), ..row(1001, "pi-8", 0.7) });
        let group = group(&rows);
        let told = group.summary(&TimeZone::UTC, Some("https://bridge.lan/"));
        assert_eq!((told.count, told.devices, told.severity), (1002, MAX_SOURCES, Severity::Critical));
        assert_eq!(told.sources.len(), SHOWN);
        assert_eq!(told.more + told.sources.iter().map(|source| source.count).sum::<usize>(), 1002);
        let worst = &told.sources[0];
        assert_eq!((worst.device.as_str(), worst.count, worst.value), ("pi-7", 5, Some(41.25)));
        assert_eq!((worst.cause.as_deref(), worst.share), (Some("temperature"), Some(0.7)));
        assert_eq!(worst.first, "2026-11-26 10:00:07 UTC");
        assert!(worst.link.as_deref().unwrap().starts_with("https://bridge.lan/alerts/pi-7/"));
        assert_eq!(told.link.as_deref(), Some("https://bridge.lan/alerts"));
        assert_eq!(group.numbers().len(), 1002);
    }

    #[test]
    fn what_is_less_severe_is_left_out() {
        let mut group = Group::default();
        assert!(!group.add(&row(1, "pi", 0.61), Severity::Critical));
        assert!(group.add(&row(2, "pi", 0.99), Severity::Critical));
        assert_eq!((group.numbers(), group.worst()), (&[2][..], Some(Severity::Critical)));
    }
}
