//! The broker: whether it can be reached, and whether it lets the device write where it must, and nowhere else.
//!
//! What is published is an empty `health`, and an `ack` of no record: they mean nothing to a bridge and to the agent. The
//! client id is not that of the running agent, which therefore keeps its connection.

use super::Finding;
use crate::{
    link::{
        BLIND, Identity, explain,
        mqtt::{self, Answer, Client, Event, EventLoop, QoS},
    },
    settings::{Acknowledgement, Link, MqttVersion, Settings},
};
use edgeveil_wire::{Ack, Topic};
use std::time::Duration;
use tokio::time::timeout;

/// For the connection, and for all answers after it.
const PATIENCE: Duration = Duration::from_secs(15);
/// For an acknowledgement that the broker has taken to come back.
const ECHO: Duration = Duration::from_secs(5);

/// Connects, asks, and goes.
pub async fn examine(settings: &Settings, identity: &Identity) -> Vec<Finding> {
    let link = &settings.link;
    let broker = format!("{}:{}", link.host, link.port);
    let remedy = "look at the network and at the broker's log";
    let mut connection = match Connection::open(settings, identity).await {
        Ok(connection) => connection,
        Err(why) => return vec![Finding::fail("broker", why, remedy)],
    };
    let mut findings = vec![Finding::ok("broker", format!("{broker} takes {}", identity.device))];
    let late = |_| format!("broker {broker} does not answer a publish within {} s", PATIENCE.as_secs());
    let own = timeout(PATIENCE, own(settings, identity, &mut connection)).await.map_err(late);
    connection.close().await;
    match own.and_then(|own| own) {
        Ok(unsaid) => findings.extend(unsaid),
        Err(why) => {
            findings.push(Finding::fail("broker's ACL", why, remedy));
            return findings;
        }
    }
    findings.push(match foreign(settings, identity).await {
        Ok(finding) => finding,
        Err(why) => Finding::fail("broker's ACL", why, remedy),
    });
    findings
}

/// One connection.
struct Connection {
    client: Client,
    events: EventLoop,
    /// It would be opened again by itself, and what was refused sent again.
    is_closed: bool,
}

/// What a publish came to.
enum Outcome {
    Answered(Answer),
    /// mosquitto 2.0 does so where it refuses a publish and has `max_queued_messages 0`; RabbitMQ always does.
    Closed,
}

impl Connection {
    async fn open(settings: &Settings, identity: &Identity) -> Result<Self, String> {
        let link = &settings.link;
        let options = mqtt::Options {
            client_id: format!("{}:doctor", identity.device),
            host: &link.host,
            port: link.port,
            tls: identity.tls.clone(),
            keep_alive: link.keep_alive,
            session: mqtt::Session::Clean,
            will: None,
            queue: 8,
        };
        let (client, mut events) = mqtt::open(link.mqtt_version, options);
        let connected = timeout(PATIENCE, async {
            loop {
                match events.poll().await {
                    Ok(Event::Connected { .. }) => return Ok(()),
                    Ok(_) => {}
                    Err(failure) => return Err(explain(&failure, link)),
                }
            }
        });
        let late =
            |_| format!("broker {}:{} does not answer within {} s", link.host, link.port, PATIENCE.as_secs());
        connected.await.map_err(late)??;
        Ok(Self { client, events, is_closed: false })
    }

    /// Whether the subscription was granted.
    async fn subscribe(&mut self, topic: &str, link: &Link) -> Result<bool, String> {
        self.client.subscribe(vec![topic.to_owned()]).map_err(|error| error.to_string())?;
        loop {
            if let Event::Subscribed { granted } =
                self.events.poll().await.map_err(|failure| explain(&failure, link))?
            {
                return Ok(granted.iter().all(|granted| *granted));
            }
        }
    }

    /// Publishes, and tells what the broker answers, and whether the message has come back meanwhile.
    async fn publish(&mut self, topic: &str, payload: Vec<u8>) -> Result<(Outcome, bool), String> {
        self.client
            .publish(topic.to_owned(), QoS::AtLeastOnce, false, payload.into())
            .map_err(|error| error.to_string())?;
        let mut is_back = false;
        loop {
            match self.events.poll().await {
                Ok(Event::Message { topic: from, .. }) => is_back |= from == topic,
                // One is under way at a time.
                Ok(Event::Answered(_, answer)) => return Ok((Outcome::Answered(answer), is_back)),
                Ok(_) => {}
                Err(_) => {
                    self.is_closed = true;
                    return Ok((Outcome::Closed, is_back));
                }
            }
        }
    }

    /// Waits for a message.
    async fn echo(&mut self, topic: &str) -> bool {
        let echo = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Message { topic: from, .. }) if from == topic => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        timeout(ECHO, echo).await.unwrap_or(false)
    }

    async fn close(mut self) {
        if self.is_closed {
            return;
        }
        let _ = self.client.disconnect();
        let goodbye = async { while self.events.poll().await.is_ok() {} };
        let _ = timeout(Duration::from_millis(500), goodbye).await;
    }
}

