//! `edgeveil-agent check`

use super::Failure;
#[cfg(feature = "vision")]
use crate::capture;
use crate::{link::Identity, sense, settings::Settings};
#[cfg(feature = "vision")]
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
    #[cfg(feature = "vision")]
    if let Some(veil) = &settings.veil
        && let Err(error) = Veil::open(&veil.settings)
    {
        wrong.push(error.to_string());
    }
    wrong.extend(data_dir(settings).err());
    #[cfg(feature = "vision")]
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

/// Whether the spool can be kept where the settings say.
fn data_dir(settings: &Settings) -> Result<(), String> {
    let dir = &settings.device.data_dir;
    let shown = dir.display();
    let probe = dir.join(".writable");
    std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&probe, b"")).map_err(|error| {
        format!("device.data_dir {shown}: {error}; make it writable for the agent's user, or set another")
    })?;
    let _ = std::fs::remove_file(&probe);
    let disk = rustix::fs::statvfs(dir).map_err(|error| format!("device.data_dir {shown}: {error}"))?;
    let (free, wanted) = (disk.f_bavail * disk.f_frsize, settings.spool.min_free_bytes);
    if free < wanted {
        return Err(format!(
            "device.data_dir {shown}: {} MiB are free, and spool.min_free leaves {} MiB to others, so nothing could be recorded; free some space, or lower it",
            free >> 20,
            wanted >> 20
        ));
    }
    Ok(())
}
