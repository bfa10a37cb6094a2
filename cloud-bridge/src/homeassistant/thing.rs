//! What Home Assistant can be told of: one thing of a device becomes one entity.
//!
//! Everything in it is a name that was checked when it was read (letters, digits, `-` and `_`), so none of it can end a topic's
//! level or a template's text.

use edgeveil_wire::{Name, NameError, ValueName};
use std::{fmt, str::FromStr};

/// One thing of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// Whether it is there.
    Connectivity,
    /// Whether it says that something is wrong.
    Problem,
    /// A value of a sensor group.
    Value(Name, ValueName),
    /// The anomaly score of a sensor group.
    Score(Name),
    /// A sensor group's alerts.
    Anomaly(Name),
    /// A camera's newest veiled image.
    Image(Name),
    /// Whether a camera gives frames.
    Camera(Name),
    /// Something of its health.
    Gauge(Gauge),
}

/// What is told of a device's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gauge {
    /// The hottest thermal zone.
    Temperature,
    /// Load average.
    Load,
    /// Memory that is left.
    Memory,
    /// Room where the spool is.
    Disk,
    /// Whether something holds the processor back.
    Throttled,
    /// The wireless link.
    Signal,
    /// Records that wait.
    Backlog,
    /// Records that were dropped.
    Dropped,
}

impl Gauge {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Temperature,
        Self::Load,
        Self::Memory,
        Self::Disk,
        Self::Throttled,
        Self::Signal,
        Self::Backlog,
        Self::Dropped,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::Load => "load",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Throttled => "throttled",
            Self::Signal => "signal",
            Self::Backlog => "backlog",
            Self::Dropped => "dropped",
        }
    }
}

impl Thing {
    /// Its name in parts: no two things have the same ones.
    pub fn parts(&self) -> Vec<&str> {
        match self {
            Self::Connectivity => vec!["connectivity"],
            Self::Problem => vec!["problem"],
            Self::Value(group, name) => vec!["reading", group.as_str(), name.as_str()],
            Self::Score(group) => vec!["score", group.as_str()],
            Self::Anomaly(group) => vec!["alert", group.as_str()],
            Self::Image(camera) => vec!["image", camera.as_str()],
            Self::Camera(camera) => vec!["camera", camera.as_str()],
            Self::Gauge(gauge) => vec!["health", gauge.as_str()],
        }
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts().join("/"))
    }
}

/// Why a text is no thing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThingError {
    /// Of a later version, most likely.
    #[error("`{0}` is nothing that this bridge tells of")]
    Unknown(String),
    /// A part that is no name.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Reads what [`Thing`]'s `Display` has written.
impl FromStr for Thing {
    type Err = ThingError;

    fn from_str(text: &str) -> Result<Self, ThingError> {
        let unknown = || ThingError::Unknown(text.chars().take(256).collect());
        Ok(match text.split('/').collect::<Vec<_>>()[..] {
            ["connectivity"] => Self::Connectivity,
            ["problem"] => Self::Problem,
            ["reading", group, name] => Self::Value(group.parse()?, name.parse()?),
            ["score", group] => Self::Score(group.parse()?),
            ["alert", group] => Self::Anomaly(group.parse()?),
            ["image", camera] => Self::Image(camera.parse()?),
            ["camera", camera] => Self::Camera(camera.parse()?),
            ["health", name] => {
                let gauge = Gauge::ALL.into_iter().find(|gauge| gauge.as_str() == name);
                Self::Gauge(gauge.ok_or_else(unknown)?)
            }
            _ => return Err(unknown()),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn every_kind() -> Vec<Thing> {
        let name = |name: &str| name.parse().unwrap();
        let mut things = vec![
            Thing::Connectivity,
            Thing::Problem,
            Thing::Value(name("env"), "temperature".parse().unwrap()),
            Thing::Value(name("env"), "a-b_c".parse().unwrap()),
            Thing::Score(name("env")),
            Thing::Anomaly(name("env")),
            Thing::Image(name("door")),
            Thing::Camera(name("door")),
        ];
        things.extend(Gauge::ALL.map(Thing::Gauge));
        things
    }

    #[test]
    fn what_is_written_is_read_back() {
        for thing in every_kind() {
            assert_eq!(thing.to_string().parse(), Ok(thing));
        }
        for bad in ["", "reading/env", "reading/env/a b", "reading/env/score", "health/x", "image/a/b", "x"] {
            assert!(bad.parse::<Thing>().is_err(), "{bad}");
        }
    }
}
