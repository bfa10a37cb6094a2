//! The bounds, and the one door through which records are dropped.

use crate::disk::Disk;
use crate::format::{Key, Place, decode};
use crate::queue::{Class, Queue};
use crate::segments::Damage;
use crate::{Dropped, Lane, Reason, RecordId, SpoolError, WhenFull, WhenLow};

/// Whether a record finds room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Made,
    Refused(Reason),
}

/// So much may be stored, if the disk has it, whatever `min_free_bytes` says: what is delivered soon finds room on a disk
/// that others have filled beyond it.
const WORKING_BYTES: u64 = if cfg!(test) { 8 << 10 } else { 4 << 20 };

impl Queue {
    /// Every record that leaves without having been delivered passes here and nowhere else.
    pub fn drop_record(&mut self, lane: usize, id: Option<RecordId>, bytes: u64, reason: Reason) -> Dropped {
        self.count_drops(lane, id, 1, bytes, reason);
        Dropped { lane: Lane(u8::try_from(lane).expect("at most MAX_LANES lanes")), id, bytes, reason }
    }

    fn count_drops(&mut self, lane: usize, id: Option<RecordId>, records: u64, bytes: u64, reason: Reason) {
        let state = &mut self.lanes[lane];
        let count = &mut state.dropped[reason as usize];
        let before = *count;
        *count += records;
        // At 1, 2, 4, 8 ...: a flood of drops is a few lines, without a clock.
        if count.checked_ilog2() != before.checked_ilog2() {
            let id = id.map_or_else(|| "unreadable".to_owned(), |id| id.to_string());
            tracing::warn!(
                lane = state.options.name,
                reason = reason.as_str(),
                total = *count,
                last = id,
                bytes,
                "records are being dropped"
            );
        }
    }

    /// Counts records that damage has taken out of a segment.
    pub fn drop_lost(&mut self, lane: usize, damage: Damage) {
        if damage.records > 0 {
            self.count_drops(lane, None, damage.records, damage.bytes, damage.reason);
        }
    }

    /// Drops a record that is stored.
    pub fn drop_stored(&mut self, lane: usize, key: Key, id: Option<RecordId>, reason: Reason) -> Dropped {
        if let Some(id) = id {
            self.recent.remove(id);
        }
        self.forget(lane, key);
        self.drop_record(lane, id, u64::from(key.cost), reason)
    }

    /// How far all lanes together may grow.
    fn bound(&self, disk: &Disk, dir: &std::path::Path) -> (u64, Reason) {
        let now = self.total_bytes();
        let growth = disk.free(dir).map_or(u64::MAX, |free| {
            let free = free.saturating_sub(self.pending_bytes);
            let spare = free.saturating_sub(self.min_free_bytes).saturating_sub(self.ballast.missing());
            spare.max(WORKING_BYTES.saturating_sub(now).min(free))
        });
        let by_disk = now.saturating_add(growth);
        if by_disk < self.max_bytes {
            (by_disk, Reason::DiskLow)
        } else {
            (self.max_bytes, Reason::SpoolFull)
        }
    }

    /// Makes room for a record: first within its lane, then within all, at the cost of less important lanes
    /// and last of its own. Records in flight are never dropped, nor is anything of a more important lane. A lane
    /// that insists is not refused for the disk's sake: there is the ballast, and then memory.
    pub fn make_room(
        &mut self,
        lane: usize,
        need: u64,
        disk: &Disk,
        dir: &std::path::Path,
        dropped: &mut Vec<Dropped>,
    ) -> Result<Room, SpoolError> {
        let (bound, why) = self.bound(disk, dir);
        let options = &self.lanes[lane].options;
        let (lane_max, when_full) = (options.max_bytes, options.when_full);
        if need > lane_max {
            return Ok(Room::Refused(Reason::LaneFull));
        }
        let insists = options.when_low == WhenLow::Insist && why == Reason::DiskLow;
        if need > bound && !insists {
            return Ok(Room::Refused(why));
        }
        while self.lanes[lane].bytes_taken() + need > lane_max {
            if when_full == WhenFull::DropNewest || !self.drop_oldest(lane, Reason::LaneFull, dropped)? {
                return Ok(Room::Refused(Reason::LaneFull));
            }
        }
        for victim in (lane..self.lanes.len()).rev() {
            while self.total_bytes() + need > bound {
                if (victim == lane && (insists || when_full == WhenFull::DropNewest))
                    || !self.drop_oldest(victim, why, dropped)?
                {
                    break;
                }
            }
        }
        Ok(match self.total_bytes() + need {
            all if all <= bound => Room::Made,
            all if insists && all <= self.max_bytes => Room::Made,
            _ if insists => Room::Refused(Reason::SpoolFull),
            _ => Room::Refused(why),
        })
    }

    /// Makes room among the records that wait for the disk, at the cost of less important lanes. False if there
    /// is none.
    pub fn make_memory(&mut self, lane: usize, bound: u64, dropped: &mut Vec<Dropped>) -> bool {
        for victim in (lane + 1..self.lanes.len()).rev() {
            while self.pending_bytes > bound
                && let Some(gone) = self.drop_oldest_pending(victim, Reason::DiskFull)
            {
                dropped.push(gone);
            }
        }
        self.pending_bytes <= bound
    }

    /// False if the lane has nothing that may go.
    fn drop_oldest(
        &mut self,
        lane: usize,
        reason: Reason,
        dropped: &mut Vec<Dropped>,
    ) -> Result<bool, SpoolError> {
        if !self.may_remove() {
            return Ok(false);
        }
        if self.lanes[lane].options.when_full == WhenFull::Thin {
            if self.drop_thinned(lane, reason, dropped)? {
                return Ok(true);
            }
            let gone = self.drop_oldest_pending(lane, reason);
            dropped.extend(gone);
            return Ok(gone.is_some());
        }
        for class in [Class::Backlog, Class::Live] {
            let mut scan = self.open_scan(lane, class)?;
            while let Some((key, entry)) = self.next_of(&mut scan)? {
                if !self.is_free(key.place) {
                    continue;
                }
                self.advance(lane, class, key.place.order + 1);
                let id = decode(key, &entry).map(|e| e.id);
                dropped.push(self.drop_stored(lane, key, id, reason));
                return Ok(true);
            }
            let end = self.scanned_to(lane, class);
            self.advance(lane, class, end);
        }
        let gone = self.drop_oldest_pending(lane, reason);
        dropped.extend(gone);
        Ok(gone.is_some())
    }

    fn drop_oldest_pending(&mut self, lane: usize, reason: Reason) -> Option<Dropped> {
        let slot = self.lanes[lane].slot;
        let all = Place { slot, order: 0 }..=Place { slot, order: u64::MAX };
        let (key, id) = self.pending.range(all).next().map(|(_, p)| (p.key, p.id))?;
        Some(self.drop_stored(lane, key, Some(id), reason))
    }
}
