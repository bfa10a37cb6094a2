//! A bridge to test, and devices to test it with.

use edgeveil_bridge::{
    certs::{self, Issued, Kind, Replace},
    serve::Bridge,
    settings::{Settings, TlsFiles},
    tls,
};
use edgeveil_wire::{
    Ack, Alert, BootId, ClockState, ImageMeta, Lane, Reading, RecordId, Severity, Stamp, Values,
};
use rumqttc::{
    Outgoing, TlsConfiguration, Transport,
    v5::{
        AsyncClient, ConnectionError, Event, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{LastWill, Packet, PubAckReason, SubscribeReasonCode},
        },
    },
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Nothing takes so long unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never came: {what}");
}

/// A folder with a CA, and a bridge in it.
pub struct Bench {
    dir: TempDir,
    extra: String,
    pub bridge: Bridge,
}

impl Bench {
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more settings.
    pub async fn start_with(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        certs::development(&dir.path().join("data/certs")).unwrap();
        Self::start_in(dir, extra).await
    }

    pub async fn start_in(dir: TempDir, extra: &str) -> Self {
        let bridge = Bridge::start(&settings(dir.path(), extra)).await.unwrap();
        Self { dir, extra: extra.to_owned(), bridge }
    }

    /// Stops it and starts it again in the same folder.
    pub async fn restart(self) -> Self {
        assert_eq!(self.bridge.stop().await, Vec::<&str>::new());
        Self::start_in(self.dir, &self.extra).await
    }

    /// Stops it and leaves the folder.
    pub async fn close(self) -> TempDir {
        assert_eq!(self.bridge.stop().await, Vec::<&str>::new());
        self.dir
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn mqtt(&self) -> SocketAddr {
        self.bridge.mqtt.unwrap()
    }

    pub async fn device(&self, name: &str) -> Device {
        Device::connect(self.mqtt(), &device_files(&self.path().join("certs"), name), name).await.unwrap()
    }

    /// A plain HTTP/1.1 GET: the head, and the body.
    pub async fn get(&self, path: &str) -> (String, Vec<u8>) {
        self.ask("GET", path, &[], "").await
    }

    /// A plain HTTP/1.1 request with these headers and a form: the head, and the body.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        form: &str,
    ) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.bridge.http).await.unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if method == "POST" {
            request += &format!(
                "content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n",
                form.len()
            );
        }
        request += &format!("\r\n{form}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let body = answer.split_off(end + 4);
        (String::from_utf8(answer).unwrap(), body)
    }

    /// Records of a lane, by the account of sequences.
    pub async fn count(&self, lane: Lane) -> i64 {
        let gaps = self.bridge.catalog.gaps().await.unwrap();
        gaps.iter().filter(|gap| gap.lane == lane.as_str()).map(|gap| gap.count).sum()
    }
}

fn settings(dir: &Path, extra: &str) -> Settings {
    let text = format!(
        "data_dir = {:?}\nhttp.listen = \"127.0.0.1:0\"\n{}\n{extra}\n",
        dir.join("data"),
        if extra.contains("[mqtt]") { "" } else { "broker.listen = \"127.0.0.1:0\"" },
    );
    Settings::parse("test.toml", &text, &|_| None).unwrap()
}

pub fn files(issued: &Issued) -> TlsFiles {
    TlsFiles { ca: issued.ca.clone(), cert: issued.cert.clone(), key: issued.key.clone() }
}

/// A device's certificate, issued when it is not there.
pub fn device_files(dir: &Path, name: &str) -> TlsFiles {
    let paths = certs::paths(dir, Kind::Device, name);
    if !paths.cert.exists() {
        certs::issue(dir, Kind::Device, name, &[], Replace::Refuse).unwrap();
    }
    files(&paths)
}

/// An MQTT client that behaves as an agent does, and tells what it hears.
pub struct Device {
    pub name: String,
    client: AsyncClient,
    heard: mpsc::UnboundedReceiver<Heard>,
    poller: JoinHandle<()>,
}

#[derive(Debug)]
enum Heard {
    Connected,
    Subscribed(SubscribeReasonCode),
    PubAck(PubAckReason),
    Message(String, Vec<u8>),
    End(ConnectionError),
}

impl Device {
    pub async fn connect(to: SocketAddr, files: &TlsFiles, client_id: &str) -> Result<Self, ConnectionError> {
        Self::connect_by(to, tls::client(files, None).unwrap(), client_id).await
    }

