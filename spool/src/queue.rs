//! What the spool keeps in memory: a few numbers a lane, what is not yet durable, and what is in flight.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::ages::Ages;
use crate::disk::Ballast;
use crate::files::Files;
use crate::format::{Key, Kind, Place};
use crate::index::Index;
use crate::meta::{Meta, Slot};
use crate::pace::Pace;
use crate::segments::Segments;
use crate::thin::Thinning;
use crate::walk::Walk;
use crate::{Degraded, LaneOptions, Options, Reason, RecordId, SpoolError};

/// Orders given in one epoch: 2^40, some thirty years at a thousand a second.
pub(crate) const EPOCH_BITS: u32 = 40;
pub(crate) const EPOCH_MAX: u32 = (1 << (u64::BITS - EPOCH_BITS)) - 1;
/// Removals that wait for the disk, beyond which none is added but of what is in flight.
const GONE_MAX: usize = if cfg!(test) { 64 } else { 16_384 };
/// Released records whose late `done` is still understood.
const RECENT_MAX: usize = 8192;

/// Live or backlog: two queues in one lane, told apart by one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Live,
    Backlog,
}

#[derive(Debug)]
pub(crate) struct LaneState {
    pub options: LaneOptions,
    pub slot: u8,
    /// The order of the next push.
    pub next: u64,
    /// Records below it are backlog.
    pub boundary: u64,
    /// By class: every record of the class below it is leased or gone.
    pub cursor: [u64; 2],
    pub records: u64,
    pub bytes: u64,
    /// Those of them that the index has or will have; the others are in segments.
    pub indexed: Counted,
    /// The record whose file is being written now. Its order is given, and its bytes count already.
    pub writing: Option<Key>,
    pub pushed: u64,
    pub done: u64,
    pub dropped: [u64; Reason::ALL.len()],
    /// Bytes of backlog that lanes above were given and this one is owed a share for.
    pub owed: u64,
    pub thinning: Thinning,
}

/// Records and what they count for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub records: u64,
    pub bytes: u64,
}

impl Counted {
    const fn add(&mut self, key: Key) {
        self.records += 1;
        self.bytes += key.cost as u64;
    }

    const fn remove(&mut self, key: Key) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(key.cost as u64);
    }
}

impl LaneState {
    pub fn bytes_taken(&self) -> u64 {
        self.bytes + self.writing.map_or(0, |key| u64::from(key.cost))
    }
}

/// A record that is accepted and not yet durable.
#[derive(Debug)]
pub(crate) struct Pending {
    pub key: Key,
    pub id: RecordId,
    pub entry: Vec<u8>,
    /// Part of a batch that the disk has seen, whatever became of it.
    pub applied: bool,
}

pub(crate) struct Queue {
    /// None while the disk is too full, or too broken, to open it.
    pub index: Option<Index>,
    pub files: Files,
    pub segments: Segments,
    pub ballast: Ballast,
    pub lanes: Vec<LaneState>,
    /// As of the last durable commit.
    pub meta: Meta,
    pub pending: BTreeMap<Place, Pending>,
    pub pending_bytes: u64,
    /// Records that are done or dropped, and not yet durably removed from the index. Packed ones are here only
    /// while their pack is being written.
    pub gone: BTreeMap<Place, Key>,
    pub leased: HashMap<RecordId, Key>,
    pub leased_places: BTreeSet<Place>,
    pub recent: Recent,
    pub max_bytes: u64,
    pub min_free_bytes: u64,
    pub max_age: Option<Duration>,
    pub ages: Ages,
    pub pace: Pace,
    pub bytes_written: u64,
    pub commits: u64,
    pub fault: Option<Degraded>,
    /// Set when a read met damage: the next commit rebuilds the index.
    pub suspect: Option<String>,
}

