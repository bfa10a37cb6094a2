//! What happened to the agent itself: the records of the lane `status`.

use crate::{Lane, PayloadError, Schema, Stamp, schema};
use serde::{Deserialize, Serialize};

/// The kinds of event. Readers keep a kind that they do not know as its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The agent runs.
    Started,
    /// The agent was asked to stop. Not seen after a power cut.
    Stopped,
    /// A camera gives no frames.
    CameraLost,
    /// It does again.
    CameraBack,
    /// Frames cannot be veiled, so none is kept.
    VeilFailed,
    /// They can again.
    VeilBack,
    /// A sensor cannot be read.
    SensorLost,
    /// It can again.
    SensorBack,
    /// The board holds its processor back: it is hot, or short of voltage.
    BoardThrottled,
    /// It does no longer.
    BoardRecovered,
    /// Records were dropped because a bound was reached.
    Dropped,
    /// The spool was damaged; what could be read was kept.
    SpoolDamaged,
    /// The receiver refuses a record for ever.
    Refused,
    /// A kind of a later version.
    #[serde(untagged)]
    Other(String),
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Identity and time.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// What happened.
    pub event: EventKind,
    /// To what: a camera, a sensor, a lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// For people: what was seen, and what to do about it.
    pub detail: String,
}

impl Event {
    /// As published on `event`.
    pub fn to_json(&self) -> Vec<u8> {
        schema::write(Schema::Event, self)
    }

    /// Reads what [`Self::to_json`] wrote.
    pub fn from_json(payload: &[u8]) -> Result<Self, PayloadError> {
        let event: Self = schema::parse(Schema::Event, payload)?;
        event.stamp.check(Lane::Status)?;
        Ok(event)
    }
}
