//! Publishers that know nothing of Edgeveil: each message of a topic is a JSON object with numbers in it, and becomes a reading of a
//! device. It is numbered and scored here, as an agent would do it.

use crate::{
    catalog::{Catalog, CatalogError, Content, Record},
    settings::LegacySettings,
};
use edgeveil_wire::{
    Alert, BootId, ClockState, DeviceName, Lane, MAX_JSON_BYTES, MAX_VALUES, Reading, Severity, Stamp,
    ValueName, Values,
};
use jiff::{Timestamp, civil, tz::TimeZone};
use linfa_isolation::{Hysteresis, StreamingForest, StreamingForestParams};
use serde_json::Value;
use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

/// Devices that are known at once, some 10 KiB each. The one that was silent for longest makes way, and learns anew when it
/// comes back.
const DEVICES: usize = 1000;
/// Devices that are scored at once: a forest takes 400 KiB for one value, 770 KiB for eight. Further ones are not.
const DETECTORS: usize = 100;
/// Readings of before that a device's detector learns from at its first message.
const PAST: u32 = 1000;
/// Readings of a device on their way into the catalog: more than a broker has under way.
const RECENT: usize = 1024;
/// Ordinary rows after which an episode is over, as with an agent.
const QUIET_ROWS: u32 = 30;
/// Numbers below are seconds since 1970, others milliseconds: the bound is the year 5138 and the year 1973.
const SECONDS: f64 = 1e11;

/// What is known of them.
pub struct Legacy {
    settings: LegacySettings,
    devices: BTreeMap<DeviceName, Publisher>,
    heard: u64,
}

/// One device.
struct Publisher {
    /// Of this start of the bridge, or since it was last forgotten: its readings and alerts are numbered from 0.
    boot: BootId,
    readings: u64,
    alerts: u64,
    /// The values that the first row named, and what was learned of them.
    learned: Option<(Vec<ValueName>, StreamingForest)>,
    /// Whether there was room for a detector.
    is_scored: bool,
    /// When it was last heard, counted in messages.
    heard: u64,
    /// Fingerprints of the newest readings, which may not be committed yet.
    recent: VecDeque<u64>,
}

/// A message that was understood.
#[derive(Debug, PartialEq)]
struct Row {
    device: DeviceName,
    /// None: it says none that can be read.
    timestamp: Option<Timestamp>,
    values: Values,
}

