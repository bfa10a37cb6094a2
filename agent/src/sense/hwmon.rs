//! The kernel's hardware monitoring (Documentation/hwmon/sysfs-interface): temperatures, voltages, fans, currents, power.

use super::{
    SensorError,
    sysfs::{Channel, Files, files, find},
};
use crate::settings::{SysfsDevice, Value};

/// Kind of value, what its number is multiplied by, and the unit that it then has.
const KINDS: [(&str, f64, &str); 7] = [
    ("temp", 1e-3, "°C"),
    ("in", 1e-3, "V"),
    ("curr", 1e-3, "A"),
    ("power", 1e-6, "W"),
    ("energy", 1e-6, "J"),
    ("humidity", 1e-3, "%"),
    ("fan", 1.0, "rpm"),
];

/// A chip's values, called as their files are: `temp1`, `in0`, `fan2`.
pub fn open(device: &SysfsDevice, wanted: &[Value]) -> Result<Files, SensorError> {
    let dir = find(device, "chip", "class/hwmon")?;
    let mut channels = Vec::new();
    for file in files(&dir)? {
        let Some(name) = file.strip_suffix("_input") else { continue };
        let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let Some((_, scale, unit)) = KINDS.iter().find(|(known, ..)| *known == kind) else { continue };
        let Ok(name) = name.parse() else { continue };
        channels.push(Channel { name, path: dir.join(&file), before: 0.0, scale: *scale, unit });
    }
    Files::new(&dir, channels, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::{
        Sensor,
        sysfs::tests::{device, row, sysfs, wanted},
    };
    use std::fs;

    const CHIP: &[(&str, &str)] = &[
        ("class/hwmon/hwmon0/name", "cpu_thermal"),
        ("class/hwmon/hwmon0/temp1_input", "47000"),
        ("class/hwmon/hwmon3/name", "ina226"),
        ("class/hwmon/hwmon3/temp1_input", "-5250"),
        ("class/hwmon/hwmon3/temp1_max", "90000"),
        ("class/hwmon/hwmon3/in1_input", "12034"),
        ("class/hwmon/hwmon3/curr1_input", "-250"),
        ("class/hwmon/hwmon3/power1_input", "3100000"),
        ("class/hwmon/hwmon3/fan1_input", "1200"),
        ("class/hwmon/hwmon3/pwm1_input", "9"),
    ];

    #[test]
    fn a_chip_is_found_by_its_name_and_its_values_have_their_units() {
        let root = sysfs(CHIP);
        let mut chip = open(&device(&root, "ina226"), &[]).unwrap();
        assert_eq!(
            row(&mut chip),
            "curr1=-0.2500A fan1=1200.0000rpm in1=12.0340V power1=3.1000W temp1=-5.2500°C"
        );
        assert_eq!(row(&mut open(&device(&root, "hwmon0"), &[]).unwrap()), "temp1=47.0000°C");
        let path = root.path().join("class/hwmon/hwmon0");
        assert!(open(&device(&root, path.to_str().unwrap()), &[]).is_ok());
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let root = sysfs(CHIP);
        let error = open(&device(&root, "bmp280"), &[]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("`bmp280`") && error.contains("cpu_thermal, ina226"), "{error}");
        let error = open(&device(&root, "ina226"), &wanted("temp2")).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("`temp2`") && error.contains("fan1"), "{error}");
    }

    #[test]
    fn a_dead_channel_is_left_out_unless_it_is_asked_for() {
        let root = sysfs(CHIP);
        let fan = root.path().join("class/hwmon/hwmon3/fan1_input");
        fs::write(&fan, "N/A\n").unwrap();
        assert!(!row(&mut open(&device(&root, "ina226"), &[]).unwrap()).contains("fan1"));
        let mut chip = open(&device(&root, "ina226"), &wanted("fan1")).unwrap();
        assert!(chip.read().unwrap_err().to_string().contains("fan1_input"));
        // It can be mended while it is open.
        fs::write(&fan, "900\n").unwrap();
        assert_eq!(row(&mut chip), "fan1=900.0000rpm");
        fs::remove_file(&fan).unwrap();
        assert!(chip.read().is_err());
    }
}
