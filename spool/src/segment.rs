//! What is known of one segment without reading it, and the note of it that the index keeps.

use crate::format::Place;

const MAGIC: [u8; 4] = *b"EvN\x01";
/// First byte of the keys of notes. Slots stay below.
const KEY: u8 = 0xfe;
const FIXED: usize = 45;

/// Bytes after which a segment is full: some thousand readings.
pub(crate) const SEGMENT_BYTES: u32 = 256 << 10;
/// Orders between a segment's first record and its last.
pub(crate) const SPAN_MAX: u64 = 1 << 14;

/// A file of packed records, of which some may be gone already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Order of its first record, and its name.
    pub first: u64,
    /// Order of its last record.
    pub last: u64,
    /// Durable bytes.
    pub len: u32,
    /// Records that are stored: neither done nor dropped.
    pub live: u32,
    /// What they count for.
    pub live_bytes: u64,
    /// One bit for each order from `first` on: done or dropped.
    gone: Vec<u8>,
    /// Records gone since the index knows of it.
    pub unnoted: u32,
    /// Whether the index has a note of it at all.
    pub noted: bool,
}

impl Segment {
    pub const fn new(first: u64) -> Self {
        Self {
            first,
            last: first,
            len: 0,
            live: 0,
            live_bytes: 0,
            gone: Vec::new(),
            unnoted: 0,
            noted: false,
        }
    }

    pub fn add(&mut self, order: u64, cost: u32) {
        self.last = order;
        self.live += 1;
        self.live_bytes += u64::from(cost);
    }

    fn bit(&self, order: u64) -> Option<(usize, u8)> {
        let at = usize::try_from(order.checked_sub(self.first)?).ok()?;
        Some((at / 8, 1 << (at % 8)))
    }

    pub fn is_gone(&self, order: u64) -> bool {
        self.bit(order).is_none_or(|(byte, bit)| self.gone.get(byte).is_some_and(|b| b & bit != 0))
    }

    pub fn mark_gone(&mut self, order: u64, cost: u32) {
        if self.is_gone(order) {
            return;
        }
        let Some((byte, bit)) = self.bit(order) else { return };
        if self.gone.len() <= byte {
            self.gone.resize(byte + 1, 0);
        }
        self.gone[byte] |= bit;
        self.live = self.live.saturating_sub(1);
        self.live_bytes = self.live_bytes.saturating_sub(u64::from(cost));
        self.unnoted += 1;
    }

    pub fn note_key(slot: u8, first: u64) -> [u8; 10] {
        let mut key = [KEY; 10];
        key[1] = slot;
        key[2..].copy_from_slice(&first.to_be_bytes());
        key
    }

    pub fn notes_of_all() -> std::ops::RangeInclusive<Vec<u8>> {
        vec![KEY]..=vec![KEY; 12]
    }

    pub fn note(&self, slot: u8) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(slot);
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.last.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.live.to_le_bytes());
        out.extend_from_slice(&self.live_bytes.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.gone.len()).expect("bounded by SPAN_MAX").to_le_bytes());
        out.extend_from_slice(&self.gone);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// The slot and the segment of a note. None unless every byte checks out.
    pub fn from_note(bytes: &[u8]) -> Option<(u8, Self)> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc32fast::hash(body).to_le_bytes() != crc || body.len() < FIXED - 4 || body[..4] != MAGIC {
            return None;
        }
        let long = |at: usize| Some(u64::from_le_bytes(body[at..at + 8].try_into().ok()?));
        let short = |at: usize| Some(u32::from_le_bytes(body[at..at + 4].try_into().ok()?));
        let gone = body.get(FIXED - 4..)?;
        if gone.len() != short(37)? as usize {
            return None;
        }
        let segment = Self {
            first: long(5)?,
            last: long(13)?,
            len: short(21)?,
            live: short(25)?,
            live_bytes: long(29)?,
            gone: gone.to_vec(),
            unnoted: 0,
            noted: true,
        };
        Some((body[4], segment))
    }

    /// Whether a place may be in it.
    pub const fn spans(&self, place: Place) -> bool {
        self.first <= place.order && place.order <= self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_survives_the_round_trip_and_no_flipped_bit_does() {
        let mut segment = Segment::new(1 << 40);
        for n in 0..20 {
            segment.add((1 << 40) + n, 100);
        }
        segment.mark_gone((1 << 40) + 3, 100);
        segment.mark_gone((1 << 40) + 3, 100);
        segment.mark_gone((1 << 40) + 17, 100);
        assert_eq!((segment.live, segment.live_bytes, segment.unnoted), (18, 1800, 2));
        let bytes = segment.note(3);
        let (slot, back) = Segment::from_note(&bytes).unwrap();
        assert_eq!((slot, &back), (3, &Segment { unnoted: 0, noted: true, ..segment.clone() }));
        assert_eq!((back.is_gone((1 << 40) + 17), back.is_gone((1 << 40) + 18)), (true, false));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Segment::from_note(&bad), None, "bit {bit}");
        }
    }
}
