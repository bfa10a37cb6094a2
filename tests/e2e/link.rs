//! The link over its life: renewed certificates, metered and slow connections, brokers that take less than is sent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, PATIENT, Watcher, files_below, free_port, models, slow_road, wait_for};
use edgeveil_wire::{Alert, BootId, ClockState, Lane, Severity, Stamp, Values};

const SENSOR: &str = "[[sensor]]\ngroup = \"env\"\nsource = { simulate = {} }\nrate = 100\n";

#[test]
fn renewed_certificates_are_taken_up_without_a_restart() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &format!("{PATIENT}{SENSOR}")));
    let mut connections = |count: usize| {
        wait_for(&format!("connection {count}"), || {
            agent.assert_running();
            (agent.log().lines().filter(|line| line.contains(" connected ")).count() == count).then_some(())
        });
    };
    connections(1);
    let [_, cert, key] = lab.identity("devices", "edge-001");
    let good = std::fs::read(&cert).unwrap();
    // Half written: the connection stays.
    std::fs::write(&cert, &good[..100]).unwrap();
    let watcher = Watcher::start(&lab, port, &["edgeveil/edge-001/status"]);
    wait_for("the problem in the status", || {
        watcher.seen().iter().any(|(_, status)| status.contains("certificate: ")).then_some(())
    });
    std::fs::remove_file(&cert).unwrap();
    std::fs::remove_file(&key).unwrap();
    lab.certs(&["device", "edge-001", "--force"]);
    connections(2);
    let states: Vec<_> = watcher.seen().into_iter().map(|(_, status)| status).collect();
    assert!(!states.iter().any(|status| status.contains("\"offline\"")), "{states:?}");
    assert!(agent.stop().success());
    lab.drain("edge-001", port);
    assert!(bridge.stop().success());
    println!("{}", lab.verify());
}

/// The certificate runs out while records flow: the connection that stands goes on, the next one has to wait for another
/// certificate, and nothing is lost meanwhile.
#[test]
fn an_expired_certificate_keeps_records_until_there_is_another() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &format!("{PATIENT}{SENSOR}")));
    wait_for("connected", || agent.log().contains(" connected ").then_some(()));
    let [_, cert, key] = lab.identity("devices", "edge-001");
    let pair = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "edge-001");
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026, 1, 1);
    std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
    std::fs::write(&key, pair.serialize_pem()).unwrap();
    let watcher = Watcher::start(&lab, port, &["edgeveil/edge-001/status", "edgeveil/edge-001/reading/+"]);
    wait_for("the expired certificate in the status", || {
        agent.assert_running();
        watcher.seen().iter().any(|(_, status)| status.contains("expired on 2026-01-01")).then_some(())
    });
    let before = watcher.seen().len();
    wait_for("readings all the same", || (watcher.seen().len() > before + 100).then_some(()));
    bridge.kill();
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    wait_for("no connection for that reason", || {
        agent.assert_running();
        let told = |line: &str| line.contains("not connected") && line.contains("expired on 2026-01-01");
        agent.log().lines().any(told).then_some(())
    });
    lab.certs(&["device", "edge-001", "--force"]);
    wait_for("connected again", || {
        agent.assert_running();
        (agent.log().matches(" connected ").count() == 2).then_some(())
    });
    assert!(agent.stop().success());
    lab.drain("edge-001", port);
    assert!(bridge.stop().success());
    println!("{}", lab.oracle(&[]));
}

#[test]
fn a_metered_link_spares_its_budget_for_alerts() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let topics = ["edgeveil/+/reading/+", "edgeveil/+/alert/+", "edgeveil/+/status"];
    let watcher = Watcher::start(&lab, broker.port, &topics);
    let count = |topic: &str| watcher.seen().iter().filter(|(seen, _)| seen.contains(topic)).count();
    let settings = format!("daily_bytes = \"20 kB\"\nacknowledgement = \"broker\"\n{PATIENT}{SENSOR}");
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", broker.port, &settings));
    wait_for("the budget in the status", || {
        agent.assert_running();
        watcher.seen().iter().any(|(_, status)| status.contains("link.daily_bytes are used")).then_some(())
    });
    let (readings, alerts) = (count("/reading/"), count("/alert/"));
    // 20 kB, and what the window held besides.
    assert!((40..400).contains(&readings), "{readings} readings");
    wait_for("more alerts", || {
        agent.assert_running();
        (count("/alert/") >= alerts + 5).then_some(())
    });
    let late = count("/reading/");
    assert!(late < readings + 100, "{readings} readings, then {late}");
    assert!(agent.stop().success());
    // A restart does not begin a new day.
    let again = lab.agent("again", &lab.agent_settings("edge-001", broker.port, &settings));
    wait_for("connected again", || again.log().contains(" connected ").then_some(()));
    wait_for("more alerts", || (count("/alert/") >= alerts + 20).then_some(()));
    assert!(again.stop().success());
    assert!(count("/reading/") < late + 50);
}

