//! Discovery messages, as <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery> has them: one for each entity.
//!
//! Home Assistant 2024.11 also takes one message for a whole device. One for each entity is understood by earlier ones too, stays small
//! however much a device has, and lets a single thing come and go.

use super::{Gauge, Thing};
use crate::settings::HomeAssistantSettings;
use edgeveil_wire::{DeviceName, Topic, Topics};
use serde_json::{Map, Value, json};

/// Makes topics and payloads.
#[derive(Debug, Clone)]
pub struct Entities {
    topics: Topics,
    settings: HomeAssistantSettings,
}

/// Joins names so that no two lists of names give the same text: `_` is doubled within a name, and no name begins with it.
fn join<'t>(names: impl IntoIterator<Item = &'t str>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| name.replace('_', "__")).collect();
    names.join("_")
}

/// What Home Assistant makes of a name for an entity's id.
fn slug(text: &str) -> String {
    let letters = text.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    letters.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

/// What differs between entities.
struct Kind {
    component: &'static str,
    /// What people read, behind the device's name.
    name: String,
    /// Whether a device that is away makes it unavailable.
    needs_device: bool,
    more: Value,
}

impl Entities {
    /// For devices whose topics are these.
    pub fn new(topics: Topics, settings: HomeAssistantSettings) -> Self {
        Self { topics, settings }
    }

    /// Where Home Assistant looks for a thing.
    pub fn topic(&self, device: &DeviceName, thing: &Thing) -> String {
        let node = self.device_id(device);
        let (component, object) = (component(thing), join(thing.parts()));
        format!("{}/{component}/{node}/{object}/config", self.settings.prefix)
    }

    /// What it finds there. `version` is the agent's, where it is known.
    pub fn payload(&self, device: &DeviceName, version: Option<&str>, thing: &Thing) -> Vec<u8> {
        let kind = self.kind(device, thing);
        let id = format!("{}_{}", self.device_id(device), join(thing.parts()));
        let mut about = json!({
            "identifiers": [self.device_id(device)],
            "name": device.as_str(),
            "manufacturer": "Edgeveil",
            "model": "Edgeveil agent",
            "via_device": Self::bridge_id(&self.topics),
        });
        if let Some(version) = version {
            about["sw_version"] = version.into();
        }
        let mut entity = self.entity(device.as_str(), &id, &about, &kind);
        if kind.needs_device {
            entity.insert(
                "availability".to_owned(),
                json!([{
                    "topic": self.topics.of(device, &Topic::Status),
                    "value_template": "{{ 'online' if value_json.get('state') == 'online' else 'offline' }}",
                }]),
            );
        }
        Value::Object(entity).to_string().into_bytes()
    }

    /// Where Home Assistant looks for this bridge.
    pub fn bridge_topic(&self) -> String {
        let (node, name) = (Self::bridge_id(&self.topics), join([self.settings.bridge.as_str()]));
        format!("{}/binary_sensor/{node}/{name}/config", self.settings.prefix)
    }

    /// What it finds there. Replicas are one device, and each of them is an entity of it.
    pub fn bridge_payload(&self) -> Vec<u8> {
        let about = json!({
            "identifiers": [Self::bridge_id(&self.topics)],
            "name": "Edgeveil bridge",
            "manufacturer": "Edgeveil",
            "model": "Edgeveil bridge",
            "sw_version": env!("CARGO_PKG_VERSION"),
        });
        let kind = Kind {
            component: "binary_sensor",
            name: format!("{} connected", self.settings.bridge),
            needs_device: false,
            more: json!({
                "state_topic": self.settings.state_topic(&self.topics),
                "payload_on": "online",
                "payload_off": "offline",
                "device_class": "connectivity",
                "entity_category": "diagnostic",
            }),
        };
        let id = format!("{}_{}", Self::bridge_id(&self.topics), join([self.settings.bridge.as_str()]));
        Value::Object(self.entity("edgeveil_bridge", &id, &about, &kind)).to_string().into_bytes()
    }

    /// What bridges of these topics are called: all of them are one device.
    pub fn bridge_id(topics: &Topics) -> String {
        format!("{}-bridge", join(topics.prefix().split('/')))
    }

    fn entity(&self, of: &str, id: &str, about: &Value, kind: &Kind) -> Map<String, Value> {
        let mut entity = json!({
            "name": kind.name,
            "unique_id": id,
            // In place of `object_id`, which Home Assistant gives up. Earlier ones do not know it, and come to the same by the names.
            "default_entity_id": format!("{}.{}", kind.component, slug(&format!("{of}_{}", kind.name))),
            "device": about,
            "origin": { "name": "Edgeveil", "sw_version": env!("CARGO_PKG_VERSION") },
        });
        let entity = entity.as_object_mut().map(std::mem::take).unwrap_or_default();
        entity.into_iter().chain(kind.more.as_object().cloned().unwrap_or_default()).collect()
    }

    fn device_id(&self, device: &DeviceName) -> String {
        join(self.topics.prefix().split('/').chain([device.as_str()]))
    }

    fn kind(&self, device: &DeviceName, thing: &Thing) -> Kind {
        let topic = |topic: Topic| self.topics.of(device, &topic);
        let component = component(thing);
        let kind = |name: String, more: Value| Kind { component, name, needs_device: true, more };
        match thing {
            Thing::Connectivity => Kind {
                needs_device: false,
                ..kind(
                    "connected".to_owned(),
                    json!({
                        "state_topic": topic(Topic::Status),
                        "value_template": "{{ 'ON' if value_json.get('state') == 'online' else 'OFF' }}",
                        "device_class": "connectivity",
                        "entity_category": "diagnostic",
                    }),
                )
            },
            Thing::Problem => kind(
                "problem".to_owned(),
                json!({
                    "state_topic": topic(Topic::Status),
                    "value_template": "{{ 'ON' if value_json.get('problems') else 'OFF' }}",
                    "json_attributes_topic": topic(Topic::Status),
                    "device_class": "problem",
                    "entity_category": "diagnostic",
                }),
            ),
            Thing::Value(group, value) => {
                let mut more = json!({
                    "state_topic": topic(Topic::Reading(group.clone())),
                    "value_template": format!("{{{{ value_json.get('{value}') }}}}"),
                    "state_class": "measurement",
                });
                let (unit, class) = self.settings.units.of(value);
                let found = [("unit_of_measurement", unit), ("device_class", class)];
                for (key, found) in found {
                    if let Some(found) = found {
                        more[key] = found.into();
                    }
                }
                kind(format!("{group} {value}"), more)
            }
            Thing::Score(group) => kind(
                format!("{group} score"),
                json!({
                    "state_topic": topic(Topic::Reading(group.clone())),
                    "value_template": "{{ value_json.get('score') }}",
                    "state_class": "measurement",
                    "suggested_display_precision": 2,
                }),
            ),
            Thing::Anomaly(group) => kind(
                format!("{group} anomaly"),
                json!({
                    "state_topic": topic(Topic::Alert(group.clone())),
                    "value_template": "{{ 'ON' if value_json.get('anomaly') else 'OFF' }}",
                    "json_attributes_topic": topic(Topic::Alert(group.clone())),
                    "off_delay": self.settings.off_delay.as_secs(),
                    "device_class": "problem",
                    "qos": 1,
                }),
            ),
            Thing::Image(camera) => kind(
                camera.to_string(),
                json!({
                    "image_topic": topic(Topic::Image(camera.clone())),
                    "content_type": "image/jpeg",
                }),
            ),
            Thing::Camera(camera) => kind(
                format!("{camera} running"),
                json!({
                    "state_topic": topic(Topic::Health),
                    "value_template": format!(
                        "{{{{ 'ON' if value_json.get('cameras', {{}}).get('{camera}', {{}}).get('running') else 'OFF' }}}}"
                    ),
                    "device_class": "running",
                    "entity_category": "diagnostic",
                }),
            ),
            Thing::Gauge(gauge) => {
                let (name, more) = health(*gauge);
                let mut more = more;
                more["state_topic"] = topic(Topic::Health).into();
                more["entity_category"] = "diagnostic".into();
                kind(name.to_owned(), more)
            }
        }
    }
}

fn component(thing: &Thing) -> &'static str {
    match thing {
        Thing::Value(..)
        | Thing::Score(_)
        | Thing::Gauge(
            Gauge::Temperature
            | Gauge::Load
            | Gauge::Memory
            | Gauge::Disk
            | Gauge::Signal
            | Gauge::Backlog
            | Gauge::Dropped,
        ) => "sensor",
        Thing::Connectivity
        | Thing::Problem
        | Thing::Anomaly(_)
        | Thing::Camera(_)
        | Thing::Gauge(Gauge::Throttled) => "binary_sensor",
        Thing::Image(_) => "image",
    }
}

