//! What the agent and the bridge say to each other.
//!
//! This crate exists so that the two cannot disagree: topics, payloads, identifiers, bounds and the end-to-end
//! acknowledgement are written down once, here, with JSON Schemas in `schemas/` and golden examples in `golden/`.
//! It opens no connection and touches no disk. `docs/mqtt.md` tells the same story to people.
//!
//! Rules that hold for every payload:
//! - JSON payloads name their `schema` as `edgeveil.<kind>/<major>`. A reader accepts its own major version and
//!   ignores fields that it does not know.
//! - Every record carries `id`, `boot` and `seq`. `seq` counts the records of one [`Lane`] from 0 within one boot
//!   of the agent, so any receiver can see a gap. The `id` is made of the three (see [`RecordId`]), so it does not
//!   depend on a clock being right, and whatever is sent twice is recognised.
//! - Times are UTC, RFC 3339, milliseconds.

mod ack;
mod enroll;
mod event;
mod health;
mod id;
mod image;
mod name;
mod reading;
mod restamp;
mod schema;
mod stamp;
mod status;
mod topic;
mod tuning;

pub use ack::Ack;
pub use enroll::{ENROLL_PATH, EnrollRequest, Enrolled, MAX_ENROLL_BYTES, RENEW_PATH, Refusal, RenewRequest};
pub use event::{Event, EventKind};
pub use health::{
    Board, CameraHealth, Health, LaneHealth, Limit, LinkHealth, SensorHealth, Throttling, Wireless,
};
pub use id::{BootId, IdError, Lane, RecordId};
pub use image::{ImageError, ImageMeta};
pub use name::{DeviceName, Name, NameError, ValueName};
pub use reading::{Alert, Reading, Severity, Values};
pub use restamp::restamp;
pub use schema::{PayloadError, Schema};
pub use stamp::{ClockState, Stamp};
pub use status::{DeviceState, Status};
pub use topic::{Topic, TopicError, Topics};
pub use tuning::{
    CameraTuning, Desired, DesiredAnswer, HealthTuning, MAX_DESIRED_BYTES, MAX_TUNING_ID, Reported,
    SensorTuning, Tuning, Verdict,
};

/// The longest image payload in bytes that a bridge accepts.
pub const MAX_IMAGE_BYTES: usize = 8 << 20;
/// The longest JSON payload in bytes that a bridge accepts; AWS IoT Core's own bound is 128 KiB.
pub const MAX_JSON_BYTES: usize = 64 << 10;
/// The most values that one reading may carry.
pub const MAX_VALUES: usize = 64;
/// The most ids in one acknowledgement.
pub const MAX_ACK_IDS: usize = 500;
