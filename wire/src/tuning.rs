//! Settings from afar: what is wanted of a device, and what of it runs there.
//!
//! Only what cannot make a device unreachable and cannot weaken the veil is among them: how often, how fine, and what is
//! alerted. Values are written as in the agent's settings file (`docs/settings.md`).

use crate::{BootId, ClockState, MAX_JSON_BYTES, Name, PayloadError, Schema, schema};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest id of a [`Desired`], in bytes.
pub const MAX_TUNING_ID: usize = 64;
/// The longest [`Desired`] in bytes.
pub const MAX_DESIRED_BYTES: usize = 16 << 10;

/// Settings. What is not there is as in the device's own file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// `[health]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthTuning>,
    /// `[[sensor]]`, by group.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sensor: BTreeMap<Name, SensorTuning>,
    /// `[[camera]]`, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub camera: BTreeMap<Name, CameraTuning>,
}

/// Of `[health]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthTuning {
    /// Between two health messages: `"30 s"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
}

/// Of a sensor group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensorTuning {
    /// Readings a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Whether they are scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detect: Option<bool>,
    /// `"rows"` or `"episodes"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<String>,
}

/// Of a camera.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraTuning {
    /// Images a second; in place of `every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// One image in so long: `"10 min"`; in place of `fps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// Of the JPEGs, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<u8>,
}

/// Published retained on `config/desired`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Chosen by whoever wants it, another one each time: the answer names it.
    pub id: String,
    /// All that is wanted; what an earlier one wanted and this one does not is as in the file again.
    pub settings: Tuning,
}

/// What became of a [`Desired`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It runs.
    Applied,
    /// It does not, and what ran before goes on.
    Refused,
}

/// The answer to a [`Desired`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredAnswer {
    /// Which one; empty where it could not be read.
    pub id: String,
    /// Whether it runs.
    pub state: Verdict,
    /// For people: why not, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Published retained on `config/reported`. It is no record: it has no `seq`, and only the newest one counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reported {
    /// This start of the agent.
    pub boot: BootId,
    /// When it was said.
    pub timestamp: Timestamp,
    /// Whether that clock was set.
    pub clock: ClockState,
    /// All of them as they run, whether from the file or from afar.
    pub settings: Tuning,
    /// What became of the last wish, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<DesiredAnswer>,
}

impl Desired {
    /// As published on `config/desired`.
    pub fn to_json(&self) -> Vec<u8> {
        schema::write(Schema::Desired, self)
    }

    /// Reads what [`Self::to_json`] wrote. Other than elsewhere a setting that is not known is an error: it would have no effect, and
    /// nobody would know.
    pub fn from_json(payload: &[u8]) -> Result<Self, PayloadError> {
        let bound = MAX_DESIRED_BYTES;
        if payload.len() > bound {
            return Err(PayloadError::TooLong { bytes: payload.len(), bound });
        }
        let desired: Self = schema::parse(Schema::Desired, payload)?;
        let is_plain = |byte: u8| byte.is_ascii_graphic();
        if desired.id.is_empty() || desired.id.len() > MAX_TUNING_ID || !desired.id.bytes().all(is_plain) {
            return Err(PayloadError::TuningId);
        }
        Ok(desired)
    }
}

impl Reported {
    /// As published on `config/reported`.
    pub fn to_json(&self) -> Vec<u8> {
        schema::write(Schema::Reported, self)
    }

    /// Reads what [`Self::to_json`] wrote.
    pub fn from_json(payload: &[u8]) -> Result<Self, PayloadError> {
        if payload.len() > MAX_JSON_BYTES {
            return Err(PayloadError::TooLong { bytes: payload.len(), bound: MAX_JSON_BYTES });
        }
        schema::parse(Schema::Reported, payload)
    }
}
