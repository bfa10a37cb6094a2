//! The bytes of a segment: packs of entries, one behind the other. The layout is described at the top of the
//! crate.

use crate::format::{Key, Kind, decode_prefix};

pub(crate) const MAGIC: [u8; 4] = *b"EvP\x01";
/// What stands before a pack's entries.
pub(crate) const HEAD: usize = 15;

/// The entries of one lane that one commit makes durable.
#[derive(Debug, Default)]
pub(crate) struct Pack {
    pub keys: Vec<Key>,
    pub bytes: Vec<u8>,
}

impl Pack {
    pub fn add(&mut self, key: Key, entry: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.resize(HEAD, 0);
        }
        self.keys.push(key);
        self.bytes.extend_from_slice(entry);
    }

    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Writes the head, now that all entries are there.
    pub fn finish(&mut self, slot: u8) {
        if self.is_empty() {
            return;
        }
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&MAGIC);
        head[4] = slot;
        let count = u16::try_from(self.keys.len()).expect("a segment holds fewer entries");
        head[5..7].copy_from_slice(&count.to_le_bytes());
        let len = u32::try_from(self.bytes.len() - HEAD).expect("a segment is far below 4 GiB");
        head[7..11].copy_from_slice(&len.to_le_bytes());
        let crc = crc32fast::hash(&head[..11]);
        head[11..].copy_from_slice(&crc.to_le_bytes());
        self.bytes[..HEAD].copy_from_slice(&head);
    }
}

/// Count and length of the entries behind a pack's head.
fn head(bytes: &[u8]) -> Option<(u32, usize)> {
    let head = bytes.get(..HEAD)?;
    if head[..4] != MAGIC || crc32fast::hash(&head[..11]).to_le_bytes() != head[11..] {
        return None;
    }
    let count = u16::from_le_bytes([head[5], head[6]]);
    let len = u32::from_le_bytes(head[7..11].try_into().ok()?);
    Some((u32::from(count), len as usize))
}

/// An entry and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub key: Key,
    pub at: u32,
    pub len: u32,
}

/// What a stretch of a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub found: Vec<Found>,
    /// Entries that a pack's head announced, that are all on disk, and that cannot be read.
    pub lost: u32,
}

/// Reads a segment's bytes from `from` on, whatever became of them. Entries whose order is not above the one
/// before and below `end` are not of this segment: a write that failed may leave some, which were written again
/// elsewhere.
pub(crate) fn read(bytes: &[u8], from: usize, slot: u8, end: u64) -> Contents {
    let mut contents = Contents::default();
    let mut pack: Option<Expected> = None;
    let mut last = None;
    let mut at = from;
    while at < bytes.len() {
        if let Some((count, len)) = head(&bytes[at..]) {
            contents.lost += pack.take().map_or(0, |p| p.missing(bytes.len()));
            at += HEAD;
            pack = Some(Expected { count, end: at + len, found: 0 });
            continue;
        }
        match decode_prefix(&bytes[at..]) {
            Some((entry, used)) => {
                let key = entry.key;
                let order = key.place.order;
                if let Some(pack) = &mut pack {
                    pack.found += 1;
                }
                if key.kind == Kind::Packed && key.place.slot == slot && last < Some(order) && order < end {
                    last = Some(order);
                    let position = |n| u32::try_from(n).expect("a segment is far below 4 GiB");
                    contents.found.push(Found { key, at: position(at), len: position(used) });
                }
                at += used;
            }
            None => {
                // On to whatever may begin an entry or a pack.
                let next = bytes[at + 1..].iter().position(|b| *b == MAGIC[0]);
                at = next.map_or(bytes.len(), |n| at + 1 + n);
            }
        }
    }
    contents.lost += pack.map_or(0, |p| p.missing(bytes.len()));
    contents
}

struct Expected {
    count: u32,
    end: usize,
    found: u32,
}

impl Expected {
    /// Of a pack that the end of the file cuts off nothing was promised.
    const fn missing(&self, file_len: usize) -> u32 {
        if self.end > file_len { 0 } else { self.count.saturating_sub(self.found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordId;
    use crate::format::{Body, Place, encode};

    fn pack(orders: std::ops::Range<u64>) -> Vec<u8> {
        let mut pack = Pack::default();
        for order in orders {
            let entry =
                encode(Place { slot: 2, order }, RecordId([7; 16]), b"h", Body::Packed(b"EvS\x01 E"), 6);
            pack.add(decode_prefix(&entry).unwrap().0.key, &entry);
        }
        pack.finish(2);
        pack.bytes
    }

    fn orders(contents: &Contents) -> Vec<u64> {
        contents.found.iter().map(|f| f.key.place.order).collect()
    }

    #[test]
    fn a_flipped_byte_costs_one_entry_and_that_is_known() {
        let bytes = [pack(0..5), pack(5..9)].concat();
        let whole = read(&bytes, 0, 2, u64::MAX);
        assert_eq!((orders(&whole), whole.lost), ((0..9).collect(), 0));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            let found = read(&bad, 0, 2, u64::MAX);
            assert!(found.found.len() >= 8, "byte {at}: {:?}", orders(&found));
            assert_eq!(found.found.len() + found.lost as usize, 9, "byte {at}");
        }
    }

    #[test]
    fn of_a_pack_that_was_cut_off_the_whole_entries_count_and_nothing_is_lost() {
        let bytes = [pack(0..2), pack(2..5)].concat();
        let two = pack(0..2).len();
        for len in two..bytes.len() {
            let found = read(&bytes[..len], 0, 2, u64::MAX);
            assert!(orders(&found).starts_with(&[0, 1]) && found.lost == 0, "cut to {len}");
        }
        assert_eq!(orders(&read(&bytes, two, 2, u64::MAX)), [2, 3, 4]);
    }

    #[test]
    fn what_was_written_again_elsewhere_is_not_taken_twice() {
        let bytes = [pack(0..3), pack(2..6)].concat();
        assert_eq!(orders(&read(&bytes, 0, 2, 5)), [0, 1, 2, 3, 4]);
        assert_eq!(orders(&read(&bytes, 0, 1, u64::MAX)), [0; 0]);
    }
}
