//! From a message to what is stored of it, or to a dead letter with the reason.

use crate::{
    catalog::{Content, DeadLetter, Health, Presence, Record, Told},
    objects::{self, KeyTemplate},
};
use bytes::Bytes;
use edgeveil_wire::{
    Alert, DeviceName, Event, ImageError, ImageMeta, Lane, MAX_JSON_BYTES, Name, PayloadError, Reading,
    RecordId, Reported, Status, Topic, Topics,
};

/// What a message is.
#[derive(Debug)]
pub enum Message {
    /// A record to keep.
    Record(Record),
    /// Presence.
    Presence(Presence),
    /// Counters.
    Health(Health),
    /// The settings that run on a device.
    Told(Told),
    /// To be refused.
    Dead(DeadLetter),
    /// In a version that this bridge does not know: the device has to keep it until the bridge is upgraded.
    NotAccepted(DeviceName, String),
    /// Of no concern to ingest.
    Ignored,
}

/// Reads a message; images are to be named by `keys`. The lane is for metrics: none for what is no record.
pub fn read(topics: &Topics, keys: &KeyTemplate, topic: &str, payload: &Bytes) -> (Option<Lane>, Message) {
    let (device, parsed) = match topics.parse(topic) {
        Ok(parsed) => parsed,
        Err(error) if is_elsewhere(topics, topic) => {
            tracing::trace!(%error, "not for ingest");
            return (None, Message::Ignored);
        }
        Err(error) => return (None, Message::Dead(dead(topic, None, payload, None, error.to_string()))),
    };
    let refused = |lane, id, reason| Message::Dead(dead(topic, Some((&device, lane)), payload, id, reason));
    let poison = |lane, error: PayloadError| match error {
        PayloadError::Version { found, .. } => Message::NotAccepted(device.clone(), found),
        error => refused(lane, lane.and_then(|_| id_in_json(payload)), error.to_string()),
    };
    let keep = |content| Message::Record(Record { device: device.clone(), content });
    match parsed {
        Topic::Ack | Topic::Desired => (None, Message::Ignored),
        // An empty retained message only clears the one before.
        Topic::Status | Topic::Health | Topic::Reported if payload.is_empty() => (None, Message::Ignored),
        Topic::Status => match Status::from_json(payload) {
            Ok(status) => (None, Message::Presence(Presence { device, status })),
            Err(error) => (None, poison(None, error)),
        },
        Topic::Health => match edgeveil_wire::Health::from_json(payload) {
            Ok(_) => (None, health(device.clone(), payload).unwrap_or_else(|why| refused(None, None, why))),
            Err(error) => (None, poison(None, error)),
        },
        Topic::Reported => match Reported::from_json(payload) {
            Ok(reported) => {
                (None, told(device.clone(), payload, reported).unwrap_or_else(|why| refused(None, None, why)))
            }
            Err(error) => (None, poison(None, error)),
        },
        Topic::Reading(group) => {
            let read = Reading::from_json(payload).map(|reading| keep(Content::Reading(group, reading)));
            let lane = Some(Lane::Reading);
            (lane, read.unwrap_or_else(|error| poison(lane, error)))
        }
        Topic::Alert(source) => {
            let read = Alert::from_json(payload).map(|alert| keep(Content::Alert(source, alert)));
            let lane = Some(Lane::Alert);
            (lane, read.unwrap_or_else(|error| poison(lane, error)))
        }
        Topic::Event => {
            let read = Event::from_json(payload).map(|event| keep(Content::Event(event)));
            let lane = Some(Lane::Status);
            (lane, read.unwrap_or_else(|error| poison(lane, error)))
        }
        Topic::Image(camera) => {
            let lane = Some(Lane::Image);
            let message = match ImageMeta::from_jpeg(payload) {
                Ok(meta) => match image(keys, &device, &camera, meta, payload.len()) {
                    Ok(content) => keep(content),
                    Err((id, reason)) => refused(lane, Some(id), reason),
                },
                Err(ImageError::Payload(PayloadError::Version { found, .. })) => {
                    Message::NotAccepted(device.clone(), found)
                }
                Err(error) => refused(lane, ImageMeta::id_in_jpeg(payload), error.to_string()),
            };
            (lane, message)
        }
    }
}

/// What devices may publish, but other parts of the bridge read.
fn is_elsewhere(topics: &Topics, topic: &str) -> bool {
    let rest = topic.strip_prefix(topics.prefix()).and_then(|rest| rest.strip_prefix('/'));
    let level = rest.and_then(|rest| rest.split('/').nth(1));
    matches!(level, Some("cmd" | "config"))
}

fn told(device: DeviceName, payload: &Bytes, reported: Reported) -> Result<Message, String> {
    let json = String::from_utf8(payload.to_vec()).map_err(|error| error.to_string())?;
    Ok(Message::Told(Told { device, json, answered: reported.desired.map(|answer| answer.id) }))
}

fn health(device: DeviceName, payload: &Bytes) -> Result<Message, String> {
    let json = String::from_utf8(payload.to_vec()).map_err(|error| error.to_string())?;
    Ok(Message::Health(Health { device, json }))
}

fn image(
    keys: &KeyTemplate,
    device: &DeviceName,
    camera: &Name,
    meta: ImageMeta,
    bytes: usize,
) -> Result<Content, (RecordId, String)> {
    let id = meta.stamp.id;
    if meta.device != *device {
        return Err((id, format!("its EXIF names device `{}`, its topic `{device}`", meta.device)));
    }
    if meta.camera != *camera {
        return Err((id, format!("its EXIF names camera `{}`, its topic `{camera}`", meta.camera)));
    }
    let object = keys.key(device, &meta);
    Ok(Content::Image { meta, object, bytes })
}