impl Row {
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.timestamp.hash(&mut hasher);
        for (name, value) in &self.values {
            (name.as_str(), value.to_bits()).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Legacy {
    /// Knows nobody yet.
    pub fn new(settings: LegacySettings) -> Self {
        Self { settings, devices: BTreeMap::new(), heard: 0 }
    }

    /// Whether it is about messages of this topic.
    pub fn takes(&self, topic: &str) -> bool {
        self.settings.topic.device(topic).is_some()
    }

    /// The reading and perhaps an alert; nothing when a message that was sent again is there already. An outer error is the
    /// catalog's, an inner one says what is wrong with the message.
    pub async fn records(
        &mut self,
        catalog: &Catalog,
        topic: &str,
        payload: &[u8],
        again: bool,
    ) -> Result<Result<Vec<Record>, String>, CatalogError> {
        let row = match self.row(topic, payload) {
            Ok(row) => row,
            Err(why) => return Ok(Err(why)),
        };
        let group = self.settings.group.clone();
        let print = row.fingerprint();
        if let (true, Some(at)) = (again, row.timestamp) {
            let known = self.devices.get(&row.device).is_some_and(|known| known.recent.contains(&print));
            if known || catalog.has_reading(&row.device, &group, at.as_millisecond(), &row.values).await? {
                return Ok(Ok(Vec::new()));
            }
        }
        self.heard += 1;
        if !self.devices.contains_key(&row.device) {
            let past = catalog.past_values(&row.device, &group, PAST).await?;
            let mut publisher = match Publisher::new() {
                Ok(publisher) => publisher,
                Err(error) => return Ok(Err(format!("no random numbers: {error}"))),
            };
            self.make_room();
            publisher.is_scored = self.devices.values().filter(|other| other.is_scored).count() < DETECTORS;
            if !publisher.is_scored {
                tracing::warn!(device = %row.device, "not scored: there are {DETECTORS} detectors");
            }
            past.iter().for_each(|values| _ = publisher.score(values));
            self.devices.insert(row.device.clone(), publisher);
        }
        let Some(publisher) = self.devices.get_mut(&row.device) else { return Ok(Ok(Vec::new())) };
        publisher.heard = self.heard;
        if publisher.recent.len() == RECENT {
            publisher.recent.pop_front();
        }
        publisher.recent.push_back(print);
        let Row { device, timestamp, values } = row;
        let scored = publisher.score(&values);
        let (at, clock) = match timestamp {
            Some(at) => (at, ClockState::Synced),
            None => (Timestamp::now(), ClockState::Unsynced),
        };
        let stamp = Stamp::new(publisher.boot, Lane::Reading, publisher.readings, at, clock, 0);
        publisher.readings += 1;
        let alert = scored.as_ref().filter(|scored| scored.alert).map(|scored| {
            let stamp = Stamp::new(publisher.boot, Lane::Alert, publisher.alerts, at, clock, 0);
            publisher.alerts += 1;
            scored.alert(stamp, &values)
        });
        let reading = Reading { stamp, score: scored.map(|scored| scored.score), values };
        let alert = alert.map(|alert| Alert { reading: reading.stamp.id, ..alert });
        let mut records =
            vec![Record { device: device.clone(), content: Content::Reading(group.clone(), reading) }];
        records.extend(alert.map(|alert| Record { device, content: Content::Alert(group, alert) }));
        Ok(Ok(records))
    }

    fn make_room(&mut self) {
        while self.devices.len() >= DEVICES {
            let oldest = self.devices.iter().min_by_key(|(_, publisher)| publisher.heard);
            let Some(oldest) = oldest.map(|(device, _)| device.clone()) else { return };
            self.devices.remove(&oldest);
        }
    }

    fn row(&self, topic: &str, payload: &[u8]) -> Result<Row, String> {
        let device = self.settings.topic.device(topic).ok_or("its topic is another one")?;
        let device: DeviceName = match device {
            Some(level) => level.parse().map_err(|error| format!("the topic's level `{level}`: {error}"))?,
            None => self.settings.device.clone(),
        };
        if payload.len() > MAX_JSON_BYTES {
            return Err(format!("{} bytes; at most {MAX_JSON_BYTES} are read", payload.len()));
        }
        let fields: serde_json::Map<String, Value> =
            serde_json::from_slice(payload).map_err(|error| format!("no JSON object: {error}"))?;
        let timestamp = fields.get(&self.settings.timestamp).and_then(time);
        let mut values = Values::new();
        for (name, value) in &fields {
            // Texts, truths and lists are no values of a sensor.
            let Some(number) = value.as_f64().filter(|_| *name != self.settings.timestamp) else { continue };
            let name: ValueName = name.parse().map_err(|error| format!("the field `{name}`: {error}"))?;
            values.insert(name, number);
        }
        if values.is_empty() {
            return Err("no field of it is a number".to_owned());
        }
        if values.len() > MAX_VALUES {
            return Err(format!("{} numbers; a reading has at most {MAX_VALUES}", values.len()));
        }
        Ok(Row { device, timestamp, values })
    }
}

/// RFC 3339; the same without a zone, which is taken for UTC; seconds or milliseconds since 1970.
fn time(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => text.parse().ok().or_else(|| {
            let time: civil::DateTime = text.parse().ok()?;
            Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
        }),
        Value::Number(number) => {
            let number = number.as_f64()?;
            let millis = if number.abs() < SECONDS { number * 1000.0 } else { number };
            // A cast would make something of everything.
            (millis.abs() < 1e15).then(|| Timestamp::from_millisecond(millis.round() as i64).ok())?
        }
        _ => None,
    }
}

/// What the detector says of a row.
struct Scored {
    score: f64,
    threshold: f64,
    alert: bool,
    contributions: Values,
}

impl Scored {
    /// All of it but for the reading's id.
    fn alert(&self, stamp: Stamp, values: &Values) -> Alert {
        Alert {
            reading: stamp.id,
            stamp,
            anomaly: true,
            score: self.score,
            threshold: self.threshold,
            contributions: self.contributions.clone(),
            severity: Severity::of(self.score, self.threshold),
            values: values.clone(),
        }
    }
}

impl Publisher {
    fn new() -> Result<Self, getrandom::Error> {
        let mut random = [0; 10];
        getrandom::fill(&mut random)?;
        let (boot, recent) = (BootId::from_random(random), VecDeque::new());
        Ok(Self { boot, readings: 0, alerts: 0, learned: None, is_scored: true, heard: 0, recent })
    }

