//! A broker elsewhere, by MQTT 5 over TLS.
//!
//! rumqttc keeps what was under way in its event loop and loses some of it when a connection breaks, so each connection
//! has an event loop of its own. What the broker has no PUBACK for it sends again; ingest knows it by its id.
//!
//! A connection is two tasks, so that neither direction can hold up the other for ever. One polls and waits while ingest
//! is full, which is how a broker is slowed down that sends more than our receive maximum (mosquitto 2.0 does). The other
//! gives the event loop what is to be sent. Ingest itself never waits for either.

use super::{Delivery, Intake, Receipt};
use crate::{
    backoff::Backoff,
    readiness::{Part, Readiness},
    settings::{MqttSettings, TlsFiles},
    tls,
};
use bytes::Bytes;
use edgeveil_wire::Topics;
use rumqttc::{
    NetworkOptions, TlsConfiguration, Transport,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{ConnectProperties, Filter, Packet, Publish, SubscribeReasonCode},
        },
    },
};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// The largest image and what stands around it.
const MAX_PACKET: u32 = 9 << 20;
/// Requests on their way to the event loop.
const REQUESTS: usize = 256;
/// Messages to devices on their way to a connection. When it is full, the newest is dropped: the device will send its
/// records again, and will then be told.
const TO_DEVICES: usize = 4096;
/// Packet ids, so that there is always room for the PUBACK of each.
const PACKET_IDS: usize = 65_535;

/// A broker's message that waits for its PUBACK.
#[derive(Debug)]
pub struct PubAck {
    connection: mpsc::Sender<u16>,
    packet: u16,
}

impl PubAck {
    pub(super) fn send(self) {
        // The connection it came by is gone: the broker will send it again.
        if self.connection.try_send(self.packet).is_err() {
            tracing::debug!("a PUBACK came too late for its connection");
        }
    }
}

#[derive(Debug)]
struct ToSend {
    topic: String,
    payload: Vec<u8>,
    delivery: Delivery,
}

/// Publishes through whichever connection there is.
#[derive(Debug, Clone)]
pub struct Publisher(mpsc::Sender<ToSend>);

impl Publisher {
    pub(super) fn publish(&self, topic: String, payload: Vec<u8>, delivery: Delivery) {
        if self.0.try_send(ToSend { topic, payload, delivery }).is_err() {
            tracing::debug!("dropped a message to a device: too many wait for the broker");
        }
    }
}

/// The connection, and what it needs to be made again.
pub struct External {
    options: MqttOptions,
    to_send: mpsc::Receiver<ToSend>,
    poller: Poller,
    readiness: Arc<Readiness>,
}

/// What the polling task of each connection needs.
#[derive(Clone)]
struct Poller {
    filters: Vec<String>,
    tls: TlsFiles,
    place: String,
    intake: Intake,
    readiness: Arc<Readiness>,
}

impl External {
    /// Reads the certificates, as each connection does again; connects only in [`Self::run`].
    pub fn new(
        settings: &MqttSettings,
        topics: &Topics,
        intake: Intake,
        readiness: Arc<Readiness>,
    ) -> Result<(Self, Publisher), tls::TlsError> {
        let config = tls::client(&settings.tls, None)?;
        let mut options = MqttOptions::new(&settings.client_id, &settings.host, settings.port);
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval =
            Some(u32::try_from(settings.session_expiry.as_secs()).unwrap_or(u32::MAX));
        properties.receive_maximum = Some(settings.receive_maximum);
        properties.max_packet_size = Some(MAX_PACKET);
        // Acknowledgements are small, and devices wait for them.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options
            .set_transport(transport(config))
            .set_network_options(network)
            .set_keep_alive(settings.keep_alive)
            .set_clean_start(false)
            .set_connect_properties(properties)
            .set_manual_acks(true);
        // Presence is retained, and a broker keeps retained messages from shared subscriptions. Every replica may write
        // it: only the last word counts.
        let shared = |filter: String| match &settings.share_group {
            Some(group) if !filter.ends_with("/+/status") => format!("$share/{group}/{filter}"),
            _ => filter,
        };
        let (sender, to_send) = mpsc::channel(TO_DEVICES);
        let poller = Poller {
            filters: topics.filters().into_iter().map(shared).collect(),
            tls: settings.tls.clone(),
            place: format!("{}:{}", settings.host, settings.port),
            intake,
            readiness: readiness.clone(),
        };
        Ok((Self { options, to_send, poller, readiness }, Publisher(sender)))
    }

