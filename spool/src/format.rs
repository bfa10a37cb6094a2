//! The bytes of an entry. The layout is described at the top of the crate.

use std::ops::RangeInclusive;

use crate::{Payload, RecordId};

/// Longest header of a record, in bytes.
pub const HEADER_MAX: usize = 4096;
/// Longest payload of a record, in bytes.
pub const PAYLOAD_MAX: usize = 256 << 20;
/// Header and payload together up to which a record of an `Inline` lane has no file of its own.
pub const INLINE_MAX: usize = 6 << 10;

pub(crate) const MAGIC: [u8; 4] = *b"EvS\x01";
const FIXED: usize = 40;
const CRC_AT: usize = 36;
pub(crate) const KEY_LEN: usize = 14;
const FILE_MAGIC: [u8; 8] = *b"EvSpoolF";
/// What follows the entry at the end of a file: its length and the file's magic.
const TAIL: usize = 12;
/// What an entry costs beyond header and payload: its key, its fixed part and sled's share.
const ENTRY_COST: u64 = 64;
const BLOCK: u64 = 4096;

/// A place in a lane: the lane's slot on disk, and the record's order in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub slot: u8,
    pub order: u64,
}

/// All that bounds, counting and deleting need to know of a record: it is the key, so values stay unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub place: Place,
    pub kind: Kind,
    pub cost: u32,
}

/// Where a record's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the index, as version 0.1 stored small records.
    Inline,
    /// In a file of its own.
    File,
    /// In a segment, with others.
    Packed,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Inline => 0,
            Self::File => 1,
            Self::Packed => 2,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Inline),
            1 => Some(Self::File),
            2 => Some(Self::Packed),
            _ => None,
        }
    }

    pub const fn payload(self) -> Payload {
        match self {
            Self::File => Payload::File,
            Self::Inline | Self::Packed => Payload::Inline,
        }
    }
}

impl Key {
    pub fn encode(self) -> [u8; KEY_LEN] {
        let mut out = [0; KEY_LEN];
        out[0] = self.place.slot;
        out[1..9].copy_from_slice(&self.place.order.to_be_bytes());
        out[9] = self.kind.code();
        out[10..].copy_from_slice(&self.cost.to_be_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; KEY_LEN] = bytes.try_into().ok()?;
        Some(Self {
            place: Place { slot: bytes[0], order: u64::from_be_bytes(bytes[1..9].try_into().ok()?) },
            kind: Kind::of(bytes[9])?,
            cost: u32::from_be_bytes(bytes[10..].try_into().ok()?),
        })
    }
}

/// The keys of a slot from one order up to and including another.
pub(crate) fn span(slot: u8, orders: RangeInclusive<u64>) -> RangeInclusive<Vec<u8>> {
    let mut low = vec![slot];
    low.extend_from_slice(&orders.start().to_be_bytes());
    let mut high = vec![slot];
    high.extend_from_slice(&orders.end().to_be_bytes());
    high.extend_from_slice(&[0xff; 5]);
    low..=high
}

/// The bytes a record counts for, against every bound.
pub(crate) fn cost(kind: Kind, header_len: usize, payload_len: usize) -> u32 {
    let payload_cost = match kind {
        Kind::Inline | Kind::Packed => payload_len as u64,
        // The file ends with a copy of the entry, so a whole block more may be begun.
        Kind::File => (payload_len as u64 + header_len as u64 + 64).div_ceil(BLOCK) * BLOCK,
    };
    u32::try_from(payload_cost + header_len as u64 + ENTRY_COST)
        .expect("PAYLOAD_MAX and HEADER_MAX are far below 4 GiB")
}

/// A decoded entry, borrowed from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub key: Key,
    pub id: RecordId,
    pub header: &'a [u8],
    pub payload_len: u32,
    pub body: Body<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Inline(&'a [u8]),
    Packed(&'a [u8]),
    /// The payload's CRC-32; the payload is in the file.
    File(u32),
}

pub(crate) fn encode(
    place: Place,
    id: RecordId,
    header: &[u8],
    body: Body<'_>,
    payload_len: usize,
) -> Vec<u8> {
    let crc_bytes;
    let (kind, body) = match body {
        Body::Inline(bytes) => (Kind::Inline, bytes),
        Body::Packed(bytes) => (Kind::Packed, bytes),
        Body::File(crc) => {
            crc_bytes = crc.to_le_bytes();
            (Kind::File, &crc_bytes[..])
        }
    };
    let mut out = Vec::with_capacity(FIXED + header.len() + body.len());
    out.extend_from_slice(&MAGIC);
    out.push(place.slot);
    out.push(kind.code());
    out.extend_from_slice(&place.order.to_le_bytes());
    out.extend_from_slice(&id.0);
    out.extend_from_slice(&u16::try_from(header.len()).expect("checked against HEADER_MAX").to_le_bytes());
    out.extend_from_slice(&u32::try_from(payload_len).expect("checked against PAYLOAD_MAX").to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&out);
    crc.update(header);
    crc.update(body);
    out.extend_from_slice(&crc.finalize().to_le_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(body);
    out
}

/// Reads an entry from the start of `bytes`, which may go on behind it. None unless every byte checks out.
pub(crate) fn decode_prefix(bytes: &[u8]) -> Option<(Entry<'_>, usize)> {
    let fixed: &[u8; FIXED] = bytes.get(..FIXED)?.try_into().ok()?;
    if fixed[..4] != MAGIC {
        return None;
    }
    let kind = Kind::of(fixed[5])?;
    let header_len = usize::from(u16::from_le_bytes([fixed[30], fixed[31]]));
    let payload_len = u32::from_le_bytes(fixed[32..36].try_into().ok()?);
    if header_len > HEADER_MAX || payload_len as usize > PAYLOAD_MAX {
        return None;
    }
    let body_len = match kind {
        Kind::Inline | Kind::Packed => payload_len as usize,
        Kind::File => 4,
    };
    let total = FIXED + header_len + body_len;
    let rest = bytes.get(FIXED..total)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&fixed[..CRC_AT]);
    crc.update(rest);
    if crc.finalize().to_le_bytes() != fixed[CRC_AT..] {
        return None;
    }
    let (header, body) = rest.split_at(header_len);
    let place = Place { slot: fixed[4], order: u64::from_le_bytes(fixed[6..14].try_into().ok()?) };
    let entry = Entry {
        key: Key { place, kind, cost: cost(kind, header_len, payload_len as usize) },
        id: RecordId(fixed[14..30].try_into().ok()?),
        header,
        payload_len,
        body: match kind {
            Kind::Inline => Body::Inline(body),
            Kind::Packed => Body::Packed(body),
            Kind::File => Body::File(u32::from_le_bytes(body.try_into().ok()?)),
        },
    };
    Some((entry, total))
}

/// Reads an entry that is stored under `key`. None unless it is exactly that one and every byte checks out.
pub(crate) fn decode(key: Key, bytes: &[u8]) -> Option<Entry<'_>> {
    let (entry, used) = decode_prefix(bytes)?;
    (used == bytes.len() && entry.key == key).then_some(entry)
}

