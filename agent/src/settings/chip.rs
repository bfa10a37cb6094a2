//! Chips on an I2C bus: which, where, and how they measure.

use super::{document::Section, parse::choice, units::Bus};
use std::path::PathBuf;

/// A chip on an I2C bus.
#[derive(Debug, Clone, PartialEq)]
pub struct Chip {
    /// The bus's device file.
    pub bus: PathBuf,
    /// Seven bits.
    pub address: u8,
    /// Which one, and how it measures.
    pub kind: ChipKind,
}

/// A chip that there is a driver for.
#[derive(Debug, Clone, PartialEq)]
pub enum ChipKind {
    /// Temperature, humidity, air pressure.
    Bme280 {
        /// Samples a value: 1, 2, 4, 8, 16.
        oversampling: u8,
    },
    /// Temperature, humidity.
    Sht3x {
        /// How long it measures.
        repeatability: Repeatability,
    },
    /// Acceleration.
    Adxl345 {
        /// 2, 4, 8, 16 g.
        range: u8,
    },
    /// Acceleration, angular velocity, temperature.
    Mpu6050 {
        /// 2, 4, 8, 16 g.
        range: u8,
        /// 250, 500, 1000, 2000 degrees a second.
        gyro_range: u16,
    },
    /// Voltages.
    Ads1115 {
        /// Volts.
        range: f64,
        /// A second.
        samples: u16,
    },
}

/// How little a humidity sensor's values vary from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeatability {
    /// 15 ms a row.
    High,
    /// 6 ms.
    Medium,
    /// 4 ms.
    Low,
}

impl ChipKind {
    /// As in the settings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bme280 { .. } => "bme280",
            Self::Sht3x { .. } => "sht3x",
            Self::Adxl345 { .. } => "adxl345",
            Self::Mpu6050 { .. } => "mpu6050",
            Self::Ads1115 { .. } => "ads1115",
        }
    }

    /// The addresses that its pins can give it; the first is the default.
    fn addresses(&self) -> &'static [u8] {
        match self {
            Self::Bme280 { .. } => &[0x76, 0x77],
            Self::Sht3x { .. } => &[0x44, 0x45],
            Self::Adxl345 { .. } => &[0x53, 0x1d],
            Self::Mpu6050 { .. } => &[0x68, 0x69],
            Self::Ads1115 { .. } => &[0x48, 0x49, 0x4a, 0x4b],
        }
    }
}

/// Without being told: the bus of a Raspberry Pi's pins 3 and 5.
const BUS: &str = "/dev/i2c-1";

pub(super) fn read(section: &Section<'_>) -> Option<Chip> {
    let driver = section.get::<String>("driver")?;
    let kind = match driver.as_str() {
        "bme280" => ChipKind::Bme280 { oversampling: one_of(section, "oversampling", 1, &[1, 2, 4, 8, 16]) },
        "sht3x" => ChipKind::Sht3x {
            repeatability: choice(
                section,
                "repeatability",
                &[
                    ("high", Repeatability::High),
                    ("medium", Repeatability::Medium),
                    ("low", Repeatability::Low),
                ],
            ),
        },
        "adxl345" => ChipKind::Adxl345 { range: one_of(section, "range", 16, &[2, 4, 8, 16]) },
        "mpu6050" => ChipKind::Mpu6050 {
            range: one_of(section, "range", 16, &[2, 4, 8, 16]),
            gyro_range: one_of(section, "gyro_range", 2000, &[250, 500, 1000, 2000]),
        },
        "ads1115" => ChipKind::Ads1115 {
            range: one_of(section, "range", 4.096, &[6.144, 4.096, 2.048, 1.024, 0.512, 0.256]),
            samples: one_of(section, "samples", 128, &[8, 16, 32, 64, 128, 250, 475, 860]),
        },
        _ => {
            let known = "\"bme280\", \"sht3x\", \"adxl345\", \"mpu6050\" or \"ads1115\"";
            section.problem(
                "driver",
                format!("is \"{driver}\"; it wants {known}; for others see `iio` and `hwmon`"),
            );
            section.leave();
            return None;
        }
    };
    let bus = section.or("bus", Bus(BUS.into())).0;
    let known = kind.addresses();
    let address = section.or("address", known[0]);
    if !known.contains(&address) {
        let known: Vec<_> = known.iter().map(|known| format!("{known:#04x}")).collect();
        section.problem("address", format!("is {address:#04x}; a {driver} can have {}", known.join(", ")));
    }
    Some(Chip { bus, address, kind })
}

