//! Cameras, sensors and the models: each is opened, and asked for one picture or row.

use super::Finding;
#[cfg(feature = "vision")]
use crate::{capture, pause::Pause};
use crate::{
    sense,
    settings::{SensorSource, Settings},
};
#[cfg(feature = "vision")]
use edgeveil_veil::Veil;
use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
#[cfg(feature = "vision")]
use tokio::runtime::Runtime;
#[cfg(feature = "vision")]
use tokio_util::sync::CancellationToken;

/// A driver that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// A topic on which nothing comes for so long is well, as far as it can be seen.
const SILENCE: Duration = Duration::from_secs(10);

/// Tells each finding as it comes: the models, and each camera.
#[cfg(feature = "vision")]
pub fn cameras(settings: &Settings, runtime: &Runtime, mut tell: impl FnMut(Finding)) {
    if let Some(veil) = &settings.veil {
        let model = veil.settings.model.display();
        tell(match Veil::open(&veil.settings) {
            Ok(_) => Finding::ok("models", format!("{model} is what it should be (SHA-256)")),
            Err(error) => {
                Finding::fail("models", error, &format!("fetch them again: `veil/fetch-models {model}`"))
            }
        });
    }
    let pause = Pause::until(CancellationToken::new(), runtime.handle().clone());
    for camera in &settings.cameras {
        let check = format!("camera {}", camera.name);
        let (name, camera, data_dir, pause) =
            (check.clone(), camera.clone(), settings.device.data_dir.clone(), pause.clone());
        tell(in_time(&check, move || self::camera(&name, &camera, &data_dir, &pause)));
    }
}

/// Tells of each sensor as it comes.
pub fn sensors(settings: &Settings, mut tell: impl FnMut(Finding)) {
    for sensor in &settings.sensors {
        let check = format!("sensor {}", sensor.group);
        let (name, sensor) = (check.clone(), sensor.clone());
        tell(in_time(&check, move || self::sensor(&name, &sensor)));
    }
}

/// What hangs in a driver is left behind.
fn in_time(check: &str, work: impl FnOnce() -> Finding + Send + 'static) -> Finding {
    let (sender, found) = mpsc::channel();
    let hangs = || {
        let said = format!("neither a value nor an error within {} s", PATIENCE.as_secs());
        Finding::fail(check, said, "unplug it and plug it in, or look at the kernel's log")
    };
    let spawned = thread::Builder::new().spawn(move || {
        let _ = sender.send(work());
    });
    match spawned {
        Ok(_) => found.recv_timeout(PATIENCE).unwrap_or_else(|_| hangs()),
        Err(error) => Finding::fail(check, error, "free some memory"),
    }
}

#[cfg(feature = "vision")]
fn camera(
    check: &str,
    camera: &crate::settings::Camera,
    data_dir: &std::path::Path,
    pause: &Pause,
) -> Finding {
    let begin = Instant::now();
    let remedy = "docs/cameras.md has a recipe for it";
    let first = capture::open(camera, data_dir, pause).and_then(|mut source| source.next());
    match first {
        Ok(Some(shot)) => {
            let (width, height, seconds) =
                (shot.frame.width(), shot.frame.height(), begin.elapsed().as_secs_f64());
            Finding::ok(check, format!("{width}x{height}, the first picture after {seconds:.1} s"))
        }
        Ok(None) => Finding::ok(check, "waits for its first picture"),
        Err(error) => Finding::fail(check, error, remedy),
    }
}

fn sensor(check: &str, sensor: &crate::settings::Sensor) -> Finding {
    let remedy = "docs/sensors.md has a recipe for it";
    let mut source = match sense::open(sensor) {
        Ok(source) => source,
        Err(error) => return Finding::fail(check, error, remedy),
    };
    // A program brings its rows when it likes, and says itself when it has not for too long; others may be silent for hours.
    let begin = Instant::now();
    while !source.is_ready() {
        if matches!(sensor.source, SensorSource::Mqtt(_)) && begin.elapsed() > SILENCE {
            let said = format!("is subscribed; nothing has come within {} s", SILENCE.as_secs());
            return Finding::ok(check, said);
        }
        thread::sleep(Duration::from_millis(20));
    }
    match source.read() {
        Ok(row) => {
            let value = |(name, value): (&edgeveil_wire::ValueName, &f64)| {
                let unit = source.unit(name).unwrap_or_default();
                format!("{name} {value}{}{unit}", if unit.is_empty() { "" } else { " " })
            };
            Finding::ok(check, row.iter().map(value).collect::<Vec<_>>().join(", "))
        }
        Err(error) => Finding::fail(check, error, remedy),
    }
}