/// The longest an entry can be.
pub(crate) const ENTRY_MAX: usize = FIXED + HEADER_MAX + INLINE_MAX;

/// What is appended to a payload in its file, so that the file alone tells everything about its record.
pub(crate) fn file_tail(entry: &[u8]) -> Vec<u8> {
    let mut out = entry.to_vec();
    out.extend_from_slice(&u32::try_from(entry.len()).expect("an entry has a few KiB").to_le_bytes());
    out.extend_from_slice(&FILE_MAGIC);
    out
}

/// The entry's bytes in the last bytes of a file.
pub(crate) fn entry_in_tail(end_of_file: &[u8]) -> Option<&[u8]> {
    let (rest, tail) = end_of_file.split_at_checked(end_of_file.len().checked_sub(TAIL)?)?;
    let (len, magic) = tail.split_at(4);
    if magic != FILE_MAGIC {
        return None;
    }
    let len = u32::from_le_bytes(len.try_into().ok()?) as usize;
    let entry = rest.get(rest.len().checked_sub(len)?..)?;
    let (decoded, used) = decode_prefix(entry)?;
    (used == len && decoded.key.kind == Kind::File).then_some(entry)
}

/// The longest tail a file can have.
pub(crate) const FILE_TAIL_MAX: usize = FIXED + HEADER_MAX + 4 + TAIL;

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { slot: 3, order: 0x0102_0304_0506_0708 };
    const ID: RecordId = RecordId(*b"0123456789abcdef");

    #[test]
    fn an_entry_survives_the_round_trip_and_no_flipped_bit_does() {
        let bytes = encode(PLACE, ID, b"header", Body::Inline(b"payload"), 7);
        let (entry, used) = decode_prefix(&bytes).unwrap();
        assert_eq!(used, bytes.len());
        assert_eq!((entry.header, entry.body, entry.id), (&b"header"[..], Body::Inline(b"payload"), ID));
        assert_eq!(decode(entry.key, &bytes), Some(entry));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_prefix(&bad), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(decode_prefix(&bytes[..len]), None, "cut to {len}");
        }
    }

    #[test]
    fn a_key_survives_the_round_trip_and_sorts_by_lane_and_order() {
        let key = |slot, order| Key { place: Place { slot, order }, kind: Kind::File, cost: 77 };
        assert_eq!(Key::decode(&key(1, 2).encode()), Some(key(1, 2)));
        assert!(key(0, u64::MAX).encode() < key(1, 0).encode());
        assert!(key(1, 255).encode() < key(1, 256).encode());
        let span = span(1, 5..=6);
        for (key, inside) in [(key(1, 4), false), (key(1, 5), true), (key(1, 6), true), (key(1, 7), false)] {
            assert_eq!(span.contains(&key.encode().to_vec()), inside, "{key:?}");
        }
    }

    #[test]
    fn a_file_tells_its_entry() {
        let entry = encode(PLACE, ID, b"h", Body::File(5), 4);
        let file = [&b"jpeg"[..], &file_tail(&entry)].concat();
        assert_eq!(entry_in_tail(&file), Some(&entry[..]));
        assert_eq!(entry_in_tail(&file[..file.len() - 1]), None);
        assert_eq!(entry_in_tail(b""), None);
    }

    /// The bytes on disk are a promise to the next version: this fails when they change.
    #[test]
    fn version_1_stays_as_it_is() {
        let bytes = encode(Place { slot: 1, order: 2 }, RecordId([9; 16]), b"h", Body::Inline(b"pp"), 2);
        let expected = [
            &b"EvS\x01\x01\x00"[..],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[9; 16],
            &[1, 0, 2, 0, 0, 0],
            &bytes[36..40],
            b"hpp",
        ]
        .concat();
        assert_eq!(bytes, expected);
    }
}
