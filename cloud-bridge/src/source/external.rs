//! A broker elsewhere, by MQTT 5 over TLS.
//!
//! rumqttc keeps what was under way in its event loop and loses some of it when a connection breaks, so each connection
//! has an event loop of its own. What the broker has no PUBACK for it sends again; ingest knows it by its id.

use super::{Delivery, Inbound, Intake, Receipt};
use crate::{
    backoff::Backoff,
    readiness::{Part, Readiness},
    settings::{MqttSettings, TlsFiles},
    tls,
};
use bytes::Bytes;
use edgeveil_wire::Topics;
use rumqttc::{
    TlsConfiguration, Transport,
    v5::{
        AsyncClient, ConnectionError, Event, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{ConnectProperties, Filter, Packet, Publish, SubscribeReasonCode},
        },
    },
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The largest image and what stands around it.
const MAX_PACKET: u32 = 9 << 20;
/// Requests on their way to the event loop: acknowledgements to the broker and to devices.
const REQUESTS: usize = 1024;

/// A broker's message that waits for its PUBACK.
#[derive(Debug)]
pub struct PubAck {
    client: AsyncClient,
    publish: Publish,
}

impl PubAck {
    pub(super) async fn send(self) {
        // The connection it came by is gone: the broker will send it again.
        if self.client.ack(&self.publish).await.is_err() {
            tracing::debug!("a PUBACK came too late for its connection");
        }
    }
}

/// Publishes through whichever connection there is.
#[derive(Debug, Clone)]
pub struct Publisher(watch::Receiver<Option<AsyncClient>>);

impl Publisher {
    pub(super) async fn publish(&self, topic: String, payload: Vec<u8>, delivery: Delivery) {
        let client = self.0.borrow().clone();
        let retain = delivery == Delivery::Retained;
        let sent = match client {
            Some(client) => client.publish(topic, QoS::AtLeastOnce, retain, payload).await.is_ok(),
            None => false,
        };
        if !sent {
            tracing::debug!("not published: no connection; devices will send again");
        }
    }
}

/// The connection, and what it needs to be made again.
pub struct External {
    options: MqttOptions,
    filters: Vec<String>,
    tls: TlsFiles,
    place: String,
    intake: Intake,
    readiness: Arc<Readiness>,
    current: watch::Sender<Option<AsyncClient>>,
}

impl External {
    /// Reads the certificates; connects only in [`Self::run`].
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
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))))
            .set_keep_alive(settings.keep_alive)
            .set_clean_start(false)
            .set_connect_properties(properties)
            .set_manual_acks(true);
        let shared = |filter: String| match &settings.share_group {
            Some(group) => format!("$share/{group}/{filter}"),
            None => filter,
        };
        let filters = topics.filters().into_iter().map(shared).collect();
        let place = format!("{}:{}", settings.host, settings.port);
        let (current, watcher) = watch::channel(None);
        let external =
            Self { options, filters, tls: settings.tls.clone(), place, intake, readiness, current };
        Ok((external, Publisher(watcher)))
    }

    /// Connects again and again until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        self.readiness.down(Part::Source, format!("connecting to {}", self.place));
        loop {
            let reason = tokio::select! {
                () = stop.cancelled() => return,
                reason = self.connection(&mut backoff) => reason,
            };
            self.current.send_replace(None);
            let reason = format!("broker {}: {reason}", self.place);
            if self.readiness.down(Part::Source, reason.clone()) {
                tracing::warn!(reason, "no connection to the broker; trying again");
            } else {
                tracing::debug!(reason, "still no connection to the broker");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
    }

    /// One connection, until it breaks.
    async fn connection(&self, backoff: &mut Backoff) -> String {
        let (client, mut events) = AsyncClient::new(self.options.clone(), REQUESTS);
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let filters = self.filters.iter().map(|f| Filter::new(f.clone(), QoS::AtLeastOnce));
                    if let Err(error) = client.try_subscribe_many(filters) {
                        return error.to_string();
                    }
                    self.current.send_replace(Some(client.clone()));
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    let refused =
                        ack.return_codes.iter().find(|c| !matches!(c, SubscribeReasonCode::Success(_)));
                    if let Some(code) = refused {
                        return format!(
                            "it refuses the subscription ({code:?}): let this bridge read all devices in its ACL"
                        );
                    }
                    backoff.reset();
                    self.readiness.up(Part::Source);
                    tracing::info!(broker = self.place, "subscribed");
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    if !self.take(&client, publish).await {
                        return "the bridge is stopping".to_owned();
                    }
                }
                Ok(Event::Incoming(Packet::Disconnect(end))) => {
                    return format!("it ended the connection ({:?})", end.reason_code);
                }
                Ok(_) => {}
                Err(error) => return explain(&error, &self.tls),
            }
        }
    }

    async fn take(&self, client: &AsyncClient, publish: Publish) -> bool {
        let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { return true };
        let payload = publish.payload.clone();
        if publish.qos == QoS::AtMostOnce {
            if !self.intake.offer(Inbound::new(topic, payload, Receipt::None)) {
                tracing::debug!("a QoS 0 message was dropped: ingest is busy");
            }
            return true;
        }
        // The PUBACK wants only the packet's id: the payload is not kept twice.
        let publish = Publish { payload: Bytes::new(), topic: Bytes::new(), ..publish };
        let receipt = Receipt::Mqtt(PubAck { client: client.clone(), publish });
        // The broker's receive maximum bounds what is under way here.
        self.intake.send_counted(Inbound::new(topic, payload, receipt)).await
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
