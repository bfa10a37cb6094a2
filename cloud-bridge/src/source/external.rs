//! A broker elsewhere, by MQTT 5 over TLS.
//!
//! rumqttc keeps what was under way in its event loop and loses some of it when a connection breaks, so each connection
//! has an event loop of its own. What the broker has no PUBACK for it sends again; ingest knows it by its id.
//!
//! A connection is two tasks, so that neither direction can hold up the other for ever. One polls and waits while ingest
//! is full, which is how a broker is slowed down that sends more than our receive maximum (mosquitto 2.0 does). The other
//! gives the event loop what is to be sent. Ingest itself never waits for either.

use super::{Delivery, Intake, Publisher, Receipt, STOPPING, Stops, ToSend};
use crate::{
    backoff::Backoff,
    homeassistant::Desk,
    metrics::Metrics,
    readiness::{Part, Readiness},
    settings::{LegacySettings, MqttSettings, TlsFiles},
    tls,
};
use bytes::Bytes;
use edgeveil_wire::Topics;
use rumqttc::{
    NetworkOptions, Outgoing, TlsConfiguration, Transport,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError,
        mqttbytes::{
            QoS,
            v5::{ConnectProperties, Filter, LastWill, Packet, Publish, SubscribeReasonCode},
        },
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinError, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// The largest image and what stands around it.
const MAX_PACKET: u32 = 9 << 20;
/// Requests on their way to the event loop.
const REQUESTS: usize = 256;
/// How long the broker may take for our last acknowledgements when the bridge stops; `serve` has less patience when the
/// stop has taken long before.
const PARTING: Duration = Duration::from_secs(3);
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
    metrics: Arc<Metrics>,
    stops: Stops,
    desk: Option<Desk>,
}

