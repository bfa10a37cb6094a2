//! Publishers that know nothing of Edgeveil.

use super::reader::{Section, Setting};
use edgeveil_wire::{DeviceName, Name, Topics};

/// Where they publish, and as what it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct LegacySettings {
    /// Their topic.
    pub topic: LegacyTopic,
    /// Whose readings these are, where the topic does not say.
    pub device: DeviceName,
    /// The sensor group.
    pub group: Name,
    /// The field with the time.
    pub timestamp: String,
}

/// A topic; one of its levels may be `+`, and is then the device's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyTopic(String);

impl std::str::FromStr for LegacyTopic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let levels = text.split('/').filter(|level| *level == "+").count();
        let bad = |level: &str| {
            level.is_empty() || level.contains(['#', '\0']) || (level != "+" && level.contains('+'))
        };
        if text.len() > 256 || text.starts_with('$') || levels > 1 || text.split('/').any(bad) {
            return Err(format!("`{text}` has an empty level, `#`, `$` in front or more than one `+`"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl LegacyTopic {
    /// To subscribe to.
    pub fn filter(&self) -> &str {
        &self.0
    }

    /// None: another topic. None within: it does not name a device.
    pub fn device<'t>(&self, topic: &'t str) -> Option<Option<&'t str>> {
        let (mut wanted, mut levels) = (self.0.split('/'), topic.split('/'));
        let mut device = None;
        loop {
            match (wanted.next(), levels.next()) {
                (None, None) => return Some(device),
                (Some("+"), Some(level)) => device = Some(level),
                (Some(wanted), Some(level)) if wanted == level => {}
                _ => return None,
            }
        }
    }
}

impl Setting for LegacyTopic {
    const WANTS: &'static str = "a topic such as \"sensor/data\" or \"site/+/data\", where `+` is the device";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

/// None inside: not wanted. None outside: a problem.
pub(super) fn legacy(section: Section<'_, '_>, topics: &Topics) -> Option<Option<LegacySettings>> {
    if !section.is_given(&["topic"]) {
        return Some(None);
    }
    let name = |key: &'static str, default: &str| {
        let text: String = section.or(key, default.to_owned());
        text.parse::<Name>().map_err(|error| section.problem(key, format!("`{text}`: {error}"))).ok()
    };
    let (group, device) = (name("group", "env"), section.or("device", "legacy".to_owned()));
    let device =
        device.parse().map_err(|error| section.problem("device", format!("`{device}`: {error}"))).ok();
    let topic = section.or("topic", LegacyTopic("sensor/data".to_owned()));
    let prefix = format!("{}/", topics.prefix());
    if topic.0.starts_with(&prefix) || topic.0.starts_with("+/") {
        section.problem("topic", format!("could be one of `{prefix}…`, which are the agents'"));
    }
    let timestamp = section.or("timestamp", "timestamp".to_owned());
    section.finish();
    Some(Some(LegacySettings { topic, device: device?, group: group?, timestamp }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn topics_are_matched_level_by_level() {
        let topic = |text: &str| text.parse::<LegacyTopic>();
        assert_eq!(topic("sensor/data").unwrap().device("sensor/data"), Some(None));
        assert_eq!(topic("site/+/data").unwrap().device("site/pi/data"), Some(Some("pi")));
        assert_eq!(topic("site/+/data").unwrap().device("site/pi/data/more"), None);
        assert_eq!(topic("site/+").unwrap().device("site"), None);
        for bad in ["", "a//b", "a/#", "$SYS/x", "+/+", "a/b+"] {
            assert!(topic(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_seeds_publisher_needs_a_section_only() {
        let parse = |text: &str| Settings::parse("b.toml", text, &|_| None);
        assert_eq!(parse("").unwrap().legacy, None);
        let legacy = parse("[legacy]\n").unwrap().legacy.unwrap();
        assert_eq!((legacy.topic.filter(), legacy.device.as_str()), ("sensor/data", "legacy"));
        for (text, line) in [
            ("[legacy]\ntopic = \"edgeveil/+/reading\"\n", 2),
            ("[legacy]\ngroup = \"a b\"\n", 2),
            ("[legacy]\ndevice = \"a/b\"\n", 2),
            ("[legacy]\ntopics = \"x\"\n", 2),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found[0].to_string().starts_with(&format!("b.toml:{line}: `legacy.")), "{found:?}");
        }
    }
}
