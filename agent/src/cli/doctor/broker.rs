//! The broker: whether it can be reached, and whether it lets the device write where it must, and nowhere else.
//!
//! What is published is an empty `health`, and an `ack` of no record: they mean nothing to a bridge and to the agent. The
//! client id is not that of the running agent, which therefore keeps its connection.

use super::Finding;
use crate::{
    link::{Identity, explain},
    settings::{Acknowledgement, Link, Settings},
};
use edgeveil_wire::{Ack, Topic};
use rumqttc::{
    TlsConfiguration, Transport,
    v5::{
        AsyncClient, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{Packet, PubAckReason, SubscribeReasonCode},
        },
    },
};
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
    if let Err(why) = own.and_then(|own| own) {
        findings.push(Finding::fail("broker's ACL", why, remedy));
        return findings;
    }
    findings.push(match foreign(settings, identity).await {
        Ok(finding) => finding,
        Err(why) => Finding::fail("broker's ACL", why, remedy),
    });
    findings
}

/// One connection.
struct Connection {
    client: AsyncClient,
    events: EventLoop,
    /// It would be opened again by itself, and what was refused sent again.
    is_closed: bool,
}

/// What a publish came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Taken,
    Refused(PubAckReason),
    /// mosquitto 2.0 does so where it refuses a publish and has `max_queued_messages 0`.
    Closed,
}

impl Connection {
    async fn open(settings: &Settings, identity: &Identity) -> Result<Self, String> {
        let link = &settings.link;
        let mut options = MqttOptions::new(format!("{}:doctor", identity.device), &link.host, link.port);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(identity.tls.clone())));
        options.set_keep_alive(link.keep_alive);
        options.set_clean_start(true);
        let (client, mut events) = AsyncClient::new(options, 8);
        let connected = timeout(PATIENCE, async {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
                    Ok(_) => {}
                    Err(error) => return Err(explain(&error, link)),
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
        self.client.try_subscribe(topic, QoS::AtLeastOnce).map_err(|error| error.to_string())?;
        loop {
            if let Event::Incoming(Packet::SubAck(answer)) =
                self.events.poll().await.map_err(|error| explain(&error, link))?
            {
                let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                return Ok(answer.return_codes.iter().all(granted));
            }
        }
    }

    /// Publishes, and tells what the broker answers, and whether the message has come back meanwhile.
    async fn publish(&mut self, topic: &str, payload: Vec<u8>) -> Result<(Answer, bool), String> {
        self.client
            .try_publish(topic, QoS::AtLeastOnce, false, payload)
            .map_err(|error| error.to_string())?;
        let mut is_back = false;
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::Publish(publish))) => is_back |= publish.topic == topic.as_bytes(),
                // One is under way at a time.
                Ok(Event::Incoming(Packet::PubAck(answer))) => {
                    let answer = match answer.reason {
                        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Answer::Taken,
                        reason => Answer::Refused(reason),
                    };
                    return Ok((answer, is_back));
                }
                Ok(_) => {}
                Err(_) => {
                    self.is_closed = true;
                    return Ok((Answer::Closed, is_back));
                }
            }
        }
    }

    /// Waits for a message.
    async fn echo(&mut self, topic: &str) -> bool {
        let echo = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) if publish.topic == topic.as_bytes() => {
                        return true;
                    }
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
        let _ = self.client.disconnect().await;
        let goodbye = async { while self.events.poll().await.is_ok() {} };
        let _ = timeout(Duration::from_millis(500), goodbye).await;
    }
}

/// Whether the device may write below its name, and read its acknowledgements.
async fn own(settings: &Settings, identity: &Identity, connection: &mut Connection) -> Result<(), String> {
    let (link, device) = (&settings.link, &identity.device);
    let own = link.topics.of(device, &Topic::Health);
    let ack = link.topics.of(device, &Topic::Ack);
    let wants_ack = link.acknowledgement == Acknowledgement::Bridge;
    if wants_ack && !connection.subscribe(&ack, link).await? {
        return Err(deaf(device, &ack));
    }
    let how = match connection.publish(&own, Vec::new()).await?.0 {
        Answer::Taken => None,
        Answer::Refused(reason) => Some(format!("refuses what {device} publishes on {own} ({reason:?})")),
        Answer::Closed => Some(format!("closes the connection when {device} publishes on {own}")),
    };
    if let Some(how) = how {
        let prefix = link.topics.prefix();
        return Err(format!(
            "the broker {how}; let it write below {prefix}/{device}/ in its ACL (certs/mosquitto.acl)"
        ));
    }
    if wants_ack {
        // From itself: whether it comes back shows whether the device may read it, since mosquitto grants every
        // subscription, and then delivers nothing. A broker that lets nobody but the bridge acknowledge, as the bridge's
        // own does, is one that grants no subscription in vain.
        let (answer, is_back) = connection.publish(&ack, Ack { ids: Vec::new() }.to_json()).await?;
        if answer == Answer::Taken && !is_back && !connection.echo(&ack).await {
            return Err(deaf(device, &ack));
        }
    }
    Ok(())
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
    let (answer, _) = timeout(PATIENCE, connection.publish(&topic, Vec::new())).await.map_err(late)??;
    connection.close().await;
    if answer == Answer::Taken {
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
