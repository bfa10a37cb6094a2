//! What AWS IoT Core demands and mosquitto does not, as a way to a mosquitto: the rates, the silence in place of an answer, and
//! the bounds of docs.aws.amazon.com, "AWS IoT Core endpoints and quotas".
//!
//! It ends TLS itself, with a certificate of the client's, and passes whole packets on.

use crate::{Lab, Mosquitto, free_port};
use bytes::{Buf, BytesMut};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Publishes a second of one connection; more are discarded, without an answer.
const RATE: usize = 100;
/// Bytes a second of one connection; more have to wait.
const BYTES: usize = 512 << 10;
/// Publishes without their PUBACK.
const UNACKNOWLEDGED: usize = 100;
/// The longest payload.
const PAYLOAD: usize = 128 << 10;
const SECOND: Duration = Duration::from_secs(1);

/// What has come through, and what has not.
#[derive(Debug, Clone, Default)]
pub struct Passed {
    /// CONNECTs.
    pub connects: u64,
    /// Publishes, those among them that were discarded.
    pub publishes: u64,
    /// Publishes over the rate.
    pub discarded: u64,
    /// The most publishes of one connection within a second.
    pub busiest: usize,
    /// The most publishes that were without a PUBACK at once.
    pub unacknowledged: usize,
    /// Bounds that were broken, in words.
    pub broken: Vec<String>,
}

/// The open gate; it ends with its runtime when it is dropped.
pub struct Gate {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Shared {
    passed: Mutex<Passed>,
    silent: AtomicBool,
    /// By client id: its last CONNECT, and what ends that connection.
    clients: Mutex<HashMap<String, (Instant, Arc<Notify>)>>,
}

impl Gate {
    /// Opens one to a broker that knows the lab's device `bridge`.
    pub fn open(lab: &Lab, to: &Mosquitto) -> Self {
        let port = free_port();
        let pem = |path: &str| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect).expect("a PEM file")
        };
        let [ca, cert, key] = lab.identity("brokers", "localhost");
        let mut roots = rustls::RootCertStore::empty();
        pem(&ca).into_iter().for_each(|ca| roots.add(ca).expect("a CA"));
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots.clone()),
            ring.clone(),
        )
        .build()
        .expect("a CA");
        let server = rustls::ServerConfig::builder_with_provider(ring.clone())
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(pem(&cert), PrivateKeyDer::from_pem_file(key).expect("a PEM file"))
            .expect("a certificate and its key");
        let [_, cert, key] = lab.identity("devices", "bridge");
        let client = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(pem(&cert), PrivateKeyDer::from_pem_file(key).expect("a PEM file"))
            .expect("a certificate and its key");
        let (acceptor, connector) =
            (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port))).expect("a free port");
        let shared = Arc::new(Shared::default());
        let (its, to) = (shared.clone(), to.port);
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (acceptor, connector, shared) = (acceptor.clone(), connector.clone(), its.clone());
                tokio::spawn(async move {
                    let near = acceptor.accept(near).await.ok()?;
                    let far = TcpStream::connect(("127.0.0.1", to)).await.ok()?;
                    let name = ServerName::try_from("localhost").expect("a name");
                    let far = connector.connect(name, far).await.ok()?;
                    pass(near, far, &shared).await;
                    Some(())
                });
            }
        });
        Self { port, shared, _runtime: runtime }
    }

    /// What has come through so far.
    pub fn passed(&self) -> Passed {
        self.shared.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on publishes are swallowed and nothing is answered, or no longer so.
    pub fn silence(&self, on: bool) {
        self.shared.silent.store(on, Ordering::SeqCst);
    }
}

/// Both directions of a connection, until either ends or a bound is broken.
async fn pass(
    near: tokio_rustls::server::TlsStream<TcpStream>,
    far: tokio_rustls::client::TlsStream<TcpStream>,
    shared: &Shared,
) {
    let (mut near_in, mut near_out) = tokio::io::split(near);
    let (mut far_in, mut far_out) = tokio::io::split(far);
    let mut client = Client { shared, recent: VecDeque::new(), end: Arc::default() };
    let under_way = Mutex::new(0_usize);
    let end = client.end.clone();
    let up = async {
        let mut buffer = BytesMut::new();
        while let Some(packet) = packet(&mut near_in, &mut buffer).await {
            match client.judge(&packet, &under_way).await {
                Verdict::Pass => {
                    if far_out.write_all(&packet).await.is_err() || far_out.flush().await.is_err() {
                        return;
                    }
                }
                Verdict::Swallow => {}
                Verdict::End => return,
            }
        }
    };
    let down = async {
        let mut buffer = BytesMut::new();
        while let Some(packet) = packet(&mut far_in, &mut buffer).await {
            if packet[0] >> 4 == 4 {
                let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
                *under_way = under_way.saturating_sub(1);
            }
            if shared.silent.load(Ordering::SeqCst) {
                continue;
            }
            if near_out.write_all(&packet).await.is_err() || near_out.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = end.notified() => {}
    }
}

enum Verdict {
    Pass,
    Swallow,
    End,
}

struct Client<'s> {
    shared: &'s Shared,
    /// Publishes of the last second, with their bytes.
    recent: VecDeque<(Instant, usize)>,
    /// Ends this connection, when another one comes with its client id.
    end: Arc<Notify>,
}

