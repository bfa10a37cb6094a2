//! `edgeveil-agent check`

use super::{
    Failure,
    doctor::{self, Finding},
};
#[cfg(feature = "vision")]
use crate::{capture, pause::Pause};
use crate::{sense, settings::Settings};
#[cfg(feature = "vision")]
use edgeveil_veil::Veil;
#[cfg(feature = "vision")]
use tokio_util::sync::CancellationToken;

/// Opens everything once and lists all that is wrong. The broker is not asked, and no picture is waited for: that is
/// the doctor's.
pub fn check(settings: &Settings) -> Result<(), Failure> {
    let mut wrong: Vec<String> = Vec::new();
    let (_, findings) = doctor::identity(settings);
    wrong.extend(findings.iter().filter(|finding| finding.is_fail()).map(Finding::whole));
    #[cfg(feature = "vision")]
    if let Some(veil) = &settings.veil
        && let Err(error) = Veil::open(&veil.settings)
    {
        wrong.push(error.to_string());
    }
    wrong.extend(doctor::data_dir(settings).err());
    #[cfg(feature = "vision")]
    cameras(settings, &mut wrong)?;
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

#[cfg(feature = "vision")]
fn cameras(settings: &Settings, wrong: &mut Vec<String>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let pause = Pause::until(CancellationToken::new(), runtime.handle().clone());
    for camera in &settings.cameras {
        if let Err(error) = capture::open(camera, &settings.device.data_dir, &pause) {
            wrong.push(format!("camera {}: {error}", camera.name));
        }
    }
    runtime.shutdown_background();
    Ok(())
}
