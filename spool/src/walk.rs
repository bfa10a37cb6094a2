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

#[cfg(test)]
mod tests {
    use crate::format::{Body, Place, decode_prefix, encode};
    use crate::index::Index;
    use crate::meta::{Meta, Slot};
    use crate::support::{ALL, READING, done, id, lease, open, options, payload, put};
    use crate::{Inspector, Spool};

    /// As version 0.1 stored small records: each in the index, with its own key.
    fn old_spool(dir: &std::path::Path) {
        let index = Index::open(&dir.join("db")).unwrap();
        let (mut batch, mut slot) = (sled::Batch::default(), Slot::default());
        for n in 1..=20 {
            let place = Place { slot: 2, order: (1 << 40) + n };
            let bytes = payload(n, 50);
            let entry = encode(place, id(n), &n.to_le_bytes(), Body::Inline(&bytes), bytes.len());
            let key = decode_prefix(&entry).unwrap().0.key;
            batch.insert(&key.encode()[..], &entry[..]);
            slot = Slot { records: n, bytes: slot.bytes + u64::from(key.cost), next: place.order + 1 };
        }
        let slots = vec![Slot::default(), Slot::default(), slot];
        Index::put_meta(&mut batch, &Meta { epoch: 1, commit: 5, slots });
        index.apply(batch).unwrap();
        index.sync().unwrap();
        std::fs::write(dir.join("lanes"), "edgeveil-spool 1\nalert\nstatus\nreading\nimage\n").unwrap();
    }

    #[test]
    fn records_of_the_first_version_come_before_packed_ones() {
        let dir = tempfile::tempdir().unwrap();
        old_spool(dir.path());
        let (spool, report) = Spool::open(options(dir.path())).unwrap();
        assert_eq!((report.records, report.repair), (vec![0, 0, 20, 0], None));
        (21..=40).for_each(|n| put(&spool, READING, n, 50));
        spool.commit().unwrap();
        let first: Vec<u64> = (1..=15).chain([30]).collect();
        assert_eq!(lease(&spool, ALL), (21..=40).chain(1..=20).collect::<Vec<_>>());
        assert_eq!(done(&spool, &first), 16);
        drop(spool);
        assert_eq!(Inspector::open(dir.path()).unwrap().verify().unwrap().sound, 24);
        let spool = open(dir.path());
        let rest: Vec<u64> = (16..=29).chain(31..=40).collect();
        assert_eq!(lease(&spool, ALL), rest);
        done(&spool, &rest);
        spool.commit().unwrap();
        assert_eq!((spool.stats().records(), spool.stats().bytes), (0, 0));
    }
}