impl Client<'_> {
    fn note(&self, note: impl FnOnce(&mut Passed)) {
        note(&mut self.shared.passed.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn broken(&self, what: String) -> Verdict {
        self.note(|passed| passed.broken.push(what));
        Verdict::End
    }

    async fn judge(&mut self, packet: &[u8], under_way: &Mutex<usize>) -> Verdict {
        match packet[0] >> 4 {
            1 => self.connect(packet),
            3 => self.publish(packet, under_way).await,
            _ => Verdict::Pass,
        }
    }

    /// Protocol name (6 bytes) and level, flags, keep-alive, properties, client id.
    fn connect(&mut self, packet: &[u8]) -> Verdict {
        self.note(|passed| passed.connects += 1);
        let body = &packet[1 + length_of_length(packet)..];
        let is_5 = body[6] == 5;
        let keep_alive = u16::from_be_bytes([body[8], body[9]]);
        let mut rest = &body[10..];
        if is_5 {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let id = String::from_utf8_lossy(&rest[2..2 + length]).into_owned();
        if !(30..=1200).contains(&keep_alive) {
            return self.broken(format!("a keep-alive of {keep_alive} s"));
        }
        if length > 128 {
            return self.broken(format!("a client id of {length} bytes"));
        }
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let before = clients.insert(id.clone(), (Instant::now(), self.end.clone()));
        drop(clients);
        if let Some((at, end)) = before {
            end.notify_one();
            if at.elapsed() < SECOND {
                return self.broken(format!("`{id}` connects twice within a second"));
            }
        }
        Verdict::Pass
    }

    async fn publish(&mut self, packet: &[u8], under_way: &Mutex<usize>) -> Verdict {
        let body = &packet[1 + length_of_length(packet)..];
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8_lossy(&body[2..2 + length]).into_owned();
        let qos = (packet[0] >> 1) & 3;
        if topic.len() > 256 || topic.matches('/').count() > 7 || topic.starts_with('$') {
            return self.broken(format!("the topic `{topic}`"));
        }
        if body.len() > PAYLOAD + 300 {
            return self.broken(format!("a publish of {} bytes", body.len()));
        }
        self.note(|passed| passed.publishes += 1);
        if qos == 2 {
            self.note(|passed| passed.broken.push("QoS 2".to_owned()));
            return Verdict::Swallow;
        }
        let now = Instant::now();
        while self.recent.front().is_some_and(|(at, _)| now.duration_since(*at) >= SECOND) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, packet.len()));
        let busy = self.recent.len();
        self.note(|passed| passed.busiest = passed.busiest.max(busy));
        if busy > RATE {
            self.note(|passed| passed.discarded += 1);
            return Verdict::Swallow;
        }
        let open = {
            let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
            *under_way += usize::from(qos);
            *under_way
        };
        self.note(|passed| passed.unacknowledged = passed.unacknowledged.max(open));
        if open > UNACKNOWLEDGED {
            return self.broken(format!("{open} publishes without their PUBACK"));
        }
        if self.recent.iter().map(|(_, bytes)| bytes).sum::<usize>() > BYTES {
            sleep(SECOND / 2).await;
        }
        if self.shared.silent.load(Ordering::SeqCst) { Verdict::Swallow } else { Verdict::Pass }
    }
}

/// The next whole packet.
async fn packet(from: &mut (impl AsyncReadExt + Unpin), buffer: &mut BytesMut) -> Option<Vec<u8>> {
    loop {
        if let Some(length) = whole(buffer) {
            let packet = buffer[..length].to_vec();
            buffer.advance(length);
            return Some(packet);
        }
        if from.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// The length of the packet at the beginning, when all of it is there.
fn whole(buffer: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (n, byte) in buffer.get(1..)?.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            let all = 2 + n + length;
            return (buffer.len() >= all).then_some(all);
        }
    }
    None
}

/// How many bytes tell the length.
fn length_of_length(packet: &[u8]) -> usize {
    1 + packet[1..].iter().take(3).take_while(|byte| **byte & 0x80 != 0).count()
}