/// One of a few numbers.
fn one_of<T: super::units::Unit + PartialEq + Copy + std::fmt::Display>(
    section: &Section<'_>,
    key: &'static str,
    default: T,
    known: &[T],
) -> T {
    let value = section.or(key, default);
    if !known.contains(&value) {
        let known: Vec<_> = known.iter().map(ToString::to_string).collect();
        section.problem(key, format!("is {value}; it wants one of {}", known.join(", ")));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Problems, SensorSource, parse};
    use std::path::Path;

    fn chip(source: &str) -> Result<SensorSource, Problems> {
        let text = format!(
            "[link]\nhost = \"h\"\nca = \"a\"\ncert = \"c\"\nkey = \"k\"\n\
             [[sensor]]\ngroup = \"g\"\nsource = {{ {source} }}\n"
        );
        parse(Path::new("agent.toml"), &text).map(|settings| settings.sensors[0].source.clone())
    }

    #[test]
    fn each_chip_is_read() {
        let expected = |bus: &str, address, kind| SensorSource::Chip(Chip { bus: bus.into(), address, kind });
        for (source, bus, address, kind) in [
            ("driver = \"bme280\"", "/dev/i2c-1", 0x76, ChipKind::Bme280 { oversampling: 1 }),
            (
                "driver = \"bme280\", bus = 0, address = 0x77, oversampling = 16",
                "/dev/i2c-0",
                0x77,
                ChipKind::Bme280 { oversampling: 16 },
            ),
            (
                "driver = \"sht3x\", bus = \"/dev/i2c/by-name/room\", repeatability = \"low\"",
                "/dev/i2c/by-name/room",
                0x44,
                ChipKind::Sht3x { repeatability: Repeatability::Low },
            ),
            ("driver = \"adxl345\", range = 4", "/dev/i2c-1", 0x53, ChipKind::Adxl345 { range: 4 }),
            (
                "driver = \"mpu6050\", gyro_range = 500",
                "/dev/i2c-1",
                0x68,
                ChipKind::Mpu6050 { range: 16, gyro_range: 500 },
            ),
            (
                "driver = \"ads1115\", range = 0.256, samples = 8",
                "/dev/i2c-1",
                0x48,
                ChipKind::Ads1115 { range: 0.256, samples: 8 },
            ),
        ] {
            assert_eq!(chip(source).unwrap(), expected(bus, address, kind), "{source}");
        }
    }

    #[test]
    fn what_a_chip_cannot_be_is_named() {
        for (source, key, what) in [
            ("driver = \"dht22\", pin = 4", "driver", "\"bme280\""),
            ("driver = \"bme280\", address = 0x48", "address", "0x76, 0x77"),
            ("driver = \"bme280\", oversampling = 3", "oversampling", "1, 2, 4, 8, 16"),
            ("driver = \"bme280\", bus = 1.5", "bus", "number"),
            ("driver = \"bme280\", range = 2", "range", "not known"),
            ("driver = \"ads1115\", range = 5.0", "range", "6.144"),
            ("driver = \"sht3x\", repeatability = \"best\"", "repeatability", "\"high\""),
            ("driver = \"mpu6050\", range = 3", "range", "2, 4, 8, 16"),
        ] {
            let problems = chip(source).expect_err(source);
            let [problem] = problems.list() else { panic!("{source}: {problems}") };
            assert_eq!(problem.key, format!("sensor[0].source.{key}"), "{source}");
            assert!(problem.what.contains(what), "{source}: {problem:?}");
        }
    }
}
