//! Which records go out next.
//!
//! 1. Lane 0: its live records, then its backlog.
//! 2. The live records of the other lanes, by priority.
//! 3. The backlog of the other lanes, by priority, but for a share: whatever a lane is given, every lane below
//!    it that has backlog is owed an eighth of; as soon as that pays for its next record, the record goes.
//!    So a backlog of images moves on, slowly, behind a long one of readings.
//!
//! Within a lane and a class the order is that of the pushes, and a released record comes before younger ones.

use crate::files::Unreadable;
use crate::format::{Body, Entry, Key, decode};
use crate::queue::{Class, Queue};
use crate::walk::Walk;
use crate::{Lane, LeaseLimit, Reason, Record, SpoolError};

/// One part in so many of the bytes given to more important backlogs.
const SHARE: u64 = 8;
/// A debt grows no further: it pays for any image, and a long absence does not turn the priorities around.
const OWED_MAX: u64 = 16 << 20;

/// The records of one class of one lane, one of them in hand.
struct Source {
    lane: usize,
    class: Class,
    walk: Walk,
    next: Option<(Key, sled::IVec)>,
}

struct Budget {
    limit: LeaseLimit,
    records: usize,
    bytes: u64,
    backlog_records: usize,
    backlog_bytes: u64,
    over: bool,
}

impl Budget {
    fn takes(&mut self, size: u64, limited: bool) -> bool {
        if self.over || self.records == 0 || self.bytes == 0 {
            return false;
        }
        if limited && (self.backlog_records == 0 || self.backlog_bytes == 0) {
            return false;
        }
        if size > self.bytes && size <= self.limit.bytes {
            return false;
        }
        self.over = size > self.limit.bytes;
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(size);
        if limited {
            self.backlog_records -= 1;
            self.backlog_bytes = self.backlog_bytes.saturating_sub(size);
        }
        true
    }
}

impl Queue {
    pub fn next_batch(&mut self, limit: LeaseLimit) -> Result<Vec<Record>, SpoolError> {
        let mut out = Vec::new();
        if !self.may_remove() {
            return Ok(out);
        }
        match self.fill(limit, &mut out) {
            // What was leased already must reach the caller; the fault will show itself again.
            Err(_) if !out.is_empty() => Ok(out),
            Err(e) => Err(e),
            Ok(()) => Ok(out),
        }
    }

    fn fill(&mut self, limit: LeaseLimit, out: &mut Vec<Record>) -> Result<(), SpoolError> {
        let mut budget = Budget {
            limit,
            records: limit.records,
            bytes: limit.bytes,
            backlog_records: limit.backlog_records,
            backlog_bytes: limit.backlog_bytes,
            over: false,
        };
        let first = [(0, Class::Live), (0, Class::Backlog)];
        let live = (1..self.lanes.len()).map(|lane| (lane, Class::Live));
        for (lane, class) in first.into_iter().chain(live).filter(|(lane, _)| *lane < limit.lanes) {
            let mut source = self.source(lane, class)?;
            while source.next.is_some() {
                if !self.hand_out(&mut source, &mut budget, out)?.is_handed() {
                    return Ok(());
                }
            }
        }
        self.fill_from_backlog(&mut budget, out)
    }

    fn fill_from_backlog(&mut self, budget: &mut Budget, out: &mut Vec<Record>) -> Result<(), SpoolError> {
        let mut sources = Vec::new();
        for lane in 1..self.lanes.len().min(budget.limit.lanes) {
            let source = self.source(lane, Class::Backlog)?;
            if source.next.is_some() {
                sources.push(source);
            } else {
                self.lanes[lane].owed = 0;
            }
        }
        while !sources.is_empty() {
            let owed = sources.iter().position(|s| {
                let next = s.next.as_ref().expect("sources without a next record are removed");
                self.lanes[s.lane].owed >= u64::from(next.0.cost)
            });
            let turn = owed.unwrap_or(0);
            let lane = sources[turn].lane;
            let Handed::Bytes(given) = self.hand_out(&mut sources[turn], budget, out)? else {
                return Ok(());
            };
            let state = &mut self.lanes[lane];
            state.owed = state.owed.saturating_sub(given);
            for s in &sources[turn + 1..] {
                let state = &mut self.lanes[s.lane];
                state.owed = (state.owed + given.div_ceil(SHARE)).min(OWED_MAX);
            }
            if sources[turn].next.is_none() {
                sources.remove(turn);
            }
        }
        Ok(())
    }

