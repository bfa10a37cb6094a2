//! What the board tells of itself: what holds its processor back, and the strength of its wireless link.

use edgeveil_wire::{Limit, Throttling, Wireless};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What holds the processor back. None where the board has no word for it.
///
/// A Raspberry Pi's firmware tells all (the bits of `vcgencmd get_throttled`). Elsewhere there may be its voltage monitor alone,
/// and the kernel's own cooling of the processor.
pub fn throttling(sysfs: &Path) -> Option<Throttling> {
    if let Some(bits) = firmware(sysfs) {
        return Some(Throttling { now: limits(bits), since_boot: limits(bits >> 16) });
    }
    let (low, cooled) = (under_voltage(sysfs), cooled(sysfs));
    if low.is_none() && cooled.is_none() {
        return None;
    }
    let now = [(low, Limit::UnderVoltage), (cooled, Limit::Throttled)];
    let now = now.into_iter().filter(|(holds, _)| *holds == Some(true)).map(|(_, limit)| limit);
    Some(Throttling { now: now.collect(), since_boot: Vec::new() })
}

/// What a reason means, and what helps.
pub fn advice(limit: &Limit) -> &'static str {
    match limit {
        Limit::UnderVoltage => "its supply is too weak: use another one, or a shorter and thicker cable",
        Limit::FrequencyCapped => "its clock is capped",
        Limit::Throttled => "it slows itself down: cool it",
        Limit::TemperatureLimit => "it is near its limit of temperature: cool it",
        Limit::Other(_) => "it holds itself back",
    }
}

fn limits(bits: u32) -> Vec<Limit> {
    let known = [Limit::UnderVoltage, Limit::FrequencyCapped, Limit::Throttled, Limit::TemperatureLimit];
    known.into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, limit)| limit).collect()
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn below(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_named(path: &Path, fits: impl Fn(&str) -> bool) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(fits)
}

/// `soc/soc:firmware/get_throttled`; the first part has an address behind it on some boards.
fn firmware(sysfs: &Path) -> Option<u32> {
    let platform = below(&sysfs.join("devices/platform"));
    let socs = platform.filter(|path| is_named(path, |name| name.starts_with("soc")));
    let mut files = socs
        .flat_map(|soc| below(&soc))
        .filter(|path| is_named(path, |name| name.ends_with(":firmware")))
        .filter_map(|firmware| text(&firmware.join("get_throttled")));
    u32::from_str_radix(files.next()?.trim_start_matches("0x"), 16).ok()
}

/// The kernel's `raspberrypi-hwmon`.
fn under_voltage(sysfs: &Path) -> Option<bool> {
    let monitor = below(&sysfs.join("class/hwmon"))
        .find(|chip| text(&chip.join("name")).is_some_and(|name| name == "rpi_volt"))?;
    text(&monitor.join("in0_lcrit_alarm")).map(|alarm| alarm != "0")
}

/// Whether the kernel lowers the processor's clock because of a temperature.
fn cooled(sysfs: &Path) -> Option<bool> {
    let is_processor = |device: &PathBuf| {
        let kind = text(&device.join("type")).unwrap_or_default();
        kind.starts_with("cpufreq") || kind.starts_with("thermal-cpufreq")
    };
    let devices = below(&sysfs.join("class/thermal")).filter(is_processor);
    let states = devices.filter_map(|device| text(&device.join("cur_state"))?.parse::<u32>().ok());
    states.map(|state| state > 0).reduce(|one, other| one || other)
}

/// The first wireless link of `/proc/net/wireless`.
pub fn wireless(table: &Path) -> Option<Wireless> {
    let table = fs::read_to_string(table).ok()?;
    table.lines().skip(2).find_map(|line| {
        let (interface, rest) = line.split_once(':')?;
        // Status, then quality of the link, level and noise; a dot marks those that are new.
        let columns = rest.split_whitespace().skip(1);
        let mut numbers = columns.map(|column| column.trim_end_matches('.').parse().ok());
        let (quality, signal_dbm) = (numbers.next()??, numbers.next()??);
        Some(Wireless { interface: interface.trim().to_owned(), signal_dbm, quality })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        dir
    }

    #[test]
    fn a_raspberry_pis_bits_are_read() {
        use Limit::{FrequencyCapped, TemperatureLimit, Throttled, UnderVoltage};
        for (bits, now, since_boot) in [
            ("0", vec![], vec![]),
            ("50005", vec![UnderVoltage, Throttled], vec![UnderVoltage, Throttled]),
            ("0xe0008", vec![TemperatureLimit], vec![FrequencyCapped, Throttled, TemperatureLimit]),
        ] {
            for soc in ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"] {
                let root = sysfs(&[(&format!("devices/platform/{soc}/get_throttled"), bits)]);
                let expected = Throttling { now: now.clone(), since_boot: since_boot.clone() };
                assert_eq!(throttling(root.path()), Some(expected), "{bits}");
            }
        }
    }

    #[test]
    fn other_boards_tell_what_they_can() {
        assert_eq!(throttling(sysfs(&[("class/hwmon/hwmon0/name", "cpu_thermal")]).path()), None);
        let root = sysfs(&[
            ("class/hwmon/hwmon1/name", "rpi_volt"),
            ("class/hwmon/hwmon1/in0_lcrit_alarm", "1"),
            ("class/thermal/cooling_device0/type", "pwm-fan"),
            ("class/thermal/cooling_device0/cur_state", "4"),
            ("class/thermal/cooling_device1/type", "cpufreq-cpu0"),
            ("class/thermal/cooling_device1/cur_state", "0"),
        ]);
        let now = || throttling(root.path()).unwrap().now;
        assert_eq!(now(), [Limit::UnderVoltage], "a fan that runs slows nothing");
        fs::write(root.path().join("class/thermal/cooling_device1/cur_state"), "2\n").unwrap();
        assert_eq!(now(), [Limit::UnderVoltage, Limit::Throttled]);
    }

    #[test]
    fn the_wireless_link_is_read() {
        let head = "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n \
                    face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n";
        let file = tempfile::NamedTempFile::new().unwrap();
        let row = " wlan0: 0000   54.  -56.  -256        0      0      0     23      0        0\n";
        fs::write(file.path(), format!("{head}{row}")).unwrap();
        let expected = Wireless { interface: "wlan0".to_owned(), signal_dbm: -56.0, quality: 54.0 };
        assert_eq!(wireless(file.path()), Some(expected));
        fs::write(file.path(), head).unwrap();
        assert_eq!(wireless(file.path()), None);
        assert_eq!(wireless(Path::new("/nonexistent")), None);
    }
}
