//! Puts the document together.

use super::{CameraNow, Document, LinkNow, LinkState, SCHEMA, SensorNow, SpoolNow};
use crate::{health::Meter, settings::Settings};
use edgeveil_wire::{DeviceName, Health, Name};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
    time::timeout,
};

/// A disk that hangs may hold a measurement up: after so long the newest one has to do.
const MEASURED_WITHIN: Duration = Duration::from_secs(1);

/// Puts the document together.
pub struct Teller {
    device: DeviceName,
    broker: String,
    data_dir: PathBuf,
    spool: SpoolNow,
    cameras: Vec<Name>,
    sensors: Vec<Name>,
    meter: Arc<Meter>,
    newest: watch::Receiver<Vec<u8>>,
    /// One at a time, however many ask.
    measuring: Arc<Mutex<()>>,
}

impl Teller {
    /// `newest` is what was published on `health`.
    pub fn new(
        settings: &Settings,
        device: DeviceName,
        meter: Arc<Meter>,
        newest: watch::Receiver<Vec<u8>>,
    ) -> Self {
        #[cfg(feature = "vision")]
        let cameras = settings.cameras.iter().map(|camera| camera.name.clone()).collect();
        #[cfg(not(feature = "vision"))]
        let cameras = Vec::new();
        Self {
            device,
            broker: format!("{}:{}", settings.link.host, settings.link.port),
            data_dir: settings.device.data_dir.clone(),
            spool: SpoolNow {
                max_bytes: settings.spool.max_bytes,
                min_free_bytes: settings.spool.min_free_bytes,
            },
            cameras,
            sensors: settings.sensors.iter().map(|sensor| sensor.group.clone()).collect(),
            meter,
            newest,
            measuring: Arc::default(),
        }
    }

    /// The document as it goes out. None: nothing was measured yet.
    pub async fn tell(&self) -> Option<Vec<u8>> {
        let health = match timeout(MEASURED_WITHIN, self.measure()).await {
            Ok(Some(health)) => health,
            _ => Health::from_json(&self.newest.borrow()).ok()?,
        };
        let mut text = serde_json::to_vec_pretty(&self.document(health)).ok()?;
        text.push(b'\n');
        Some(text)
    }

    async fn measure(&self) -> Option<Health> {
        let turn = self.measuring.clone().lock_owned().await;
        let meter = self.meter.clone();
        let measured = spawn_blocking(move || {
            let _turn = turn;
            meter.measure()
        });
        measured.await.ok()
    }

    /// Waits for a measurement that is under way, since it holds the spool.
    pub async fn rest(&self) {
        let _turn = self.measuring.lock().await;
    }

    fn document(&self, health: Health) -> Document {
        let now = self.meter.clock.now();
        let recent = self.meter.state.recent();
        let problems = self.meter.state.problems().borrow().clone();
        let ago = |at: Duration| millis(now.uptime.saturating_sub(at));
        let connection = recent.connection;
        let is_up = connection.state == LinkState::Connected;
        let camera = |name: &Name| {
            let pace = recent.cameras.get(name);
            let now = CameraNow {
                last_frame_ms: pace.and_then(|pace| pace.last()).map(ago),
                fps: pace.and_then(|pace| pace.rate(now.uptime)),
            };
            (name.clone(), now)
        };
        let sensor = |name: &Name| {
            let row = recent.sensors.get(name);
            let now = SensorNow {
                last_row_ms: row.map(|row| ago(row.at)),
                values: row.map(|row| row.values),
                score: row.and_then(|row| row.score),
            };
            (name.clone(), now)
        };
        Document {
            schema: SCHEMA.to_owned(),
            device: self.device.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            boot: self.meter.boot,
            started_at: now.earlier(now.uptime).timestamp,
            uptime_ms: millis(now.uptime),
            data_dir: self.data_dir.clone(),
            link: LinkNow {
                state: connection.state,
                for_ms: ago(connection.since),
                broker: self.broker.clone(),
                why: problems.get("link").filter(|_| !is_up).cloned(),
            },
            problems,
            spool: self.spool,
            cameras: self.cameras.iter().map(camera).collect(),
            sensors: self.sensors.iter().map(sensor).collect(),
            health,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
