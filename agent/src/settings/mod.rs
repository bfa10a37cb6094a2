//! What the agent is told to do: a TOML file, read whole before anything is opened.
//!
//! [`Settings`] is valid by construction: [`parse`] gives either all of it or every problem with its line and key.
//! `docs/settings.md` lists the keys.

#[cfg(feature = "vision")]
mod camera;
mod chip;
mod document;
mod gpio;
mod parse;
mod sensor;
mod units;

#[cfg(feature = "vision")]
pub use camera::{Camera, CameraSource, Daily, HttpCamera, Schedule, Then, Url};
pub use chip::{Chip, ChipKind, Repeatability};
pub use document::{Problem, Problems};
pub use gpio::{Active, Alert as GpioAlert, Gives, Gpio, Input, Pull};
pub use parse::parse;
pub use sensor::{Device as SysfsDevice, MqttSource, Sensor, SensorSource, Value};
pub use units::{ByteSize, LineName, Size};

use crate::enroll::{BridgeUrl, Files};
use edgeveil_wire::{DeviceName, Topics};
use std::{path::PathBuf, time::Duration};

/// Everything the agent is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The device itself.
    pub device: Device,
    /// The connection to the broker.
    pub link: Link,
    /// When its certificate is renewed.
    pub renew: Renew,
    /// The buffer on disk.
    pub spool: Spool,
    /// Cameras; none is allowed.
    #[cfg(feature = "vision")]
    pub cameras: Vec<Camera>,
    /// Sensor groups; none is allowed.
    pub sensors: Vec<Sensor>,
    /// How faces are covered; must be there when there are cameras.
    #[cfg(feature = "vision")]
    pub veil: Option<Veil>,
    /// How often `health` is published.
    pub health_interval: Duration,
    /// How often what a detector has learned is written to disk.
    pub detector_save_interval: Duration,
}

/// The device itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// None means: the common name of the certificate.
    pub name: Option<DeviceName>,
    /// Where the spool and the detectors' state live.
    pub data_dir: PathBuf,
    /// Where the kernel shows its devices: `/sys`, but in tests.
    pub sysfs: PathBuf,
    /// Where `edgeveil-agent status` asks; none means where [`crate::status::agents`] says.
    pub status_socket: Option<PathBuf>,
}

/// Who must have a record before the device forgets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// The bridge says on `ack` that it is durable.
    Bridge,
    /// The broker's PUBACK is enough.
    Broker,
}

/// Of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttVersion {
    /// 5.0, whose answers have reasons.
    V5,
    /// 3.1.1, for brokers that speak nothing else.
    V311,
}

/// The connection to the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Name or address of the broker; its certificate must be made out to it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Certificates that the broker's must be signed by, PEM.
    pub ca: PathBuf,
    /// The device's certificate (chain), PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The folder of the three, when the agent looks after them itself; none for files that somebody else does.
    pub folder: Option<PathBuf>,
    /// Version of MQTT.
    pub mqtt_version: MqttVersion,
    /// The largest packet that is sent, in bytes; the broker may say less.
    pub max_packet: u32,
    /// Topic prefix.
    pub topics: Topics,
    /// When a record is done.
    pub acknowledgement: Acknowledgement,
    /// Whether `config/desired` is heard, and `config/reported` told.
    pub remote_settings: bool,
    /// MQTT keep-alive.
    pub keep_alive: Duration,
    /// A record that nobody acknowledged for so long is sent again.
    pub ack_timeout: Duration,
    /// Records sent and not yet acknowledged, at most.
    pub window: usize,
    /// How much may be sent.
    pub limits: Limits,
}

impl Link {
    /// Whether a record that the broker throws away is taken for delivered.
    pub fn believes_blindly(&self) -> bool {
        self.mqtt_version == MqttVersion::V311 && self.acknowledgement == Acknowledgement::Broker
    }

    /// The same with another identity.
    pub fn with(&self, files: &Files) -> Self {
        Self { ca: files.ca.clone(), cert: files.cert.clone(), key: files.key.clone(), ..self.clone() }
    }
}

/// When the agent renews its certificate, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Renew {
    /// After this share of its lifetime.
    pub after: f64,
    /// None: the bridge that it was enrolled by.
    pub url: Option<BridgeUrl>,
}

/// How much may be sent; none means any amount.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Records of the backlog a second.
    pub backlog_messages: Option<f64>,
    /// Bytes of the backlog a second.
    pub backlog_bytes: Option<f64>,
    /// Bytes a day, alerts and events excepted.
    pub daily_bytes: Option<u64>,
}

/// The buffer on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Spool {
    /// All lanes together, at most.
    pub max_bytes: u64,
    /// Free space that is left to others.
    pub min_free_bytes: u64,
    /// Records wait at most so long for their fsync; alerts do not wait.
    pub commit_interval: Duration,
    /// No record of any lane grows older.
    pub max_age: Option<Duration>,
    /// Bytes a day beyond which records wait longer for their fsync.
    pub write_budget: Option<u64>,
    /// By lane, in the order of [`edgeveil_wire::Lane`].
    pub lanes: [SpoolLane; 4],
    /// What gives way when there is no room for an image.
    pub images_when_full: WhenFull,
}

/// The bounds of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLane {
    /// Its share of the buffer, at most.
    pub max_bytes: u64,
    /// No record of it grows older.
    pub max_age: Option<Duration>,
}

pub use edgeveil_spool::WhenFull;

/// How rows are scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    /// Seed of the forest.
    pub seed: u64,
    /// How fast time passes for it.
    pub profile: Profile,
    /// What is alerted.
    pub alerts: Alerts,
}

/// How fast rows come, which is how many of them the detector takes for one step of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Up to three rows a second, down to one in some minutes
    Default,
    /// Three to thirty rows a second
    #[value(name = "10hz")]
    Hz10,
    /// More than thirty rows a second
    #[value(name = "100hz")]
    Hz100,
}

impl Profile {
    /// For so many rows a second.
    pub fn of_rate(rate: f64) -> Self {
        match rate {
            ..=3.0 => Self::Default,
            ..=30.0 => Self::Hz10,
            _ => Self::Hz100,
        }
    }
}

/// What is alerted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alerts {
    /// Each anomalous row.
    Rows,
    /// The first row of each episode; it is over after 30 ordinary rows (of the default profile).
    Episodes,
}

/// What happens to a frame that cannot be veiled.
#[cfg(feature = "vision")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing of it is kept.
    Drop,
    /// It is covered wholly.
    CoverAll,
}

/// How faces are covered.
#[cfg(feature = "vision")]
#[derive(Debug, Clone, PartialEq)]
pub struct Veil {
    /// What the veil crate is told.
    pub settings: edgeveil_veil::Settings,
    /// What happens to a frame that cannot be veiled.
    pub on_failure: OnFailure,
}