impl External {
    /// Reads the certificates, as each connection does again; connects only in [`Self::run`].
    pub fn new(
        settings: &MqttSettings,
        topics: &Topics,
        legacy: Option<&LegacySettings>,
        intake: Intake,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
        stops: Stops,
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
            Some(group) if !filter.ends_with("/+/status") && !filter.ends_with("/+/config/reported") => {
                format!("$share/{group}/{filter}")
            }
            _ => filter,
        };
        let theirs = legacy.map(|legacy| legacy.topic.filter().to_owned());
        let filters = topics.filters().into_iter().chain(theirs);
        let (publisher, to_send) = Publisher::new();
        let poller = Poller {
            filters: filters.map(shared).collect(),
            tls: settings.tls.clone(),
            place: format!("{}:{}", settings.host, settings.port),
            intake,
            readiness: readiness.clone(),
            metrics,
            stops,
            desk: None,
        };
        Ok((Self { options, to_send, poller, readiness }, publisher))
    }

    /// The bridge's presence, for Home Assistant: this connection's last will says that it is gone. What a connection has under way
    /// is lost with it, so after each new one all is told again.
    pub fn presented_at(mut self, desk: Desk) -> Self {
        let will = LastWill::new(desk.state(), "offline", QoS::AtLeastOnce, true, None);
        self.options.set_last_will(will);
        self.poller.desk = Some(desk);
        self
    }

    /// Connects again and again until it is stopped.
    pub async fn run(mut self) {
        let stops = self.poller.stops.clone();
        // However it ends, nobody waits for more from here.
        let _handed_over = stops.handed_over.clone().drop_guard();
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let place = self.poller.place.clone();
        self.readiness.starting(Part::Source, format!("connecting to {place}"));
        let mut told = String::new();
        loop {
            let (subscribed, reason) = self.connection(&stops).await;
            if stops.intake.is_cancelled() {
                return;
            }
            if subscribed {
                backoff.reset();
                tracing::warn!(broker = place, reason, "lost the broker; trying again");
            }
            let reason = format!("broker {place}: {reason}");
            self.readiness.down(Part::Source, reason.clone());
            if !subscribed && told != reason {
                tracing::warn!(reason, "no connection to the broker; trying again");
                told = reason;
            }
            tokio::select! {
                () = stops.intake.cancelled() => return,
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
    }

    /// One connection, until it breaks or is left. Whether it ever was of use, and why it ended.
    async fn connection(&mut self, stops: &Stops) -> (bool, String) {
        // They may have been renewed since the last time.
        match tls::client(&self.poller.tls, None) {
            Ok(config) => _ = self.options.set_transport(transport(config)),
            Err(error) => tracing::warn!(%error, "connecting with the certificate that was read before"),
        }
        let (client, events) = AsyncClient::new(self.options.clone(), REQUESTS);
        let (sender, mut pubacks) = mpsc::channel(PACKET_IDS);
        let subscribed = CancellationToken::new();
        let poll = self.poller.clone().poll(client.clone(), events, sender, subscribed.clone());
        let mut poller = AbortOnDropHandle::new(tokio::spawn(poll));
        let ended = |end: Result<String, JoinError>| end.unwrap_or_else(|error| error.to_string());
        let reason = loop {
            // An error means that the event loop is gone; the poller then tells why.
            let sent = tokio::select! {
                biased;
                end = &mut poller => break ended(end),
                () = stops.intake.cancelled(), if !stops.handed_over.is_cancelled() => {
                    if !subscribed.is_cancelled() {
                        break STOPPING.to_owned();
                    }
                    stops.handed_over.cancel();
                    Ok(())
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
                // Last, so that nothing is left to be sent when it is its turn.
                () = stops.leave.cancelled() => {
                    let goodbye = async {
                        let _ = client.disconnect().await;
                        ended((&mut poller).await)
                    };
                    break timeout(PARTING, goodbye).await.unwrap_or_else(|_| STOPPING.to_owned());
                }
            };
            if sent.is_err() {
                break ended((&mut poller).await);
            }
        };
        (subscribed.is_cancelled(), reason)
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
        subscribed: CancellationToken,
    ) -> String {
        let mut leaving = false;
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    // Last, and not shared: each replica has something to tell.
                    let birth = self.desk.as_ref().map(Desk::birth);
                    let filters = self.filters.iter().map(String::as_str).chain(birth);
                    let filters = filters.map(|f| Filter::new(f.to_owned(), QoS::AtLeastOnce));
                    let client = client.clone();
                    let filters: Vec<_> = filters.collect();
                    // The request queue may be full of what waited, and only polling makes room in it.
                    tokio::spawn(async move { client.subscribe_many(filters).await });
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    let is_refused =
                        |code: &&SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
                    let (needed, birth) =
                        ack.return_codes.split_at(self.filters.len().min(ack.return_codes.len()));
                    if let (Some(desk), Some(code)) = (&self.desk, birth.iter().find(is_refused)) {
                        let topic = desk.birth();
                        tracing::warn!(topic, ?code, "the broker refuses to tell when Home Assistant starts");
                    }
                    let refused = needed.iter().find(is_refused);
                    if let Some(code) = refused {
                        break format!(
                            "it refuses the subscription ({code:?}): let this bridge read all devices in its ACL"
                        );
                    }
                    subscribed.cancel();
                    self.readiness.up(Part::Source);
                    if let Some(desk) = &self.desk {
                        desk.again();
                    }
                    tracing::info!(broker = self.place, "subscribed");
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => self.take(&acks, publish).await,
                // The broker ends the connection when it has read that far. To end it here, with something of the broker's unread,
                // would reset it, and our last acknowledgements could be lost.
                Ok(Event::Outgoing(Outgoing::Disconnect)) => leaving = true,
                Ok(Event::Incoming(Packet::Disconnect(end))) => {
                    break format!("it ended the connection ({:?})", end.reason_code);
                }
                Ok(_) => {}
                Err(_) if leaving => break STOPPING.to_owned(),
                Err(error) => break explain(&error, &self.tls),
            }
        }
    }

    async fn take(&self, acks: &mpsc::Sender<u16>, publish: Publish) {
        if publish.dup {
            self.metrics.redelivered.inc();
        }
        // Without its PUBACK the broker keeps it, for this bridge's next start or for another one.
        if self.stops.intake.is_cancelled() {
            return;
        }
        let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { return };
        if publish.qos == QoS::AtMostOnce {
            if !self.intake.offer(topic, publish.payload) {
                tracing::debug!("a QoS 0 message was dropped: ingest is busy");
            }
            return;
        }
        let receipt = Receipt::Mqtt(PubAck { connection: acks.clone(), packet: publish.pkid });
        tokio::select! {
            () = self.stops.intake.cancelled() => {}
            _ = self.intake.send(topic, publish.payload, receipt, publish.dup) => {}
        }
    }
}

/// What broke a connection, and what to do about it where that is known.
pub fn explain(error: &ConnectionError, files: &TlsFiles) -> String {
    // rumqttc does not tell that this one has a source: a server that speaks TLS 1.3 refuses a certificate only then.
    let found = match error {
        ConnectionError::MqttState(StateError::Deserialization(hidden)) => tls::explain_within(hidden, files),
        error => tls::explain_within(error, files),
    };
    found.unwrap_or_else(|| error.to_string())
}
