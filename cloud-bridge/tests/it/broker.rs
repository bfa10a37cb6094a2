//! Who gets in, and what they may do there.

use crate::harness::{Bench, Device, boot, device_files, files, jpeg, reading, status, until};
use edgeveil_bridge::certs::{self, Kind, Replace};
use edgeveil_wire::Lane;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, SubscribeReasonCode};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::sync::Arc;

#[tokio::test]
async fn without_a_certificate_of_this_ca_nobody_gets_in() {
    let bench = Bench::start().await;
    let ours = bench.path().join("certs");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ours.join("ca.pem")).unwrap()).unwrap();
    let bare =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    assert!(Device::connect_by(bench.mqtt(), bare, "pi").await.is_err());

    let foreign = tempfile::tempdir().unwrap();
    certs::init(foreign.path(), Replace::Refuse).unwrap();
    let mut stranger = device_files(foreign.path(), "pi");
    stranger.ca = ours.join("ca.pem");
    assert!(Device::connect(bench.mqtt(), &stranger, "pi").await.is_err());

    // Neither of them held up anybody.
    bench.device("pi").await;
}

#[tokio::test]
async fn a_device_cannot_pass_for_another() {
    let bench = Bench::start().await;
    let files = device_files(&bench.path().join("certs"), "pi");
    assert!(Device::connect(bench.mqtt(), &files, "pi2").await.is_err());
    assert!(Device::connect(bench.mqtt(), &files, "pi:shell").await.is_ok());

    let mut pi = bench.device("pi").await;
    let record = reading(boot(1), 0);
    pi.send("edgeveil/pi2/reading/env", record.to_json()).await;
    assert_eq!(pi.puback().await, PubAckReason::NotAuthorized);
    pi.send("edgeveil/pi/ack", "{}").await;
    assert_eq!(pi.puback().await, PubAckReason::NotAuthorized);
    assert_eq!(pi.subscribe("edgeveil/#").await, SubscribeReasonCode::NotAuthorized);
    pi.listen().await;
    pi.say("reading/env", record.to_json()).await;
    assert_eq!(pi.ack().await, [record.stamp.id]);
    let gaps = bench.bridge.catalog.gaps().await.unwrap();
    assert_eq!(gaps.iter().map(|gap| gap.device.as_str()).collect::<Vec<_>>(), ["pi"]);
}

#[tokio::test]
async fn an_observer_sees_pictures_and_changes_nothing() {
    let bench = Bench::start().await;
    let issued =
        certs::issue(&bench.path().join("certs"), Kind::Observer, "anna", &[], Replace::Refuse).unwrap();
    let mut anna = Device::connect(bench.mqtt(), &files(&issued), "anna").await.unwrap();
    assert!(matches!(anna.subscribe("edgeveil/+/image/+").await, SubscribeReasonCode::Success(_)));
    assert_eq!(anna.subscribe("#").await, SubscribeReasonCode::NotAuthorized);
    anna.say("reading/env", "{}").await;
    assert_eq!(anna.puback().await, PubAckReason::NotAuthorized);

    let pi = bench.device("pi").await;
    let (_, picture) = jpeg("pi", "desk", boot(1), 0);
    pi.say("image/desk", picture.clone()).await;
    assert_eq!(anna.message().await, ("edgeveil/pi/image/desk".to_owned(), picture));
}

#[tokio::test]
async fn a_device_that_vanishes_is_offline() {
    let bench = Bench::start().await;
    let state = async || {
        let devices = bench.bridge.catalog.devices().await.unwrap();
        devices.first().and_then(|device| device.state.clone()).unwrap_or_default()
    };
    let pi = bench.device("pi").await;
    pi.say("status", status("online")).await;
    until("online", async || state().await == "online").await;
    pi.vanish().await;
    until("offline", async || state().await == "offline").await;
}

#[tokio::test]
async fn the_largest_image_passes_and_a_larger_one_does_not_stop_the_stream() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let (meta, mut picture) = jpeg("pi", "desk", boot(1), 0);
    picture.resize(edgeveil_wire::MAX_IMAGE_BYTES, 0);
    pi.say("image/desk", picture).await;
    assert_eq!(pi.ack().await, [meta.stamp.id]);
    let (_, mut picture) = jpeg("pi", "desk", boot(1), 1);
    picture.resize(edgeveil_wire::MAX_IMAGE_BYTES + 1, 0);
    pi.say("image/desk", picture).await;
    let (meta, picture) = jpeg("pi", "desk", boot(1), 2);
    pi.say("image/desk", picture).await;
    pi.acks(vec![meta.stamp.id]).await;
    assert_eq!(bench.count(Lane::Image).await, 2);
    assert_eq!(bench.bridge.catalog.dead_letters(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_devices_with_one_certificate_are_told() {
    let bench = Bench::start().await;
    let mut first = bench.device("pi").await;
    let _second = bench.device("pi").await;
    first.end().await;
    let text = async |path: &str| String::from_utf8(bench.get(path).await.1).unwrap();
    for page in ["/readyz", "/"] {
        let page = text(page).await;
        assert!(page.contains("do two devices share a certificate?"), "{page}");
    }
    assert!(text("/metrics").await.contains("edgeveil_bridge_taken_over_total 1"));
}

#[tokio::test]
async fn a_device_that_comes_back_takes_over_from_nobody() {
    let bench = Bench::start().await;
    for _ in 0..3 {
        bench.device("pi").await.vanish().await;
        until("gone", async || bench.bridge.metrics.connected.get() == 0).await;
    }
    bench.device("pi").await;
    assert_eq!(bench.bridge.metrics.taken_over.get(), 0);
}

#[tokio::test]
async fn only_a_devices_state_is_kept_for_later_subscribers() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    pi.retain("edgeveil/pi/status", status("online")).await;
    assert_eq!(pi.puback().await, PubAckReason::Success);
    let record = reading(boot(1), 0);
    pi.retain("edgeveil/pi/reading/env", record.to_json()).await;
    assert_eq!(pi.ack().await, [record.stamp.id], "it is a record all the same");
    pi.retain("edgeveil/pi/config/reported", vec![b' '; 65 << 10]).await;
    assert_eq!(pi.puback().await, PubAckReason::QuotaExceeded);

    let issued =
        certs::issue(&bench.path().join("certs"), Kind::Observer, "anna", &[], Replace::Refuse).unwrap();
    let mut anna = Device::connect(bench.mqtt(), &files(&issued), "anna").await.unwrap();
    anna.subscribe("edgeveil/#").await;
    assert_eq!(anna.message().await.0, "edgeveil/pi/status");
    assert!(anna.hears_nothing().await);
}

#[tokio::test]
async fn one_host_cannot_take_every_connection() {
    let bench = Bench::start_with("broker.max_connections = 40").await;
    let mut held = Vec::new();
    for _ in 0..60 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        held.push(socket.connect(bench.mqtt()).await.unwrap());
    }
    until("refusals", async || bench.bridge.metrics.refused_connections.get() >= 50).await;
    bench.device("pi").await;
}
