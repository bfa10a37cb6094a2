//! Names that become levels of a topic, columns of a table and parts of an object key.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not 1 to 64 characters long.
    #[error("`{0}` is {1} characters long; a name has 1 to 64")]
    Length(String, usize),
    /// A character outside of the allowed ones, or a wrong first one.
    #[error("`{0}` may hold only letters, digits, `-` and `_` of ASCII and starts with a letter or digit")]
    Character(String),
    /// A value that would hide a field of the payload.
    #[error("`{0}` is a field of the payload itself; choose another name for the value")]
    Reserved(String),
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > 64 {
        return Err(NameError::Length(text.chars().take(80).collect(), text.chars().count()));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !text.bytes().all(legal) || !text.as_bytes()[0].is_ascii_alphanumeric() {
        return Err(NameError::Character(text.to_owned()));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                $check(&text)?;
                Ok(Self(text))
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A device: the common name of its certificate and the second level of its topics.
    DeviceName,
    check
);
name!(
    /// A camera, a group of readings or the source of an alert: the last level of a topic.
    Name,
    check
);
name!(
    /// A measured value's name: a key at the top level of a reading's JSON.
    ValueName,
    check_value
);

/// The payloads' own fields, and those kept for later versions of the schemas.
const RESERVED: [&str; 16] = [
    "anomaly",
    "boot",
    "clock",
    "contributions",
    "device",
    "group",
    "id",
    "reading",
    "schema",
    "score",
    "seq",
    "severity",
    "source",
    "threshold",
    "timestamp",
    "uptime_ms",
];

fn check_value(text: &str) -> Result<(), NameError> {
    check(text)?;
    if RESERVED.contains(&text) {
        return Err(NameError::Reserved(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_one_topic_level_and_one_path_element() {
        for bad in ["", "a/b", "..", "+", "#", "-a", "a b", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad}");
        }
        for good in ["edge-001", "0", "A_b-C", &"x".repeat(64)] {
            assert_eq!(good.parse::<DeviceName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_value_cannot_hide_a_field() {
        assert!(matches!("seq".parse::<ValueName>(), Err(NameError::Reserved(_))));
        assert!("sensor1".parse::<ValueName>().is_ok());
    }
}
