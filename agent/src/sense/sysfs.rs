//! What the kernel shows of sensors below `/sys`: folders with a file for each value.

use super::{Sensor, SensorError};
use crate::settings::{SysfsDevice, Value};
use edgeveil_wire::{ValueName, Values};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Values that stand in one file each.
pub struct Files(Vec<Channel>);

/// One value.
pub struct Channel {
    /// What it is called.
    pub name: ValueName,
    /// Its file.
    pub path: PathBuf,
    /// Added to the file's number first, as IIO has it.
    pub before: f64,
    /// Multiplied by this.
    pub scale: f64,
    /// In this unit.
    pub unit: &'static str,
}

impl Channel {
    fn read(&self) -> Result<f64, SensorError> {
        Ok((number(&self.path)? + self.before) * self.scale)
    }
}

impl Files {
    /// Of a device's channels those that are wanted. Where none is named, a channel that cannot be read, as that of a fan
    /// which is not there, is left out.
    pub fn new(dir: &Path, mut channels: Vec<Channel>, wanted: &[Value]) -> Result<Self, SensorError> {
        if wanted.is_empty() {
            channels.retain(|channel| match channel.read() {
                Ok(_) => true,
                Err(error) => {
                    tracing::info!(%error, "a value is left out, since it cannot be read");
                    false
                }
            });
            channels.truncate(edgeveil_wire::MAX_VALUES);
        } else {
            if let Some(missing) = wanted.iter().find(|value| channels.iter().all(|c| c.name != value.from)) {
                let known = channels.iter().map(|channel| channel.name.to_string()).collect();
                return Err(SensorError::NoValue { from: missing.from.clone(), known });
            }
            channels.retain(|channel| wanted.iter().any(|value| value.from == channel.name));
        }
        if channels.is_empty() {
            return Err(SensorError::NoValues(dir.to_owned()));
        }
        Ok(Self(channels))
    }
}

impl Sensor for Files {
    fn read(&mut self) -> Result<Values, SensorError> {
        self.0.iter().map(|channel| Ok((channel.name.clone(), channel.read()?))).collect()
    }

    fn unit(&self, name: &ValueName) -> Option<&str> {
        self.0.iter().find(|channel| channel.name == *name).map(|channel| channel.unit)
    }
}

/// The text of one of the kernel's small files.
pub fn text(path: &Path) -> Result<String, SensorError> {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|source| SensorError::Read { path: path.to_owned(), source })
}

/// The number in one of the kernel's small files.
pub fn number(path: &Path) -> Result<f64, SensorError> {
    let text = text(path)?;
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| SensorError::Content {
        path: path.to_owned(),
        line: 1,
        what: format!("`{}` is no number", text.chars().take(40).collect::<String>()),
    })
}

/// The folder of a device: by its path, by the folder's name, or by what stands in its file `name`. The numbers in the
/// folders' names may be others after the next start of the board, so the name is the better choice.
pub fn find(device: &SysfsDevice, kind: &'static str, class: &str) -> Result<PathBuf, SensorError> {
    let given = Path::new(&device.name);
    if given.is_absolute() {
        return match fs::metadata(given) {
            Ok(_) => Ok(given.to_owned()),
            Err(source) => Err(SensorError::Read { path: given.to_owned(), source }),
        };
    }
    let dir = device.sysfs.join(class);
    let mut folders: Vec<_> =
        fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let names = |folder: &Path| {
        let own = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        (own, text(&folder.join("name")).unwrap_or_default())
    };
    let fits = |folder: &&PathBuf| {
        let (own, name) = names(folder);
        own == device.name || name == device.name
    };
    match folders.iter().find(fits) {
        Some(folder) => Ok(folder.clone()),
        None => {
            let known = folders.iter().map(|folder| match names(folder) {
                (own, name) if name.is_empty() => own,
                (_, name) => name,
            });
            Err(SensorError::NoDevice { kind, name: device.name.clone(), dir, known: known.collect() })
        }
    }
}

/// The names of a folder's files in their order.
pub fn files(dir: &Path) -> Result<Vec<String>, SensorError> {
    let read = |source| SensorError::Read { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(read)? {
        names.extend(entry.map_err(read)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A `/sys` with these files.
    pub fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        dir
    }

    pub fn device(root: &tempfile::TempDir, name: &str) -> SysfsDevice {
        SysfsDevice { sysfs: root.path().to_owned(), name: name.to_owned() }
    }

    /// `name=value` for each value.
    pub fn row(sensor: &mut dyn Sensor) -> String {
        let row = sensor.read().unwrap();
        let unit = |name: &ValueName| sensor.unit(name).unwrap_or_default().to_owned();
        row.iter()
            .map(|(name, value)| format!("{name}={value:.4}{}", unit(name)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub fn wanted(name: &str) -> Vec<Value> {
        let name: ValueName = name.parse().unwrap();
        vec![Value { from: name.clone(), name, unit: None, scale: 1.0, offset: 0.0 }]
    }
}
