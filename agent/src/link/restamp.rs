//! Records of a time when the clock was not set.

use crate::clock::Moment;
use edgeveil_wire::{BootId, ClockState, Stamp, Topic};
use std::time::Duration;

/// As `Stamp` writes it.
const UNSYNCED: &[u8] = br#""clock":"unsynced""#;
/// An image has it in its EXIF block, which is no longer than a segment of a JPEG.
const HEAD: usize = 64 << 10;

/// A record that this start of the agent made before its clock was set gets its time now that it is: how long ago it
/// was is known. What an earlier start has left stays `unsynced`.
pub fn restamp(topic: &str, payload: Vec<u8>, boot: BootId, now: Moment) -> Vec<u8> {
    let head = &payload[..payload.len().min(HEAD)];
    if now.clock == ClockState::Unsynced || !head.windows(UNSYNCED.len()).any(|bytes| bytes == UNSYNCED) {
        return payload;
    }
    let Ok(topic) = topic.parse::<Topic>() else { return payload };
    let mut changed = false;
    let restamped = edgeveil_wire::restamp(&topic, &payload, |stamp| changed = retime(stamp, boot, now));
    restamped.filter(|_| changed).unwrap_or(payload)
}

fn retime(stamp: &mut Stamp, boot: BootId, now: Moment) -> bool {
    let ago = now.uptime.checked_sub(Duration::from_millis(stamp.uptime_ms));
    let then = ago.and_then(|ago| now.timestamp.checked_sub(ago).ok());
    let Some(then) = then.filter(|_| stamp.boot == boot && stamp.clock == ClockState::Unsynced) else {
        return false;
    };
    stamp.retime(then, now.clock);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeveil_wire::{Lane, Reading};

    fn reading(boot: BootId, timestamp: &str, clock: ClockState) -> Reading {
        let stamp = Stamp::new(boot, Lane::Reading, 7, timestamp.parse().unwrap(), clock, 5000);
        Reading { stamp, score: None, values: [("t".parse().unwrap(), 1.5)].into() }
    }

    #[test]
    fn only_what_this_start_made_gets_a_time() {
        let (boot, other) = (BootId::from_random([1; 10]), BootId::from_random([2; 10]));
        let now = Moment {
            timestamp: "2026-11-21T10:00:00Z".parse().unwrap(),
            clock: ClockState::Synced,
            uptime: Duration::from_secs(65),
        };
        let early = reading(boot, "1970-01-01T00:00:09Z", ClockState::Unsynced);
        let restamped = restamp("reading/env", early.to_json(), boot, now);
        let wanted = reading(boot, "2026-11-21T09:59:00Z", ClockState::Synced);
        assert_eq!(Reading::from_json(&restamped).unwrap(), wanted);

        let as_it_was = |boot, payload: Vec<u8>, now| {
            assert_eq!(restamp("reading/env", payload.clone(), boot, now), payload);
        };
        as_it_was(other, early.to_json(), now);
        as_it_was(boot, early.to_json(), Moment { clock: ClockState::Unsynced, ..now });
        as_it_was(boot, wanted.to_json(), now);
        as_it_was(boot, b"{\"clock\":\"unsynced\"".to_vec(), now);
    }
}
