//! Sensors: each group is read at its rate, scored, and recorded.

mod csv;
mod detect;
mod keeper;
mod memory;
mod simulate;
mod task;
mod thermal;

pub use detect::{Detector, Scored, forest};
pub use task::{Group, watch};
pub use thermal::celsius;

use crate::settings::{self, SensorSource};
use edgeveil_wire::Values;
use std::path::PathBuf;

/// Gives rows of values, one at a time.
pub trait Sensor: Send {
    /// Reads all values of the group. May block for a short time.
    fn read(&mut self) -> Result<Values, SensorError>;
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
}

/// Opens a group's source.
pub fn open(sensor: &settings::Sensor) -> Result<Box<dyn Sensor>, SensorError> {
    Ok(match &sensor.source {
        SensorSource::Csv(path) => Box::new(csv::Csv::open(path)?),
        SensorSource::Simulate { seed, outliers } => Box::new(simulate::Simulator::new(*seed, *outliers)),
        SensorSource::Thermal { zone, value } => Box::new(thermal::Thermal::open(zone, value.clone())?),
    })
}

/// How many cases a fuzzing test tries: a few, or as many as `FUZZ_CASES` says.
#[cfg(test)]
pub(crate) fn fuzz_cases() -> u64 {
    std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2000)
}