    pub async fn connect_by(
        to: SocketAddr,
        tls: rustls::ClientConfig,
        client_id: &str,
    ) -> Result<Self, ConnectionError> {
        let mut options = MqttOptions::new(client_id, "127.0.0.1", to.port());
        let name = client_id.split(':').next().unwrap_or_default().to_owned();
        let status = status("offline");
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))))
            .set_last_will(LastWill::new(
                format!("edgeveil/{name}/status"),
                status,
                QoS::AtLeastOnce,
                true,
                None,
            ))
            .set_max_packet_size(Some(9 << 20));
        let (client, mut events) = AsyncClient::new(options, 100);
        let (sender, heard) = mpsc::unbounded_channel();
        let poller = tokio::spawn(async move {
            loop {
                let heard = match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => Heard::Connected,
                    Ok(Event::Incoming(Packet::SubAck(ack))) => Heard::Subscribed(ack.return_codes[0]),
                    Ok(Event::Incoming(Packet::PubAck(ack))) => Heard::PubAck(ack.reason),
                    Ok(Event::Incoming(Packet::Publish(publish))) => Heard::Message(
                        String::from_utf8(publish.topic.to_vec()).unwrap(),
                        publish.payload.to_vec(),
                    ),
                    Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
                    Ok(_) => continue,
                    Err(error) => {
                        let _ = sender.send(Heard::End(error));
                        return;
                    }
                };
                if sender.send(heard).is_err() {
                    return;
                }
            }
        });
        let mut device = Self { name, client, heard, poller };
        match device.hear().await {
            Heard::Connected => Ok(device),
            Heard::End(error) => Err(error),
            other => panic!("{other:?} before CONNACK"),
        }
    }

    async fn hear(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("heard nothing").expect("the client ended")
    }

    pub async fn subscribe(&mut self, filter: &str) -> SubscribeReasonCode {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        loop {
            if let Heard::Subscribed(code) = self.hear().await {
                return code;
            }
        }
    }

    /// To its own acknowledgements.
    pub async fn listen(&mut self) {
        let code = self.subscribe(&format!("edgeveil/{}/ack", self.name)).await;
        assert!(matches!(code, SubscribeReasonCode::Success(_)), "{code:?}");
    }

    pub async fn send(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload.into()).await.unwrap();
    }

    /// The same, to be kept for later subscribers.
    pub async fn retain(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client.publish(topic, QoS::AtLeastOnce, true, payload.into()).await.unwrap();
    }

    /// Whether it is told nothing for a while, for what should not come.
    pub async fn hears_nothing(&mut self) -> bool {
        let message = async {
            loop {
                if let Some(Heard::Message(topic, _)) = self.heard.recv().await {
                    return topic;
                }
            }
        };
        timeout(Duration::from_millis(700), message).await.is_err()
    }

    /// Until the broker ends the connection.
    pub async fn end(&mut self) {
        while !matches!(self.hear().await, Heard::End(_)) {}
    }

    /// Below its own name.
    pub async fn say(&self, rest: &str, payload: impl Into<Vec<u8>>) {
        self.send(&format!("edgeveil/{}/{rest}", self.name), payload).await;
    }

    pub async fn puback(&mut self) -> PubAckReason {
        loop {
            if let Heard::PubAck(reason) = self.hear().await {
                return reason;
            }
        }
    }

    /// The next message's topic and payload.
    pub async fn message(&mut self) -> (String, Vec<u8>) {
        loop {
            if let Heard::Message(topic, payload) = self.hear().await {
                return (topic, payload);
            }
        }
    }

    /// The ids of the next acknowledgement.
    pub async fn ack(&mut self) -> Vec<RecordId> {
        let (topic, payload) = self.message().await;
        assert_eq!(topic, format!("edgeveil/{}/ack", self.name));
        Ack::from_json(&payload).unwrap().ids
    }

    /// Until all of these are acknowledged, in whatever number of messages.
    pub async fn acks(&mut self, mut ids: Vec<RecordId>) {
        while !ids.is_empty() {
            let acked = self.ack().await;
            ids.retain(|id| !acked.contains(id));
        }
    }

    /// Cuts the connection without a word.
    pub async fn vanish(self) {
        self.poller.abort();
        let _ = self.poller.await;
    }
}

pub fn boot(byte: u8) -> BootId {
    BootId::from_random([byte; 10])
}

pub fn stamp(boot: BootId, lane: Lane, seq: u64) -> Stamp {
    Stamp::new(boot, lane, seq, jiff::Timestamp::now(), ClockState::Synced, seq)
}

fn values(pairs: &[(&str, f64)]) -> Values {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), *value)).collect()
}

pub fn reading(boot: BootId, seq: u64) -> Reading {
    let values = values(&[("sensor1", 20.0), ("sensor2", 0.5)]);
    Reading { stamp: stamp(boot, Lane::Reading, seq), score: Some(0.4), values }
}

pub fn alert(boot: BootId, seq: u64) -> Alert {
    Alert {
        stamp: stamp(boot, Lane::Alert, seq),
        reading: RecordId::new(boot, Lane::Reading, seq),
        anomaly: true,
        score: 0.8,
        threshold: 0.6,
        contributions: values(&[("sensor1", 0.25), ("sensor2", 0.75)]),
        severity: Severity::Critical,
        values: values(&[("sensor1", 20.0), ("sensor2", 2.5)]),
    }
}

/// A small picture with what an agent writes into it.
pub fn jpeg(device: &str, camera: &str, boot: BootId, seq: u64) -> (ImageMeta, Vec<u8>) {
    jpeg_of(stamp(boot, Lane::Image, seq), device, camera)
}

/// With another time than now.
pub fn jpeg_of(stamp: Stamp, device: &str, camera: &str) -> (ImageMeta, Vec<u8>) {
    let meta = ImageMeta {
        stamp,
        device: device.parse().unwrap(),
        camera: camera.parse().unwrap(),
        faces: 1,
        cover: "deep-blur".to_owned(),
        software: "test".to_owned(),
    };
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, 80);
    encoder.add_exif_metadata(&meta.to_exif()).unwrap();
    encoder.encode(&[128; 16 * 16 * 3], 16, 16, jpeg_encoder::ColorType::Rgb).unwrap();
    (meta, file)
}

pub fn status(state: &str) -> Vec<u8> {
    format!(
        r#"{{"schema":"edgeveil.status/1","state":"{state}","version":"1.0","boot":"{}","clock":"synced"}}"#,
        boot(1)
    )
    .into_bytes()
}
