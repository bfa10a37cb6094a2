//! A device in MQTT 3.1.1 that forgets a record only when a bridge has acknowledged it, and counts.
//!
//! It stands for an agent where the broker knows no MQTT 5. Its records are those of `wire/`.

use crate::Lab;
use edgeveil_wire::{
    Ack, Alert, BootId, ClockState, DeviceName, Lane, Reading, Severity, Stamp, Topic, Topics, Values,
};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, TlsConfiguration, Transport};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    collections::BTreeMap,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Records that wait for their acknowledgement; then no more are made.
const WINDOW: usize = 1000;
/// A record that is not acknowledged for so long is sent again.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection on which nothing is acknowledged for so long, though records wait, is given up for another one.
const SILENCE: Duration = Duration::from_secs(20);
/// Until a node has taken the connection and the subscription.
const CONNECT: Duration = Duration::from_secs(10);
/// Requests on their way to the event loop; more than the window, so that they always have room.
const REQUESTS: usize = 2 * WINDOW;
/// Every so many records there is an alert.
const ALERTS: u64 = 20;

/// What it has done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Records made.
    pub made: u64,
    /// Records that a bridge has acknowledged.
    pub acknowledged: u64,
    /// Records sent again, since no acknowledgement came or the connection broke.
    pub repeated: u64,
    /// Connections made.
    pub connections: u64,
    /// Those that were given up because no acknowledgement came.
    pub silences: u64,
}

#[derive(Default)]
struct Shared {
    sent: Sent,
    finish: bool,
    stop: bool,
}

/// The running device; it is stopped when it is dropped.
pub struct Publisher {
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Makes `rate` records a second and sends them to the first of these ports that takes them.
    pub fn start(lab: &Lab, device: &str, ports: Vec<u16>, rate: u32) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let tls = client(&lab.identity("devices", device));
        let its = shared.clone();
        let mut random = [0; 10];
        let mut urandom = std::fs::File::open("/dev/urandom").expect("Linux has it");
        urandom.read_exact(&mut random).expect("it does not end");
        let device: DeviceName = device.parse().expect("a device's name");
        let boot = BootId::from_random(random);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let spool = Spool { device, boot, next: BTreeMap::new(), waiting: BTreeMap::new() };
            runtime.block_on(run(spool, tls, ports, rate, its));
        });
        Self { shared, thread: Some(thread) }
    }

    /// What it has done so far.
    pub fn sent(&self) -> Sent {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).sent
    }

    /// Makes no more, and waits until all are acknowledged.
    pub fn finish(mut self) -> Sent {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).finish = true;
        crate::wait_for("acknowledgements of all records", || {
            self.thread.as_ref().is_none_or(JoinHandle::is_finished).then_some(())
        });
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))), "the device's thread has failed");
        let sent = self.sent();
        assert_eq!(sent.made, sent.acknowledged);
        sent
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn client([ca, cert, key]: &[String; 3]) -> Transport {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a PEM file")).expect("a CA");
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).expect("a PEM file");
    let key = PrivateKeyDer::from_pem_file(key).expect("a PEM file");
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a certificate and its key");
    Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config)))
}

/// What is not acknowledged yet.
struct Spool {
    device: DeviceName,
    boot: BootId,
    next: BTreeMap<Lane, u64>,
    waiting: BTreeMap<String, Waiting>,
}

struct Waiting {
    topic: String,
    payload: Vec<u8>,
    /// When it was sent by this connection.
    sent: Option<Instant>,
    repeated: bool,
}

impl Spool {
    fn make(&mut self, number: u64) {
        let lane = if number.is_multiple_of(ALERTS) { Lane::Alert } else { Lane::Reading };
        let seq = self.next.entry(lane).or_default();
        let stamp = Stamp::new(self.boot, lane, *seq, jiff::Timestamp::now(), ClockState::Synced, number);
        *seq += 1;
        let id = stamp.id.to_string();
        let values: Values = [("sensor1".parse().expect("a name"), number as f64)].into();
        let group = "env".parse().expect("a name");
        let (topic, payload) = match lane {
            Lane::Alert => {
                let alert = Alert {
                    reading: stamp.id,
                    stamp,
                    anomaly: true,
                    score: 0.9,
                    threshold: 0.6,
                    contributions: [("sensor1".parse().expect("a name"), 1.0)].into(),
                    severity: Severity::Critical,
                    values,
                };
                (Topic::Alert(group), alert.to_json())
            }
            _ => (Topic::Reading(group), Reading { stamp, score: None, values }.to_json()),
        };
        let topic = Topics::default().of(&self.device, &topic);
        self.waiting.insert(id, Waiting { topic, payload, sent: None, repeated: false });
    }

