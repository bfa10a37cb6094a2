//! `edgeveil-agent check`

use super::Failure;
use crate::{capture, link::Identity, sense, settings::Settings};
use edgeveil_veil::Veil;

/// Opens everything once and lists all that is wrong.
pub fn check(settings: &Settings) -> Result<(), Failure> {
    let mut wrong: Vec<String> = Vec::new();
    match Identity::load(&settings.link) {
        Ok(identity) => {
            let name = identity.check_name(settings.device.name.as_ref(), &settings.link.cert);
            let time = identity.check_time(jiff::Timestamp::now(), &settings.link.cert);
            wrong.extend([name, time].into_iter().filter_map(Result::err).map(|error| error.to_string()));
        }
        Err(error) => wrong.push(error.to_string()),
    }
    if let Some(veil) = &settings.veil
        && let Err(error) = Veil::open(&veil.settings)
    {
        wrong.push(error.to_string());
    }
    for camera in &settings.cameras {
        if let Err(error) = capture::open(camera) {
            wrong.push(format!("camera {}: {error}", camera.name));
        }
    }
    for sensor in &settings.sensors {
        if let Err(error) = sense::open(sensor) {
            wrong.push(format!("sensor {}: {error}", sensor.group));
        }
    }
    if wrong.is_empty() {
        println!("all is well");
        return Ok(());
    }
    Err(anyhow::anyhow!("{}", wrong.join("\nedgeveil-agent: ")).into())
}
