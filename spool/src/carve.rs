//! Reading an index's log as a heap of bytes, without sled.
//!
//! sled takes a record of its log that fails its checksum for the log's end, and wipes what follows when it
//! opens. A flipped bit can thus undo every commit since, in silence. So before sled opens a log, it is surveyed:
//! how far did the commits go, and which are the newest entries? If sled then comes up with less, they are
//! put back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::SpoolError;
use crate::format::{ENTRY_MAX, Entry, Kind, MAGIC, Place, decode_prefix};
use crate::meta::Meta;

const WINDOW: usize = 1 << 20;
/// Entries that a survey keeps, the newest ones.
const KEEP_BYTES: usize = 4 << 20;

/// What a log holds, by its bytes.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The counts of the last commit that left a trace, finished or not.
    pub meta: Meta,
    /// Small records by age, the newest ones.
    pub entries: BTreeMap<(u64, u8), Vec<u8>>,
    bytes: usize,
}

pub(crate) fn survey(log: &Path) -> Result<Survey, SpoolError> {
    let mut found = Survey::default();
    carve(log, |carved| {
        match carved {
            Carved::Meta(meta) if meta.commit > found.meta.commit => found.meta = meta,
            Carved::Meta(_) => {}
            Carved::Entry(entry, bytes) if entry.key.kind == Kind::Inline => {
                found.keep(entry.key.place, bytes);
            }
            Carved::Entry(..) => {}
        }
        Ok(())
    })?;
    Ok(found)
}

impl Survey {
    fn keep(&mut self, place: Place, bytes: &[u8]) {
        let age = (place.order, place.slot);
        let full = self.bytes + bytes.len() > KEEP_BYTES;
        if (full && self.entries.first_key_value().is_some_and(|(oldest, _)| age < *oldest))
            || self.entries.contains_key(&age)
        {
            return;
        }
        self.bytes += bytes.len();
        self.entries.insert(age, bytes.to_vec());
        while self.bytes > KEEP_BYTES
            && let Some((_, oldest)) = self.entries.pop_first()
        {
            self.bytes -= oldest.len();
        }
    }
}

/// Something of ours in a heap of foreign bytes.
pub(crate) enum Carved<'a> {
    Entry(Entry<'a>, &'a [u8]),
    Meta(Meta),
}

/// Shows all entries and counts in a file to `each`, in the order in which they lie there. There are none in a
/// file that does not exist.
pub(crate) fn carve(
    log: &Path,
    mut each: impl FnMut(Carved<'_>) -> Result<(), SpoolError>,
) -> Result<(), SpoolError> {
    let mut file = match File::open(log) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(|e| SpoolError::io("open", log, e))?,
    };
    let mut heap = Vec::with_capacity(WINDOW + ENTRY_MAX);
    loop {
        let before = heap.len();
        (&mut file).take(WINDOW as u64).read_to_end(&mut heap).map_err(|e| SpoolError::io("read", log, e))?;
        if heap.len() == before {
            return Ok(());
        }
        let mut at = 0;
        while let Some((carved, next)) = find(&heap, at) {
            each(carved)?;
            at = next;
        }
        // One may begin in the last bytes of this window and end in the next.
        heap.drain(..at.max(heap.len().saturating_sub(ENTRY_MAX)));
    }
}

fn find(heap: &[u8], from: usize) -> Option<(Carved<'_>, usize)> {
    let mut at = from;
    loop {
        at += heap.get(at..)?.windows(2).position(|w| w == &MAGIC[..2])?;
        let rest = &heap[at..];
        if let Some((entry, used)) = decode_prefix(rest) {
            return Some((Carved::Entry(entry, &rest[..used]), at + used));
        }
        if let Some((meta, used)) = Meta::decode_prefix(rest) {
            return Some((Carved::Meta(meta), at + used));
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordId;
    use crate::format::{Body, encode};

    #[test]
    fn entries_and_counts_are_found_in_a_heap_of_bytes() {
        let place = |order| Place { slot: 1, order };
        let one = encode(place(1), RecordId([1; 16]), b"", Body::Inline(b"one"), 3);
        let two = encode(place(9), RecordId([1; 16]), b"h", Body::File(5), 4000);
        let meta = Meta { epoch: 1, commit: 5, slots: Vec::new() }.encode();
        let heap = [&b"EvS"[..], &one, b"EvS\x01", &one[..20], &meta, &two, &one[..30]].concat();
        let mut found = Vec::new();
        let mut at = 0;
        while let Some((carved, next)) = find(&heap, at) {
            at = next;
            found.push(match carved {
                Carved::Entry(entry, _) => entry.key.place.order,
                Carved::Meta(meta) => meta.commit * 100,
            });
        }
        assert_eq!(found, [1, 500, 9]);
    }

    /// Wherever the windows' borders fall.
    #[test]
    fn nothing_is_missed_at_the_border_of_two_windows() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("db");
        let payload = vec![0x45; 1000];
        let mut heap = Vec::new();
        for order in 0..3000 {
            heap.extend(encode(
                Place { slot: 0, order },
                RecordId([2; 16]),
                b"h",
                Body::Inline(&payload),
                1000,
            ));
            heap.extend(vec![b'E'; (order % 17) as usize]);
        }
        std::fs::write(&log, &heap).unwrap();
        assert!(heap.len() > 2 * WINDOW);
        assert_eq!(survey(&log).unwrap().entries.len(), 3000);
    }
}
