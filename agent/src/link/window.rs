//! Which records are under way, and how far each has come.

use edgeveil_spool::{LeaseLimit, RecordId};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// Publishes handed to rumqttc that the broker has not acknowledged, at most.
pub const MAX_UNACKNOWLEDGED: usize = 50;
/// Bytes under way, at most (and one record more): what the link costs in memory.
const MAX_BYTES: u64 = 4 << 20;

/// The records of one connection that are under way. A record passes three stations: it is queued in rumqttc, it is
/// on the wire under a packet id, and the broker has it. It leaves when its receiver has acknowledged it.
#[derive(Debug)]
pub struct Window {
    records: usize,
    bytes: u64,
    under_way: HashMap<RecordId, UnderWay>,
    /// What rumqttc has been handed, in order; `None` is a publish that is no record.
    queued: VecDeque<Option<RecordId>>,
    on_wire: HashMap<u16, (Option<RecordId>, Instant)>,
}

#[derive(Debug)]
struct UnderWay {
    since: Instant,
    bytes: u64,
}

impl Window {
    /// For so many records at most.
    pub fn new(records: usize) -> Self {
        Self {
            records,
            bytes: 0,
            under_way: HashMap::new(),
            queued: VecDeque::new(),
            on_wire: HashMap::new(),
        }
    }

    /// What may be sent now, if anything.
    pub fn room(&self) -> Option<LeaseLimit> {
        let unacknowledged = self.queued.len() + self.on_wire.len();
        // Two places are kept for publishes that are no records: status and health.
        let packets = (MAX_UNACKNOWLEDGED - 2).saturating_sub(unacknowledged);
        let records = self.records.saturating_sub(self.under_way.len()).min(packets);
        let bytes = MAX_BYTES.saturating_sub(self.bytes);
        (records > 0 && bytes > 0).then(|| LeaseLimit::new(records, bytes))
    }

    /// A record was handed to rumqttc.
    pub fn queue(&mut self, id: RecordId, bytes: u64, now: Instant) {
        self.queued.push_back(Some(id));
        self.bytes += bytes;
        self.under_way.insert(id, UnderWay { since: now, bytes });
    }

    /// Something that is no record was handed to rumqttc.
    pub fn queue_other(&mut self) {
        self.queued.push_back(None);
    }

    /// rumqttc has put the oldest of what it was handed on the wire. Packet id 0 is QoS 0, which nobody acknowledges.
    pub fn sent(&mut self, packet: u16, now: Instant) {
        let Some(queued) = self.queued.pop_front() else { return };
        if packet != 0 {
            self.on_wire.insert(packet, (queued, now));
        }
    }

    /// The broker acknowledged a packet, well or badly. Gives its record, which stays under way.
    pub fn acknowledged_by_broker(&mut self, packet: u16) -> Option<RecordId> {
        self.on_wire.remove(&packet)?.0
    }

    /// These are delivered or given up: they leave. Gives those that were under way.
    pub fn leave(&mut self, ids: &[RecordId]) -> Vec<RecordId> {
        let mut left = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(record) = self.under_way.remove(id) {
                self.bytes -= record.bytes;
                left.push(*id);
            }
        }
        left
    }

    /// Records that have waited too long for their receiver. They leave, to be sent again.
    pub fn overdue(&mut self, now: Instant, patience: Duration) -> Vec<RecordId> {
        let late = |record: &UnderWay| now.duration_since(record.since) >= patience;
        let ids: Vec<_> = self.under_way.iter().filter(|(_, r)| late(r)).map(|(id, _)| *id).collect();
        self.leave(&ids)
    }

    /// Whether the broker has left a packet unacknowledged for too long: such a connection is wedged, since rumqttc
    /// stops sending when a packet id comes round that is still taken.
    pub fn is_wedged(&self, now: Instant, patience: Duration) -> bool {
        self.on_wire.values().any(|(_, since)| now.duration_since(*since) >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> RecordId {
        RecordId([n; 16])
    }

    #[test]
    fn a_record_passes_its_stations() {
        let (mut window, now) = (Window::new(100), Instant::now());
        window.queue(id(1), 10, now);
        window.queue_other();
        window.queue(id(2), 10, now);
        window.sent(7, now);
        window.sent(8, now);
        window.sent(9, now);
        assert_eq!(window.acknowledged_by_broker(9), Some(id(2)));
        assert_eq!(window.acknowledged_by_broker(8), None);
        assert_eq!(window.acknowledged_by_broker(7), Some(id(1)));
        assert_eq!(window.acknowledged_by_broker(7), None);
        assert_eq!(window.leave(&[id(3), id(1)]), [id(1)]);
        assert_eq!(window.leave(&[id(1)]), []);
    }

    #[test]
    fn room_is_bounded_by_packets_records_and_bytes() {
        let now = Instant::now();
        let mut window = Window::new(3);
        assert_eq!(window.room().unwrap().records, 3);
        window.queue(id(1), MAX_BYTES - 1, now);
        assert_eq!(window.room().unwrap(), LeaseLimit::new(2, 1));
        window.queue(id(2), 5, now);
        assert_eq!(window.room(), None);
        window.leave(&[id(1)]);
        assert_eq!(window.room().unwrap().records, 2);

        let mut window = Window::new(1000);
        for n in 0..MAX_UNACKNOWLEDGED as u8 - 2 {
            window.queue(id(n), 1, now);
        }
        assert_eq!(window.room(), None, "packets");
        window.sent(1, now);
        window.acknowledged_by_broker(1);
        assert_eq!(window.room().unwrap().records, 1);
    }

    #[test]
    fn late_records_leave_and_a_silent_broker_is_noticed() {
        let (mut window, now) = (Window::new(10), Instant::now());
        let (patience, later) = (Duration::from_secs(30), now + Duration::from_secs(31));
        window.queue(id(1), 10, now);
        window.queue(id(2), 10, later);
        window.sent(1, now);
        assert!(!window.is_wedged(now, patience) && window.is_wedged(later, patience));
        assert_eq!(window.overdue(later, patience), [id(1)]);
        assert_eq!(window.overdue(later, patience), []);
    }
}
