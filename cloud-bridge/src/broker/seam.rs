//! The only file that names `mqtt5`.

use super::policy::{Peer, Policy};
use crate::{
    homeassistant::MAX_THINGS,
    metrics::Metrics,
    source::{Delivery, Intake, Receipt},
    troubles::{Kind, Troubles},
};
use mqtt5::broker::{
    BrokerConfig, BrokerEventHandler, ClientPublishEvent, PublishAction, ResourceLimits, ResourceMonitor,
    auth::{AuthProvider, AuthResult},
    client_handler::ClientHandler,
    router::{DeliveryLanes, MessageRouter, SubscriptionRequest},
    sys_topics::BrokerStats,
    tls_acceptor::TlsStreamWrapper,
    transport::BrokerTransport,
};
use mqtt5_protocol::{
    QoS,
    packet::{connect::ConnectPacket, publish::PublishPacket},
    protocol::v5::reason_codes::ReasonCode,
};
use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpStream, sync::broadcast};
use tokio_rustls::server::TlsStream;

type BoxFut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The largest image and what stands around it.
const MAX_PACKET: usize = 9 << 20;
/// The in-process subscriber. No certificate can have this name: `:` comes first.
const BRIDGE: &str = ":bridge";

/// The longest message that is kept for later subscribers.
const MAX_RETAINED: usize = 64 << 10;

/// What all connections share.
#[derive(Clone)]
pub struct Engine {
    config: Arc<BrokerConfig>,
    router: Arc<MessageRouter>,
    limits: Arc<ResourceMonitor>,
    stats: Arc<BrokerStats>,
    policy: Arc<dyn Policy>,
    seats: Seats,
    stop: broadcast::Sender<()>,
}

impl Engine {
    pub async fn new(
        intake: Intake,
        presence: Option<String>,
        max_connections: u32,
        policy: Arc<dyn Policy>,
        seats: Seats,
    ) -> anyhow::Result<Self> {
        let hook = Hook { intake: intake.clone(), presence: presence.clone(), policy: policy.clone() };
        let handler: Arc<dyn BrokerEventHandler> = Arc::new(hook);
        let mut config = BrokerConfig {
            max_packet_size: MAX_PACKET,
            session_expiry_interval: Duration::from_secs(3600),
            // Two of each device, and the bridge's own.
            max_retained_messages: 30_000 + MAX_THINGS,
            max_retained_message_size: MAX_RETAINED,
            sys_topics_enabled: false,
            event_handler: Some(handler.clone()),
            ..BrokerConfig::default()
        };
        config.storage_config.enable_persistence = false;
        let router = Arc::new(
            MessageRouter::new()
                .with_event_handler(handler)
                .with_retained_limits(config.max_retained_messages, config.max_retained_message_size),
        );
        if let Some(filter) = presence {
            subscribe(&router, filter, intake).await?;
        }
        let max_connections = max_connections as usize;
        let limits = ResourceMonitor::new(ResourceLimits {
            max_connections,
            max_connections_per_ip: max_connections,
            max_message_rate_per_client: 0,
            max_bandwidth_per_client: 0,
            max_connection_rate: 10_000,
            rate_limit_window: Duration::from_secs(1),
        });
        let (limits, stats) = (Arc::new(limits), Arc::new(BrokerStats::new()));
        let (config, stop) = (Arc::new(config), broadcast::channel(1).0);
        Ok(Self { config, router, limits, stats, policy, seats, stop })
    }

    pub fn publisher(&self) -> Publisher {
        Publisher(self.router.clone())
    }

    pub async fn sweep(&self) {
        self.router.sweep_sessions().await;
        self.limits.cleanup_expired_windows().await;
    }

    pub fn stop(&self) {
        // No receiver means no connection.
        let _ = self.stop.send(());
    }

    /// Speaks MQTT until the connection ends, and tells how it did.
    pub async fn serve(self, stream: TlsStream<TcpStream>, from: SocketAddr, peer: Peer) -> String {
        let transport = BrokerTransport::tls(TlsStreamWrapper::new(stream));
        let stop = self.stop.subscribe();
        let seat = Arc::new(Seat { seats: self.seats, from, client_id: Mutex::default() });
        let auth = Arc::new(Auth { peer, policy: self.policy, seat });
        let handler = ClientHandler::new(
            transport,
            from,
            self.config,
            self.router,
            auth,
            None,
            self.stats,
            self.limits,
            stop,
        );
        handler.run().await.map_or_else(|error| error.to_string(), |()| "closed".to_owned())
    }
}

/// Who sits where: by client id, of which there is one connection at a time.
#[derive(Debug, Clone)]
pub struct Seats {
    taken: Arc<Mutex<HashMap<String, SocketAddr>>>,
    metrics: Arc<Metrics>,
    troubles: Arc<Troubles>,
}

impl Seats {
    pub fn new(metrics: Arc<Metrics>, troubles: Arc<Troubles>) -> Self {
        Self { taken: Arc::default(), metrics, troubles }
    }
}

/// One connection's seat, given back when it is dropped.
#[derive(Debug)]
struct Seat {
    seats: Seats,
    from: SocketAddr,
    client_id: Mutex<Option<String>>,
}

