//! Counters and gauges of a device. Sent with QoS 0 and never spooled: an old one is worth nothing.

use crate::{BootId, ClockState, Name, PayloadError, Schema, schema};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Published on `health`. Counters count since `boot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// This start of the agent.
    pub boot: BootId,
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Whether that clock was set.
    pub clock: ClockState,
    /// Milliseconds since the agent started.
    pub uptime_ms: u64,
    /// The agent's version.
    pub version: String,
    /// The spool by lane.
    pub spool: BTreeMap<String, LaneHealth>,
    /// The connection.
    pub link: LinkHealth,
    /// Cameras by name.
    #[serde(default)]
    pub cameras: BTreeMap<Name, CameraHealth>,
    /// Sensor groups by name.
    #[serde(default)]
    pub sensors: BTreeMap<Name, SensorHealth>,
    /// The board.
    pub board: Board,
}

/// One lane of the spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneHealth {
    /// Records waiting.
    pub records: u64,
    /// Bytes waiting.
    pub bytes: u64,
    /// Records accepted.
    pub accepted: u64,
    /// Records that the receiver has.
    pub delivered: u64,
    /// Records dropped, by reason.
    #[serde(default)]
    pub dropped: BTreeMap<String, u64>,
}

/// The connection to the broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkHealth {
    /// Connections made.
    pub connections: u64,
    /// Publishes of records, repeats among them.
    pub published: u64,
    /// Records sent again after a timeout or a lost connection.
    pub repeated: u64,
    /// Publishes that the broker refused.
    pub refused: u64,
    /// Bytes of records sent since midnight UTC, where `link.daily_bytes` bounds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_today: Option<u64>,
}

/// One camera.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraHealth {
    /// Whether frames come.
    pub running: bool,
    /// Frames captured.
    pub frames: u64,
    /// Frames that came while the one before was still in work, and gave way to it.
    pub skipped: u64,
    /// Veiled images handed to the spool.
    pub images: u64,
    /// Faces covered in them.
    pub faces: u64,
    /// Frames that could not be decoded or veiled, so that nothing of them was kept.
    pub failed: u64,
    /// Times the camera was lost.
    pub lost: u64,
}

/// One sensor group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorHealth {
    /// Rows read.
    pub readings: u64,
    /// Alerts raised.
    pub alerts: u64,
    /// Rows that could not be read.
    pub failed: u64,
}

/// The board. What it cannot tell is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// The hottest thermal zone, degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<f64>,
    /// Load average over one minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_1m: Option<f64>,
    /// Memory that programs could still have, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// Memory of the agent in RAM, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Free space where the spool is, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// What holds the processor back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<Throttling>,
    /// The wireless link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wireless: Option<Wireless>,
}

/// What holds the processor back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// Now.
    pub now: Vec<Limit>,
    /// At some time since the board started, where it remembers.
    #[serde(default)]
    pub since_boot: Vec<Limit>,
}

/// A reason for which a board holds its processor back. Readers keep one that they do not know as its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The supply's voltage is too low.
    UnderVoltage,
    /// The clock is capped.
    FrequencyCapped,
    /// The processor is slowed down.
    Throttled,
    /// It nears its limit of temperature.
    TemperatureLimit,
    /// One of a later version.
    #[serde(untagged)]
    Other(String),
}

/// A wireless link, by what its driver tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wireless {
    /// Such as `wlan0`.
    pub interface: String,
    /// Strength of the signal, dBm.
    pub signal_dbm: f64,
    /// The driver's own measure, mostly from 0 to 70.
    pub quality: f64,
}

impl Health {
    /// As published on `health`.
    pub fn to_json(&self) -> Vec<u8> {
        schema::write(Schema::Health, self)
    }

    /// Reads what [`Self::to_json`] wrote.
    pub fn from_json(payload: &[u8]) -> Result<Self, PayloadError> {
        schema::parse(Schema::Health, payload)
    }
}
