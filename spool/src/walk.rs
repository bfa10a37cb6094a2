//! A lane's records in their order, whether the index has them or segments do.

use crate::SpoolError;
use crate::format::Key;
use crate::index::Scan;
use crate::segments::Segments;

/// Records with their undecoded entries. One whose bytes could not be read has none of them.
pub(crate) struct Walk {
    slot: u8,
    /// Where to look on in the segments.
    from: u64,
    /// Up to and including this order.
    to: u64,
    scan: Scan,
    /// The index's next record, looked at and not yet given.
    indexed: Option<(Key, sled::IVec)>,
    scan_ended: bool,
    /// The last error was the index's.
    pub index_failed: bool,
}

impl Walk {
    pub const fn new(slot: u8, from: u64, to: u64, scan: Scan) -> Self {
        Self { slot, from, to, scan, indexed: None, scan_ended: false, index_failed: false }
    }

    /// None at the end. After an error there is nothing more to be had from this walk.
    pub fn next(&mut self, segments: &mut Segments) -> Result<Option<(Key, sled::IVec)>, SpoolError> {
        if self.indexed.is_none() && !self.scan_ended {
            self.indexed = self.scan.next().inspect_err(|_| self.index_failed = true)?;
            self.scan_ended = self.indexed.is_none();
        }
        // What the index has next bounds the look into the segments.
        let to = self.indexed.as_ref().map_or(self.to, |(key, _)| self.to.min(key.place.order));
        if self.from <= to {
            if let Some((key, bytes)) = segments.next(self.slot, self.from, to)? {
                self.from = key.place.order.saturating_add(1);
                return Ok(Some((key, bytes)));
            }
            self.from = to.saturating_add(1);
        }
        Ok(self.indexed.take())
    }
}