    /// Sends what has not been sent, or long ago.
    fn send(&mut self, client: &AsyncClient, sent: &mut Sent) {
        for waiting in self.waiting.values_mut() {
            if waiting.sent.is_some_and(|at| at.elapsed() < PATIENCE) {
                continue;
            }
            let (topic, payload) = (waiting.topic.clone(), waiting.payload.clone());
            if client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_err() {
                return;
            }
            waiting.sent = Some(Instant::now());
            if std::mem::replace(&mut waiting.repeated, true) {
                sent.repeated += 1;
            }
        }
    }
}

async fn run(mut spool: Spool, tls: Transport, ports: Vec<u16>, rate: u32, shared: Arc<Mutex<Shared>>) {
    let begin = Instant::now();
    for port in ports.iter().cycle() {
        let mut options = MqttOptions::new(spool.device.as_str(), "localhost", *port);
        options
            .set_transport(tls.clone())
            .set_keep_alive(Duration::from_secs(5))
            // RabbitMQ keeps the queue of a clean session on one node, and without that node refuses the subscription.
            .set_clean_session(false)
            .set_max_packet_size(1 << 20, 1 << 20);
        // rumqttc keeps what was under way when a connection breaks, and so does the spool: a new event loop each.
        let (client, events) = AsyncClient::new(options, REQUESTS);
        if connection(&mut spool, client, events, rate, begin, &shared).await {
            return;
        }
        spool.waiting.values_mut().for_each(|waiting| waiting.sent = None);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Connects, and subscribes to what bridges say to the device.
async fn subscribe(device: &DeviceName, client: &AsyncClient, events: &mut EventLoop) -> bool {
    let ack = Topics::default().of(device, &Topic::Ack);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                if client.try_subscribe(ack.clone(), QoS::AtLeastOnce).is_err() {
                    return false;
                }
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// One connection, until it breaks. True when all is done.
async fn connection(
    spool: &mut Spool,
    client: AsyncClient,
    mut events: EventLoop,
    rate: u32,
    begin: Instant,
    shared: &Mutex<Shared>,
) -> bool {
    // rumqttc connects within a poll, which therefore must not be dropped. A node that takes the connection and says
    // nothing is none.
    let subscribed = tokio::time::timeout(CONNECT, subscribe(&spool.device, &client, &mut events));
    if !subscribed.await.is_ok_and(|subscribed| subscribed) {
        let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        return shared.stop || (shared.finish && spool.waiting.is_empty());
    }
    shared.lock().unwrap_or_else(PoisonError::into_inner).sent.connections += 1;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            event = events.poll() => match event {
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let ack = Ack::from_json(&publish.payload).expect("an acknowledgement");
                    let known = ack.ids.iter().filter(|id| spool.waiting.remove(&id.to_string()).is_some());
                    let known = known.count() as u64;
                    heard = Instant::now();
                    shared.lock().unwrap_or_else(PoisonError::into_inner).sent.acknowledged += known;
                }
                Ok(_) => {}
                Err(_) => return false,
            },
            _ = tick.tick() => {
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if shared.stop || (shared.finish && spool.waiting.is_empty()) {
                    return true;
                }
                if spool.waiting.is_empty() {
                    heard = Instant::now();
                } else if heard.elapsed() >= SILENCE {
                    shared.sent.silences += 1;
                    return false;
                }
                let due = begin.elapsed().as_millis() as u64 * u64::from(rate) / 1000;
                let mut burst = 0;
                while !shared.finish && shared.sent.made < due && spool.waiting.len() < WINDOW && burst < rate {
                    spool.make(shared.sent.made);
                    shared.sent.made += 1;
                    burst += 1;
                }
                spool.send(&client, &mut shared.sent);
            }
        }
    }
}
