//! Identifiers that do not need a clock.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why an identifier was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct IdError {
    text: String,
    wanted: &'static str,
}

fn unhex<const N: usize>(text: &str, wanted: &'static str) -> Result<[u8; N], IdError> {
    let error = || IdError { text: text.chars().take(64).collect(), wanted };
    let bytes = text.as_bytes();
    if bytes.len() != 2 * N || !bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(error());
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| error())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
    }
    Ok(out)
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

macro_rules! as_text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.to_string()
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// One start of the agent: 80 random bits, written as 20 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId([u8; 10]);

impl BootId {
    /// From random bytes, which the caller takes from the operating system.
    pub const fn from_random(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }
}

impl FromStr for BootId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        unhex(text, "a boot id (20 hexadecimal digits in lower case)").map(Self)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

as_text!(BootId);

/// What kind of record it is, in the order of priority. Each lane counts its records by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Lane {
    /// Anomalies.
    Alert = 0,
    /// Events in the agent's own life.
    Status = 1,
    /// Sensor readings.
    Reading = 2,
    /// Veiled images.
    Image = 3,
}

impl Lane {
    /// All lanes, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Alert, Self::Status, Self::Reading, Self::Image];

    /// The lane's name in settings, metrics and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Status => "status",
            Self::Reading => "reading",
            Self::Image => "image",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one record for ever, whichever way and however often it travels.
///
/// 128 bits, written as 32 hexadecimal digits (the form that EXIF wants of its ImageUniqueID): 80 bits of the
/// [`BootId`], 8 of the [`Lane`], 40 of `seq`, big-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId([u8; 16]);

impl RecordId {
    /// The largest `seq`: at a thousand records a second it lasts 34 years.
    pub const MAX_SEQ: u64 = (1 << 40) - 1;

    /// The id of the `seq`-th record of a lane within a boot. `seq` is cut to 40 bits.
    pub fn new(boot: BootId, lane: Lane, seq: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..10].copy_from_slice(&boot.0);
        bytes[10] = lane as u8;
        bytes[11..].copy_from_slice(&seq.to_be_bytes()[3..]);
        Self(bytes)
    }

    /// From its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes, big-endian.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The boot it was made in.
    pub fn boot(self) -> BootId {
        let mut boot = [0; 10];
        boot.copy_from_slice(&self.0[..10]);
        BootId(boot)
    }

    /// Its lane, when this version knows it.
    pub fn lane(self) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| *lane as u8 == self.0[10])
    }

    /// Its number within boot and lane.
    pub fn seq(self) -> u64 {
        self.0[11..].iter().fold(0, |seq, byte| seq << 8 | u64::from(*byte))
    }
}

impl FromStr for RecordId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        unhex(text, "a record id (32 hexadecimal digits in lower case)").map(Self)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

as_text!(RecordId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_gives_back_what_it_is_made_of() {
        let boot = BootId::from_random([1, 2, 3, 4, 5, 6, 7, 8, 9, 255]);
        for lane in Lane::ALL {
            for seq in [0, 1, 255, 256, RecordId::MAX_SEQ] {
                let id = RecordId::new(boot, lane, seq);
                assert_eq!((id.boot(), id.lane(), id.seq()), (boot, Some(lane), seq));
                assert_eq!(id.to_string().parse(), Ok(id));
                assert_eq!(id.to_string().len(), 32);
            }
        }
    }

    #[test]
    fn odd_texts_are_refused() {
        for bad in
            ["", "zz", "00112233445566778899aabbccddeef", "é0112233445566778899aabbccddeef", &"A".repeat(32)]
        {
            assert!(bad.parse::<RecordId>().is_err(), "{bad}");
        }
    }
}
