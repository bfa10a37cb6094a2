//! The MQTT broker inside the bridge's own process.
//!
//! This room is the seam: nothing else names `mqtt5`, whose interface changes with its minor versions
//! (docs/adr/0003). Ours in front of it are the accept loop and the TLS handshake, so that the certificate's common
//! name is known before the first MQTT byte is read, and one slow handshake holds up nobody else.
//!
//! What is received goes to an [`Intake`] from within the publish hook. The broker writes its PUBACK after the hook
//! returns, so a full intake slows the devices down. A last will does not pass the hook, so the topics of presence
//! come by an in-process subscription instead.

mod handshakes;
mod policy;
mod refusals;
mod seam;

pub(crate) use handshakes::{Handshakes, host};
pub use policy::{DevicePolicy, Peer, Policy, Role, owns_client_id};
pub use seam::Publisher;

use crate::{certs::OBSERVER_UNIT, metrics::Metrics, source::Intake, troubles::Troubles};
use edgeveil_wire::DeviceName;
use handshakes::Place;
use refusals::Refusals;
use rustls::pki_types::CertificateDer;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

/// A peer that has not finished its handshake by then is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long connections have to end when the broker stops.
const DRAIN: Duration = Duration::from_secs(2);

/// What a broker is made of.
pub struct Setup {
    /// An open port.
    pub listener: TcpListener,
    /// Its certificate, and the CA that it demands of clients.
    pub tls: rustls::ServerConfig,
    /// Its rules.
    pub policy: Arc<dyn Policy>,
    /// Where messages go.
    pub intake: Intake,
    /// The filter of presence topics, whose messages may be last wills.
    pub presence: Option<String>,
    /// Connections at once.
    pub max_connections: u32,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is wrong with single devices.
    pub troubles: Arc<Troubles>,
}

/// A running broker.
pub struct Broker {
    /// Where it listens.
    pub address: SocketAddr,
    publisher: Publisher,
    stop: CancellationToken,
    accept: tokio::task::JoinHandle<()>,
}

impl Broker {
    /// Starts to accept.
    pub async fn start(setup: Setup) -> anyhow::Result<Self> {
        let address = setup.listener.local_addr()?;
        let seats = seam::Seats::new(setup.metrics.clone(), setup.troubles);
        let policy = setup.policy.clone();
        let engine =
            seam::Engine::new(setup.intake, setup.presence, setup.max_connections, policy, seats).await?;
        let (publisher, stop) = (engine.publisher(), CancellationToken::new());
        let door = Arc::new(Door {
            tls: TlsAcceptor::from(Arc::new(setup.tls)),
            handshakes: Handshakes::new(setup.max_connections),
            refusals: Refusals::default(),
            connected: AtomicU32::new(0),
            max_connections: setup.max_connections,
            metrics: setup.metrics,
        });
        let accept = tokio::spawn(accept(setup.listener, door, engine, stop.clone()));
        Ok(Self { address, publisher, stop, accept })
    }

    /// The way to its clients.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Ends every connection, and with them their hold on the intake.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.accept.await {
            tracing::error!(%error, "the broker's accept loop ended badly");
        }
    }
}

/// What every connection passes.
struct Door {
    tls: TlsAcceptor,
    handshakes: Arc<Handshakes>,
    refusals: Refusals,
    connected: AtomicU32,
    max_connections: u32,
    metrics: Arc<Metrics>,
}

async fn accept(listener: TcpListener, door: Arc<Door>, engine: seam::Engine, stop: CancellationToken) {
    let mut clients = JoinSet::new();
    let mut sweep = tokio::time::interval(Duration::from_secs(60));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = sweep.tick() => engine.sweep().await,
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    if door.connected.load(Ordering::Relaxed) >= door.max_connections {
                        door.refuse(peer, "too many connections: raise broker.max_connections");
                        continue;
                    }
                    let Some(place) = door.handshakes.place(peer.ip()) else {
                        door.refuse(peer, "too many connections of this host wait for their TLS handshake");
                        continue;
                    };
                    door.connected.fetch_add(1, Ordering::Relaxed);
                    let (door, engine) = (Seat(door.clone()), engine.clone());
                    clients.spawn(async move { door.0.serve(tcp, peer, place, engine).await });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others have to go first.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    engine.stop();
    let drained = timeout(DRAIN, async { while clients.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(connections = clients.len(), "connections did not end in time and were cut");
        clients.shutdown().await;
    }
}

/// A connection's place, given back however it ends.
struct Seat(Arc<Door>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Door {
    async fn serve(&self, tcp: TcpStream, from: SocketAddr, place: Place, engine: seam::Engine) {
        let stream = match self.handshake(tcp, place).await {
            Ok(stream) => stream,
            Err(reason) => return self.refuse(from, &reason),
        };
        let peer = match identify(stream.get_ref().1.peer_certificates()) {
            Ok(peer) => peer,
            Err(reason) => return self.refuse(from, &reason),
        };
        tracing::info!(peer = %peer.name, role = ?peer.role, %from, "connected");
        self.metrics.connected.inc();
        let end = engine.serve(stream, from, peer.clone()).await;
        self.metrics.connected.dec();
        tracing::info!(peer = %peer.name, %from, end, "disconnected");
    }

    async fn handshake(&self, tcp: TcpStream, place: Place) -> Result<TlsStream<TcpStream>, String> {
        // Acknowledgements are small and should not wait for more to come.
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let shaken = async {
            let _turn = place.turn().await;
            self.tls.accept(tcp).await
        };
        match timeout(HANDSHAKE, shaken).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err("no TLS handshake within 10 s".to_owned()),
        }
    }

    fn refuse(&self, from: SocketAddr, reason: &str) {
        self.metrics.refused_connections.inc();
        self.refusals.note(from.ip(), reason);
    }
}

fn explain(error: &std::io::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::NoCertificatesPresented) => "it showed no client certificate".to_owned(),
        Some(Error::InvalidCertificate(Bad::UnknownIssuer)) => {
            "its certificate was not issued by this broker's CA".to_owned()
        }
        Some(Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. })) => {
            "its certificate has expired: issue a new one with `edgeveil-bridge certs device NAME --force`"
                .to_owned()
        }
        Some(Error::AlertReceived(Alert::UnknownCA)) => {
            "it does not trust this broker's certificate: give it this broker's ca.pem".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Whose certificate was shown.
pub(crate) fn identify(certificates: Option<&[CertificateDer<'_>]>) -> Result<Peer, String> {
    let der = certificates.and_then(<[_]>::first).ok_or("it showed no client certificate")?;
    let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
    let subject = cert.subject();
    let mut names = subject.iter_common_name();
    let (Some(cn), None) = (names.next(), names.next()) else {
        return Err("its certificate has not exactly one common name".to_owned());
    };
    let cn = cn.as_str().map_err(|_| "its certificate's common name is no text".to_owned())?;
    let name: DeviceName = cn.parse().map_err(|error| format!("its certificate's common name: {error}"))?;
    let observer =
        subject.iter_organizational_unit().any(|unit| unit.as_str().is_ok_and(|unit| unit == OBSERVER_UNIT));
    Ok(Peer { name, role: if observer { Role::Observer } else { Role::Device } })
}