/// Name and template of what stands in `health`. What a board cannot tell is missing there, and then unknown.
fn health(gauge: Gauge) -> (&'static str, Value) {
    let measured = |template: &str, unit: Option<&str>, class: Option<&str>| {
        let mut more = json!({ "value_template": template, "state_class": "measurement" });
        for (key, found) in [("unit_of_measurement", unit), ("device_class", class)] {
            if let Some(found) = found {
                more[key] = found.into();
            }
        }
        more
    };
    match gauge {
        Gauge::Temperature => {
            let template = "{{ value_json.get('board', {}).get('temperature_c') }}";
            ("board temperature", measured(template, Some("°C"), Some("temperature")))
        }
        Gauge::Load => ("load", measured("{{ value_json.get('board', {}).get('load_1m') }}", None, None)),
        Gauge::Memory => {
            let template = "{% set bytes = value_json.get('board', {}).get('memory_available_bytes') %}{{ (bytes / 1000000) | round if bytes is number else none }}";
            ("memory available", measured(template, Some("MB"), Some("data_size")))
        }
        Gauge::Disk => {
            let template = "{% set bytes = value_json.get('board', {}).get('disk_free_bytes') %}{{ (bytes / 1000000000) | round(2) if bytes is number else none }}";
            ("disk free", measured(template, Some("GB"), Some("data_size")))
        }
        Gauge::Throttled => {
            let template =
                "{{ 'ON' if value_json.get('board', {}).get('throttling', {}).get('now') else 'OFF' }}";
            ("throttled", json!({ "value_template": template, "device_class": "problem" }))
        }
        Gauge::Signal => {
            let template = "{{ value_json.get('board', {}).get('wireless', {}).get('signal_dbm') }}";
            ("wireless signal", measured(template, Some("dBm"), Some("signal_strength")))
        }
        Gauge::Backlog => {
            let template = "{{ value_json.get('spool', {}).values() | map(attribute='records') | sum }}";
            ("backlog", measured(template, Some("records"), None))
        }
        Gauge::Dropped => {
            let template = "{% set all = namespace(count=0) %}{% for lane in value_json.get('spool', {}).values() %}{% set all.count = all.count + lane.get('dropped', {}).values() | sum %}{% endfor %}{{ all.count }}";
            let more = json!({
                "value_template": template,
                // It begins at 0 with each start of the agent.
                "state_class": "total_increasing",
                "unit_of_measurement": "records",
            });
            ("dropped", more)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::thing::tests::every_kind, *};
    use std::{collections::BTreeSet, time::Duration};

    fn entities(prefix: &str) -> Entities {
        let settings = HomeAssistantSettings {
            prefix: "homeassistant".to_owned(),
            off_delay: Duration::from_secs(60),
            forget: Duration::from_secs(86_400),
            units: Default::default(),
            bridge: "edgeveil-bridge".parse().unwrap(),
        };
        Entities::new(Topics::new(prefix).unwrap(), settings)
    }

    fn device() -> DeviceName {
        "edge-001".parse().unwrap()
    }

    fn payload(thing: &str) -> Value {
        let payload = entities("edgeveil").payload(&device(), Some("0.1.0"), &thing.parse().unwrap());
        serde_json::from_slice(&payload).unwrap()
    }

    #[test]
    fn a_value_is_a_sensor_on_the_devices_own_topic() {
        let thing = "reading/env/temperature".parse().unwrap();
        let topic = entities("edgeveil").topic(&device(), &thing);
        assert_eq!(topic, "homeassistant/sensor/edgeveil_edge-001/reading_env_temperature/config");
        let expected = json!({
            "name": "env temperature",
            "unique_id": "edgeveil_edge-001_reading_env_temperature",
            "default_entity_id": "sensor.edge_001_env_temperature",
            "state_topic": "edgeveil/edge-001/reading/env",
            "value_template": "{{ value_json.get('temperature') }}",
            "state_class": "measurement",
            "unit_of_measurement": "°C",
            "device_class": "temperature",
            "availability": [{
                "topic": "edgeveil/edge-001/status",
                "value_template": "{{ 'online' if value_json.get('state') == 'online' else 'offline' }}",
            }],
            "device": {
                "identifiers": ["edgeveil_edge-001"],
                "name": "edge-001",
                "manufacturer": "Edgeveil",
                "model": "Edgeveil agent",
                "sw_version": "0.1.0",
                "via_device": "edgeveil-bridge",
            },
            "origin": { "name": "Edgeveil", "sw_version": env!("CARGO_PKG_VERSION") },
        });
        assert_eq!(payload("reading/env/temperature"), expected);
    }

    #[test]
    fn alerts_go_off_by_themselves_and_an_image_is_a_jpeg() {
        let alert = payload("alert/env");
        assert_eq!(
            (&alert["state_topic"], &alert["off_delay"]),
            (&json!("edgeveil/edge-001/alert/env"), &json!(60))
        );
        let image = payload("image/door");
        assert_eq!(image["image_topic"], "edgeveil/edge-001/image/door");
        assert_eq!(image["content_type"], "image/jpeg");
        assert_eq!(payload("connectivity")["availability"], Value::Null, "it is the one that says so");
    }

    #[test]
    fn the_bridge_is_a_device_that_others_are_reached_by() {
        let entities = entities("edgeveil");
        let bridge: Value = serde_json::from_slice(&entities.bridge_payload()).unwrap();
        assert_eq!(bridge["device"]["identifiers"], json!(["edgeveil-bridge"]));
        assert_eq!(bridge["state_topic"], "homeassistant/edgeveil-bridge/edgeveil-bridge/state");
        assert_eq!(
            entities.bridge_topic(),
            "homeassistant/binary_sensor/edgeveil-bridge/edgeveil-bridge/config"
        );
    }

    #[test]
    fn no_two_things_share_a_topic_or_an_id() {
        let (mut topics, mut ids) = (BTreeSet::new(), BTreeSet::new());
        let mut count = 0;
        for prefix in ["edgeveil", "a/b", "a_b"] {
            let entities = entities(prefix);
            for device in ["a", "a_b", "a-b", "b_", "edgeveil-bridge"] {
                let device = device.parse().unwrap();
                let tricky =
                    ["reading/a_b/c", "reading/a/b_c", "reading/a/b-c", "reading/a-b/c", "reading/a_/b"];
                let things = tricky.iter().map(|thing| thing.parse().unwrap()).chain(every_kind());
                for thing in things {
                    let payload: Value =
                        serde_json::from_slice(&entities.payload(&device, None, &thing)).unwrap();
                    topics.insert(entities.topic(&device, &thing));
                    ids.insert(payload["unique_id"].as_str().unwrap().to_owned());
                    count += 1;
                }
            }
        }
        assert_eq!((topics.len(), ids.len()), (count, count));
        let legal = |topic: &String| topic.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/".contains(&b));
        assert!(topics.iter().all(legal));
    }
}