/// Whether the device may write below its name, and read its acknowledgements. Where that is not told, as with 3.1.1, a
/// finding comes back.
async fn own(
    settings: &Settings,
    identity: &Identity,
    connection: &mut Connection,
) -> Result<Option<Finding>, String> {
    let (link, device) = (&settings.link, &identity.device);
    let own = link.topics.of(device, &Topic::Health);
    let ack = link.topics.of(device, &Topic::Ack);
    let wants_ack = link.acknowledgement == Acknowledgement::Bridge;
    if wants_ack && !connection.subscribe(&ack, link).await? {
        return Err(deaf(device, &ack));
    }
    let how = match connection.publish(&own, Vec::new()).await?.0 {
        Outcome::Answered(Answer::Taken) => None,
        Outcome::Answered(answer) => {
            Some(format!("refuses what {device} publishes on {own} ({})", reason(&answer)))
        }
        Outcome::Closed => Some(format!("closes the connection when {device} publishes on {own}")),
    };
    let prefix = link.topics.prefix();
    if let Some(how) = how {
        return Err(format!(
            "the broker {how}; let it write below {prefix}/{device}/ in its ACL (certs/mosquitto.acl)"
        ));
    }
    let mut is_heard = false;
    if wants_ack {
        // From itself: whether it comes back shows whether the device may read it, since mosquitto grants every
        // subscription, and then delivers nothing. A broker that lets nobody but the bridge acknowledge, as the bridge's
        // own does, is one that grants no subscription in vain.
        let (outcome, is_back) = connection.publish(&ack, Ack { ids: Vec::new() }.to_json()).await?;
        if matches!(outcome, Outcome::Answered(Answer::Taken)) {
            is_heard = is_back || connection.echo(&ack).await;
            if !is_heard && link.mqtt_version == MqttVersion::V5 {
                return Err(deaf(device, &ack));
            }
        }
    }
    Ok((link.mqtt_version == MqttVersion::V311 && !is_heard).then(|| {
        let said = if link.believes_blindly() {
            BLIND.to_owned()
        } else {
            format!("whether the broker lets {device} write below {prefix}/{device}/ cannot be asked with MQTT 3.1.1")
        };
        let remedy = if link.believes_blindly() {
            "set link.acknowledgement to \"bridge\", or link.mqtt_version to \"5\""
        } else {
            "see on the bridge's page whether the device's status arrives, or set link.mqtt_version to \"5\""
        };
        Finding::warn("broker's answers", said, remedy)
    }))
}

fn reason(answer: &Answer) -> &str {
    match answer {
        Answer::Taken => "taken",
        Answer::NotAuthorized => "NotAuthorized",
        Answer::Never(why) | Answer::NotNow(why) => why,
    }
}

/// Whether the device may write below another's name. On a connection of its own, since the broker may close it.
async fn foreign(settings: &Settings, identity: &Identity) -> Result<Finding, String> {
    let (link, device) = (&settings.link, &identity.device);
    let prefix = link.topics.prefix();
    let mut connection = Connection::open(settings, identity).await?;
    let topic = format!("{prefix}/{device}-other/{}", Topic::Health);
    let late = |_| {
        format!(
            "broker {}:{} does not answer a publish within {} s",
            link.host,
            link.port,
            PATIENCE.as_secs()
        )
    };
    let (outcome, _) = timeout(PATIENCE, connection.publish(&topic, Vec::new())).await.map_err(late)??;
    connection.close().await;
    let is_taken = matches!(outcome, Outcome::Answered(Answer::Taken));
    if is_taken && link.mqtt_version == MqttVersion::V311 {
        // It may have been thrown away.
        let said = format!("takes what {device} publishes; of other devices' names MQTT 3.1.1 does not tell");
        return Ok(Finding::ok("broker's ACL", said));
    }
    if is_taken {
        let said = format!("the broker lets {device} write below other devices' names, too");
        let remedy = "give the broker an ACL (certs/mosquitto.acl) and `use_identity_as_username true`";
        return Ok(Finding::warn("broker's ACL", said, remedy));
    }
    let wants_ack = link.acknowledgement == Acknowledgement::Bridge;
    let reads = if wants_ack { ", and to read its acknowledgements" } else { "" };
    Ok(Finding::ok(
        "broker's ACL",
        format!("lets {device} write below {prefix}/{device}/ and nowhere else{reads}"),
    ))
}

fn deaf(device: &edgeveil_wire::DeviceName, ack: &str) -> String {
    format!(
        "the broker does not let {device} read {ack}; allow it in its ACL (certs/mosquitto.acl), or set link.acknowledgement to \"broker\""
    )
}
