//! A broker and a network that do everything wrong: afterwards every record of every lane has arrived.
//!
//! `EDGEVEIL_LONG=1` goes on for five minutes with each seed; without it the form is short.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Deed, Dice, Lab, Script, Seen, Unruly, long, wait_for};
use rumqttc::{
    TlsConfiguration, Transport,
    v5::{
        AsyncClient, MqttOptions,
        mqttbytes::{QoS, v5::PubAckReason},
    },
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

const SETTINGS: &str = "ack_timeout = \"1 s\"\nacknowledgement = \"broker\"\n[spool]\ncommit_interval = \"100 ms\"\nmin_free = \"0 B\"\n[health]\ninterval = \"1 s\"\n";
const SENSOR: &str = "[[sensor]]\ngroup = \"env\"\nsource = { simulate = {} }\nrate = 300\n";

fn kind() -> Script {
    Box::new(|_, _| Deed::Acknowledge)
}

fn is_empty(seen: &Seen) -> bool {
    let health: serde_json::Value = serde_json::from_str(&seen.health).unwrap_or_default();
    health["spool"].as_object().is_some_and(|lanes| lanes.values().all(|lane| lane["records"] == 0))
}

/// Lets the broker be kind, stops the agent, empties the spool, and looks for gaps.
fn conserve(lab: &Lab, broker: &Unruly, agent: edgeveil_tests::Process) -> Seen {
    broker.follow(kind());
    assert!(agent.stop().success());
    let drain = lab.agent("drain", &lab.agent_settings("edge-001", broker.port, SETTINGS));
    let before = broker.seen().connections;
    wait_for("an empty spool", || {
        let seen = broker.seen();
        (seen.connections > before && is_empty(&seen)).then_some(())
    });
    assert!(drain.stop().success());
    let seen = broker.seen();
    for ((boot, lane), numbers) in &seen.safe {
        let missing: Vec<_> = (0..numbers.last().unwrap() + 1).filter(|n| !numbers.contains(n)).collect();
        assert!(missing.is_empty(), "boot {boot}, lane {lane}: {missing:?} never arrived");
    }
    seen
}

#[test]
fn nothing_is_lost_to_an_unruly_broker() {
    for seed in [1, 2, 3] {
        let lab = Lab::new(&["edge-001"]);
        let mut dice = Dice::new(seed);
        let broker = Unruly::start(
            &lab,
            Box::new(move |_, _| match dice.below(1000) {
                0..2 => Deed::Cut,
                2..4 => Deed::CutWithin,
                4..6 => Deed::AcknowledgeTwice,
                6..8 => Deed::Withhold,
                8..10 => Deed::Delay,
                10..13 => Deed::Deny(PubAckReason::QuotaExceeded),
                13..200 => Deed::AcknowledgeLater,
                _ => Deed::Acknowledge,
            }),
        );
        let mut agent =
            lab.agent("agent", &lab.agent_settings("edge-001", broker.port, &format!("{SETTINGS}{SENSOR}")));
        let end = Instant::now() + Duration::from_secs(if long() { 300 } else { 10 });
        while Instant::now() < end {
            agent.assert_running();
            sleep(Duration::from_millis(200));
        }
        let seen = conserve(&lab, &broker, agent);
        assert!(seen.connections > 3 && seen.denied > 0, "the broker was kind: {seen:?}");
        println!("seed {seed}: {} connections, {} publishes", seen.connections, seen.publishes);
    }
}

/// rumqttc stops for ever when a packet id comes round that the broker has never acknowledged and the session is lost
/// (bytebeamio/rumqtt #1056): a client that leaves everything to it never publishes again, however often it connects.
#[test]
fn a_naive_client_is_wedged_by_a_packet_that_is_never_acknowledged() {
    let lab = Lab::new(&[]);
    let broker = Unruly::start(&lab, Box::new(never_the_fourth));
    let mut roots = rustls::RootCertStore::empty();
    let [ca, ..] = lab.identity("brokers", "localhost");
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut options = MqttOptions::new("naive", "localhost", broker.port);
    options
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))))
        .set_clean_start(false)
        .set_keep_alive(Duration::from_secs(5))
        .set_outgoing_inflight_upper_limit(10);
    // The broker has a runtime of its own, so this one is not around it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let published = runtime.block_on(async {
        let (client, mut events) = AsyncClient::new(options, 10);
        tokio::spawn(async move {
            while client.publish("a/b/reading", QoS::AtLeastOnce, false, "x").await.is_ok() {}
        });
        let mut published = Vec::new();
        while published.len() < 3 {
            if events.poll().await.is_err() {
                published.push(broker.seen().publishes);
            }
        }
        published
    });
    let seen = broker.seen();
    assert!(seen.connections >= 3 && published[0] > 10, "{seen:?}");
    assert_eq!(published, [published[0]; 3], "it goes on publishing: is the trap mended in rumqttc?");
}

fn never_the_fourth(n: u64, kind: &str) -> Deed {
    if n == 3 && kind == "reading" { Deed::Withhold } else { Deed::Acknowledge }
}

/// The same broker, and a client that does not leave it to rumqttc.
#[test]
fn a_packet_that_is_never_acknowledged_does_not_wedge_the_link() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Unruly::start(&lab, Box::new(never_the_fourth));
    let settings = format!("{SETTINGS}{SENSOR}");
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", broker.port, &settings));
    wait_for("a thousand publishes over several connections", || {
        agent.assert_running();
        let seen = broker.seen();
        (seen.publishes > 1000 && seen.connections > 2).then_some(())
    });
    conserve(&lab, &broker, agent);
}

/// A broker that takes everything, and no longer passes on what the bridge answers: a RabbitMQ node that came back has
/// done so. The records come home by a new connection, and the broker is not flooded meanwhile.
#[test]
fn a_device_that_hears_no_bridge_connects_anew() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Unruly::deaf_before(2, &lab);
    let settings = format!("{}{SENSOR}", SETTINGS.replace("\"broker\"", "\"bridge\""));
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", broker.port, &settings));
    let deaf = wait_for("a second connection", || {
        agent.assert_running();
        let seen = broker.seen();
        (seen.connections == 2).then_some(seen.publishes)
    });
    assert!(agent.log().contains("connecting anew"), "{}", agent.log());
    // The first window, and not another one at each round.
    assert!((200..300).contains(&deaf), "{deaf} publishes");
    wait_for("what waited, and no longer one by one", || {
        agent.assert_running();
        let seen = broker.seen();
        (seen.connections == 2 && seen.publishes > deaf + 1000).then_some(())
    });
    conserve(&lab, &broker, agent);
}