fn camera(fps: f64) -> String {
    format!(
        "[[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = {fps}\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    )
}

/// An image is some 40 KB. One broker says in its CONNACK what it takes, the other only when it is too late.
#[test]
fn images_that_the_broker_finds_too_large_do_not_hold_up_the_rest() {
    for bound in ["max_packet_size 20000", "message_size_limit 20000"] {
        let lab = Lab::new(&["edge-001"]);
        let broker = Mosquitto::start(&lab, "broker", bound, Mosquitto::ACL);
        let watcher = Watcher::start(&lab, broker.port, &["edgeveil/+/reading/+", "edgeveil/+/status"]);
        let settings = format!("acknowledgement = \"broker\"\n{PATIENT}{SENSOR}{}", camera(1.0));
        let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", broker.port, &settings));
        wait_for("the bound in the status", || {
            agent.assert_running();
            let told = |status: &str| status.contains("image/desk") && status.contains("bytes are more than");
            watcher.seen().iter().any(|(_, status)| told(status)).then_some(())
        });
        let before = watcher.seen().len();
        wait_for("more readings", || {
            agent.assert_running();
            (watcher.seen().len() > before + 500).then_some(())
        });
        assert!(agent.stop().success());
    }
}

/// At 6 kB a second an image takes longer than the patience, and the next one is made before it has arrived.
#[test]
fn a_slow_link_carries_images_that_take_longer_than_the_patience() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    let road = slow_road(port, 6000);
    let mut agent =
        lab.agent("agent", &lab.agent_settings("edge-001", road, &format!("{PATIENT}{}", camera(0.2))));
    let objects = lab.path("bridge/objects");
    wait_for("three images", || {
        agent.assert_running();
        (files_below(&objects).iter().filter(|file| file.extension().is_some_and(|e| e == "jpg")).count()
            >= 3)
            .then_some(())
    });
    let log = agent.log();
    assert_eq!(log.matches(" connected ").count(), 1, "{log}");
    assert!(agent.stop().success());
    assert!(bridge.stop().success());
}

/// The broker lets a device write below its own name only, so what was recorded under another stays on the device.
#[test]
fn a_device_with_a_new_name_keeps_what_it_recorded_under_the_old_one() {
    let lab = Lab::new(&["edge-001", "edge-002"]);
    let port = free_port();
    let settings = lab.agent_settings("edge-001", port, &format!("{PATIENT}{}", camera(5.0)));
    let images = |dir: &str| {
        let files = files_below(&lab.path(dir));
        files
            .iter()
            .filter(|file| std::fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"\xff\xd8")))
            .count()
    };
    let mut agent = lab.agent("agent", &settings);
    wait_for("images", || {
        agent.assert_running();
        (images("agent-edge-001/spool") > 2).then_some(())
    });
    assert!(agent.stop().success());
    let kept = images("agent-edge-001/spool");

    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    let renamed = settings.replace("devices/edge-001", "devices/edge-002");
    let mut agent = lab.agent("renamed", &renamed);
    wait_for("connected", || agent.log().contains(" connected ").then_some(()));
    let watcher = Watcher::start(&lab, port, &["edgeveil/+/status"]);
    wait_for("the old name in the status", || {
        agent.assert_running();
        watcher.seen().iter().any(|(_, status)| status.contains("records of edge-001")).then_some(())
    });
    assert!(agent.stop().success());
    assert!(bridge.stop().success());
    assert_eq!(images("agent-edge-001/spool.edge-001"), kept);
}

/// A record of a later version waits on the device until the bridge is upgraded. Meanwhile everything else goes on, though
/// so little comes that the bridge is silent most of the time.
#[test]
fn a_record_that_the_bridge_passes_over_stands_in_nobodys_way() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let settings = lab.agent_settings("edge-001", port, "ack_timeout = \"1 s\"\n[spool]\ncommit_interval = \"100 ms\"\nmin_free = \"0 B\"\n[[sensor]]\ngroup = \"env\"\nsource = { simulate = {} }\nrate = 0.5\n");
    let parsed = edgeveil_agent::settings::parse(std::path::Path::new("agent.toml"), &settings).unwrap();
    edgeveil_agent::record::claim(&parsed.device.data_dir, &"edge-001".parse().unwrap()).unwrap();
    let (spool, _) = edgeveil_agent::record::open(&parsed).unwrap();
    let boot = BootId::from_random([9; 10]);
    for seq in 0..3 {
        let stamp = |lane| Stamp::new(boot, lane, seq, jiff::Timestamp::now(), ClockState::Synced, 0);
        let values: Values = [("t".parse().unwrap(), 1.0)].into();
        let alert = Alert {
            stamp: stamp(Lane::Alert),
            reading: stamp(Lane::Reading).id,
            anomaly: true,
            score: 0.9,
            threshold: 0.5,
            contributions: values.clone(),
            severity: Severity::of(0.9, 0.5),
            values,
        };
        let payload = String::from_utf8(alert.to_json()).unwrap();
        let later = payload.replace("edgeveil.alert/1", "edgeveil.alert/2");
        assert_ne!(payload, later);
        let id = edgeveil_spool::RecordId(alert.stamp.id.to_bytes());
        // Alerts go before all else, whenever they were made.
        let record = edgeveil_spool::NewRecord { id, header: b"alert/env", payload: later.as_bytes() };
        let _ = spool.push(edgeveil_agent::record::lane_index(Lane::Alert), record).unwrap();
    }
    drop(spool);
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    let watcher = Watcher::start(&lab, port, &["edgeveil/edge-001/status"]);
    let mut agent = lab.agent("agent", &settings);
    wait_for("readings of half a minute", || {
        agent.assert_running();
        (lab.path("bridge/catalog.sqlite").exists()
            && lab.stored().iter().filter(|id| id[20..22] == *"02").count() >= 16)
            .then_some(())
    });
    wait_for("the three records in the status", || {
        watcher.seen().iter().any(|(_, status)| status.contains("but not 3 records")).then_some(())
    });
    assert!(agent.stop().success());
    assert!(bridge.stop().success());
    println!("{}", lab.oracle(&[]));
    assert!(!lab.stored().iter().any(|id| id.starts_with(&boot.to_string())));
}
