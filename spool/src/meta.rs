//! What the index keeps beside the records. It is written with every batch, so that it always fits them.

use crate::format::Place;

const MAGIC: [u8; 4] = *b"EvM\x01";
const FIXED: usize = 17;
const PER_SLOT: usize = 24;

/// One commit's count of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Which opening of the spool this is: the upper part of every order given since.
    pub epoch: u32,
    /// Which commit of the spool this is.
    pub commit: u64,
    pub slots: Vec<Slot>,
}

/// A lane's share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub records: u64,
    pub bytes: u64,
    /// Every order that was given before this commit is below it.
    pub next: u64,
}

impl Meta {
    pub fn slot(&self, slot: u8) -> Slot {
        self.slots.get(usize::from(slot)).copied().unwrap_or_default()
    }

    pub fn slot_mut(&mut self, slot: u8) -> &mut Slot {
        let slot = usize::from(slot);
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Slot::default());
        }
        &mut self.slots[slot]
    }

    /// Whether a record was pushed after this commit.
    pub fn is_before(&self, place: Place) -> bool {
        place.order >= self.slot(place.slot).next
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(u8::try_from(self.slots.len()).expect("slots are numbered by a byte, and few"));
        out.extend_from_slice(&self.commit.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        for word in self.slots.iter().flat_map(|s| [s.records, s.bytes, s.next]) {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads it from the start of `bytes`, which may go on behind it. None unless every byte checks out.
    pub fn decode_prefix(bytes: &[u8]) -> Option<(Self, usize)> {
        if bytes.get(..MAGIC.len())? != MAGIC {
            return None;
        }
        let crc_at = FIXED + usize::from(*bytes.get(4)?) * PER_SLOT;
        let (body, crc) = bytes.get(..crc_at + 4)?.split_at(crc_at);
        if crc32fast::hash(body).to_le_bytes() != crc {
            return None;
        }
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("a word has 8 bytes"));
        let slot = |b: &[u8]| Slot { records: word(&b[..8]), bytes: word(&b[8..16]), next: word(&b[16..]) };
        let meta = Self {
            commit: word(&body[5..13]),
            epoch: u32::from_le_bytes(body[13..FIXED].try_into().ok()?),
            slots: body[FIXED..].chunks_exact(PER_SLOT).map(slot).collect(),
        };
        Some((meta, crc_at + 4))
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::decode_prefix(bytes).filter(|(_, used)| *used == bytes.len()).map(|(meta, _)| meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_survives_the_round_trip_and_no_flipped_bit_does() {
        let slots =
            vec![Slot { records: 1, bytes: 2, next: 3 }, Slot { records: 4, bytes: u64::MAX, next: 5 }];
        let meta = Meta { epoch: 7, commit: 8, slots };
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Some(meta));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Meta::decode(&bad), None, "bit {bit}");
        }
    }
}
