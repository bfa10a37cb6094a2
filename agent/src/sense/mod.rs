//! Sensors: each group is read at its rate, scored, and recorded.

mod command;
mod csv;
mod detect;
#[cfg(feature = "gpio")]
mod gpio;
mod hwmon;
#[cfg(feature = "i2c")]
mod i2c;
mod iio;
mod keeper;
mod memory;
mod mqtt;
mod one_wire;
mod reader;
mod select;
mod simulate;
mod sysfs;
mod task;
mod thermal;

pub use detect::{Detector, Scored, forest};
pub use task::{Group, watch};
pub use thermal::celsius;

use crate::settings::{self, SensorSource};
use edgeveil_wire::{ValueName, Values};
use std::{path::PathBuf, time::Duration};

/// Gives rows of values, one at a time.
pub trait Sensor: Send {
    /// Reads all values of the group. May block.
    fn read(&mut self) -> Result<Values, SensorError>;

    /// Whether there is something to read. A source that brings its rows by itself may have nothing yet.
    fn is_ready(&mut self) -> bool {
        true
    }

    /// How long ago the last row was measured.
    fn age(&self) -> Duration {
        Duration::ZERO
    }

    /// The value of the last row that is to be alerted, where the settings ask for it.
    fn alert(&self) -> Option<&ValueName> {
        None
    }

    /// The unit of a value, where the source has one.
    fn unit(&self, _: &ValueName) -> Option<&str> {
        None
    }
}

/// Why there is no row.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}:{line}: {what}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// The kernel shows no such device.
    #[error("there is no {kind} `{name}` below {}; there {}", dir.display(), if known.is_empty() { "is none".to_owned() } else { format!("is: {}", known.join(", ")) })]
    NoDevice {
        /// What was looked for.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where.
        dir: PathBuf,
        /// What is there.
        known: Vec<String>,
    },
    /// A device gives nothing that can be read.
    #[error("{} has no value that can be read", .0.display())]
    NoValues(PathBuf),
    /// A value that the settings ask for is not there.
    #[error("there is no value `{from}`; the source has: {}", known.join(", "))]
    NoValue {
        /// Its name.
        from: ValueName,
        /// Those that are there.
        known: Vec<String>,
    },
    /// A program does not do what it should.
    #[error("`{program}` {what}")]
    Program {
        /// Its name.
        program: String,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// A program has ended, or hangs.
    #[error("`{program}` {what}; it is started again")]
    Gone {
        /// Its name.
        program: String,
        /// How.
        what: String,
    },
    /// A chip on an I2C bus, or the bus itself.
    #[error("{chip} at {address:#04x} of {bus}: {what}")]
    Bus {
        /// Which.
        chip: &'static str,
        /// Its address.
        address: u8,
        /// The bus.
        bus: String,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// GPIO lines, or their chip.
    #[error("{chip}: {what}")]
    Lines {
        /// The chip.
        chip: String,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// A broker nearby, or what comes from it.
    #[error("broker {broker} {what}")]
    Mqtt {
        /// Its name and port.
        broker: String,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// Nothing comes from a broker nearby.
    #[error("broker {broker}: {what}")]
    Silent {
        /// Its name and port.
        broker: String,
        /// What has not come, and what to look at.
        what: String,
    },
    /// The program was built without what this source needs.
    #[error("this agent was built without {what}; build it with the feature `{feature}`")]
    NotBuilt {
        /// What it lacks.
        what: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// A device says that it has not measured.
    #[error("{}: {what}", path.display())]
    NotMeasured {
        /// The file.
        path: PathBuf,
        /// Why not.
        what: &'static str,
    },
}

impl SensorError {
    /// Whether only opening it again can help.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::Silent { .. })
    }
}

/// Opens a group's source.
pub fn open(sensor: &settings::Sensor) -> Result<Box<dyn Sensor>, SensorError> {
    let source: Box<dyn Sensor> = match &sensor.source {
        SensorSource::Csv(path) => Box::new(csv::Csv::open(path)?),
        SensorSource::Simulate { seed, outliers } => Box::new(simulate::Simulator::new(*seed, *outliers)),
        SensorSource::Thermal { zone, value } => Box::new(thermal::Thermal::open(zone, value.clone())?),
        SensorSource::Hwmon(device) => Box::new(hwmon::open(device, &sensor.values)?),
        SensorSource::Iio(device) => Box::new(iio::open(device, &sensor.values)?),
        SensorSource::OneWire(device) => Box::new(one_wire::OneWire::open(device)?),
        #[cfg(feature = "i2c")]
        SensorSource::Chip(chip) => i2c::open(chip, sensor.rate, &sensor.values)?,
        #[cfg(not(feature = "i2c"))]
        SensorSource::Chip(_) => return Err(SensorError::NotBuilt { what: "I2C", feature: "i2c" }),
        #[cfg(feature = "gpio")]
        SensorSource::Gpio(gpio) => gpio::open(gpio)?,
        #[cfg(not(feature = "gpio"))]
        SensorSource::Gpio(_) => return Err(SensorError::NotBuilt { what: "GPIO", feature: "gpio" }),
        SensorSource::Mqtt(source) => Box::new(mqtt::Mqtt::open(source)?),
        SensorSource::Command(command) => Box::new(command::Command::open(command, sensor.rate)?),
    };
    Ok(if sensor.values.is_empty() { source } else { Box::new(select::Select::new(source, &sensor.values)) })
}

/// How many cases a fuzzing test tries: a few, or as many as `EDGEVEIL_FUZZ_CASES` says.
#[cfg(test)]
pub(crate) fn fuzz_cases() -> u64 {
    std::env::var("EDGEVEIL_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2000)
}
