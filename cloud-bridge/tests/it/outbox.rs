//! Alerts reach AWS IoT Core's place at least once and in order, whatever happens there.

use crate::harness::{Bench, alert, boot, device_files, files, until};
use edgeveil_bridge::{
    broker::{Broker, Peer, Policy, Setup},
    catalog::{Blame, Outbox},
    certs::{self, Kind, Replace},
    metrics::Metrics,
    settings::TlsFiles,
    source::{Inbound, Intake},
    tls,
};
use sqlx::Connection;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{mpsc, watch},
};

/// Everybody may everything, unless the account is closed.
#[derive(Default)]
struct Account {
    closed: AtomicBool,
}

impl Policy for Account {
    fn admits(&self, _: &Peer, _: &str) -> bool {
        true
    }
    fn may_publish(&self, _: &Peer, topic: &str) -> bool {
        topic == "edgecloud/alerts" && !self.closed.load(Ordering::SeqCst)
    }
    fn may_subscribe(&self, _: &Peer, _: &str) -> bool {
        true
    }
}

struct Cloud {
    dir: tempfile::TempDir,
    account: Arc<Account>,
    port: u16,
}

impl Cloud {
    /// Certificates, and a port on which nobody answers yet.
    async fn new() -> (Self, TcpListener) {
        let dir = tempfile::tempdir().unwrap();
        certs::init(dir.path(), Replace::Refuse).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (Self { dir, account: Arc::default(), port }, listener)
    }

    fn settings(&self) -> String {
        let TlsFiles { ca, cert, key } = device_files(self.dir.path(), "thing");
        let port = self.port;
        format!(
            "[forward.aws]\nendpoint = \"localhost\"\nport = {port}\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\nclient_id = \"thing\"\n"
        )
    }

    async fn open(&self, listener: TcpListener) -> (Broker, mpsc::Receiver<Inbound>) {
        let (intake, messages) = Intake::new(1, 1 << 20);
        let setup = Setup {
            listener,
            tls: tls::server(&server(self.dir.path())).unwrap(),
            policy: self.account.clone(),
            intake,
            presence: None,
            max_connections: 10,
            metrics: Arc::new(Metrics::default()),
            troubles: Arc::default(),
        };
        (Broker::start(setup).await.unwrap(), messages)
    }
}

fn server(dir: &Path) -> TlsFiles {
    let paths = certs::paths(dir, Kind::Broker, "localhost");
    if !paths.cert.exists() {
        certs::issue(dir, Kind::Broker, "localhost", &[], Replace::Refuse).unwrap();
    }
    files(&paths)
}

fn outbox(bench: &Bench) -> Outbox {
    Outbox::new(bench.bridge.catalog.clone(), "aws", watch::channel(()).1)
}

async fn seq(messages: &mut mpsc::Receiver<Inbound>) -> Option<u64> {
    let inbound = messages.recv().await?;
    let json: serde_json::Value = serde_json::from_slice(&inbound.payload).unwrap();
    assert_eq!((json["anomaly"].as_bool(), json["sensor2"].as_f64()), (Some(true), Some(2.5)));
    json["seq"].as_u64()
}

#[tokio::test]
async fn alerts_wait_for_a_cloud_that_is_down_and_come_in_order() {
    const ALERTS: u64 = 60;
    let (cloud, listener) = Cloud::new().await;
    // Connections come to nothing until the cloud is up.
    let (up, mut is_up) = watch::channel(false);
    let down = tokio::spawn(async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => drop(accepted),
                _ = is_up.wait_for(|up| *up) => return listener,
            }
        }
    });
    let bench = Bench::start_with(&cloud.settings()).await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    for seq in 0..ALERTS {
        pi.say("alert/env", alert(boot(1), seq).to_json()).await;
    }
    pi.acks((0..ALERTS).map(|seq| alert(boot(1), seq).stamp.id).collect()).await;
    let outbox = outbox(&bench);
    until("a failed attempt", async || outbox.open(0, 1).await.unwrap()[0].attempts > 0).await;
    assert_eq!(outbox.counts().await.unwrap(), (ALERTS.cast_signed(), 0));

    up.send_replace(true);
    let (broker, mut messages) = cloud.open(down.await.unwrap()).await;
    let mut first_seen = Vec::new();
    while first_seen.len() < 20 {
        first_seen.push(seq(&mut messages).await.unwrap());
    }
    // And down again, with messages under way.
    drop(messages);
    broker.stop().await;
    let listener = TcpListener::bind(("127.0.0.1", cloud.port)).await.unwrap();
    let (_broker, mut messages) = cloud.open(listener).await;
    let drained = async {
        while let Some(seq) = seq(&mut messages).await {
            if !first_seen.contains(&seq) {
                first_seen.push(seq);
            }
            if first_seen.len() as u64 == ALERTS {
                break;
            }
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, drained).await.unwrap();
    tokio::spawn(async move { while messages.recv().await.is_some() {} });
    let unseen: Vec<_> = (0..ALERTS).filter(|seq| !first_seen.contains(seq)).collect();
    assert_eq!(unseen, Vec::<u64>::new());
    assert!(first_seen.is_sorted(), "{first_seen:?}");
    until("all done", async || outbox.counts().await.unwrap() == (0, ALERTS.cast_signed())).await;
}

