//! Thinning a lane out evenly.
//!
//! An order's level is how often two divides it. Level 0 goes first, that is every second record, from the oldest to
//! the newest; then level 1, and so on. What was pushed meanwhile and is of a level that is already gone elsewhere
//! goes before. So at any time the records that are left are evenly spread, but for one step of a factor of two,
//! and the newest one is there. It needs no memory of what was dropped: the orders tell.

use crate::format::decode;
use crate::queue::Queue;
use crate::{Dropped, Reason, SpoolError};

/// Orders have 40 bits that count.
const LEVELS: u32 = 40;

/// How far the thinning of a lane has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Thinning {
    level: u32,
    /// Records of `level` below this order are gone.
    swept: u64,
    /// Records of lesser levels below this order are gone.
    looked: u64,
    /// Records at the last drop.
    records: u64,
}

impl Queue {
    /// False if the lane has nothing that may go.
    pub fn drop_thinned(
        &mut self,
        lane: usize,
        reason: Reason,
        dropped: &mut Vec<Dropped>,
    ) -> Result<bool, SpoolError> {
        let records = self.lanes[lane].records;
        // Most of it was delivered: begin anew.
        if records < self.lanes[lane].thinning.records / 2 {
            self.lanes[lane].thinning = Thinning::default();
        }
        self.lanes[lane].thinning.records = records;
        loop {
            let Thinning { level, swept, looked, .. } = self.lanes[lane].thinning;
            let (gone, to) = self.drop_level(lane, looked, |l| l < level, reason)?;
            self.lanes[lane].thinning.looked = to;
            if let Some(gone) = gone {
                dropped.push(gone);
                return Ok(true);
            }
            let last = level >= LEVELS;
            let (gone, to) = self.drop_level(lane, swept, |l| l == level || last, reason)?;
            self.lanes[lane].thinning.swept = to;
            if let Some(gone) = gone {
                dropped.push(gone);
                return Ok(true);
            }
            if last {
                self.lanes[lane].thinning = Thinning { records, ..Thinning::default() };
                return Ok(false);
            }
            let thinning = &mut self.lanes[lane].thinning;
            (thinning.level, thinning.swept) = (level + 1, 0);
        }
    }

    /// Drops the first record from an order on whose level is wanted. Returns up to where it has looked.
    fn drop_level(
        &mut self,
        lane: usize,
        from: u64,
        wanted: impl Fn(u32) -> bool,
        reason: Reason,
    ) -> Result<(Option<Dropped>, u64), SpoolError> {
        let end = self.durable_end(lane);
        let Some(last) = end.checked_sub(1) else { return Ok((None, from)) };
        let mut walk = self.walk(self.lanes[lane].slot, from, last)?;
        while let Some((key, entry)) = self.next_of(&mut walk)? {
            let order = key.place.order;
            if wanted(order.trailing_zeros().min(LEVELS)) && self.is_free(key.place) {
                let id = decode(key, &entry).map(|e| e.id);
                return Ok((Some(self.drop_stored(lane, key, id, reason)), order + 1));
            }
        }
        Ok((None, end.max(from)))
    }
}
