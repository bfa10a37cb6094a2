//! How old records are, though none of them says.
//!
//! By lane there are a few marks: at that time, all orders below this one had been given. They are a sixteenth of
//! the lane's greatest age apart, so there are hardly more than sixteen, and a record goes at most that much late.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::queue::Queue;
use crate::{Reason, SpoolError};

const MAGIC: [u8; 4] = *b"EvA\x01";
/// The key in the index. Slots stay below.
pub(crate) const KEY: [u8; 1] = [0xfd];
const STEPS: u64 = 16;
const MARKS_MAX: usize = 64;
/// Records dropped by one call, so that nobody waits long for it.
const AT_ONCE: u64 = 4096;

/// The marks of all lanes, by slot, oldest first: seconds since 1970, and an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ages {
    marks: BTreeMap<u8, Vec<(u64, u64)>>,
    /// Whether the index has yet to be told.
    pub news: bool,
}

impl Ages {
    /// Takes note of the time. Returns the order below which records are too old.
    fn pass(&mut self, slot: u8, now: u64, next: u64, max_age: u64) -> Option<u64> {
        let marks = self.marks.entry(slot).or_default();
        // The clock was put back: what was pushed before was pushed before now, that much is sure.
        for mark in marks.iter_mut().filter(|(at, _)| *at > now) {
            mark.0 = now;
        }
        let step = (max_age / STEPS).max(1);
        let due = marks.last().is_none_or(|(at, order)| now - at >= step && *order < next);
        if due && marks.len() < MARKS_MAX {
            marks.push((now, next));
            self.news = true;
        }
        let old = marks.iter().rposition(|(at, _)| now - at > max_age)?;
        self.news |= old > 0;
        marks.drain(..old);
        marks.first().map(|(_, order)| *order)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (slot, marks) in &self.marks {
            for (at, order) in marks {
                out.push(*slot);
                out.extend_from_slice(&at.to_le_bytes());
                out.extend_from_slice(&order.to_le_bytes());
            }
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Damaged marks are as none: records then live longer, by up to their greatest age.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut ages = Self::default();
        let Some((body, crc)) = bytes.len().checked_sub(4).and_then(|at| bytes.split_at_checked(at)) else {
            return ages;
        };
        if crc32fast::hash(body).to_le_bytes() != crc || !body.starts_with(&MAGIC) {
            return ages;
        }
        for mark in body[MAGIC.len()..].chunks_exact(17) {
            let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("a word has 8 bytes"));
            ages.marks.entry(mark[0]).or_default().push((word(&mark[1..9]), word(&mark[9..])));
        }
        ages
    }
}

impl Queue {
    /// Drops what is too old. Returns how many records that were.
    pub fn expire(&mut self, now: Duration) -> Result<u64, SpoolError> {
        if !self.is_loaded() {
            return Ok(0);
        }
        let mut expired = 0;
        for lane in 0..self.lanes.len() {
            let state = &self.lanes[lane];
            let Some(max_age) = state.options.max_age.into_iter().chain(self.max_age).min() else { continue };
            let (slot, next) = (state.slot, state.next);
            if let Some(end) = self.ages.pass(slot, now.as_secs(), next, max_age.as_secs().max(1)) {
                expired += self.drop_before(lane, end)?;
            }
        }
        Ok(expired)
    }

    fn drop_before(&mut self, lane: usize, end: u64) -> Result<u64, SpoolError> {
        let Some(last) = end.min(self.durable_end(lane)).checked_sub(1) else { return Ok(0) };
        let mut walk = self.walk(self.lanes[lane].slot, 0, last)?;
        let mut dropped = 0;
        while dropped < AT_ONCE
            && self.may_remove()
            && let Some((key, entry)) = self.next_of(&mut walk)?
        {
            if self.is_free(key.place) {
                let id = crate::format::decode(key, &entry).map(|e| e.id);
                self.drop_stored(lane, key, id, Reason::Expired);
                dropped += 1;
            }
        }
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_few_and_tell_what_is_too_old() {
        let mut ages = Ages::default();
        let mut expired = Vec::new();
        // One record a second, and a greatest age of 160 s.
        for now in 1000..3000 {
            expired.push((now, ages.pass(1, now, now, 160)));
            assert!(ages.marks[&1].len() <= 19);
        }
        for (now, order) in &expired[200..] {
            let age = now - order.unwrap();
            assert!((161..=180).contains(&age), "{age}");
        }
        assert_eq!(Ages { news: true, ..Ages::decode(&ages.encode()) }, ages);
        // The clock goes back: nothing more is too old until it has caught up.
        assert_eq!(ages.pass(1, 500, 3000, 160), None);
        assert_eq!(ages.pass(1, 600, 3000, 160), None);
        assert!(ages.pass(1, 661, 3000, 160).is_some_and(|order| order > 2800));
        assert_eq!(Ages::decode(b"EvA\x01"), Ages::default());
    }
}
