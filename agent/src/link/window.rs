//! Which records are under way, and how far each has come.

use bytes::Bytes;
use edgeveil_spool::{LeaseLimit, RecordId};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// Publishes handed to rumqttc that the broker has not acknowledged, at most.
pub const MAX_UNACKNOWLEDGED: usize = 50;
/// While the broker owes more acknowledgements than this, fewer records than this are not worth asking the spool for: there
/// will be room for more in a moment, and each look costs as much as ten records.
const HANDFUL: usize = 16;
/// But a broker that has not acknowledged anything for so long may owe some for ever, and the rest must do.
const MOMENT: Duration = Duration::from_millis(50);
/// Bytes under way, at most (and one record more): what the link costs in memory.
const MAX_BYTES: u64 = 4 << 20;
/// What the broker has not acknowledged is worth so much time of the link, so that an alert is not long behind it; but
/// never less than so many bytes.
const AHEAD: Duration = Duration::from_secs(2);
const LEAST_AHEAD: u64 = 64 << 10;
/// A link slower than so many bytes a second counts as none.
const SLOWEST: u64 = 2 << 10;
/// The patience with a silent bridge doubles at each unanswered round up to this, and so does the time until a record
/// that the bridge passes over is tried again.
const MAX_PATIENCE: Duration = Duration::from_secs(3600);
/// After so many unanswered rounds the connection itself is doubted: a broker may have stopped passing on what the bridge
/// answers, and a new connection makes it begin again. As the patience doubles, that is ever more seldom.
const DOUBTFUL: u32 = 3;
/// Records that are remembered as passed over; more than these are just sent again.
const MAX_PASSED_OVER: usize = 1024;

/// The records of one connection that are under way. A record passes three stations: it is queued in rumqttc, it is
/// on the wire under a packet id, and the broker has it. It leaves when its receiver has acknowledged it.
#[derive(Debug)]
pub struct Window {
    records: usize,
    patience: Duration,
    /// Of all that is under way.
    bytes: u64,
    /// Of what the broker has not acknowledged.
    unacknowledged: u64,
    under_way: HashMap<RecordId, UnderWay>,
    /// What rumqttc has been handed, in order; `None` is a publish that is no record.
    queued: VecDeque<Option<Parcel>>,
    on_wire: HashMap<u16, OnWire>,
    meter: Meter,
    /// When the broker last acknowledged anything.
    acknowledged: Option<Instant>,
    /// Rounds of sending that the bridge has not answered, those of connections before this one among them.
    unanswered: u32,
    /// Those of this connection.
    unanswered_here: u32,
    /// When it last acknowledged anything.
    answered: Option<Instant>,
    /// Records that it has passed over while it acknowledged others.
    passed_over: HashMap<RecordId, PassedOver>,
}

/// A record that its receiver does not acknowledge, though it is there.
#[derive(Debug)]
struct PassedOver {
    times: u32,
    /// It stays leased until then, so that it stands in nobody's way.
    back: Option<Instant>,
}

#[derive(Debug)]
struct UnderWay {
    bytes: u64,
    /// Since when the broker has it.
    held: Option<Instant>,
}

/// What was handed to rumqttc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The record in it.
    pub id: RecordId,
    /// As the spool has it: the topic below the device's.
    pub header: Vec<u8>,
    /// As it was sent.
    pub payload: Bytes,
}

#[derive(Debug)]
struct OnWire {
    parcel: Option<Parcel>,
    /// When its PUBACK is due: the patience, and the time that what was ahead of it may take.
    due: Instant,
}

/// How fast the broker takes bytes.
#[derive(Debug)]
struct Meter {
    since: Option<Instant>,
    bytes: u64,
    /// Bytes a second.
    rate: u64,
}

impl Meter {
    const SPAN: Duration = Duration::from_secs(1);

    fn count(&mut self, bytes: u64, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.bytes += bytes;
        let passed = now.saturating_duration_since(since);
        if passed >= Self::SPAN {
            let rate = (self.bytes as f64 / passed.as_secs_f64()) as u64;
            self.rate = u64::midpoint(self.rate, rate);
            (self.since, self.bytes) = (Some(now), 0);
        }
    }

    fn ahead(&self) -> u64 {
        self.rate.saturating_mul(AHEAD.as_secs()).clamp(LEAST_AHEAD, MAX_BYTES)
    }
}

impl Window {
    /// For so many records at most. A record is sent again when its receiver has not acknowledged it within the patience,
    /// which grows with the rounds that the bridge has left unanswered.
    pub fn new(records: usize, patience: Duration, unanswered: u32) -> Self {
        Self {
            records,
            patience,
            bytes: 0,
            unacknowledged: 0,
            under_way: HashMap::new(),
            queued: VecDeque::new(),
            on_wire: HashMap::new(),
            // A new connection counts as a fast one until it is known better.
            meter: Meter { since: None, bytes: 0, rate: LEAST_AHEAD },
            acknowledged: None,
            unanswered,
            unanswered_here: 0,
            answered: None,
            passed_over: HashMap::new(),
        }
    }

