//! Alerts reach a topic of a real broker that speaks Kafka's protocol: each device's in one partition, in order.

use crate::harness::{Bench, alert, boot, until};
use edgeveil_bridge::{
    catalog::Outbox,
    certs::{self, Kind, Replace},
};
use rskafka::client::{
    Client, ClientBuilder,
    partition::{OffsetAt, UnknownTopicHandling},
};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tokio::sync::watch;

const TOPIC: &str = "edgeveil-alerts";
const PARTITIONS: i32 = 3;

/// The broker, in memory. It ends with the test.
struct Broker {
    program: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    /// On a free port, on which nobody answers yet. None where there is none, which is a failure where tests have to run.
    fn new() -> Option<Self> {
        let program = std::env::var_os("EDGEVEIL_KAFKA").map(PathBuf::from);
        let cache = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || std::env::home_dir().map(|home| home.join(".cache"));
        let program = program.or_else(|| Some(cache().or_else(home)?.join("edgeveil/kafka/tansu")));
        let program = program.filter(|program| program.exists());
        assert!(program.is_some() || std::env::var_os("CI").is_none(), "no broker: run tests/fetch-kafka");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Some(Self { program: program?, port, process: None })
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn start(&mut self) {
        let url = format!("tcp://{}", self.address());
        let mut command = Command::new(&self.program);
        command.args(["broker", "--storage-engine", "memory://tansu/"]);
        command.args(["--listener-url", &url, "--advertised-listener-url", &url]);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// A client that waits for it.
    async fn client(&self) -> Client {
        ClientBuilder::new(vec![self.address()]).build().await.unwrap()
    }

    async fn make_topic(&self) {
        let client = self.client().await.controller_client().unwrap();
        client.create_topic(TOPIC, PARTITIONS, 1, 5_000).await.unwrap();
    }

    /// Whose alerts there are in each partition: the device and the sequence number, in order.
    async fn alerts(&self) -> Vec<Vec<(String, u64)>> {
        let client = self.client().await;
        let mut all = Vec::new();
        for number in 0..PARTITIONS {
            let partition =
                client.partition_client(TOPIC, number, UnknownTopicHandling::Error).await.unwrap();
            let end = partition.get_offset(OffsetAt::Latest).await.unwrap();
            let mut found = Vec::new();
            while (found.len() as u64) < end.cast_unsigned() {
                let from = i64::try_from(found.len()).unwrap();
                let (records, _) = partition.fetch_records(from, 1..10_000_000, 1_000).await.unwrap();
                for record in records {
                    let record = record.record;
                    let json: serde_json::Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
                    let device = String::from_utf8(record.key.unwrap()).unwrap();
                    assert_eq!(json["device"], device.as_str());
                    assert_eq!(json["id"].as_str().unwrap().as_bytes(), record.headers["id"]);
                    let when: jiff::Timestamp = json["timestamp"].as_str().unwrap().parse().unwrap();
                    assert_eq!(record.timestamp.timestamp_millis(), when.as_millisecond());
                    found.push((device, json["seq"].as_u64().unwrap()));
                }
            }
            all.push(found);
        }
        all
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn bench(broker: &Broker) -> (Bench, Outbox) {
    let text =
        format!("[forward.kafka]\nbrokers = [{:?}]\nrate = 1000\nallow_plain = true\n", broker.address());
    let bench = Bench::start_with(&text).await;
    let outbox = Outbox::new(bench.bridge.catalog.clone(), "kafka", watch::channel(()).1);
    (bench, outbox)
}

async fn send(bench: &Bench, device: &str, from: u64, to: u64) {
    let mut device = bench.device(device).await;
    device.listen().await;
    for seq in from..to {
        device.say("alert/env", alert(boot(1), seq).to_json()).await;
    }
    device.acks((from..to).map(|seq| alert(boot(1), seq).stamp.id).collect()).await;
}

async fn reason(outbox: &Outbox, what: &str) {
    until(what, async || {
        let rows = outbox.open(0, 1).await.unwrap();
        rows.first().and_then(|row| row.last_error.as_deref()).is_some_and(|error| error.contains(what))
    })
    .await;
}

#[tokio::test]
async fn alerts_wait_for_the_broker_and_its_topic_and_come_in_order() {
    const ALERTS: u64 = 20;
    let Some(mut broker) = Broker::new() else { return };
    let (bench, outbox) = bench(&broker).await;
    for device in ["pi", "jetson"] {
        send(&bench, device, 0, ALERTS).await;
    }
    reason(&outbox, "onnect").await;
    broker.start();
    reason(&outbox, "the topic `edgeveil-alerts` is not there").await;
    broker.make_topic().await;
    let all = (2 * ALERTS).cast_signed();
    until("all of them", async || outbox.counts().await.unwrap() == (0, all)).await;
    let partitions = broker.alerts().await;
    for device in ["pi", "jetson"] {
        let of = |partition: &&Vec<(String, u64)>| partition.iter().any(|(whose, _)| whose == device);
        let holding: Vec<_> = partitions.iter().filter(of).collect();
        assert_eq!(holding.len(), 1, "{device} is in one partition");
        let seqs = holding[0].iter().filter(|(whose, _)| whose == device).map(|(_, seq)| *seq);
        assert_eq!(seqs.collect::<Vec<_>>(), (0..ALERTS).collect::<Vec<_>>(), "{device}");
    }

    // Killed, it forgets what it had; what it had not is kept here for it.
    broker.kill();
    send(&bench, "pi", ALERTS, ALERTS + 5).await;
    reason(&outbox, "onnect").await;
    broker.start();
    broker.make_topic().await;
    until("the others", async || outbox.counts().await.unwrap() == (0, all + 5)).await;
    let after: Vec<_> = broker.alerts().await.into_iter().flatten().map(|(_, seq)| seq).collect();
    assert_eq!(after, (ALERTS..ALERTS + 5).collect::<Vec<_>>());
}

/// A CA, and a server's certificate and key of it.
fn issue(dir: &Path) -> (PathBuf, PathBuf) {
    certs::init(dir, Replace::Refuse).unwrap();
    let issued =
        certs::issue(dir, Kind::Broker, "kafka", &["127.0.0.1".to_owned()], Replace::Refuse).unwrap();
    (issued.cert, issued.key)
}

/// The broker of the other test knows no TLS, so a server of OpenSSL's stands there.
#[tokio::test]
async fn a_server_of_another_ca_is_told_and_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
    let (cert, key) = issue(&theirs);
    issue(&ours);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-accept", &address, "-cert"]).arg(cert).arg("-key").arg(key);
    let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _server = Broker { program: PathBuf::new(), port, process: Some(server) };
    let text = format!("[forward.kafka]\nbrokers = [{address:?}]\nca = {:?}\n", ours.join("ca.pem"));
    let bench = Bench::start_with(&text).await;
    let outbox = Outbox::new(bench.bridge.catalog.clone(), "kafka", watch::channel(()).1);
    send(&bench, "pi", 0, 1).await;
    reason(&outbox, "invalid peer certificate").await;
    assert_eq!(outbox.counts().await.unwrap(), (1, 0));
}
