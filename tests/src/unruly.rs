//! A broker that does everything to a publisher that a broker and a network can do: it withholds, delays, reorders,
//! doubles and denies PUBACKs, cuts connections between packets and within them, and forgets sessions.
//!
//! It remembers which records it has told the publisher to be safe: by `boot`, lane and `seq` in their ids.

use crate::{Lab, free_port};
use bytes::{Buf, BytesMut};
use edgeveil_wire::{Ack, RecordId};
use rumqttc::v5::mqttbytes::{
    Error, QoS,
    v5::{
        ConnAck, ConnAckProperties, ConnectReturnCode, Packet, PingResp, PubAck, PubAckReason, Publish,
        SubAck,
    },
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// What it does to one publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// PUBACK at once.
    Acknowledge,
    /// PUBACK, twice.
    AcknowledgeTwice,
    /// PUBACK after the next one's.
    AcknowledgeLater,
    /// PUBACK after a while.
    Delay,
    /// No PUBACK, ever.
    Withhold,
    /// PUBACK with a reason why not.
    Deny(PubAckReason),
    /// The connection ends.
    Cut,
    /// The connection ends in the middle of the PUBACK.
    CutWithin,
}

/// Decides what is done to the `n`-th publish of a topic.
pub type Script = Box<dyn FnMut(u64, &str) -> Deed + Send>;

/// What it has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Connections made.
    pub connections: u64,
    /// Publishes of records, repeats among them.
    pub publishes: u64,
    /// Publishes that were denied.
    pub denied: u64,
    /// Acknowledged records: by boot and lane (in hexadecimal) the numbers.
    pub safe: BTreeMap<(String, String), BTreeSet<u64>>,
    /// The newest payload of `health`, of this connection.
    pub health: String,
    /// The newest payload of `status`, of this connection.
    pub status: String,
}

/// From which connection on the publisher hears a bridge that commits everything at once: before, it is as deaf as if
/// the broker had lost its subscription. `None`: there is no bridge.
type Hears = Option<u64>;

/// The running broker; it ends with its runtime when it is dropped.
pub struct Unruly {
    /// Where it listens.
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
    script: Arc<Mutex<Script>>,
    _runtime: tokio::runtime::Runtime,
}

impl Unruly {
    /// Starts one with the lab's certificate for `localhost`.
    pub fn start(lab: &Lab, script: Script) -> Self {
        Self::launch(lab, script, None)
    }

    /// Starts a kind one, with a bridge behind it that the publisher hears from this connection on.
    pub fn deaf_before(connection: u64, lab: &Lab) -> Self {
        Self::launch(lab, Box::new(|_, _| Deed::Acknowledge), Some(connection))
    }

    fn launch(lab: &Lab, script: Script, hears: Hears) -> Self {
        let port = free_port();
        let [_, cert, key] = lab.identity("brokers", "localhost");
        let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).expect("a PEM file");
        let key = PrivateKeyDer::from_pem_file(key).expect("a PEM file");
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let script = Arc::new(Mutex::new(script));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port))).expect("a free port");
        let (its_seen, its_script) = (seen.clone(), script.clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let connection = Connection::new(stream, its_seen.clone(), its_script.clone(), hears);
                // One publisher: the next connection comes when this one is over.
                connection.serve().await;
            }
        });
        Self { port, seen, script, _runtime: runtime }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows another script from now on.
    pub fn follow(&self, script: Script) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }
}

struct Connection {
    stream: TlsStream<TcpStream>,
    seen: Arc<Mutex<Seen>>,
    script: Arc<Mutex<Script>>,
    buffer: BytesMut,
    counts: HashMap<String, u64>,
    /// Acknowledged after the next one.
    later: Vec<Publish>,
    hears: Hears,
}

/// The connection is over.
struct Over;

impl Connection {
    fn new(
        stream: TlsStream<TcpStream>,
        seen: Arc<Mutex<Seen>>,
        script: Arc<Mutex<Script>>,
        hears: Hears,
    ) -> Self {
        Self {
            stream,
            seen,
            script,
            buffer: BytesMut::new(),
            counts: HashMap::new(),
            later: Vec::new(),
            hears,
        }
    }