    /// What may be sent now, if anything.
    pub fn room(&self, now: Instant) -> Option<LeaseLimit> {
        let unacknowledged = self.queued.len() + self.on_wire.len();
        // Two places are kept for publishes that are no records: status and health.
        let packets = (MAX_UNACKNOWLEDGED - 2).saturating_sub(unacknowledged);
        // A bridge that does not answer is asked with one record: nobody pays for the same megabytes every minute. It may be
        // that very record that is not answered, so after a while another one is tried.
        let waited =
            |record: &&UnderWay| record.held.is_some_and(|held| now.duration_since(held) >= self.patience);
        let most = match self.unanswered {
            0 => self.records,
            _ => self.records.min(1 + self.under_way.values().filter(waited).count()),
        };
        let records = most.saturating_sub(self.under_way.len()).min(packets);
        let flows = self.acknowledged.is_some_and(|at| now - at < MOMENT);
        if records < HANDFUL && unacknowledged > HANDFUL && flows {
            return None;
        }
        let bytes =
            MAX_BYTES.saturating_sub(self.bytes).min(self.meter.ahead().saturating_sub(self.unacknowledged));
        (records > 0 && bytes > 0).then(|| LeaseLimit::new(records, bytes))
    }

    /// A record was handed to rumqttc.
    pub fn queue(&mut self, parcel: Parcel) {
        let bytes = parcel.payload.len() as u64;
        self.bytes += bytes;
        self.unacknowledged += bytes;
        self.under_way.insert(parcel.id, UnderWay { bytes, held: None });
        self.queued.push_back(Some(parcel));
    }

    /// Something that is no record was handed to rumqttc.
    pub fn queue_other(&mut self) {
        self.queued.push_back(None);
    }

    /// rumqttc has put the oldest of what it was handed on the wire. Packet id 0 is QoS 0, which nobody acknowledges.
    pub fn sent(&mut self, packet: u16, now: Instant) {
        let Some(parcel) = self.queued.pop_front() else { return };
        if packet != 0 {
            let due = now + self.patience + Duration::from_secs(self.unacknowledged / SLOWEST);
            self.on_wire.insert(packet, OnWire { parcel, due });
        }
    }

    /// The broker acknowledged a packet, well or badly. Gives its record, which stays under way.
    pub fn acknowledged_by_broker(&mut self, packet: u16, now: Instant) -> Option<Parcel> {
        let parcel = self.on_wire.remove(&packet)?.parcel?;
        self.acknowledged = Some(now);
        let bytes = parcel.payload.len() as u64;
        self.unacknowledged = self.unacknowledged.saturating_sub(bytes);
        self.meter.count(bytes, now);
        if let Some(record) = self.under_way.get_mut(&parcel.id) {
            record.held = Some(now);
        }
        Some(parcel)
    }

    /// These are delivered or given up: they leave.
    pub fn leave(&mut self, ids: &[RecordId]) {
        for id in ids {
            if let Some(record) = self.under_way.remove(id) {
                self.bytes -= record.bytes;
            }
        }
    }

    /// Their receiver has acknowledged these.
    pub fn delivered(&mut self, ids: &[RecordId], now: Instant) {
        self.leave(ids);
        ids.iter().for_each(|id| _ = self.passed_over.remove(id));
        (self.unanswered, self.unanswered_here) = (0, 0);
        self.answered = Some(now);
    }

    /// Records that have waited too long for their receiver. They leave, to be sent again.
    pub fn overdue(&mut self, now: Instant) -> Vec<RecordId> {
        let grown = self.grown(self.unanswered);
        let (mut passed_over, mut unanswered) = (Vec::new(), Vec::new());
        for (id, record) in &self.under_way {
            let Some(held) = record.held else { continue };
            let waited = now.duration_since(held);
            if self.answered.is_some_and(|answered| answered > held) {
                if waited >= self.patience {
                    passed_over.push(*id);
                }
            } else if waited >= grown {
                unanswered.push(*id);
            }
        }
        self.leave(&passed_over);
        self.leave(&unanswered);
        if !unanswered.is_empty() {
            self.unanswered += 1;
            self.unanswered_here += 1;
        }
        let mut again = unanswered;
        for id in passed_over {
            // It may have been lost on the way: so at once for the first time.
            let times = self.passed_over.get(&id).map_or(0, |record| record.times);
            let wait = (times > 0).then(|| self.grown(times - 1));
            if times == 0 && self.passed_over.len() >= MAX_PASSED_OVER {
                again.push(id);
                continue;
            }
            let back = wait.map(|wait| now + wait);
            self.passed_over.insert(id, PassedOver { times: times + 1, back });
            if back.is_none() {
                again.push(id);
            }
        }
        for (id, record) in &mut self.passed_over {
            if record.back.is_some_and(|back| back <= now) {
                record.back = None;
                again.push(*id);
            }
        }
        again
    }