impl Queue {
    pub fn new(options: &Options, slots: &[u8], files: Files, segments: Segments, ballast: Ballast) -> Self {
        let lane = |(options, &slot): (&LaneOptions, &u8)| LaneState {
            options: options.clone(),
            slot,
            next: 0,
            boundary: 0,
            cursor: [0; 2],
            records: 0,
            bytes: 0,
            indexed: Counted::default(),
            writing: None,
            pushed: 0,
            done: 0,
            dropped: [0; Reason::ALL.len()],
            owed: 0,
            thinning: Thinning::default(),
        };
        Self {
            index: None,
            files,
            segments,
            ballast,
            lanes: options.lanes.iter().zip(slots).map(lane).collect(),
            meta: Meta::default(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            gone: BTreeMap::new(),
            leased: HashMap::new(),
            leased_places: BTreeSet::new(),
            recent: Recent::default(),
            max_bytes: options.max_bytes,
            min_free_bytes: options.min_free_bytes,
            max_age: options.max_age,
            ages: Ages::default(),
            pace: Pace::new(options.write_budget),
            bytes_written: 0,
            commits: 0,
            fault: None,
            suspect: None,
        }
    }

    /// Takes over an index that was just opened, for the first time in this process.
    pub fn load(&mut self, index: Index, meta: Meta) {
        let first = u64::from(meta.epoch) << EPOCH_BITS;
        for lane in &mut self.lanes {
            let slot = meta.slot(lane.slot);
            let packed = self.segments.count(lane.slot);
            lane.indexed = Counted { records: slot.records, bytes: slot.bytes };
            (lane.records, lane.bytes) = (slot.records + packed.0, slot.bytes + packed.1);
            lane.next = first;
            lane.boundary = first;
            lane.cursor = [first, 0];
        }
        self.meta = meta;
        self.index = Some(index);
    }

    pub const fn is_loaded(&self) -> bool {
        self.meta.epoch > 0
    }

    pub fn index(&self) -> Result<&Index, SpoolError> {
        self.index.as_ref().ok_or_else(|| match &self.fault {
            Some(Degraded::DiskFull(why)) => {
                SpoolError::DiskFull { action: "open the index", why: why.clone() }
            }
            Some(Degraded::Fault(what)) => SpoolError::Damaged { what: what.clone() },
            Some(Degraded::DiskLow) | None => SpoolError::Damaged { what: "the index is closed".into() },
        })
    }

    pub fn total_bytes(&self) -> u64 {
        self.lanes.iter().map(LaneState::bytes_taken).sum()
    }

    pub fn lane_of(&self, slot: u8) -> Option<usize> {
        self.lanes.iter().position(|l| l.slot == slot)
    }

    /// The counts as they will stand when everything pending is durable.
    pub fn counts(&self) -> Meta {
        let mut meta = self.meta.clone();
        meta.commit += 1;
        for lane in &self.lanes {
            *meta.slot_mut(lane.slot) =
                Slot { records: lane.indexed.records, bytes: lane.indexed.bytes, next: lane.next };
        }
        meta
    }

    pub fn insert_pending(&mut self, lane: usize, pending: Pending) {
        let lane = &mut self.lanes[lane];
        lane.records += 1;
        lane.bytes += u64::from(pending.key.cost);
        if pending.key.kind != Kind::Packed {
            lane.indexed.add(pending.key);
        }
        self.pending_bytes += pending.entry.len() as u64;
        self.pending.insert(pending.key.place, pending);
    }

    /// Takes a record out, whatever became of it: done or dropped. Only `done` and the drop's one door call it.
    pub fn forget(&mut self, lane: usize, key: Key) {
        let state = &mut self.lanes[lane];
        state.records = state.records.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(u64::from(key.cost));
        if key.kind != Kind::Packed {
            state.indexed.remove(key);
        }
        match self.pending.remove(&key.place) {
            Some(p) => {
                self.pending_bytes -= p.entry.len() as u64;
                if p.applied {
                    self.gone.insert(key.place, key);
                } else if key.kind == Kind::File {
                    self.files.remove(key.place);
                }
            }
            None if key.kind == Kind::Packed => self.segments.mark_gone(key),
            None => {
                self.gone.insert(key.place, key);
            }
        }
    }

    /// First order of a lane that is not durable yet: nothing from there on may be leased.
    pub fn durable_end(&self, lane: usize) -> u64 {
        let lane = &self.lanes[lane];
        let all = Place { slot: lane.slot, order: 0 }..=Place { slot: lane.slot, order: u64::MAX };
        let pending = self.pending.range(all).next().map_or(lane.next, |(place, _)| place.order);
        lane.writing.map_or(pending, |key| pending.min(key.place.order))
    }

    /// The records of one class that can be leased, oldest first. It sees leases that are made while it runs
    /// only through [`Queue::is_free`].
    pub fn open_scan(&self, lane: usize, class: Class) -> Result<Walk, SpoolError> {
        let state = &self.lanes[lane];
        let durable = self.durable_end(lane);
        let (from, end) = match class {
            Class::Live => (state.cursor[0].max(state.boundary), durable),
            Class::Backlog => (state.cursor[1], durable.min(state.boundary)),
        };
        match end.checked_sub(1) {
            Some(last) => self.walk(state.slot, from, last),
            None => self.walk(state.slot, 1, 0),
        }
    }

    /// The durable records of a slot, from one order up to and including another.
    pub fn walk(&self, slot: u8, from: u64, to: u64) -> Result<Walk, SpoolError> {
        Ok(Walk::new(slot, from, to, self.index()?.scan(slot, from, to)))
    }

    /// False when the list of removals is as long as memory should hold: nothing is dropped and nothing handed out
    /// until the disk has taken them.
    pub fn may_remove(&self) -> bool {
        self.gone.len() < GONE_MAX
    }

    pub fn is_free(&self, place: Place) -> bool {
        !self.is_leaving(place) && !self.leased_places.contains(&place)
    }

    /// Whether a record is done or dropped, though it may still be found.
    pub fn is_leaving(&self, place: Place) -> bool {
        self.gone.contains_key(&place) || self.segments.is_gone(place)
    }

    /// Moves on a class's cursor: every record of it below `order` is leased or gone.
    pub fn advance(&mut self, lane: usize, class: Class, order: u64) {
        let cursor = &mut self.lanes[lane].cursor[class as usize];
        *cursor = (*cursor).max(order);
    }

    /// The end up to which a scan that found nothing more has looked.
    pub fn scanned_to(&self, lane: usize, class: Class) -> u64 {
        let state = &self.lanes[lane];
        let durable = self.durable_end(lane);
        match class {
            Class::Live => durable.max(state.boundary),
            Class::Backlog => durable.min(state.boundary),
        }
    }

    pub fn lease(&mut self, id: RecordId, key: Key) {
        self.leased.insert(id, key);
        self.leased_places.insert(key.place);
        self.recent.remove(id);
    }

    pub fn unlease(&mut self, id: RecordId) -> Option<Key> {
        let key = self.leased.remove(&id)?;
        self.leased_places.remove(&key.place);
        Some(key)
    }

    /// Puts a leased record back: it is the next of its class again, before all younger ones.
    pub fn release(&mut self, id: RecordId) {
        let Some(key) = self.unlease(id) else { return };
        let Some(lane) = self.lane_of(key.place.slot) else { return };
        let state = &mut self.lanes[lane];
        let class = if key.place.order < state.boundary { Class::Backlog } else { Class::Live };
        let cursor = &mut state.cursor[class as usize];
        *cursor = (*cursor).min(key.place.order);
        self.recent.insert(id, key);
    }

    /// The record behind an id that was leased, now or a little while ago.
    pub fn take_known(&mut self, id: RecordId) -> Option<Key> {
        self.unlease(id).or_else(|| self.recent.remove(id))
    }

    pub fn mark_backlog(&mut self) {
        for lane in &mut self.lanes {
            // What was live and is not leased follows the backlog without a gap.
            let backlog = if lane.cursor[1] < lane.boundary { lane.cursor[1] } else { lane.cursor[0] };
            lane.cursor = [lane.next, backlog];
            lane.boundary = lane.next;
        }
    }

    /// Counts by what is there instead of by what should be.
    pub fn recount(&mut self) -> Result<(), SpoolError> {
        for i in 0..self.lanes.len() {
            let slot = self.lanes[i].slot;
            let mut indexed = Counted::default();
            let mut scan = self.index()?.scan(slot, 0, u64::MAX);
            while let Some((key, _)) = scan.next()? {
                if !self.gone.contains_key(&key.place) && !self.pending.contains_key(&key.place) {
                    indexed.add(key);
                }
            }
            for p in self.pending_of(slot).filter(|p| p.key.kind != Kind::Packed) {
                indexed.add(p.key);
            }
            self.lanes[i].indexed = indexed;
            self.lanes[i].cursor = [self.lanes[i].boundary, 0];
            self.sum(i);
        }
        Ok(())
    }

    fn pending_of(&self, slot: u8) -> impl Iterator<Item = &Pending> {
        let all = Place { slot, order: 0 }..=Place { slot, order: u64::MAX };
        self.pending.range(all).map(|(_, p)| p)
    }

    /// A lane's records: what the index has, what segments have, and what waits to be packed.
    fn sum(&mut self, lane: usize) {
        let slot = self.lanes[lane].slot;
        let mut all = self.lanes[lane].indexed;
        let packed = self.segments.count(slot);
        all.records += packed.0;
        all.bytes += packed.1;
        self.pending_of(slot).filter(|p| p.key.kind == Kind::Packed).for_each(|p| all.add(p.key));
        (self.lanes[lane].records, self.lanes[lane].bytes) = (all.records, all.bytes);
    }

    /// Counts what reading segments has shown to be lost.
    pub fn count_damage(&mut self) {
        for damage in self.segments.take_damage() {
            let Some(lane) = self.lane_of(damage.slot) else { continue };
            self.sum(lane);
            self.drop_lost(lane, damage);
        }
    }
}

/// The last released records by id, so that an acknowledgement which comes late is not in vain. Bounded; the
/// oldest is forgotten first, which costs one more sending of that record.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    keys: HashMap<RecordId, (Key, u64)>,
    order: VecDeque<(RecordId, u64)>,
    stamp: u64,
}

impl Recent {
    pub fn insert(&mut self, id: RecordId, key: Key) {
        self.stamp += 1;
        self.keys.insert(id, (key, self.stamp));
        self.order.push_back((id, self.stamp));
        // Removed ids stay in `order` until they come to its front: so both are bounded by its length.
        while self.order.len() > RECENT_MAX {
            let (id, stamp) = self.order.pop_front().expect("it was longer than the bound");
            if self.keys.get(&id).is_some_and(|(_, s)| *s == stamp) {
                self.keys.remove(&id);
            }
        }
    }

    pub fn remove(&mut self, id: RecordId) -> Option<Key> {
        self.keys.remove(&id).map(|(key, _)| key)
    }
}
