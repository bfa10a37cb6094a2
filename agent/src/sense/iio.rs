//! The kernel's industrial I/O (Documentation/ABI/testing/sysfs-bus-iio): environmental sensors, accelerometers,
//! converters. A value is `in_<channel>_input`, or (`in_<channel>_raw` + `_offset`) x `_scale`.

use super::{
    SensorError,
    sysfs::{Channel, Files, files, find, number},
};
use crate::settings::{SysfsDevice, Value};
use std::path::Path;

/// Kind of channel, what the kernel's unit is multiplied by, and the unit that it then has.
const KINDS: [(&str, f64, &str); 15] = [
    ("temp", 1e-3, "°C"),
    ("pressure", 10.0, "hPa"),
    ("humidityrelative", 1e-3, "%"),
    ("voltage", 1e-3, "V"),
    ("current", 1e-3, "A"),
    ("power", 1e-3, "W"),
    ("resistance", 1.0, "Ω"),
    ("accel", 1.0, "m/s²"),
    ("anglvel", 1.0, "rad/s"),
    ("magn", 100.0, "µT"),
    ("illuminance", 1.0, "lx"),
    ("distance", 1.0, "m"),
    ("concentration", 1.0, "%"),
    ("gravity", 1.0, "m/s²"),
    ("count", 1.0, ""),
];

/// A device's values, called as their channels are: `temp`, `pressure`, `accel_x`, `voltage0`.
pub fn open(device: &SysfsDevice, wanted: &[Value]) -> Result<Files, SensorError> {
    let dir = find(device, "IIO device", "bus/iio/devices")?;
    let files = files(&dir)?;
    let mut channels = Vec::new();
    for file in &files {
        let Some(channel) = file.strip_prefix("in_") else { continue };
        let (name, is_raw) = match (channel.strip_suffix("_input"), channel.strip_suffix("_raw")) {
            (Some(name), _) => (name, false),
            // What the driver has worked out is better.
            (_, Some(name)) if !files.contains(&format!("in_{name}_input")) => (name, true),
            _ => continue,
        };
        let kind = kind(name);
        let (_, to_unit, unit) = KINDS.iter().find(|(known, ..)| *known == kind).unwrap_or(&("", 1.0, ""));
        let Ok(called) = name.parse() else { continue };
        let (before, scale) = if is_raw {
            let part = |of| part(&dir, &files, name, kind, of).transpose();
            (part("offset")?.unwrap_or(0.0), part("scale")?.unwrap_or(1.0))
        } else {
            (0.0, 1.0)
        };
        channels.push(Channel { name: called, path: dir.join(file), before, scale: scale * to_unit, unit });
    }
    Files::new(&dir, channels, wanted)
}

/// `accel` of `accel_x`, `voltage` of `voltage0` and of `voltage0-voltage1`.
fn kind(name: &str) -> &str {
    let end = name.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(name.len());
    &name[..end]
}

/// A channel's own offset or scale, or the one that all of its kind share.
fn part(dir: &Path, files: &[String], name: &str, kind: &str, of: &str) -> Option<Result<f64, SensorError>> {
    let own = [name, kind].map(|whose| format!("in_{whose}_{of}"));
    own.into_iter().find(|file| files.contains(file)).map(|file| number(&dir.join(file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::sysfs::tests::{device, row, sysfs, wanted};

    #[test]
    fn what_the_driver_has_worked_out_is_taken_as_it_is() {
        let root = sysfs(&[
            ("bus/iio/devices/iio:device0/name", "bme280"),
            ("bus/iio/devices/iio:device0/in_temp_input", "21540"),
            ("bus/iio/devices/iio:device0/in_temp_raw", "519888"),
            ("bus/iio/devices/iio:device0/in_pressure_input", "101.325"),
            ("bus/iio/devices/iio:device0/in_humidityrelative_input", "45300"),
            ("bus/iio/devices/iio:device0/in_temp_oversampling_ratio", "2"),
        ]);
        assert_eq!(
            row(&mut open(&device(&root, "bme280"), &[]).unwrap()),
            "humidityrelative=45.3000% pressure=1013.2500hPa temp=21.5400°C"
        );
    }

    #[test]
    fn raw_numbers_are_shifted_and_scaled_by_their_own_or_their_kinds_parts() {
        let root = sysfs(&[
            ("bus/iio/devices/iio:device1/name", "mpu6050"),
            ("bus/iio/devices/iio:device1/in_accel_x_raw", "16384"),
            ("bus/iio/devices/iio:device1/in_accel_z_raw", "-8192"),
            ("bus/iio/devices/iio:device1/in_accel_scale", "0.000598550"),
            ("bus/iio/devices/iio:device1/in_temp_raw", "340"),
            ("bus/iio/devices/iio:device1/in_temp_offset", "12420"),
            ("bus/iio/devices/iio:device1/in_temp_scale", "2.941176"),
            ("bus/iio/devices/iio:device1/in_voltage0_raw", "1000"),
            ("bus/iio/devices/iio:device1/in_voltage0_scale", "0.125"),
            ("bus/iio/devices/iio:device1/in_voltage_scale", "9"),
            ("bus/iio/devices/iio:device1/in_voltage0-voltage1_raw", "10"),
        ]);
        let all = row(&mut open(&device(&root, "iio:device1"), &[]).unwrap());
        assert_eq!(
            all,
            "accel_x=9.8066m/s² accel_z=-4.9033m/s² temp=37.5294°C voltage0=0.1250V voltage0-voltage1=0.0900V"
        );
        assert_eq!(
            row(&mut open(&device(&root, "mpu6050"), &wanted("accel_z")).unwrap()),
            "accel_z=-4.9033m/s²"
        );
    }

    #[test]
    fn a_device_without_values_is_none() {
        let root = sysfs(&[("bus/iio/devices/iio:device0/name", "empty")]);
        assert!(matches!(open(&device(&root, "empty"), &[]), Err(SensorError::NoValues(_))));
        let error = open(&device(&root, "bme280"), &[]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("is: empty"), "{error}");
    }
}
