//! The document.

use super::LinkState;
use edgeveil_wire::{BootId, DeviceName, Health, Name};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// The kind of document and its version.
pub const SCHEMA: &str = "edgeveil.local-status/1";

/// What the agent tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`]
    pub schema: String,
    /// The device's name.
    pub device: DeviceName,
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// This start of it.
    pub boot: BootId,
    /// When that was, by the clock as it is now.
    pub started_at: Timestamp,
    /// How long ago, milliseconds.
    pub uptime_ms: u64,
    /// Where its spool is.
    pub data_dir: PathBuf,
    /// What is wrong now, by part. Empty when all is well.
    pub problems: BTreeMap<String, String>,
    /// The connection.
    pub link: LinkNow,
    /// The spool's bounds.
    pub spool: SpoolNow,
    /// Cameras of the settings by name.
    pub cameras: BTreeMap<Name, CameraNow>,
    /// Sensor groups of the settings by name.
    pub sensors: BTreeMap<Name, SensorNow>,
    /// As published on `health`. Measured now; or, where a disk keeps that from being done, the last time.
    pub health: Health,
}

/// The connection to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkNow {
    /// How it is.
    pub state: LinkState,
    /// For so long, milliseconds.
    pub for_ms: u64,
    /// The broker's name and port.
    pub broker: String,
    /// Why it does not stand, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The spool's bounds, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolNow {
    /// All lanes together, at most.
    pub max_bytes: u64,
    /// Free space that is left to others.
    pub min_free_bytes: u64,
}

/// A camera.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CameraNow {
    /// Milliseconds since its last frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_frame_ms: Option<u64>,
    /// Frames a second, by the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
}

/// A sensor group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SensorNow {
    /// Milliseconds since its last row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_row_ms: Option<u64>,
    /// How many values that has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<usize>,
    /// Its anomaly score, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}
