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
    sync::Arc,
    time::{Duration, Instant},
};

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
    /// Ends it.
    pub pause: Pause,
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
    while !camera.pause.is_over() {
        match source.next() {
            Ok(frame) => {
                *retry = FIRST_RETRY;
                report_back(camera, lost);
                let skipped = camera.slots.put(camera.index, (frame, camera.clock.now()));
                camera.state.camera(&camera.settings.name, |health| {
                    health.frames += 1;
                    health.skipped += u64::from(skipped);
                });
            }
            Err(error) if error.is_one_frame_only() => {
                camera.state.camera(&camera.settings.name, |health| health.failed += 1);
                tracing::warn!(camera = %camera.settings.name, %error, "frame left out");
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