/// A letter with an id is acknowledged, and the device then forgets the record: so it is kept whole, in its row when it
/// is short, else as an object. Of one without an id the device keeps the only copy, and sends it again.
pub fn dead(
    topic: &str,
    from: Option<(&DeviceName, Option<Lane>)>,
    payload: &Bytes,
    record: Option<RecordId>,
    reason: String,
) -> DeadLetter {
    let is_image = matches!(from, Some((_, Some(Lane::Image)))) || payload.starts_with(&[0xff, 0xd8]);
    let object = match (from, record) {
        (Some((device, _)), Some(id)) if is_image || payload.len() > MAX_JSON_BYTES => {
            Some(objects::dead_key(device, id, if is_image { "jpg" } else { "json" }))
        }
        _ => None,
    };
    let copy = (!is_image).then(|| payload[..payload.len().min(MAX_JSON_BYTES)].to_vec());
    DeadLetter {
        topic: topic.chars().take(256).collect(),
        device: from.map(|(device, _)| device.clone()),
        record,
        reason: reason.chars().take(1024).collect(),
        bytes: payload.len(),
        payload: copy.filter(|_| object.is_none()),
        object,
    }
}

/// The id of a payload that is otherwise no good. Without it the device could not be told to stop sending.
fn id_in_json(payload: &Bytes) -> Option<RecordId> {
    #[derive(serde::Deserialize)]
    struct OnlyId {
        id: RecordId,
    }
    let read = serde_json::from_slice::<OnlyId>(payload);
    // Longer ones are not parsed, but agents write the id near the beginning.
    let from_start = || {
        let start = String::from_utf8_lossy(&payload[..payload.len().min(512)]).into_owned();
        let (_, rest) = start.split_once("\"id\":\"")?;
        rest.get(..32)?.parse().ok()
    };
    if payload.len() <= MAX_JSON_BYTES { read.ok().map(|only| only.id) } else { from_start() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeveil_wire::{BootId, ClockState, Stamp};

    fn stamp(lane: Lane, seq: u64) -> Stamp {
        let now = jiff::Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        Stamp::new(BootId::from_random([7; 10]), lane, seq, now, ClockState::Synced, 5)
    }

    fn read(topic: &str, payload: &[u8]) -> Message {
        super::read(&Topics::default(), &KeyTemplate::default(), topic, &Bytes::copy_from_slice(payload)).1
    }

    #[test]
    fn a_reading_is_a_record() {
        let reading = Reading { stamp: stamp(Lane::Reading, 3), score: None, values: Default::default() };
        let Message::Record(record) = read("edgeveil/pi/reading/env", &reading.to_json()) else { panic!() };
        assert_eq!((record.lane(), record.stamp().seq), (Lane::Reading, 3));
    }

    #[test]
    fn poison_keeps_its_id_where_it_can_be_read() {
        let id = stamp(Lane::Reading, 3).id;
        let payload = format!(r#"{{"id":"{id}","schema":"edgeveil.alert/1"}}"#);
        let Message::Dead(letter) = read("edgeveil/pi/reading/env", payload.as_bytes()) else { panic!() };
        assert_eq!((letter.record, letter.object), (Some(id), None));
        assert!(letter.reason.contains("edgeveil.alert/1"), "{}", letter.reason);
        let long = format!(r#"{{"schema":"edgeveil.reading/1","id":"{id}","x":"{}"}}"#, "x".repeat(70_000));
        let Message::Dead(letter) = read("edgeveil/pi/reading/env", long.as_bytes()) else { panic!() };
        assert_eq!((letter.record, letter.payload), (Some(id), None));
        assert_eq!(letter.object, Some(format!("dead/pi/{id}.json")), "what is acknowledged is kept whole");
        for junk in [&b"\xff\xfe"[..], b"", b"[1]", b"{\"id\":7}"] {
            assert!(matches!(read("edgeveil/pi/alert/env", junk), Message::Dead(d) if d.record.is_none()));
        }
    }

    #[test]
    fn a_later_version_is_left_with_its_device() {
        let id = stamp(Lane::Reading, 3).id;
        for kind in ["reading/env", "alert/env", "event", "status", "health", "config/reported"] {
            let schema = kind.strip_prefix("config/").or(kind.split('/').next()).unwrap();
            let payload = format!(r#"{{"id":"{id}","schema":"edgeveil.{schema}/9"}}"#);
            let message = read(&format!("edgeveil/pi/{kind}"), payload.as_bytes());
            assert!(
                matches!(message, Message::NotAccepted(ref device, ref found) if device.as_str() == "pi" && found.ends_with("/9")),
                "{kind}"
            );
        }
    }

    #[test]
    fn an_image_that_is_none_is_not_copied() {
        let Message::Dead(letter) = read("edgeveil/pi/image/desk", &[0xff, 0xd8, 0xff, 0xe0, 0, 0]) else {
            panic!()
        };
        assert_eq!((letter.payload, letter.object, letter.record, letter.bytes), (None, None, None, 6));
    }

    #[test]
    fn topics_of_others_are_left_alone() {
        assert!(matches!(read("edgeveil/pi/config/desired", b"{}"), Message::Ignored));
        assert!(matches!(read("edgeveil/pi/config/reported", b""), Message::Ignored));
        assert!(matches!(read("edgeveil/pi/config/other", b"{}"), Message::Ignored));
        assert!(matches!(read("edgeveil/pi/cmd/ping/result", b"{}"), Message::Ignored));
        assert!(matches!(read("edgeveil/pi/image/a/b", b"{}"), Message::Dead(_)));
    }
}