    /// As the agent's detector: a value that is missing is no number, one that was not there at first is not scored.
    fn score(&mut self, values: &Values) -> Option<Scored> {
        if !self.is_scored {
            return None;
        }
        if self.learned.is_none() {
            let names: Vec<ValueName> = values.keys().cloned().collect();
            let hysteresis = Hysteresis { rows_to_begin: 1, quiet_rows: QUIET_ROWS };
            let forest = StreamingForestParams::new(names.len()).seed(0).pace(1).hysteresis(Some(hysteresis));
            match forest.detector() {
                Ok(forest) => self.learned = Some((names, forest)),
                Err(error) => tracing::debug!(%error, "a device goes unscored"),
            }
        }
        let (names, forest) = self.learned.as_mut()?;
        let row: Vec<f64> = names.iter().map(|name| values.get(name).copied().unwrap_or(f64::NAN)).collect();
        let score = forest.score(&row).ok().filter(|score| !score.warming_up)?;
        let sum: f64 = score.contributions.iter().filter(|share| share.is_finite()).sum();
        let share = |share: f64| if sum > 0.0 && share.is_finite() { share / sum } else { 0.0 };
        let contributions =
            names.iter().cloned().zip(score.contributions.iter().map(|c| share(*c))).collect();
        Some(Scored {
            score: score.value,
            threshold: score.threshold,
            alert: score.is_anomaly,
            contributions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legacy(topic: &str) -> Legacy {
        Legacy::new(LegacySettings {
            topic: topic.parse().unwrap(),
            device: "old-pi".parse().unwrap(),
            group: "env".parse().unwrap(),
            timestamp: "timestamp".to_owned(),
        })
    }

    fn at(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn numbers_are_values_and_times_are_read_as_people_write_them() {
        let legacy = legacy("sensor/data");
        let row = |json: &str| legacy.row("sensor/data", json.as_bytes());
        let seed =
            row(r#"{"timestamp":"2026-11-21T10:00:00Z","sensor1":20.1,"sensor2":3,"unit":"C","ok":true}"#)
                .unwrap();
        let values: Vec<_> = seed.values.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        assert_eq!(values, [("sensor1".to_owned(), 20.1), ("sensor2".to_owned(), 3.0)]);
        assert_eq!((seed.device.as_str(), seed.timestamp), ("old-pi", at("2026-11-21T10:00:00Z")));
        for (time, wanted) in [
            ("\"2026-11-21T10:00:00.250000\"", at("2026-11-21T10:00:00.25Z")),
            ("\"2026-11-21 10:00:00\"", at("2026-11-21T10:00:00Z")),
            ("1795255200.25", at("2026-11-21T10:00:00.25Z")),
            ("1795255200250", at("2026-11-21T10:00:00.25Z")),
            ("\"noon\"", None),
            ("1e300", None),
            ("null", None),
        ] {
            let row = row(&format!(r#"{{"timestamp":{time},"x":1}}"#)).unwrap();
            assert_eq!((row.timestamp, row.values.len()), (wanted, 1), "{time}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let legacy = legacy("site/+/data");
        for (topic, json, why) in [
            ("site/pi/data", "[1]", "no JSON object"),
            ("site/pi/data", "{\"a\":\"1\"}", "no field of it is a number"),
            ("site/pi/data", "{\"a b\":1}", "`a b`"),
            ("site/a b/data", "{\"a\":1}", "`a b`"),
        ] {
            let error = legacy.row(topic, json.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(legacy.row("site/pi-7/data", b"{\"a\":1}").unwrap().device.as_str(), "pi-7");
        assert!(
            legacy.takes("site/pi/data") && !legacy.takes("site/pi/data/x") && !legacy.takes("site/data")
        );
    }
}
