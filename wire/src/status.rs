//! Presence: the retained message that says whether a device is there.

use crate::{BootId, ClockState, PayloadError, Schema, schema};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether a device is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// Connected. Published on every connection.
    Online,
    /// The broker lost it: this is the last will.
    Offline,
    /// It was asked to stop and said goodbye.
    Stopped,
}

/// Published retained on `status`. It is no record: it has no `seq`, and only the newest one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the device is there.
    pub state: DeviceState,
    /// The agent's version.
    pub version: String,
    /// This start of the agent.
    pub boot: BootId,
    /// When it was said; the last will has none, since nobody knows beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// Whether that clock was set.
    pub clock: ClockState,
    /// For people: what is wrong now, one line each. Empty when all is well.
    #[serde(default)]
    pub problems: Vec<String>,
}

impl Status {
    /// As published on `status`.
    pub fn to_json(&self) -> Vec<u8> {
        schema::write(Schema::Status, self)
    }

    /// Reads what [`Self::to_json`] wrote.
    pub fn from_json(payload: &[u8]) -> Result<Self, PayloadError> {
        schema::parse(Schema::Status, payload)
    }
}
