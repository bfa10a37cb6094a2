//! Home Assistant's discovery.

use super::{
    SourceSettings,
    legacy::LegacySettings,
    reader::{Section, Setting},
};
use crate::homeassistant::{Entities, Units};
use edgeveil_wire::{Name, Topics};
use std::time::Duration;
use toml::de::DeValue;

/// How Home Assistant is told of the devices.
#[derive(Debug, Clone, PartialEq)]
pub struct HomeAssistantSettings {
    /// Its own setting of that name.
    pub prefix: String,
    /// How long an alert is shown.
    pub off_delay: Duration,
    /// What was not seen for so long is taken back.
    pub forget: Duration,
    /// Units of values, where they are not what their names say.
    pub units: Units,
    /// What this bridge is called, among its replicas.
    pub bridge: Name,
}

impl HomeAssistantSettings {
    /// Where Home Assistant says that it has started.
    pub fn birth_topic(&self) -> String {
        format!("{}/status", self.prefix)
    }

    /// Where the bridge's presence is: below the prefix, so that one line of an access list lets the bridge write.
    pub fn state_topic(&self, topics: &Topics) -> String {
        format!("{}/{}/{}/state", self.prefix, Entities::bridge_id(topics), self.bridge)
    }
}

impl Setting for Units {
    const WANTS: &'static str = "values with their units such as [\"temperature=°F\", \"level=cm\"]";
    fn from_text(text: &str) -> Result<Self, String> {
        Self::new(text.split(','))
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        let Some(list) = value.as_array() else {
            return value.as_str().ok_or_else(|| "is no list of texts".to_owned()).and_then(Self::from_text);
        };
        let texts: Option<Vec<_>> = list.iter().map(|value| value.get_ref().as_str()).collect();
        Self::new(texts.ok_or_else(|| "is no list of texts".to_owned())?)
    }
}

/// None inside: not wanted. None outside: a problem.
pub(super) fn homeassistant(
    section: Section<'_, '_>,
    topics: &Topics,
    source: Option<&SourceSettings>,
    legacy: Option<&LegacySettings>,
) -> Option<Option<HomeAssistantSettings>> {
    if !section.is_given(&["discovery"]) {
        return Some(None);
    }
    let is_on = section.or("discovery", true);
    let prefix: Topics = section.or("prefix", Topics::new("homeassistant").ok()?);
    let prefix = prefix.prefix().to_owned();
    let within = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
    if within(&prefix, topics.prefix()) || within(topics.prefix(), &prefix) {
        let text =
            format!("`{prefix}` and `{}` stand one within the other; devices write there", topics.prefix());
        section.problem("prefix", text);
    }
    let first = |topic: &str| topic.split('/').next().map(str::to_owned);
    if legacy.is_some_and(|legacy| first(legacy.topic.filter()) == first(&prefix)) {
        section.problem("prefix", format!("`{prefix}` begins as legacy.topic does; devices write there"));
    }
    let time = |key: &'static str, default: u64, least: u64, most: u64| {
        let time = section.or(key, Duration::from_secs(default));
        if !(Duration::from_secs(least)..=Duration::from_secs(most)).contains(&time) {
            section.problem(key, format!("wants \"{least} s\" to \"{} d\"", most / 86_400));
        }
        time
    };
    let off_delay = time("off_delay", 60, 1, 7 * 86_400);
    let forget = time("forget", 30 * 86_400, 10, 3650 * 86_400);
    let units = section.or("units", Units::default());
    let bridge = match source? {
        SourceSettings::Embedded(_) => "edgeveil-bridge",
        SourceSettings::External(mqtt) => &mqtt.client_id,
        SourceSettings::Amqp(_) if is_on => {
            let text = "is for [mqtt] or the embedded broker: what the bridge publishes by [amqp] is not retained, so that Home Assistant would lose it";
            section.problem("discovery", text.to_owned());
            "edgeveil-bridge"
        }
        SourceSettings::Amqp(_) => "edgeveil-bridge",
    };
    let named = bridge.parse().map_err(|error| {
        if is_on {
            section.problem("discovery", format!("names this bridge by mqtt.client_id: {error}"));
        }
    });
    section.finish();
    match named {
        Ok(bridge) if is_on => Some(Some(HomeAssistantSettings { prefix, off_delay, forget, units, bridge })),
        Err(()) if is_on => None,
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;
    use std::time::Duration;

    #[test]
    fn a_section_is_enough_and_mistakes_are_named() {
        let parse = |text: &str| Settings::parse("b.toml", text, &|_| None);
        assert_eq!(parse("").unwrap().homeassistant, None);
        assert_eq!(parse("[homeassistant]\ndiscovery = false\n").unwrap().homeassistant, None);
        let found = parse("[homeassistant]\nunits = [\"level=cm\"]\n").unwrap().homeassistant.unwrap();
        assert_eq!(
            (found.prefix.as_str(), found.forget),
            ("homeassistant", Duration::from_secs(30 * 86_400))
        );
        assert_eq!(found.birth_topic(), "homeassistant/status");
        let tls = "ca = \"a\"\ncert = \"b\"\nkey = \"c\"\n";
        for (text, line, key) in [
            ("[homeassistant]\nprefix = \"edgeveil/pi\"\n".to_owned(), 2, "prefix"),
            ("[homeassistant]\nprefix = \"a/#\"\n".to_owned(), 2, "prefix"),
            ("[homeassistant]\nforget = \"1 s\"\n".to_owned(), 2, "forget"),
            ("[homeassistant]\nunits = [\"level\"]\n".to_owned(), 2, "units"),
            ("[homeassistant]\nhost = \"h\"\n".to_owned(), 2, "host"),
            ("[homeassistant]\n[legacy]\ntopic = \"homeassistant/+/x\"\n".to_owned(), 1, "prefix"),
            (format!("[homeassistant]\ndiscovery = true\n[amqp]\nhosts = \"h\"\n{tls}"), 2, "discovery"),
            (
                format!(
                    "[homeassistant]\ndiscovery = true\n[mqtt]\nhost = \"h\"\nclient_id = \"a b\"\n{tls}"
                ),
                2,
                "discovery",
            ),
        ] {
            let found = parse(&text).unwrap_err();
            let start = format!("b.toml:{line}: `homeassistant.{key}`");
            assert!(found.len() == 1 && found[0].to_string().starts_with(&start), "{start}: {found:?}");
        }
    }
}
