//! A job's id, and the keys of its objects, which come from it alone.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

/// A UUID of version 7 (RFC 9562): its first 48 bits are the time, in milliseconds since 1970, and 74 bits are random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(u128);

/// What is no id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no id of a picture; it wants a UUID of version 7 in small letters, as `POST /v1/images` gives it")]
pub struct NoJobId;

const VERSION: u128 = 0xf << 76;
const VARIANT: u128 = 0b11 << 62;

impl JobId {
    /// A new one.
    pub fn new(now: SystemTime) -> Result<Self, getrandom::Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let random = u128::from_be_bytes(random) & (u128::MAX >> 48) & !VERSION & !VARIANT;
        Ok(Self((millis << 80) | random | (7 << 76) | (0b10 << 62)))
    }

    /// When it was made.
    pub fn made(self) -> SystemTime {
        let millis = u64::try_from(self.0 >> 80).unwrap_or(u64::MAX);
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    /// Where its raw picture is in the input place.
    pub fn raw_key(self) -> String {
        format!("{}/{self}.raw", self.day())
    }

    /// Where its result is in the output place.
    pub fn result_key(self) -> String {
        format!("{}/{self}.jpg", self.day())
    }

    /// Of a raw picture's key; none of any other object's.
    pub fn of_raw_key(key: &str) -> Option<Self> {
        let id: Self = key.rsplit('/').next()?.strip_suffix(".raw")?.parse().ok()?;
        (id.raw_key() == key).then_some(id)
    }

    fn day(self) -> String {
        let time = jiff::Timestamp::try_from(self.made()).unwrap_or_default();
        time.strftime("%Y/%m/%d").to_string()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl FromStr for JobId {
    type Err = NoJobId;

    fn from_str(text: &str) -> Result<Self, NoJobId> {
        let hex: String = text.split('-').collect();
        let bits = u128::from_str_radix(&hex, 16).map_err(|_| NoJobId)?;
        let id = Self(bits);
        // One text for each id: the right dashes, small letters, and the version and variant that we give.
        let ours = bits & VERSION == 7 << 76 && bits & VARIANT == 0b10 << 62;
        if ours && id.to_string() == text { Ok(id) } else { Err(NoJobId) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text_and_its_keys_lead_back_to_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_683_600_123);
        let id = JobId::new(now).unwrap();
        assert_eq!(id.made(), now);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.result_key(), format!("2026/11/26/{id}.jpg"));
        assert_eq!(JobId::of_raw_key(&id.raw_key()), Some(id));
        assert_ne!(JobId::new(now).unwrap(), id);
        let text = id.to_string();
        for bad in ["", "x", &text.to_uppercase(), &text.replace('-', ""), &text[1..], &format!("{text}0")] {
            assert_eq!(bad.parse::<JobId>(), Err(NoJobId), "{bad}");
        }
        let other_version = text.replacen("-7", "-4", 1);
        assert_eq!(other_version.parse::<JobId>(), Err(NoJobId));
        for key in ["notes.txt", &format!("{id}.raw"), &format!("2020/01/01/{id}.raw"), &id.result_key()] {
            assert_eq!(JobId::of_raw_key(key), None, "{key}");
        }
    }
}