    async fn serve(mut self) {
        // What the one before said of itself is nothing that this one has said.
        self.note(|seen| {
            seen.connections += 1;
            seen.health.clear();
            seen.status.clear();
        });
        while let Some(packet) = self.read().await {
            if self.answer(packet).await.is_err() {
                return;
            }
        }
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn read(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.buffer, None) {
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {}
                // A DISCONNECT without a reason.
                Err(_) => return None,
            }
            // A publisher that has gone without a word must not hold the next one up.
            let read = timeout(Duration::from_secs(60), self.stream.read_buf(&mut self.buffer)).await;
            if read.is_err() || read.is_ok_and(|read| read.is_err() || read.is_ok_and(|n| n == 0)) {
                return None;
            }
        }
    }

    async fn write(&mut self, packet: &Packet) -> Result<(), Over> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).map_err(|_| Over)?;
        self.stream.write_all(&bytes).await.map_err(|_| Over)?;
        self.stream.flush().await.map_err(|_| Over)
    }

    async fn answer(&mut self, packet: Packet) -> Result<(), Over> {
        match packet {
            Packet::Connect(..) => {
                // Whatever there was before is forgotten.
                let properties: Option<ConnAckProperties> = None;
                let code = ConnectReturnCode::Success;
                self.write(&Packet::ConnAck(ConnAck { session_present: false, code, properties })).await
            }
            Packet::Subscribe(subscribe) => {
                use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success;
                let return_codes = vec![Success(QoS::AtLeastOnce); subscribe.filters.len()];
                self.write(&Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None }))
                    .await
            }
            Packet::PingReq(_) => self.write(&Packet::PingResp(PingResp)).await,
            Packet::Publish(publish) => self.publish(publish).await,
            Packet::Disconnect(_) => Err(Over),
            _ => Ok(()),
        }
    }

    async fn publish(&mut self, publish: Publish) -> Result<(), Over> {
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let kind = topic.split('/').nth(2).unwrap_or_default().to_owned();
        let text = || String::from_utf8_lossy(&publish.payload).into_owned();
        match kind.as_str() {
            "health" => {
                self.note(|seen| seen.health = text());
                return Ok(());
            }
            "status" => {
                self.note(|seen| seen.status = text());
                return self.write(&acknowledgement(&publish, PubAckReason::Success)).await;
            }
            _ => self.note(|seen| seen.publishes += 1),
        }
        let count = self.counts.entry(kind.clone()).or_default();
        let n = std::mem::replace(count, *count + 1);
        let deed = (self.script.lock().unwrap_or_else(PoisonError::into_inner))(n, &kind);
        match deed {
            Deed::Acknowledge => self.acknowledge(&publish).await?,
            Deed::AcknowledgeTwice => {
                self.acknowledge(&publish).await?;
                self.acknowledge(&publish).await?;
            }
            Deed::Delay => {
                sleep(Duration::from_millis(200)).await;
                self.acknowledge(&publish).await?;
            }
            Deed::AcknowledgeLater => {
                self.later.push(publish);
                return Ok(());
            }
            Deed::Withhold => {}
            Deed::Deny(reason) => {
                self.note(|seen| seen.denied += 1);
                self.write(&acknowledgement(&publish, reason)).await?;
            }
            Deed::Cut => return Err(Over),
            Deed::CutWithin => {
                let mut bytes = BytesMut::new();
                let packet = acknowledgement(&publish, PubAckReason::Success);
                packet.write(&mut bytes, None).map_err(|_| Over)?;
                bytes.truncate(bytes.len() / 2);
                let _ = self.stream.write_all(bytes.chunk()).await;
                let _ = self.stream.flush().await;
                return Err(Over);
            }
        }
        for publish in std::mem::take(&mut self.later) {
            self.acknowledge(&publish).await?;
        }
        Ok(())
    }

    /// From here on the publisher may forget the record.
    async fn acknowledge(&mut self, publish: &Publish) -> Result<(), Over> {
        if let Some(id) = record_id(&publish.payload) {
            let (boot, lane) = (id[..20].to_owned(), id[20..22].to_owned());
            let seq = u64::from_str_radix(&id[22..], 16).expect("an id in hexadecimal");
            self.note(|seen| _ = seen.safe.entry((boot, lane)).or_default().insert(seq));
        }
        self.write(&acknowledgement(publish, PubAckReason::Success)).await?;
        self.commit(publish).await
    }

    /// What the bridge says, where there is one and the publisher hears it.
    async fn commit(&mut self, publish: &Publish) -> Result<(), Over> {
        let connection = self.seen.lock().unwrap_or_else(PoisonError::into_inner).connections;
        let (Some(from), Some(id)) = (self.hears, record_id(&publish.payload)) else { return Ok(()) };
        if connection < from {
            return Ok(());
        }
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let device = topic.split('/').take(2).collect::<Vec<_>>().join("/");
        let id: RecordId = id.parse().map_err(|_| Over)?;
        let payload = Ack { ids: vec![id] }.to_json();
        let ack = Publish::new(format!("{device}/ack"), QoS::AtMostOnce, payload, None);
        self.write(&Packet::Publish(ack)).await
    }
}

fn acknowledgement(publish: &Publish, reason: PubAckReason) -> Packet {
    Packet::PubAck(PubAck { pkid: publish.pkid, reason, properties: None })
}

/// The first `"id":"..."` of a payload: JSON has it at its beginning, an image in its EXIF block.
fn record_id(payload: &[u8]) -> Option<String> {
    const KEY: &[u8] = br#""id":""#;
    let at = payload.windows(KEY.len()).position(|bytes| bytes == KEY)? + KEY.len();
    String::from_utf8(payload.get(at..at + 32)?.to_vec()).ok()
}
