//! A stand-in for AWS IoT Core: a broker with X.509 that lets one thing publish on one topic, and remembers what came.

use crate::{
    broker::{Broker, Peer, Policy, Setup, owns_client_id},
    certs::{self, Issued, Kind, Replace},
    metrics::Metrics,
    settings::TlsFiles,
    source::{Inbound, Intake},
    tls,
};
use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpListener, sync::mpsc};

/// The one thing of the account.
pub const THING: &str = "edgeveil-bridge";
const TOPIC: &str = "edgecloud/alerts";
/// What AWS IoT Core takes of one publish.
const MAX_PAYLOAD: usize = 128 << 10;

/// The running stand-in.
pub struct StandIn {
    /// Where it listens.
    pub address: SocketAddr,
    /// What the forwarder shows it.
    pub thing: Issued,
    broker: Broker,
    received: Arc<Mutex<Received>>,
}

/// What came.
#[derive(Debug, Default)]
struct Received {
    messages: u64,
    refused: u64,
    records: BTreeSet<String>,
}

/// The thing may connect and publish on its topic; nothing else.
struct ThingPolicy;

impl Policy for ThingPolicy {
    fn admits(&self, peer: &Peer, client_id: &str) -> bool {
        peer.name.as_str() == THING && owns_client_id(peer, client_id)
    }
    fn may_publish(&self, _: &Peer, topic: &str) -> bool {
        topic == TOPIC
    }
    fn may_subscribe(&self, _: &Peer, _: &str) -> bool {
        false
    }
}

impl StandIn {
    /// With a CA of its own, as an account has.
    pub async fn start(dir: &Path) -> Result<Self> {
        certs::init(dir, Replace::Refuse)?;
        let server = certs::issue(dir, Kind::Broker, "localhost", &[], Replace::Refuse)?;
        let thing = certs::issue(dir, Kind::Device, THING, &[], Replace::Refuse)?;
        let files = TlsFiles { ca: server.ca, cert: server.cert, key: server.key };
        let (intake, queue) = Intake::new(64, 16 << 20);
        let setup = Setup {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for the stand-in")?,
            tls: tls::server(&files)?,
            policy: Arc::new(ThingPolicy),
            intake,
            presence: None,
            max_connections: 4,
            metrics: Arc::new(Metrics::default()),
            troubles: Arc::default(),
        };
        let broker = Broker::start(setup).await?;
        let received = Arc::new(Mutex::new(Received::default()));
        tokio::spawn(remember(queue, received.clone()));
        Ok(Self { address: broker.address, thing, broker, received })
    }

    /// Messages, those that AWS IoT Core would not have taken, and different records.
    pub fn counts(&self) -> (u64, u64, usize) {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        (received.messages, received.refused, received.records.len())
    }

    /// Whether this record came.
    pub fn has(&self, record: &str) -> bool {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).records.contains(record)
    }

    /// Ends it.
    pub async fn stop(self) {
        self.broker.stop().await;
    }
}

async fn remember(mut queue: mpsc::Receiver<Inbound>, received: Arc<Mutex<Received>>) {
    #[derive(serde::Deserialize)]
    struct Alert {
        id: String,
        anomaly: bool,
    }
    while let Some(inbound) = queue.recv().await {
        let alert = serde_json::from_slice::<Alert>(&inbound.payload);
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        received.messages += 1;
        match alert {
            Ok(alert) if alert.anomaly && inbound.payload.len() <= MAX_PAYLOAD => {
                received.records.insert(alert.id);
            }
            _ => received.refused += 1,
        }
    }
}