    fn source(&mut self, lane: usize, class: Class) -> Result<Source, SpoolError> {
        let walk = self.open_scan(lane, class)?;
        let mut source = Source { lane, class, walk, next: None };
        self.step(&mut source)?;
        Ok(source)
    }

    /// Moves a source on to its next free record, and the class's cursor with it.
    fn step(&mut self, source: &mut Source) -> Result<(), SpoolError> {
        source.next = loop {
            match self.next_of(&mut source.walk)? {
                Some((key, _)) if !self.is_free(key.place) => {}
                found => break found,
            }
        };
        let to = match &source.next {
            Some((key, _)) => key.place.order,
            None => self.scanned_to(source.lane, source.class),
        };
        self.advance(source.lane, source.class, to);
        Ok(())
    }

    /// A walk's next record; what it says of damage to the index is remembered for the next commit.
    pub(crate) fn next_of(&mut self, walk: &mut Walk) -> Result<Option<(Key, sled::IVec)>, SpoolError> {
        let found = walk.next(&mut self.segments);
        self.count_damage();
        if let Err(e) = &found
            && walk.index_failed
        {
            self.suspect.get_or_insert_with(|| e.to_string());
        }
        found
    }

    fn hand_out(
        &mut self,
        source: &mut Source,
        budget: &mut Budget,
        out: &mut Vec<Record>,
    ) -> Result<Handed, SpoolError> {
        let Some((key, bytes)) = source.next.clone() else { return Ok(Handed::Nothing) };
        let lane = source.lane;
        let Some(entry) = decode(key, &bytes) else {
            self.drop_stored(lane, key, None, Reason::Corrupt);
            self.step(source)?;
            return Ok(Handed::Bytes(0));
        };
        if self.leased.contains_key(&entry.id) {
            self.drop_stored(lane, key, None, Reason::Duplicate);
            self.step(source)?;
            return Ok(Handed::Bytes(0));
        }
        let size = entry.header.len() as u64 + u64::from(entry.payload_len);
        if !budget.takes(size, lane > 0 && source.class == Class::Backlog) {
            return Ok(Handed::Nothing);
        }
        match self.payload(entry) {
            Ok(payload) => {
                out.push(Record {
                    id: entry.id,
                    lane: Lane(u8::try_from(lane).expect("at most MAX_LANES lanes")),
                    header: entry.header.to_vec(),
                    payload,
                    live: source.class == Class::Live,
                });
                self.lease(entry.id, key);
            }
            Err(Unreadable::Missing) => {
                self.drop_stored(lane, key, Some(entry.id), Reason::FileMissing);
            }
            Err(Unreadable::Corrupt) => {
                self.drop_stored(lane, key, Some(entry.id), Reason::Corrupt);
            }
            Err(Unreadable::Io(e)) => return Err(e),
        }
        self.step(source)?;
        Ok(Handed::Bytes(u64::from(key.cost)))
    }

    fn payload(&self, entry: Entry<'_>) -> Result<Vec<u8>, Unreadable> {
        match entry.body {
            Body::Inline(bytes) | Body::Packed(bytes) => Ok(bytes.to_vec()),
            Body::File(crc) => self.files.read(entry.key.place, entry.payload_len, crc),
        }
    }
}

enum Handed {
    /// The limit is reached.
    Nothing,
    /// What it counts for in the shares.
    Bytes(u64),
}

impl Handed {
    const fn is_handed(&self) -> bool {
        matches!(self, Self::Bytes(_))
    }
}
