//! A bridge on somebody else's broker.

use crate::harness::{Bench, Device, boot, device_files, files, reading, until};
use edgeveil_bridge::{
    broker::{Broker, Peer, Policy, Setup},
    certs::{self, Kind, Replace},
    metrics::Metrics,
    source::Intake,
    tls,
};
use edgeveil_wire::Lane;
use std::sync::Arc;
use tokio::net::TcpListener;

struct Open;

impl Policy for Open {
    fn admits(&self, _: &Peer, _: &str) -> bool {
        true
    }
    fn may_publish(&self, _: &Peer, _: &str) -> bool {
        true
    }
    fn may_subscribe(&self, _: &Peer, _: &str) -> bool {
        true
    }
}

async fn broker(dir: &std::path::Path, listener: TcpListener) -> Broker {
    let server = certs::paths(dir, Kind::Broker, "localhost");
    let (intake, mut messages) = Intake::new(64, 16 << 20);
    tokio::spawn(async move { while messages.recv().await.is_some() {} });
    let setup = Setup {
        listener,
        tls: tls::server(&files(&server)).unwrap(),
        policy: Arc::new(Open),
        intake,
        presence: None,
        max_connections: 10,
        metrics: Arc::new(Metrics::default()),
        troubles: Arc::default(),
    };
    Broker::start(setup).await.unwrap()
}

#[tokio::test]
async fn records_come_over_a_broker_elsewhere_also_after_it_was_away() {
    const RECORDS: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    certs::init(dir.path(), Replace::Refuse).unwrap();
    certs::issue(dir.path(), Kind::Broker, "localhost", &[], Replace::Refuse).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let elsewhere = broker(dir.path(), listener).await;
    let bridge = device_files(dir.path(), "bridge");
    let bench = Bench::start_with(&format!(
        // A broker that sends without bound, to a bridge with hardly any room: neither may wait for the other for ever.
        "[ingest]\nqueue = 2\nbatch = 8\n[mqtt]\nreceive_maximum = 65535\nhost = \"localhost\"\nport = {}\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
        address.port(),
        bridge.ca,
        bridge.cert,
        bridge.key
    ))
    .await;
    let ready = async || bench.get("/readyz").await.0.starts_with("HTTP/1.1 200");
    until("subscribed", ready).await;
    let pi_files = device_files(dir.path(), "pi");
    let mut pi = Device::connect(address, &pi_files, "pi").await.unwrap();
    pi.listen().await;
    for seq in 0..RECORDS {
        pi.say("reading/env", reading(boot(1), seq).to_json()).await;
    }
    pi.acks((0..RECORDS).map(|seq| reading(boot(1), seq).stamp.id).collect()).await;
    assert_eq!(bench.count(Lane::Reading).await, RECORDS.cast_signed());

    elsewhere.stop().await;
    until("no longer ready", async || !ready().await).await;
    let (_, why) = bench.get("/readyz").await;
    assert!(String::from_utf8_lossy(&why).contains("source: broker localhost"), "{why:?}");
    let _elsewhere = broker(dir.path(), TcpListener::bind(address).await.unwrap()).await;
    until("ready again", ready).await;
    let mut pi = Device::connect(address, &pi_files, "pi").await.unwrap();
    pi.listen().await;
    pi.say("reading/env", reading(boot(1), RECORDS).to_json()).await;
    assert_eq!(pi.ack().await, [reading(boot(1), RECORDS).stamp.id]);
    assert_eq!(bench.bridge.catalog.gaps().await.unwrap()[0].missing(), 0);
}