#[tokio::test]
async fn a_refused_alert_is_not_lost() {
    let (cloud, listener) = Cloud::new().await;
    cloud.account.closed.store(true, Ordering::SeqCst);
    let (_broker, mut messages) = cloud.open(listener).await;
    let bench = Bench::start_with(&cloud.settings()).await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    pi.say("alert/env", alert(boot(1), 0).to_json()).await;
    pi.acks(vec![alert(boot(1), 0).stamp.id]).await;
    let outbox = outbox(&bench);
    let refused = async || outbox.open(0, 1).await.unwrap()[0].last_error.clone();
    until("a refusal", async || refused().await.is_some_and(|why| why.contains("NotAuthorized"))).await;
    assert_eq!(outbox.counts().await.unwrap(), (1, 0));
    cloud.account.closed.store(false, Ordering::SeqCst);
    assert_eq!(seq(&mut messages).await, Some(0));
    until("done", async || outbox.counts().await.unwrap() == (0, 1)).await;
}

/// An endpoint that takes what has no `poison` in it, and answers the rest with PayloadFormatInvalid, or, like AWS IoT
/// Core, by ending the connection. Tells the seq of what it has taken.
async fn picky(cloud: &Cloud, listener: TcpListener, ends: bool) -> mpsc::UnboundedReceiver<u64> {
    let tls = Arc::new(tls::server(&server(cloud.dir.path())).unwrap());
    let (sender, taken) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(tls.clone()).accept(tcp).await else {
                continue;
            };
            while let Some((kind, body)) = packet(&mut stream).await {
                let answer: Vec<u8> = match kind >> 4 {
                    1 => vec![0x20, 3, 0, 0, 0],
                    3 => {
                        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                        let id = [body[2 + topic], body[3 + topic]];
                        // No properties: their length is one byte, 0.
                        let json: serde_json::Value = serde_json::from_slice(&body[5 + topic..]).unwrap();
                        let poison = json["source"] == "poison";
                        if !poison {
                            sender.send(json["seq"].as_u64().unwrap()).unwrap();
                        }
                        match poison {
                            true if ends => vec![0xe0, 2, 0x99, 0],
                            true => vec![0x40, 4, id[0], id[1], 0x99, 0],
                            false => vec![0x40, 2, id[0], id[1]],
                        }
                    }
                    12 => vec![0xd0, 0],
                    _ => vec![],
                };
                stream.write_all(&answer).await.unwrap();
                if answer.first() == Some(&0xe0) {
                    let _ = stream.shutdown().await;
                    break;
                }
            }
        }
    });
    taken
}

/// A packet's first byte, and what stands behind its length.
async fn packet(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await.ok()?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = stream.read_u8().await.ok()?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}

/// Alerts 0 to 3, of which 1 is poison that was refused four times before.
async fn with_poison(ends: bool) {
    let (cloud, listener) = Cloud::new().await;
    let bench = Bench::start_with(&cloud.settings()).await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    for seq in 0..4 {
        let topic = if seq == 1 { "alert/poison" } else { "alert/env" };
        pi.say(topic, alert(boot(1), seq).to_json()).await;
        pi.acks(vec![alert(boot(1), seq).stamp.id]).await;
    }
    let outbox = outbox(&bench);
    let rows = outbox.open(0, 10).await.unwrap();
    for _ in 0..4 {
        outbox.failed(rows[1].number, "refused before", Blame::Row).await.unwrap();
    }
    let mut taken = picky(&cloud, listener, ends).await;
    let mut seqs = Vec::new();
    while !seqs.contains(&3) {
        let next = tokio::time::timeout(crate::harness::PATIENCE, taken.recv()).await;
        seqs.push(next.expect("held up").unwrap());
    }
    seqs.dedup();
    assert_eq!(seqs, [0, 2, 3], "in order, without the one that is refused for ever");
    until("set aside", async || {
        let count = outbox.count().await.unwrap();
        (count.done, count.open, count.failed) == (3, 0, 1)
    })
    .await;
    let metrics = String::from_utf8(bench.get("/metrics").await.1).unwrap();
    assert!(metrics.contains("edgeveil_bridge_outbox_failed{target=\"aws\"} 1"), "{metrics}");
}

#[tokio::test]
async fn an_alert_that_is_refused_for_ever_holds_up_nobody() {
    with_poison(false).await;
}

#[tokio::test]
async fn an_alert_over_which_the_connection_is_ended_holds_up_nobody() {
    with_poison(true).await;
}

#[tokio::test]
async fn an_alert_that_is_too_long_holds_up_nobody() {
    let (cloud, listener) = Cloud::new().await;
    let bench = Bench::start_with(&cloud.settings()).await;
    let file = sqlx::sqlite::SqliteConnectOptions::new().filename(bench.path().join("catalog.sqlite"));
    let mut catalog = sqlx::SqliteConnection::connect_with(&file).await.unwrap();
    let long = "INSERT INTO outbox (target, device, record, payload, created) VALUES ('aws', 'pi', 'x', hex(zeroblob(70000)), 0)";
    sqlx::query(long).execute(&mut catalog).await.unwrap();
    catalog.close().await.unwrap();
    let (_broker, mut messages) = cloud.open(listener).await;
    let pi = bench.device("pi").await;
    pi.say("alert/env", alert(boot(1), 0).to_json()).await;
    assert_eq!(seq(&mut messages).await, Some(0));
    let count = async || outbox(&bench).count().await.unwrap();
    until("done", async || (count().await.done, count().await.failed) == (1, 1)).await;
}
