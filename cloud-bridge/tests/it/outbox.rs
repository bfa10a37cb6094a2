//! Alerts reach AWS IoT Core's place at least once and in order, whatever happens there.

use crate::harness::{Bench, alert, boot, device_files, files, until};
use edgeveil_bridge::{
    broker::{Broker, Peer, Policy, Setup},
    catalog::Outbox,
    certs::{self, Kind, Replace},
    metrics::Metrics,
    settings::TlsFiles,
    source::{Inbound, Intake},
    tls,
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
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
