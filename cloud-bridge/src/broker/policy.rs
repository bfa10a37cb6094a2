//! Who may do what. The embedded broker asks; nothing here knows how it works.

use crate::settings::LegacySettings;
use edgeveil_wire::{DeviceName, Topics};

/// Who is at the other end, by its verified certificate alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The certificate's common name.
    pub name: DeviceName,
    /// What its organisational unit makes of it.
    pub role: Role,
}

/// What a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An agent.
    Device,
    /// Somebody who looks on.
    Observer,
}

/// The rules of one broker.
pub trait Policy: Send + Sync + 'static {
    /// Whether the peer may call itself by this client id, which names its session.
    fn admits(&self, peer: &Peer, client_id: &str) -> bool;
    /// Whether it may publish on this topic.
    fn may_publish(&self, peer: &Peer, topic: &str) -> bool;
    /// Whether it may subscribe to this filter.
    fn may_subscribe(&self, peer: &Peer, filter: &str) -> bool;
    /// Whether a message on this topic, which its sender may publish on, is kept for later subscribers when the sender
    /// asks for it. What is kept takes the broker's memory until it is replaced.
    fn may_retain(&self, _topic: &str) -> bool {
        true
    }
}

/// The bridge's rules: a device writes below its own name and reads what is meant for it; an observer reads all. So does
/// Home Assistant, of what the bridge tells it.
#[derive(Debug, Clone)]
pub struct DevicePolicy {
    topics: Topics,
    legacy: Option<LegacySettings>,
    /// The prefix of discovery.
    homeassistant: Option<String>,
}

impl DevicePolicy {
    /// For the topics below one prefix.
    pub fn new(topics: Topics, legacy: Option<LegacySettings>) -> Self {
        Self { topics, legacy, homeassistant: None }
    }

    /// And Home Assistant's, which comes as an observer: it reads what the bridge tells it below this prefix, and says there that it
    /// has started.
    pub fn with_homeassistant(self, prefix: Option<String>) -> Self {
        Self { homeassistant: prefix, ..self }
    }

    /// What stands below Home Assistant's prefix.
    fn discovery<'t>(&self, topic: &'t str) -> Option<&'t str> {
        topic.strip_prefix(self.homeassistant.as_deref()?)?.strip_prefix('/')
    }

    /// Whether it is the topic of a publisher of another kind, and its own one.
    fn is_legacy(&self, peer: &Peer, topic: &str) -> bool {
        let Some(legacy) = &self.legacy else { return false };
        legacy
            .topic
            .device(topic)
            .is_some_and(|level| level.unwrap_or(legacy.device.as_str()) == peer.name.as_str())
    }

    fn below<'t>(&self, peer: &Peer, topic: &'t str) -> Option<&'t str> {
        let rest = topic.strip_prefix(self.topics.prefix())?.strip_prefix('/')?;
        rest.strip_prefix(peer.name.as_str())?.strip_prefix('/')
    }
}

