//! Records of a time when the clock was not set.

use crate::clock::Moment;
use edgeveil_spool::RecordId;
use edgeveil_wire::{BootId, ClockState, Stamp, Topic};
use jiff::Timestamp;
use std::{collections::HashSet, time::Duration};

/// As `Stamp` writes it.
const UNSYNCED: &[u8] = br#""clock":"unsynced""#;
/// An image has it in its EXIF block, which is no longer than a segment of a JPEG.
const HEAD: usize = 64 << 10;
/// Images that are remembered as sent. As many as a window holds are under way at once.
const MAX_SENT: usize = 4096;

/// A record that this start of the agent made before its clock was set gets its time now that it is: how long ago it
/// was is known. What an earlier start has left stays `unsynced`.
///
/// A bridge names an image's object by its time, and stores the object before the row. So an image has one time however
/// often it is sent: else the object of a sending of which no row came about would stay without one.
#[derive(Debug)]
pub struct Restamp {
    boot: BootId,
    /// When this start was, by the clock as it was first set. It may be set better later.
    started: Option<Timestamp>,
    /// Images that were sent as they were and are not delivered.
    sent: HashSet<RecordId>,
}

impl Restamp {
    /// For the records of this start.
    pub fn new(boot: BootId) -> Self {
        Self { boot, started: None, sent: HashSet::new() }
    }

    /// The payload as it is to be sent.
    pub fn restamp(&mut self, id: RecordId, topic: &str, payload: Vec<u8>, now: Moment) -> Vec<u8> {
        let head = &payload[..payload.len().min(HEAD)];
        if !head.windows(UNSYNCED.len()).any(|bytes| bytes == UNSYNCED) {
            return payload;
        }
        let Ok(topic) = topic.parse::<Topic>() else { return payload };
        if now.clock == ClockState::Unsynced {
            if matches!(topic, Topic::Image(_)) && self.sent.len() < MAX_SENT {
                self.sent.insert(id);
            }
            return payload;
        }
        if self.started.is_none() {
            self.started = now.timestamp.checked_sub(now.uptime).ok();
        }
        let Some(started) = self.started.filter(|_| !self.sent.contains(&id)) else { return payload };
        let mut changed = false;
        let restamped = edgeveil_wire::restamp(&topic, &payload, |stamp| {
            changed = retime(stamp, self.boot, started);
        });
        restamped.filter(|_| changed).unwrap_or(payload)
    }

    /// These are not sent again.
    pub fn delivered(&mut self, ids: &[RecordId]) {
        if !self.sent.is_empty() {
            ids.iter().for_each(|id| _ = self.sent.remove(id));
        }
    }
}

fn retime(stamp: &mut Stamp, boot: BootId, started: Timestamp) -> bool {
    let then = started.checked_add(Duration::from_millis(stamp.uptime_ms)).ok();
    let Some(then) = then.filter(|_| stamp.boot == boot && stamp.clock == ClockState::Unsynced) else {
        return false;
    };
    stamp.retime(then, ClockState::Synced);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeveil_wire::{ImageMeta, Lane, Reading};

    const ID: RecordId = RecordId([3; 16]);

    fn stamp(boot: BootId, lane: Lane, timestamp: &str, clock: ClockState) -> Stamp {
        Stamp::new(boot, lane, 7, timestamp.parse().unwrap(), clock, 5000)
    }

    fn reading(boot: BootId, timestamp: &str, clock: ClockState) -> Reading {
        let stamp = stamp(boot, Lane::Reading, timestamp, clock);
        Reading { stamp, score: None, values: [("t".parse().unwrap(), 1.5)].into() }
    }

    fn image(boot: BootId) -> Vec<u8> {
        let meta = ImageMeta {
            stamp: stamp(boot, Lane::Image, "1970-01-01T00:00:09Z", ClockState::Unsynced),
            device: "pi".parse().unwrap(),
            camera: "door".parse().unwrap(),
            faces: 0,
            cover: "deep-blur".to_owned(),
            software: "test".to_owned(),
        };
        let exif = [b"Exif\0\0".as_slice(), &meta.to_exif()].concat();
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        [&[0xff, 0xd8, 0xff, 0xe1], &length[..], &exif, &[0xff, 0xda, 0, 2, 0xff, 0xd9]].concat()
    }

    fn at(timestamp: &str, uptime: u64, clock: ClockState) -> Moment {
        Moment { timestamp: timestamp.parse().unwrap(), clock, uptime: Duration::from_secs(uptime) }
    }

    #[test]
    fn only_what_this_start_made_gets_a_time() {
        let (boot, other) = (BootId::from_random([1; 10]), BootId::from_random([2; 10]));
        let now = at("2026-11-21T10:00:00Z", 65, ClockState::Synced);
        let restamp = |boot, payload, now| Restamp::new(boot).restamp(ID, "reading/env", payload, now);
        let early = reading(boot, "1970-01-01T00:00:09Z", ClockState::Unsynced);
        let restamped = restamp(boot, early.to_json(), now);
        let wanted = reading(boot, "2026-11-21T09:59:00Z", ClockState::Synced);
        assert_eq!(Reading::from_json(&restamped).unwrap(), wanted);

        let as_it_was =
            |boot, payload: Vec<u8>, now| assert_eq!(restamp(boot, payload.clone(), now), payload);
        as_it_was(other, early.to_json(), now);
        as_it_was(boot, early.to_json(), Moment { clock: ClockState::Unsynced, ..now });
        as_it_was(boot, wanted.to_json(), now);
        as_it_was(boot, b"{\"clock\":\"unsynced\"".to_vec(), now);
    }

    #[test]
    fn an_image_has_one_time_however_often_it_is_sent() {
        let boot = BootId::from_random([1; 10]);
        let early = at("1970-01-01T00:00:20Z", 20, ClockState::Unsynced);
        let (synced, later) = (
            at("2026-11-21T10:00:00Z", 65, ClockState::Synced),
            at("2026-11-21T10:10:07Z", 660, ClockState::Synced),
        );
        let mut restamp = Restamp::new(boot);
        let mut send = |id, now| restamp.restamp(id, "image/door", image(boot), now);
        // Sent before the clock was set, and not delivered: the bridge may have its object.
        assert_eq!(send(ID, early), image(boot));
        assert_eq!(send(ID, synced), image(boot));
        // Sent only since: the clock has been put right once more in between.
        let other = RecordId([4; 16]);
        let first = send(other, synced);
        let time = ImageMeta::from_jpeg(&first).unwrap().stamp.timestamp;
        assert_eq!(time, "2026-11-21T09:59:00Z".parse().unwrap());
        assert_eq!(send(other, later), first);
        restamp.delivered(&[ID]);
        assert!(restamp.sent.is_empty());
    }
}