    /// Rounds that the bridge has not answered, once they are so many that a new connection is worth a try.
    pub fn silence(&self) -> Option<u32> {
        (self.unanswered_here >= DOUBTFUL).then_some(self.unanswered)
    }

    /// Records that their receiver passes over again and again.
    pub fn passed_over(&self) -> usize {
        self.passed_over.values().filter(|record| record.times > 1).count()
    }

    fn grown(&self, rounds: u32) -> Duration {
        self.patience.saturating_mul(1 << rounds.min(16)).min(MAX_PATIENCE.max(self.patience))
    }

    /// Whether the broker has left a packet unacknowledged for too long: such a connection is wedged, since rumqttc
    /// stops sending when a packet id comes round that is still taken.
    pub fn is_wedged(&self, now: Instant) -> bool {
        self.on_wire.values().any(|packet| packet.due <= now)
    }

    /// Whether the broker owes an acknowledgement.
    pub fn is_waiting(&self) -> bool {
        !self.on_wire.is_empty()
    }

    /// The largest record that the broker has not acknowledged: the one that it has found too large. Only for when the
    /// connection is over.
    pub fn take_largest(&mut self) -> Option<Parcel> {
        let parcels = self.on_wire.drain().filter_map(|(_, sent)| sent.parcel);
        parcels.max_by_key(|parcel| parcel.payload.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn id(n: u8) -> RecordId {
        RecordId([n; 16])
    }

    fn parcel(n: u8, length: u64) -> Parcel {
        Parcel { id: id(n), header: Vec::new(), payload: vec![0; length as usize].into() }
    }

    #[test]
    fn a_record_passes_its_stations() {
        let (mut window, now) = (Window::new(100, PATIENCE, 0), Instant::now());
        window.queue(parcel(1, 10));
        window.queue_other();
        window.queue(parcel(2, 10));
        window.sent(7, now);
        window.sent(8, now);
        window.sent(9, now);
        assert_eq!(window.acknowledged_by_broker(9, now), Some(parcel(2, 10)));
        assert_eq!(window.acknowledged_by_broker(8, now), None);
        assert_eq!(window.acknowledged_by_broker(7, now), Some(parcel(1, 10)));
        assert_eq!(window.acknowledged_by_broker(7, now), None);
        window.leave(&[id(3), id(1)]);
        assert_eq!(window.under_way.keys().collect::<Vec<_>>(), [&id(2)]);
    }

    #[test]
    fn room_is_bounded_by_packets_records_and_bytes() {
        let now = Instant::now();
        let mut window = Window::new(3, PATIENCE, 0);
        assert_eq!(window.room(now).unwrap().records, 3);
        window.queue(parcel(1, MAX_BYTES - 1));
        assert_eq!(window.room(now), None, "more than two seconds' worth");
        window.sent(1, now);
        window.acknowledged_by_broker(1, now);
        assert_eq!(window.room(now).unwrap(), LeaseLimit::new(2, 1));
        window.queue(parcel(2, 5));
        assert_eq!(window.room(now), None);
        window.leave(&[id(1)]);
        assert_eq!(window.room(now).unwrap().records, 2);

        let mut window = Window::new(1000, PATIENCE, 0);
        for n in 0..MAX_UNACKNOWLEDGED as u8 - 2 {
            window.queue(parcel(n, 1));
        }
        assert_eq!(window.room(now), None, "packets");
        for packet in 1..HANDFUL as u16 {
            window.sent(packet, now);
            window.acknowledged_by_broker(packet, now);
            assert_eq!(window.room(now), None, "few");
        }
        assert_eq!(window.room(now + MOMENT).unwrap().records, HANDFUL - 1, "the broker has fallen silent");
        window.sent(HANDFUL as u16, now);
        window.acknowledged_by_broker(HANDFUL as u16, now);
        assert_eq!(window.room(now).unwrap().records, HANDFUL);
    }

    #[test]
    fn a_fast_link_is_given_more_and_a_slow_one_is_not_filled_up() {
        let (mut window, start) = (Window::new(1000, PATIENCE, 0), Instant::now());
        let now = start;
        let run = |window: &mut Window, rate: u64| {
            for second in 0..8 {
                let now = start + Duration::from_secs(second);
                window.queue(parcel(second as u8, rate));
                window.sent(second as u16 + 1, now);
                window.acknowledged_by_broker(second as u16 + 1, now);
                window.leave(&[id(second as u8)]);
            }
        };
        run(&mut window, 1 << 20);
        assert!(window.room(now).unwrap().bytes > 1 << 20);
        let mut slow = Window::new(1000, PATIENCE, 0);
        run(&mut slow, 3000);
        assert_eq!(slow.room(now).unwrap().bytes, LEAST_AHEAD);
    }

    #[test]
    fn late_records_leave_and_a_silent_broker_is_noticed() {
        let (mut window, now) = (Window::new(10, PATIENCE, 0), Instant::now());
        let later = now + PATIENCE + Duration::from_secs(1);
        window.queue(parcel(1, 10));
        window.queue(parcel(2, 10));
        window.sent(1, now);
        assert!(!window.is_wedged(now) && window.is_wedged(later));
        assert_eq!(window.overdue(later), [], "the broker does not have it yet");
        window.acknowledged_by_broker(1, now);
        assert!(!window.is_wedged(later));
        assert_eq!(window.overdue(later), [id(1)]);
        assert_eq!(window.overdue(later), []);
    }

    #[test]
    fn a_large_record_has_the_time_that_a_slow_link_needs() {
        let (mut window, now) = (Window::new(10, PATIENCE, 0), Instant::now());
        window.queue(parcel(1, 1 << 20));
        window.sent(1, now);
        assert!(!window.is_wedged(now + Duration::from_secs(500)));
        assert!(window.is_wedged(now + Duration::from_secs(600)));
    }

    #[test]
    fn a_bridge_that_is_away_is_asked_less_and_less() {
        let (mut window, mut now) = (Window::new(10, PATIENCE, 0), Instant::now());
        for (round, wait) in [30, 60, 120, 240].into_iter().enumerate() {
            window.queue(parcel(1, 10));
            window.sent(1, now);
            window.acknowledged_by_broker(1, now);
            assert_eq!(window.overdue(now + Duration::from_secs(wait - 1)), []);
            now += Duration::from_secs(wait);
            assert_eq!(window.overdue(now), [id(1)], "round {round}");
            assert_eq!(window.room(now).unwrap().records, 1);
        }
        window.delivered(&[], now);
        assert_eq!(window.room(now).unwrap().records, 10);
    }

    #[test]
    fn a_silent_bridge_makes_the_connection_doubtful_and_the_next_one_as_patient() {
        let silent = |window: &mut Window, mut now: Instant, waits: &[u64]| {
            for &wait in waits {
                assert_eq!(window.silence(), None);
                window.queue(parcel(1, 10));
                window.sent(1, now);
                window.acknowledged_by_broker(1, now);
                now += Duration::from_secs(wait);
                assert_eq!(window.overdue(now), [id(1)]);
            }
            window.silence()
        };
        let now = Instant::now();
        assert_eq!(silent(&mut Window::new(10, PATIENCE, 0), now, &[30, 60, 120]), Some(3));
        let mut next = Window::new(10, PATIENCE, 3);
        assert_eq!(next.room(now).unwrap().records, 1);
        assert_eq!(silent(&mut next, now, &[240, 480]), None);
        next.delivered(&[], now);
        assert_eq!(silent(&mut next, now, &[30, 60, 120]), Some(3));
    }

    #[test]
    fn a_record_that_is_passed_over_stands_in_nobodys_way() {
        let (mut window, start) = (Window::new(10, PATIENCE, 0), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let send = |window: &mut Window, n: u8, now: Instant| {
            window.queue(parcel(n, 10));
            window.sent(n.into(), now);
            window.acknowledged_by_broker(n.into(), now);
        };
        // It is all there is: nobody knows whether the bridge is there.
        send(&mut window, 1, start);
        assert_eq!(window.overdue(after(30)), [id(1)]);
        send(&mut window, 1, after(30));
        assert_eq!(window.room(after(59)), None);
        assert_eq!(window.room(after(60)).unwrap().records, 1);
        send(&mut window, 2, after(60));
        window.delivered(&[id(2)], after(61));
        // The bridge is there. It gets the first one at once, then later and later.
        assert_eq!(window.room(after(61)).unwrap().records, 9);
        assert_eq!(window.overdue(after(62)), [id(1)]);
        assert_eq!(window.passed_over(), 0);
        for (sent, back) in [(62, 122), (122, 212), (212, 362)] {
            send(&mut window, 1, after(sent));
            send(&mut window, 3, after(sent + 1));
            window.delivered(&[id(3)], after(sent + 2));
            assert_eq!(window.overdue(after(sent + 30)), []);
            assert_eq!(window.room(after(sent + 30)).unwrap().records, 10);
            assert_eq!(window.passed_over(), 1);
            assert_eq!(window.overdue(after(back - 1)), []);
            assert_eq!(window.overdue(after(back)), [id(1)]);
        }
        send(&mut window, 1, after(362));
        window.delivered(&[id(1)], after(363));
        assert_eq!(window.passed_over(), 0);
    }
}