    /// Connects again and again until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let place = self.poller.place.clone();
        self.readiness.starting(Part::Source, format!("connecting to {place}"));
        loop {
            let (subscribed, reason) = tokio::select! {
                () = stop.cancelled() => return,
                end = self.connection() => end,
            };
            if subscribed {
                backoff.reset();
                tracing::warn!(broker = place, reason, "lost the broker; trying again");
            }
            let reason = format!("broker {place}: {reason}");
            if self.readiness.down(Part::Source, reason.clone()) && !subscribed {
                tracing::warn!(reason, "no connection to the broker; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
    }

    /// One connection, until it breaks. Whether it ever was of use, and why it ended.
    async fn connection(&mut self) -> (bool, String) {
        // They may have been renewed since the last time.
        match tls::client(&self.poller.tls, None) {
            Ok(config) => _ = self.options.set_transport(transport(config)),
            Err(error) => tracing::warn!(%error, "connecting with the certificate that was read before"),
        }
        let (client, events) = AsyncClient::new(self.options.clone(), REQUESTS);
        let (sender, mut pubacks) = mpsc::channel(PACKET_IDS);
        let poll = self.poller.clone().poll(client.clone(), events, sender);
        let mut poller = AbortOnDropHandle::new(tokio::spawn(poll));
        loop {
            // An error means that the event loop is gone; the poller then tells why.
            let sent = tokio::select! {
                biased;
                end = &mut poller => {
                    return end.unwrap_or_else(|error| (false, error.to_string()));
                }
                Some(message) = self.to_send.recv() => {
                    let retain = message.delivery == Delivery::Retained;
                    client.publish(message.topic, QoS::AtLeastOnce, retain, message.payload).await
                }
                Some(packet) = pubacks.recv() => {
                    // The PUBACK wants only the packet's id.
                    let mut publish = Publish::new("", QoS::AtLeastOnce, Bytes::new(), None);
                    publish.pkid = packet;
                    client.ack(&publish).await
                }
            };
            if sent.is_err() {
                return (&mut poller).await.unwrap_or_else(|error| (false, error.to_string()));
            }
        }
    }
}

fn transport(config: rustls::ClientConfig) -> Transport {
    Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config)))
}

impl Poller {
    async fn poll(
        self,
        client: AsyncClient,
        mut events: EventLoop,
        acks: mpsc::Sender<u16>,
    ) -> (bool, String) {
        let mut subscribed = false;
        let reason = loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let filters = self.filters.iter().map(|f| Filter::new(f.clone(), QoS::AtLeastOnce));
                    let client = client.clone();
                    let filters: Vec<_> = filters.collect();
                    // The request queue may be full of what waited, and only polling makes room in it.
                    tokio::spawn(async move { client.subscribe_many(filters).await });
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    let refused =
                        ack.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                    if let Some(code) = refused {
                        break format!(
                            "it refuses the subscription ({code:?}): let this bridge read all devices in its ACL"
                        );
                    }
                    subscribed = true;
                    self.readiness.up(Part::Source);
                    tracing::info!(broker = self.place, "subscribed");
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    if !self.take(&acks, publish).await {
                        break "the bridge is stopping".to_owned();
                    }
                }
                Ok(Event::Incoming(Packet::Disconnect(end))) => {
                    break format!("it ended the connection ({:?})", end.reason_code);
                }
                Ok(_) => {}
                Err(error) => break explain(&error, &self.tls),
            }
        };
        (subscribed, reason)
    }

    async fn take(&self, acks: &mpsc::Sender<u16>, publish: Publish) -> bool {
        let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { return true };
        if publish.qos == QoS::AtMostOnce {
            if !self.intake.offer(topic, publish.payload) {
                tracing::debug!("a QoS 0 message was dropped: ingest is busy");
            }
            return true;
        }
        let receipt = Receipt::Mqtt(PubAck { connection: acks.clone(), packet: publish.pkid });
        self.intake.send(topic, publish.payload, receipt).await
    }
}

/// What broke a connection, and what to do about it where that is known.
pub fn explain(error: &ConnectionError, files: &TlsFiles) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(tls_error) = current.downcast_ref::<rustls::Error>() {
            return tls::explain(tls_error, files);
        }
        if let Some(inner) = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(tls_error) = inner.downcast_ref::<rustls::Error>()
        {
            return tls::explain(tls_error, files);
        }
        source = current.source();
    }
    error.to_string()
}
