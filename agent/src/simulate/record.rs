//! Records of simulated devices. They are made anew each time they are sent, always the same, from what names them.

use super::{Kind, Shared};
use bytes::Bytes;
use edgeveil_veil::VeiledJpeg;
use edgeveil_wire::{
    Alert, BootId, ClockState, DeviceName, ImageMeta, Lane, Name, Reading, RecordId, Severity, Stamp, Topic,
    Values,
};
use std::time::Duration;
use tokio::time::Instant;

/// A record that is not acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    pub kind: Kind,
    /// Within its lane and boot.
    pub seq: u64,
    /// Of an alert: the reading's.
    pub reading: u64,
    /// Since the first one was due.
    pub due: Duration,
}

/// What every image shows: a veiled picture.
pub struct Picture {
    /// JPEG without its first two bytes, SOI.
    body: Bytes,
    faces: u32,
    cover: String,
}

impl Picture {
    /// Only what is veiled can be sent.
    pub fn new(jpeg: &VeiledJpeg, faces: usize, cover: String) -> Self {
        let body = Bytes::copy_from_slice(&jpeg.as_bytes()[2..]);
        Self { body, faces: u32::try_from(faces).unwrap_or(u32::MAX), cover }
    }

    /// The picture with its EXIF block.
    fn with(&self, meta: &ImageMeta) -> Bytes {
        let exif = meta.to_exif();
        let length = (exif.len() + 8) as u16;
        let mut jpeg = Vec::with_capacity(exif.len() + self.body.len() + 12);
        jpeg.extend([0xff, 0xd8, 0xff, 0xe1]);
        jpeg.extend(length.to_be_bytes());
        jpeg.extend(b"Exif\0\0");
        jpeg.extend(exif);
        jpeg.extend_from_slice(&self.body);
        jpeg.into()
    }
}

/// A device as its records name it.
pub struct Author {
    pub device: DeviceName,
    pub boot: BootId,
    group: Name,
    camera: Name,
}

impl Author {
    pub fn new(device: DeviceName, boot: BootId) -> Self {
        let name = |text: &str| text.parse().expect("a name");
        Self { device, boot, group: name("env"), camera: name("cam") }
    }

    pub fn id(&self, record: &Record) -> RecordId {
        RecordId::new(self.boot, record.kind.lane(), record.seq)
    }

    fn stamp(&self, record: &Record, shared: &Shared) -> Stamp {
        let since = jiff::SignedDuration::try_from(record.due).unwrap_or_default();
        let uptime = (shared.fleet.ramp + record.due).as_millis() as u64;
        let time = shared.begin_timestamp + since;
        Stamp::new(self.boot, record.kind.lane(), record.seq, time, ClockState::Synced, uptime)
    }

    /// Topic below the device's, and payload.
    pub fn publish(&self, record: &Record, shared: &Shared) -> (Topic, Bytes) {
        let stamp = self.stamp(record, shared);
        match record.kind {
            Kind::Reading => {
                let reading = Reading { stamp, score: Some(0.31), values: values(record.seq) };
                (Topic::Reading(self.group.clone()), reading.to_json().into())
            }
            Kind::Alert => {
                let alert = Alert {
                    stamp,
                    reading: RecordId::new(self.boot, Lane::Reading, record.reading),
                    anomaly: true,
                    score: 0.93,
                    threshold: 0.62,
                    contributions: [("sensor1", 0.75), ("sensor2", 0.25)].map(named).into(),
                    severity: Severity::Critical,
                    values: values(record.reading),
                };
                (Topic::Alert(self.group.clone()), alert.to_json().into())
            }
            Kind::Image => {
                let picture = shared.fleet.picture.as_ref().expect("images are made only with a picture");
                let meta = ImageMeta {
                    stamp,
                    device: self.device.clone(),
                    camera: self.camera.clone(),
                    faces: picture.faces,
                    cover: picture.cover.clone(),
                    software: concat!("edgeveil-agent simulate ", env!("CARGO_PKG_VERSION")).to_owned(),
                };
                (Topic::Image(self.camera.clone()), picture.with(&meta))
            }
        }
    }
}

fn named((name, value): (&str, f64)) -> (edgeveil_wire::ValueName, f64) {
    (name.parse().expect("a name"), value)
}

/// Like those of a room, and the same for the same number.
fn values(seq: u64) -> Values {
    let wave = (seq as f64 / 50.0).sin();
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    [("sensor1", round(21.0 + wave)), ("sensor2", round(0.5 + wave / 20.0))].map(named).into()
}

/// When the records of a kind are due: evenly, from somewhere within the first period.
#[derive(Debug)]
pub struct Schedule {
    pub kind: Kind,
    next: Duration,
    period: Duration,
}

impl Schedule {
    /// So many a second of all devices together; none when there are none.
    pub fn new(kind: Kind, rate: f64, devices: usize, phase: f64) -> Option<Self> {
        (rate > 0.0).then(|| {
            let period = Duration::from_secs_f64(devices as f64 / rate);
            Self { kind, next: period.mul_f64(phase), period }
        })
    }

    pub fn due(&self, begin: Instant) -> Instant {
        begin + self.next
    }

    /// The next one, if its time has come.
    pub fn take(&mut self, passed: Duration) -> Option<Duration> {
        (self.next <= passed).then(|| {
            let due = self.next;
            self.next += self.period;
            due
        })
    }
}
