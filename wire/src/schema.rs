//! The name and version that every JSON payload carries.

use crate::{NameError, stamp::StampError};
use serde_json::{Map, Value};

/// The kinds of JSON payload and the version of each that this crate writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// [`crate::Reading`]
    Reading,
    /// [`crate::Alert`]
    Alert,
    /// [`crate::Event`]
    Event,
    /// [`crate::Status`]
    Status,
    /// [`crate::Health`]
    Health,
    /// [`crate::Ack`]
    Ack,
    /// [`crate::Desired`]
    Desired,
    /// [`crate::Reported`]
    Reported,
    /// [`crate::ImageMeta`]
    Image,
    /// [`crate::EnrollRequest`]
    Enroll,
    /// [`crate::RenewRequest`]
    Renew,
    /// [`crate::Enrolled`]
    Enrolled,
    /// [`crate::Refusal`]
    Refusal,
}

impl Schema {
    /// As written in the field `schema`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "edgeveil.reading/1",
            Self::Alert => "edgeveil.alert/1",
            Self::Event => "edgeveil.event/1",
            Self::Status => "edgeveil.status/1",
            Self::Health => "edgeveil.health/1",
            Self::Ack => "edgeveil.ack/1",
            Self::Desired => "edgeveil.desired/1",
            Self::Reported => "edgeveil.reported/1",
            Self::Image => "edgeveil.image/1",
            Self::Enroll => "edgeveil.enroll/1",
            Self::Renew => "edgeveil.renew/1",
            Self::Enrolled => "edgeveil.enrolled/1",
            Self::Refusal => "edgeveil.refusal/1",
        }
    }

    /// Whether `found` is this kind of payload in another major version than this crate reads.
    fn is_other_version(self, found: &str) -> bool {
        let (Some((kind, version)), Some((ours, own))) =
            (found.split_once('/'), self.as_str().split_once('/'))
        else {
            return false;
        };
        kind == ours && version.parse::<u32>().is_ok_and(|version| own.parse() != Ok(version))
    }
}

/// Why a payload was refused. The texts go into dead-letter tables, so they never repeat the payload at length.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Longer than the bound.
    #[error("payload of {bytes} bytes is over the bound of {bound}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The most that is read.
        bound: usize,
    },
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("not the JSON of a {schema}: {source}", schema = schema.as_str())]
    Json {
        /// What was expected.
        schema: Schema,
        /// What serde said.
        source: serde_json::Error,
    },
    /// The right kind of payload in a major version that this reader does not know. That is no fault of the payload:
    /// whoever is upgraded will read it, so it must neither be acknowledged nor thrown away.
    #[error("schema is {found}, this reader knows {}", wanted.as_str())]
    Version {
        /// What this reader knows.
        wanted: Schema,
        /// What the payload says.
        found: String,
    },
    /// Another kind of payload, or none.
    #[error("schema is {found}, this reader knows {}", wanted.as_str())]
    Schema {
        /// What was expected.
        wanted: Schema,
        /// What the payload says.
        found: String,
    },
    /// `id`, `boot`, `seq` and the lane contradict each other.
    #[error(transparent)]
    Stamp(#[from] StampError),
    /// More values than [`crate::MAX_VALUES`].
    #[error("{0} values in one reading, the bound is {max}", max = crate::MAX_VALUES)]
    TooManyValues(usize),
    /// A value's name that could not have come from an agent.
    #[error("value name: {0}")]
    ValueName(#[from] NameError),
    /// More ids than [`crate::MAX_ACK_IDS`].
    #[error("{0} ids in one acknowledgement, the bound is {max}", max = crate::MAX_ACK_IDS)]
    TooManyIds(usize),
    /// A [`crate::Desired`] that its answer could not name.
    #[error("the id of desired settings wants 1 to {max} visible ASCII characters", max = crate::MAX_TUNING_ID)]
    TuningId,
}

/// Parses an object and checks its `schema`.
pub(crate) fn object(schema: Schema, payload: &[u8]) -> Result<Map<String, Value>, PayloadError> {
    if payload.len() > crate::MAX_JSON_BYTES {
        return Err(PayloadError::TooLong { bytes: payload.len(), bound: crate::MAX_JSON_BYTES });
    }
    let map: Map<String, Value> =
        serde_json::from_slice(payload).map_err(|source| PayloadError::Json { schema, source })?;
    match map.get("schema") {
        Some(Value::String(found)) if found == schema.as_str() => Ok(map),
        Some(Value::String(found)) if schema.is_other_version(found) => {
            Err(PayloadError::Version { wanted: schema, found: found.chars().take(64).collect() })
        }
        found => {
            let found = found.map_or_else(|| "missing".to_owned(), ToString::to_string);
            Err(PayloadError::Schema { wanted: schema, found: found.chars().take(64).collect() })
        }
    }
}

/// Parses a payload whose fields are all known to serde.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    schema: Schema,
    payload: &[u8],
) -> Result<T, PayloadError> {
    let map = object(schema, payload)?;
    serde_json::from_value(Value::Object(map)).map_err(|source| PayloadError::Json { schema, source })
}

/// Writes a payload with its `schema` in front.
pub(crate) fn write<T: serde::Serialize>(schema: Schema, payload: &T) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Named<'a, T> {
        schema: &'static str,
        #[serde(flatten)]
        payload: &'a T,
    }
    serde_json::to_vec(&Named { schema: schema.as_str(), payload })
        .expect("payload types have text keys and no failing serializers")
}
