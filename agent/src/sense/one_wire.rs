//! Thermometers on a 1-wire bus (DS18B20 and its family), by the kernel's `w1_therm`.

use super::{
    Sensor, SensorError,
    sysfs::{find, number, text},
};
use crate::settings::SysfsDevice;
use edgeveil_wire::{ValueName, Values};
use std::path::PathBuf;

/// What a DS18B20 holds before it has measured: 85 °C. Real 85.000 °C cannot be told from it.
const POWER_ON: f64 = 85_000.0;

/// One thermometer.
pub struct OneWire {
    dir: PathBuf,
    name: ValueName,
}

impl OneWire {
    /// Looks for it; it is asked with the first reading, which takes it up to 0.75 s.
    pub fn open(device: &SysfsDevice) -> Result<Self, SensorError> {
        let dir = find(device, "1-wire device", "bus/w1/devices")?;
        Ok(Self { dir, name: "temperature".parse().expect("a legal name") })
    }

    fn thousandths(&self) -> Result<f64, SensorError> {
        // Kernels before 5.10 have only the longer form.
        let short = self.dir.join("temperature");
        if short.exists() {
            return number(&short);
        }
        let path = self.dir.join("w1_slave");
        let text = text(&path)?;
        let mut lines = text.lines();
        if !lines.next().is_some_and(|line| line.ends_with("YES")) {
            let what = "the checksum is wrong: look at the cable and its pull-up resistor";
            return Err(SensorError::NotMeasured { path, what });
        }
        let number = lines.next().and_then(|line| line.rsplit_once("t=")?.1.trim().parse().ok());
        number.ok_or_else(|| SensorError::Content { path, line: 2, what: "wants t= and a number".to_owned() })
    }
}

impl Sensor for OneWire {
    fn read(&mut self) -> Result<Values, SensorError> {
        let thousandths = self.thousandths()?;
        if thousandths == POWER_ON {
            let what = "it has lost its power and not measured (85 °C); look at its supply";
            return Err(SensorError::NotMeasured { path: self.dir.clone(), what });
        }
        Ok(Values::from([(self.name.clone(), thousandths / 1000.0)]))
    }

    fn unit(&self, _: &ValueName) -> Option<&str> {
        Some("°C")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::sysfs::tests::{device, row, sysfs};
    use std::fs;

    #[test]
    fn both_forms_of_the_kernel_are_read() {
        let root = sysfs(&[
            ("bus/w1/devices/28-0316a1b2c3ff/temperature", "-10125"),
            (
                "bus/w1/devices/28-0000052e61aa/w1_slave",
                "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125",
            ),
        ]);
        let read = |name: &str| row(&mut OneWire::open(&device(&root, name)).unwrap());
        assert_eq!(read("28-0316a1b2c3ff"), "temperature=-10.1250°C");
        assert_eq!(read("28-0000052e61aa"), "temperature=23.1250°C");
        let error = OneWire::open(&device(&root, "28-0")).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("28-0000052e61aa"), "{error}");
    }

    #[test]
    fn a_bad_cable_and_a_lost_supply_are_told() {
        let root = sysfs(&[("bus/w1/devices/28-1/w1_slave", "ff ff : crc=c9 NO\nff ff t=-62")]);
        let mut thermometer = OneWire::open(&device(&root, "28-1")).unwrap();
        assert!(thermometer.read().unwrap_err().to_string().contains("pull-up"));
        let file = root.path().join("bus/w1/devices/28-1/temperature");
        fs::write(&file, "85000\n").unwrap();
        assert!(thermometer.read().unwrap_err().to_string().contains("supply"));
        fs::write(&file, "\n").unwrap();
        assert!(thermometer.read().is_err());
        fs::remove_dir_all(root.path().join("bus/w1/devices/28-1")).unwrap();
        assert!(thermometer.read().is_err());
    }
}