/// `name` and `name:anything` are a peer's own: without this one device could throw another off, or take over its queue.
pub fn owns_client_id(peer: &Peer, client_id: &str) -> bool {
    client_id.strip_prefix(peer.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

impl Policy for DevicePolicy {
    fn admits(&self, peer: &Peer, client_id: &str) -> bool {
        // Clients of people send no id, and the broker gives them one.
        owns_client_id(peer, client_id) || (peer.role == Role::Observer && client_id.is_empty())
    }

    fn may_publish(&self, peer: &Peer, topic: &str) -> bool {
        let bridges = |rest: &str| {
            rest == "ack"
                || rest == "config/desired"
                || (rest.starts_with("cmd/") && !rest.ends_with("/result"))
        };
        let own = |rest: &str| !rest.is_empty() && rest != "cmd" && !bridges(rest);
        match peer.role {
            Role::Device => self.below(peer, topic).is_some_and(own) || self.is_legacy(peer, topic),
            Role::Observer => self.discovery(topic) == Some("status"),
        }
    }

    fn may_subscribe(&self, peer: &Peer, filter: &str) -> bool {
        match peer.role {
            Role::Observer => {
                filter.strip_prefix(self.topics.prefix()).is_some_and(|rest| rest.starts_with('/'))
                    || self.discovery(filter).is_some()
            }
            Role::Device => self
                .below(peer, filter)
                .is_some_and(|rest| rest == "ack" || rest.starts_with("cmd/") || rest.starts_with("config/")),
        }
    }

    fn may_retain(&self, topic: &str) -> bool {
        let below = topic.strip_prefix(self.topics.prefix()).and_then(|rest| rest.strip_prefix('/'));
        let rest = below.and_then(|below| below.split_once('/')).map(|(_, rest)| rest);
        matches!(rest, Some("status" | "config/reported"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, role: Role) -> Peer {
        Peer { name: name.parse().unwrap(), role }
    }

    #[test]
    fn a_device_writes_and_reads_only_its_own() {
        let policy = DevicePolicy::new(Topics::default(), None);
        let pi = peer("pi", Role::Device);
        for topic in [
            "edgeveil/pi/status",
            "edgeveil/pi/image/desk",
            "edgeveil/pi/cmd/ping/result",
            "edgeveil/pi/config/reported",
        ] {
            assert!(policy.may_publish(&pi, topic), "{topic}");
        }
        for topic in [
            "edgeveil/pi/ack",
            "edgeveil/pi/cmd/ping",
            "edgeveil/pi/config/desired",
            "edgeveil/pi2/status",
            "edgeveil/p/status",
            "edgeveil/pi/",
            "edgeveil/pi",
            "edgeveil2/pi/status",
            "other",
            "$SYS/x",
        ] {
            assert!(!policy.may_publish(&pi, topic), "{topic}");
        }
        for filter in ["edgeveil/pi/ack", "edgeveil/pi/cmd/#", "edgeveil/pi/config/+"] {
            assert!(policy.may_subscribe(&pi, filter), "{filter}");
        }
        for filter in [
            "#",
            "edgeveil/#",
            "edgeveil/+/ack",
            "edgeveil/pi/image/#",
            "edgeveil/pi2/ack",
            "$share/g/edgeveil/pi2/ack",
        ] {
            assert!(!policy.may_subscribe(&pi, filter), "{filter}");
        }
        assert!(policy.admits(&pi, "pi") && policy.admits(&pi, "pi:shell"));
        assert!(!policy.admits(&pi, "pi2") && !policy.admits(&pi, ""));
    }

    #[test]
    fn a_publisher_of_another_kind_writes_its_own_topic_only() {
        let legacy = |topic: &str| LegacySettings {
            topic: topic.parse().unwrap(),
            device: "pi".parse().unwrap(),
            group: "env".parse().unwrap(),
            timestamp: "timestamp".to_owned(),
        };
        let policy = |topic| DevicePolicy::new(Topics::default(), Some(legacy(topic)));
        let (pi, other) = (peer("pi", Role::Device), peer("other", Role::Device));
        let (one, each) = (policy("sensor/data"), policy("site/+/data"));
        assert!(one.may_publish(&pi, "sensor/data") && !one.may_publish(&other, "sensor/data"));
        assert!(each.may_publish(&other, "site/other/data") && !each.may_publish(&other, "site/pi/data"));
        assert!(!one.may_publish(&peer("pi", Role::Observer), "sensor/data"));
        assert!(!DevicePolicy::new(Topics::default(), None).may_publish(&pi, "sensor/data"));
    }

    #[test]
    fn two_messages_of_a_device_are_kept() {
        let policy = DevicePolicy::new(Topics::default(), None);
        assert!(policy.may_retain("edgeveil/pi/status") && policy.may_retain("edgeveil/pi/config/reported"));
        for topic in
            ["edgeveil/pi/reading/env", "edgeveil/pi/image/status", "edgeveil/status", "other/pi/status"]
        {
            assert!(!policy.may_retain(topic), "{topic}");
        }
    }

    #[test]
    fn an_observer_reads_all_and_writes_nothing() {
        let policy = DevicePolicy::new(Topics::default(), None);
        let anna = peer("anna", Role::Observer);
        assert!(
            policy.may_subscribe(&anna, "edgeveil/#") && policy.may_subscribe(&anna, "edgeveil/+/image/+")
        );
        assert!(!policy.may_subscribe(&anna, "#") && !policy.may_subscribe(&anna, "edgeveilx/#"));
        assert!(!policy.may_publish(&anna, "edgeveil/anna/status"));
        assert!(policy.admits(&anna, "") && !policy.admits(&anna, "pi"));
    }

    #[test]
    fn home_assistant_reads_discovery_and_says_that_it_is_there() {
        let plain = DevicePolicy::new(Topics::default(), None);
        let policy = plain.clone().with_homeassistant(Some("homeassistant".to_owned()));
        let (watcher, pi) = (peer("watcher", Role::Observer), peer("pi", Role::Device));
        for filter in ["homeassistant/#", "homeassistant/+/+/+/config"] {
            assert!(policy.may_subscribe(&watcher, filter) && !plain.may_subscribe(&watcher, filter));
            assert!(!policy.may_subscribe(&pi, filter), "{filter}");
        }
        assert!(!policy.may_subscribe(&watcher, "homeassistant") && !policy.may_subscribe(&watcher, "#"));
        let birth = "homeassistant/status";
        assert!(policy.may_publish(&watcher, birth) && !plain.may_publish(&watcher, birth));
        assert!(!policy.may_publish(&pi, birth) && !policy.may_retain(birth));
        assert!(!policy.may_publish(&watcher, "homeassistant/sensor/x/config"));
        assert!(!policy.may_publish(&pi, "homeassistant/sensor/x/config"));
    }
}
