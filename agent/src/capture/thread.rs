//! A thread for each camera: captures at the asked rate, and brings a lost camera back.

use super::{CaptureError, Source, open};
use crate::{
    clock::{Clock, Moment},
    pause::Pause,
    record::Records,
    settings,
    state::State,
    vision::Slots,
};
use edgeveil_veil::Frame;
use edgeveil_wire::EventKind;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// So many pictures in a row that cannot be decoded count as a lost camera.
const BAD_IN_A_ROW: u32 = 10;
/// A camera that says nothing for five of its periods, and for so long at least, hangs.
const LEAST_SILENCE: Duration = Duration::from_secs(10);
const SILENT_PERIODS: f64 = 5.0;

/// When a camera has last given anything: its own thread cannot tell while a driver holds it.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
    hangs: AtomicBool,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { started: Instant::now(), last: AtomicU64::new(0), hangs: AtomicBool::new(false) }
    }
}

impl Pulse {
    /// It gave something. Tells whether it had hung.
    fn beat(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Relaxed);
        self.hangs.swap(false, Relaxed)
    }

    fn silence(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last.load(Relaxed)))
    }
}

/// What a camera's thread needs.
pub struct Camera {
    /// What it was told.
    pub settings: settings::Camera,
    /// Its place among the cameras.
    pub index: usize,
    /// Where its newest frame waits for the veil. A frame that is not fetched in time gives way to the next.
    pub slots: Arc<Slots<(Frame, Moment)>>,
    /// Where what happens to it is recorded.
    pub records: Records,
    /// Where it is counted and its problems are shown.
    pub state: Arc<State>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Tells that it lives.
    pub pulse: Arc<Pulse>,
    /// Ends it.
    pub pause: Pause,
}

/// Tells of a camera that hangs, until it is told to stop.
pub async fn watch_silence(
    settings: settings::Camera,
    pulse: Arc<Pulse>,
    records: Records,
    state: Arc<State>,
    stop: CancellationToken,
) {
    let patience = LEAST_SILENCE.max(Duration::from_secs_f64(SILENT_PERIODS / settings.fps));
    let name = &settings.name;
    while stop.run_until_cancelled(sleep(Duration::from_secs(1))).await.is_some() {
        if pulse.silence() < patience || pulse.hangs.swap(true, Relaxed) {
            continue;
        }
        let what = format!(
            "hangs: neither a frame nor an error for {} s; unplug it and plug it in, or look at the kernel's log",
            patience.as_secs()
        );
        state.problem(&format!("camera {name}"), &what);
        state.camera(name, |health| {
            health.running = false;
            health.lost += 1;
        });
        tracing::error!(camera = %name, "camera {what}");
        records.event_async(EventKind::CameraLost, Some(name.to_string()), what).await;
    }
}

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Captures until it is told to stop. A camera that fails is opened again, after 1 s, 2 s, 4 s and at most every minute.
pub fn watch(camera: &Camera) {
    let mut retry = FIRST_RETRY;
    let mut lost = false;
    while !camera.pause.is_over() {
        let error = match open(&camera.settings) {
            Ok(mut source) => match stream(camera, source.as_mut(), &mut lost, &mut retry) {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        camera.pulse.beat();
        report_lost(camera, &error, &mut lost);
        if camera.pause.wait(retry) {
            return;
        }
        retry = (retry * 2).min(LAST_RETRY);
    }
}

/// Captures until stopped (`Ok`) or until the source fails.
fn stream(
    camera: &Camera,
    source: &mut dyn Source,
    lost: &mut bool,
    retry: &mut Duration,
) -> Result<(), CaptureError> {
    let period = Duration::from_secs_f64(1.0 / camera.settings.fps);
    let mut next = Instant::now();
    let mut bad: u32 = 0;
    while !camera.pause.is_over() {
        let result = source.next();
        *lost |= camera.pulse.beat();
        match result {
            Ok(frame) => {
                *retry = FIRST_RETRY;
                bad = 0;
                report_back(camera, lost);
                let skipped = camera.slots.put(camera.index, (frame, camera.clock.now()));
                camera.state.camera(&camera.settings.name, |health| {
                    health.frames += 1;
                    health.skipped += u64::from(skipped);
                });
            }
            Err(error) if error.is_one_frame_only() => {
                camera.state.camera(&camera.settings.name, |health| health.failed += 1);
                bad = bad.saturating_add(1);
                if bad == 1 {
                    tracing::warn!(camera = %camera.settings.name, %error, "frame left out");
                } else if bad == BAD_IN_A_ROW {
                    report_lost(camera, &error, lost);
                }
            }
            Err(error) => return Err(error),
        }
        next = (next + period).max(Instant::now());
        if camera.pause.wait(next.saturating_duration_since(Instant::now())) {
            break;
        }
    }
    Ok(())
}

fn report_lost(camera: &Camera, error: &CaptureError, lost: &mut bool) {
    let name = &camera.settings.name;
    camera.state.problem(&format!("camera {name}"), &error.to_string());
    if !std::mem::replace(lost, true) {
        tracing::error!(camera = %name, %error, "camera lost; it is tried again");
        camera.state.camera(name, |health| {
            health.running = false;
            health.lost += 1;
        });
        camera.records.event(EventKind::CameraLost, Some(name.to_string()), error.to_string());
    }
}

fn report_back(camera: &Camera, lost: &mut bool) {
    let name = &camera.settings.name;
    if std::mem::replace(lost, false) {
        tracing::info!(camera = %name, "camera is back");
        camera.state.solved(&format!("camera {name}"));
        camera.records.event(EventKind::CameraBack, Some(name.to_string()), "frames come again".to_owned());
    }
    camera.state.camera(name, |health| health.running = true);
}
