//! Starts the thread of each camera, and the one that veils.

use super::{CameraView, Slots, Vision};
use crate::{
    capture,
    clock::Clock,
    pause::Pause,
    record::{ImageNumbers, Records},
    settings::{self, Settings},
    state::State,
    watchdog::Progress,
};
use anyhow::Result;
use edgeveil_wire::DeviceName;
use std::{sync::Arc, thread::JoinHandle};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// What the cameras need of the others.
pub struct Start {
    /// The device, for the images' metadata.
    pub device: DeviceName,
    /// Numbers the images.
    pub numbers: ImageNumbers,
    /// Where images and events go.
    pub records: Records,
    /// Where they are counted and problems are shown.
    pub state: Arc<State>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Ends it all.
    pub stop: CancellationToken,
    /// Told that the veil goes on.
    pub progress: Arc<Progress>,
}

impl Start {
    /// Starts what the settings name; `spawn` starts a thread. Without cameras there is none.
    pub fn start(
        self,
        settings: &Settings,
        tasks: &mut JoinSet<()>,
        spawn: impl Fn(&'static str, Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>>,
    ) -> Result<Vec<JoinHandle<()>>> {
        let Some(veil) = settings.veil.clone() else { return Ok(Vec::new()) };
        let Self { device, numbers, records, state, clock, stop, progress } = self;
        let pause = Pause::until(stop.clone(), Handle::current());
        let slots = Arc::new(Slots::new(settings.cameras.len()));
        let view = |camera: &settings::Camera| CameraView {
            name: camera.name.clone(),
            quality: camera.quality,
            masks: camera.masks.clone(),
        };
        let vision = Vision {
            veil,
            cameras: settings.cameras.iter().map(view).collect(),
            device,
            slots: slots.clone(),
            numbers,
            records: records.clone(),
            state: state.clone(),
            clock: clock.clone(),
            pause: pause.clone(),
            progress,
        };
        let mut threads = vec![spawn("vision", Box::new(move || super::watch(vision)))?];
        for (index, camera) in settings.cameras.iter().enumerate() {
            let pulse = Arc::new(capture::Pulse::default());
            tasks.spawn(capture::watch_silence(
                camera.clone(),
                pulse.clone(),
                records.clone(),
                state.clone(),
                stop.clone(),
            ));
            let camera = capture::Camera {
                settings: camera.clone(),
                data_dir: settings.device.data_dir.clone(),
                index,
                slots: slots.clone(),
                records: records.clone(),
                state: state.clone(),
                clock: clock.clone(),
                pulse,
                pause: pause.clone(),
            };
            threads.push(spawn("camera", Box::new(move || capture::watch(&camera)))?);
        }
        Ok(threads)
    }
}