impl Seat {
    /// Sits down, and tells when that throws off somebody else.
    fn take(&self, peer: &Peer, client_id: &str) {
        let mut mine = self.client_id.lock().unwrap_or_else(PoisonError::into_inner);
        *mine = Some(client_id.to_owned());
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = taken.insert(client_id.to_owned(), self.from) {
            self.seats.metrics.taken_over.inc();
            let text = format!(
                "its connection from {before} was taken over by another connection of the same name, from {}; do two devices share a certificate?",
                self.from
            );
            self.seats.troubles.note(&peer.name, Kind::TakenOver, text);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mine = self.client_id.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever took it over has another address: of one address there is one connection.
        if let Some(client_id) = mine
            && taken.get(client_id) == Some(&self.from)
        {
            taken.remove(client_id);
        }
    }
}

async fn subscribe(router: &Arc<MessageRouter>, filter: String, intake: Intake) -> anyhow::Result<()> {
    let (lanes, mut messages) = DeliveryLanes::channel(4096);
    let (kick, kicked) = tokio::sync::oneshot::channel();
    let registration =
        router.register_session(BRIDGE.to_owned(), lanes, router.queue_handle(BRIDGE), kick, true).await;
    router.subscribe(SubscriptionRequest::new(BRIDGE, filter, QoS::AtMostOnce)).await?;
    tokio::spawn(async move {
        let _held = (registration, kicked);
        while let Some(message) = messages.recv().await {
            let publish = message.publish;
            if !intake.send(publish.topic_name.to_string(), publish.payload, Receipt::None, false).await {
                break;
            }
        }
    });
    Ok(())
}

/// One connection's rights.
struct Auth {
    peer: Peer,
    policy: Arc<dyn Policy>,
    seat: Arc<Seat>,
}

impl AuthProvider for Auth {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        _: SocketAddr,
    ) -> BoxFut<'a, mqtt5::Result<AuthResult>> {
        Box::pin(async move {
            let client_id = if is_assigned(&connect.client_id) { "" } else { connect.client_id.as_str() };
            if let Some(will) = &connect.will
                && will.retain
                && !self.policy.may_retain(&will.topic)
            {
                let topic: String = will.topic.chars().take(256).collect();
                tracing::warn!(peer = %self.peer.name, topic, "refused: a last will on this topic cannot be retained");
                return Ok(AuthResult::fail(ReasonCode::NotAuthorized));
            }
            if self.policy.admits(&self.peer, client_id) {
                if !client_id.is_empty() {
                    self.seat.take(&self.peer, client_id);
                }
                return Ok(AuthResult::success_with_user(self.peer.name.to_string()));
            }
            let client_id: String = connect.client_id.chars().take(64).collect();
            tracing::warn!(peer = %self.peer.name, client_id, "refused: a client id is the certificate's common name, or begins with it and a colon");
            Ok(AuthResult::fail(ReasonCode::ClientIdentifierNotValid))
        })
    }

    fn authorize_publish<'a>(&'a self, _: &str, _: Option<&'a str>, topic: &'a str) -> BoxFut<'a, bool> {
        Box::pin(async move { self.policy.may_publish(&self.peer, topic) })
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, _: Option<&'a str>, filter: &'a str) -> BoxFut<'a, bool> {
        Box::pin(async move { self.policy.may_subscribe(&self.peer, filter) })
    }
}

/// Hands what was published to the intake.
struct Hook {
    intake: Intake,
    presence: Option<String>,
    policy: Arc<dyn Policy>,
}

impl BrokerEventHandler for Hook {
    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> BoxFut<'a, PublishAction> {
        Box::pin(async move {
            // Passed on to whoever listens now, and not kept.
            let passing = (event.retain && !self.policy.may_retain(&event.topic)).then(|| {
                let mut publish = PublishPacket::new(&*event.topic, event.payload.clone(), event.qos);
                publish.packet_id = event.packet_id;
                publish
            });
            let by_subscription = self.presence.as_ref().is_some_and(|filter| matches(filter, &event.topic));
            if !by_subscription
                && !self.intake.send(event.topic.to_string(), event.payload, Receipt::None, false).await
            {
                tracing::debug!(topic = %event.topic, "not taken in: the bridge is stopping");
            }
            // Observers and the retained store want it too.
            passing.map_or(PublishAction::Continue, PublishAction::Transform)
        })
    }
}

/// A client that names itself not gets such a name before it is asked for its rights.
fn is_assigned(client_id: &str) -> bool {
    let digits = client_id.strip_prefix("auto-");
    digits.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether a topic has the filter's levels, where `+` stands for any.
fn matches(filter: &str, topic: &str) -> bool {
    filter.split('/').count() == topic.split('/').count()
        && filter.split('/').zip(topic.split('/')).all(|(wanted, level)| wanted == "+" || wanted == level)
}

/// From this process to the clients.
#[derive(Clone)]
pub struct Publisher(Arc<MessageRouter>);

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Publisher")
    }
}

impl Publisher {
    /// Publishes with QoS 1.
    pub async fn publish(&self, topic: String, payload: Vec<u8>, delivery: Delivery) {
        let mut publish = PublishPacket::new(topic, payload, QoS::AtLeastOnce);
        publish.retain = delivery == Delivery::Retained;
        self.0.route_message(&publish, None).await;
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_camera_named_status_is_no_presence() {
        assert!(matches("edgeveil/+/status", "edgeveil/pi/status"));
        assert!(!matches("edgeveil/+/status", "edgeveil/pi/image/status"));
        assert!(!matches("edgeveil/+/status", "edgeveil/pi/event"));
    }
}
