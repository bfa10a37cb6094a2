//! The topics, in one place.

use crate::{DeviceName, Name, NameError};
use std::{fmt, str::FromStr};

/// What is published below `<prefix>/<device>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// Presence, retained. QoS 1.
    Status,
    /// Events in the agent's life. QoS 1.
    Event,
    /// Readings of a group. QoS 1.
    Reading(Name),
    /// Alerts of a source. QoS 1.
    Alert(Name),
    /// Veiled JPEGs of a camera. QoS 1.
    Image(Name),
    /// Counters and gauges. QoS 0.
    Health,
    /// From the bridge: ids made durable. QoS 1.
    Ack,
    /// From the bridge: the settings that are wanted, retained. QoS 1.
    Desired,
    /// The settings that run, retained. QoS 1.
    Reported,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("status"),
            Self::Event => f.write_str("event"),
            Self::Reading(group) => write!(f, "reading/{group}"),
            Self::Alert(source) => write!(f, "alert/{source}"),
            Self::Image(camera) => write!(f, "image/{camera}"),
            Self::Health => f.write_str("health"),
            Self::Ack => f.write_str("ack"),
            Self::Desired => f.write_str("config/desired"),
            Self::Reported => f.write_str("config/reported"),
        }
    }
}

/// Why a topic was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not below the prefix, or of another shape.
    #[error("topic `{0}` is none of Edgeveil's")]
    Unknown(String),
    /// A level is no name.
    #[error("topic: {0}")]
    Name(#[from] NameError),
    /// A prefix that cannot stand before the topics.
    #[error(
        "topic prefix `{0}`: wants 1 to 3 levels of letters, digits, `-` and `_`, without `/` at its ends"
    )]
    Prefix(String),
}

/// Reads what stands behind the device's name.
impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(rest: &str) -> Result<Self, TopicError> {
        Ok(match (rest, rest.split_once('/')) {
            ("status", _) => Self::Status,
            ("event", _) => Self::Event,
            ("health", _) => Self::Health,
            ("ack", _) => Self::Ack,
            ("config/desired", _) => Self::Desired,
            ("config/reported", _) => Self::Reported,
            (_, Some(("reading", group))) => Self::Reading(group.parse()?),
            (_, Some(("alert", source))) => Self::Alert(source.parse()?),
            (_, Some(("image", camera))) => Self::Image(camera.parse()?),
            _ => return Err(TopicError::Unknown(rest.chars().take(256).collect())),
        })
    }
}

/// Builds and reads topics below one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self { prefix: "edgeveil".to_owned() }
    }
}

impl Topics {
    /// Below a prefix of 1 to 3 levels: AWS IoT Core allows seven slashes in all.
    pub fn new(prefix: &str) -> Result<Self, TopicError> {
        let levels: Vec<_> = prefix.split('/').collect();
        if levels.len() > 3 || levels.iter().any(|level| level.parse::<Name>().is_err()) {
            return Err(TopicError::Prefix(prefix.to_owned()));
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    /// The prefix, `edgeveil` by default.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `<prefix>/<device>/<topic>`.
    pub fn of(&self, device: &DeviceName, topic: &Topic) -> String {
        format!("{}/{device}/{topic}", self.prefix)
    }

    /// What a bridge subscribes to: everything that devices publish, and not what bridges do.
    pub fn filters(&self) -> Vec<String> {
        ["status", "event", "reading/+", "alert/+", "image/+", "health", "config/reported"]
            .map(|rest| format!("{}/+/{rest}", self.prefix))
            .to_vec()
    }

    /// Reads a topic.
    pub fn parse(&self, topic: &str) -> Result<(DeviceName, Topic), TopicError> {
        let unknown = || TopicError::Unknown(topic.chars().take(256).collect());
        let rest = topic.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_prefix('/'));
        let (device, rest) = rest.and_then(|rest| rest.split_once('/')).ok_or_else(unknown)?;
        let below = rest.parse().map_err(|error| match error {
            TopicError::Unknown(_) => unknown(),
            other => other,
        });
        Ok((device.parse()?, below?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let device: DeviceName = "edge-001".parse().unwrap();
        let name: Name = "env".parse().unwrap();
        for topics in [Topics::default(), Topics::new("site-1/hall/edgeveil").unwrap()] {
            for topic in [
                Topic::Status,
                Topic::Event,
                Topic::Health,
                Topic::Ack,
                Topic::Desired,
                Topic::Reported,
                Topic::Reading(name.clone()),
                Topic::Alert(name.clone()),
                Topic::Image(name.clone()),
            ] {
                assert_eq!(topics.parse(&topics.of(&device, &topic)), Ok((device.clone(), topic)));
            }
        }
    }

    #[test]
    fn foreign_topics_and_prefixes_are_refused() {
        let topics = Topics::default();
        for bad in [
            "",
            "edgeveil",
            "edgeveil/a",
            "edgeveil/a/b",
            "edgeveilx/a/status",
            "edgeveil/a/image/b/c",
            "edgeveil/../status",
            "edgeveil//status",
        ] {
            assert!(topics.parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "/", "a/", "a/b/c/d", "+", "$aws"] {
            assert!(Topics::new(bad).is_err(), "{bad}");
        }
    }
}
