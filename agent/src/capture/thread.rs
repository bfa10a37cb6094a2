//! A thread for each camera: captures at the asked rate, and brings a lost camera back.

use super::{BAD_IN_A_ROW, CaptureError, Shot, Source, open};
use crate::{
    clock::{Clock, local_zone},
    pause::Pause,
    record::Records,
    settings,
    state::State,
    vision::{Slots, Waiting},
};
use edgeveil_wire::{ClockState, EventKind};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// A camera that says nothing for five of its periods, and for so long at least, hangs.
const LEAST_SILENCE: Duration = Duration::from_secs(10);
const SILENT_PERIODS: f64 = 5.0;
/// A stream may take so long to give its first picture.
const FIRST: Duration = Duration::from_secs(20);

/// When a camera has last given anything: its own thread cannot tell while a driver holds it.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
    hangs: AtomicBool,
    /// Nothing is expected of it now.
    rests: AtomicBool,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
            hangs: AtomicBool::new(false),
            rests: AtomicBool::new(false),
        }
    }
}

impl Pulse {
    /// It gave something. Tells whether it had hung.
    fn beat(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Relaxed);
        self.hangs.swap(false, Relaxed)
    }

    /// From now on it is, or is not, expected to give anything.
    fn rest(&self, rests: bool) {
        self.beat();
        self.rests.store(rests, Relaxed);
    }

    fn silence(&self) -> Duration {
        if self.rests.load(Relaxed) {
            return Duration::ZERO;
        }
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last.load(Relaxed)))
    }
}

/// What a camera's thread needs.
pub struct Camera {
    /// What it was told.
    pub settings: settings::Camera,
    /// Below it stands what it has to remember.
    pub data_dir: PathBuf,
    /// Its place among the cameras.
    pub index: usize,
    /// Where its newest frame waits for the veil. A frame that is not fetched in time gives way to the next.
    pub slots: Arc<Slots<Waiting>>,
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
    let mut patience = LEAST_SILENCE.max(Duration::from_secs_f64(SILENT_PERIODS / settings.throttled_fps));
    // It has the time to notice by itself.
    if settings.source.tells_of_silence() {
        patience = patience.max(settings.silence * 2 + FIRST);
    }
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

/// How often a resting camera looks whether its time has come.
const LOOK: Duration = Duration::from_secs(5);
/// How often a source that has nothing is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Captures until it is told to stop. A camera that fails is opened again, after 1 s, 2 s, 4 s and at most every minute.
pub fn watch(camera: &Camera) {
    let mut retry = FIRST_RETRY;
    let mut lost = false;
    let mut due = Instant::now();
    while !camera.pause.is_over() {
        let wait = if is_its_time(camera) { due.saturating_duration_since(Instant::now()) } else { LOOK };
        if !wait.is_zero() {
            camera.pulse.rest(true);
            camera.pause.wait(wait.min(LOOK));
            continue;
        }
        camera.pulse.rest(false);
        let opened = open(&camera.settings, &camera.data_dir, &camera.pause);
        let end = opened.and_then(|mut source| stream(camera, source.as_mut(), &mut lost, &mut retry));
        camera.pulse.beat();
        match end {
            Ok(End::Rest) => {}
            Ok(End::OnePicture(every)) => due = (due + every).max(Instant::now()),
            Ok(End::Stopped) | Err(CaptureError::Stopped) => return,
            Err(error) => {
                report_lost(camera, &error, &mut lost);
                camera.pulse.rest(true);
                if camera.pause.wait(retry) {
                    return;
                }
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
}

/// Whether the part of the day has come in which the camera may take pictures. Without knowing the time it has not.
fn is_its_time(camera: &Camera) -> bool {
    let Some(between) = camera.settings.schedule.between else { return true };
    let now = camera.clock.now();
    let part = format!("schedule of {}", camera.settings.name);
    if now.clock == ClockState::Unsynced {
        let what = "the clock is not set, so whether it is time for camera.between is not known: no picture is taken";
        if camera.state.problem(&part, what) {
            tracing::warn!(camera = %camera.settings.name, "{what}");
        }
        return false;
    }
    camera.state.solved(&part);
    between.contains(now.timestamp.to_zoned(local_zone()).time())
}

/// Why a source is closed that has not failed.
enum End {
    /// The agent stops.
    Stopped,
    /// The part of the day is over.
    Rest,
    /// It was opened for one picture in so long.
    OnePicture(Duration),
}

/// Captures until the source fails, or is not needed for now.
fn stream(
    camera: &Camera,
    source: &mut dyn Source,
    lost: &mut bool,
    retry: &mut Duration,
) -> Result<End, CaptureError> {
    let schedule = camera.settings.schedule;
    let opened = Instant::now();
    let mut next = Instant::now();
    let mut bad: u32 = 0;
    while !camera.pause.is_over() {
        let is_throttled = camera.state.is_throttled();
        let fps = if is_throttled { camera.settings.throttled_fps } else { camera.settings.fps };
        let period = Duration::from_secs_f64(1.0 / fps);
        let result = source.next();
        *lost |= camera.pulse.beat();
        match result {
            Ok(Some(_)) if schedule.every.is_some() && opened.elapsed() < schedule.warm_up => {
                // Not every source waits for the next picture by itself.
                if camera.pause.wait(ASK_AGAIN.min(period)) {
                    break;
                }
            }
            Ok(Some(shot)) => {
                *retry = FIRST_RETRY;
                bad = 0;
                report_back(camera, lost);
                hand_on(camera, shot);
                if let Some(every) = schedule.every {
                    return Ok(End::OnePicture(every));
                }
            }
            Ok(None) => {
                *retry = FIRST_RETRY;
                report_back(camera, lost);
                if camera.pause.wait(ASK_AGAIN.min(period)) {
                    break;
                }
                if is_its_time(camera) {
                    continue;
                }
                return Ok(End::Rest);
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
        if !is_its_time(camera) {
            return Ok(End::Rest);
        }
    }
    Ok(End::Stopped)
}

fn hand_on(camera: &Camera, shot: Shot) {
    let Shot { frame, age, receipt } = shot;
    let now = camera.clock.now();
    let waiting = Waiting { frame, moment: now.earlier(age), receipt };
    camera.state.frame(&camera.settings.name, now.uptime);
    let skipped = camera.slots.put(camera.index, waiting);
    camera.state.camera(&camera.settings.name, |health| {
        health.frames += 1;
        health.skipped += u64::from(skipped);
    });
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
