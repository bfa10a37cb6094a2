//! A Linux thermal zone: `temp` holds thousandths of a degree Celsius.

use super::{Sensor, SensorError};
use edgeveil_wire::{ValueName, Values};
use std::path::{Path, PathBuf};

/// One zone.
pub struct Thermal {
    temp: PathBuf,
    name: ValueName,
}

impl Thermal {
    /// Reads it once, so that a wrong path is known at once.
    pub fn open(zone: &Path, name: ValueName) -> Result<Self, SensorError> {
        let mut thermal = Self { temp: zone.join("temp"), name };
        thermal.read()?;
        Ok(thermal)
    }
}

/// Degrees Celsius from a zone's `temp` file.
pub fn celsius(temp: &Path) -> Result<f64, SensorError> {
    let text = std::fs::read_to_string(temp)
        .map_err(|source| SensorError::Read { path: temp.to_owned(), source })?;
    let thousandths: i32 = text.trim().parse().map_err(|_| SensorError::Content {
        path: temp.to_owned(),
        line: 1,
        what: "does not hold thousandths of a degree Celsius".to_owned(),
    })?;
    Ok(f64::from(thousandths) / 1000.0)
}

impl Sensor for Thermal {
    fn read(&mut self) -> Result<Values, SensorError> {
        Ok(Values::from([(self.name.clone(), celsius(&self.temp)?)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousandths_become_degrees() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("temp"), "42345\n").unwrap();
        let mut zone = Thermal::open(dir.path(), "temperature".parse().unwrap()).unwrap();
        assert_eq!(zone.read().unwrap().into_values().next(), Some(42.345));
        std::fs::write(dir.path().join("temp"), "warm\n").unwrap();
        assert!(zone.read().unwrap_err().to_string().contains("thousandths"));
    }
}
