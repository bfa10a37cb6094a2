//! Alerts reach a broker in AWS IoT Core's place that demands what AWS demands: X.509, QoS 1 at most, 128 KiB at most.
//! It comes late and goes away on the way; each alert arrives at least once, in order.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, PATIENT, Watcher, free_port, run, stderr, wait_for};
use serde_json::Value;
use std::{collections::BTreeMap, thread::sleep, time::Duration};

/// Publishes of QoS 2, of more than 128 KiB or to another topic are refused, as are strangers.
const LIMITS: &str = "max_qos 1\nmessage_size_limit 131072\nmax_keepalive 1200\nmax_inflight_messages 100\n";
const ACL: &str = "user bridge\ntopic write edgecloud/alerts\nuser watcher\ntopic read #\n";

/// The outbox as `edgeveil-bridge verify` counts it: done, open.
fn outbox(findings: &str) -> (u64, u64) {
    let line = findings.lines().find(|line| line.contains("\"found\":\"outbox\"")).unwrap();
    let count: Value = serde_json::from_str(line).unwrap();
    (count["done"].as_u64().unwrap(), count["open"].as_u64().unwrap())
}

#[test]
fn every_alert_reaches_the_cloud_in_order_though_it_was_down() {
    let lab = Lab::new(&["edge-001", "edge-002"]);
    let port = free_port();
    let mut cloud = Mosquitto::start(&lab, "cloud", LIMITS, ACL);
    // A subscriber whom the broker keeps everything for.
    let session = ["-i", "watcher", "-c", "-x", "3600"];
    let subscribe = &[&session[..], &["-E"]].concat();
    let output = run(&mut Watcher::command(&lab, cloud.port, &["edgecloud/alerts"], subscribe));
    assert!(output.status.success(), "{}", stderr(&output));
    cloud.stop();
    let [ca, cert, key] = lab.identity("devices", "bridge");
    let more = format!(
        "[forward.aws]\nendpoint = \"localhost\"\nport = {}\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n\
         client_id = \"bridge\"\n",
        cloud.port
    );
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, &more));
    let sensor = "[[sensor]]\ngroup = \"env\"\nsource = { simulate = {} }\nrate = 200\n";
    let devices = ["edge-001", "edge-002"];
    let mut agents: Vec<_> = devices
        .map(|device| lab.agent(device, &lab.agent_settings(device, port, &format!("{PATIENT}{sensor}"))))
        .into();
    wait_for("the bridge to say that the cloud is away", || {
        bridge.log().contains("cannot forward alerts; they wait in the outbox").then_some(())
    });
    sleep(Duration::from_secs(2));

    cloud.restart();
    wait_for("alerts in the cloud", || (outbox(&lab.verify_now()).0 >= 20).then_some(()));
    cloud.stop();
    sleep(Duration::from_secs(1));
    cloud.restart();

    agents.iter_mut().for_each(|agent| agent.assert_running());
    agents.into_iter().for_each(|agent| assert!(agent.stop().success()));
    devices.iter().for_each(|device| lab.drain(device, port));
    wait_for("an empty outbox", || (outbox(&lab.verify_now()).1 == 0).then_some(()));
    assert!(bridge.stop().success());

    let findings = lab.verify();
    let mut stored: BTreeMap<(String, String), u64> = BTreeMap::new();
    for finding in findings.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        if finding["lane"] == "alert" {
            let text = |key: &str| finding[key].as_str().unwrap().to_owned();
            stored.insert((text("device"), text("boot")), finding["count"].as_u64().unwrap());
        }
    }
    assert_eq!(stored.len(), 2, "{findings}");
    assert_eq!(outbox(&findings), (stored.values().sum(), 0));

    let watcher = Watcher::start_with(&lab, cloud.port, &["edgecloud/alerts"], &session);
    let forwarded = wait_for("every alert in the cloud", || {
        let mut forwarded: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
        for (topic, payload) in watcher.seen() {
            assert_eq!(topic, "edgecloud/alerts");
            let alert: Value = serde_json::from_str(&payload).unwrap();
            assert_eq!(alert["anomaly"], true);
            assert!(alert["timestamp"].is_string() && alert["sensor2"].is_number(), "{payload}");
            let text = |key: &str| alert[key].as_str().unwrap().to_owned();
            let seqs = forwarded.entry((text("device"), text("boot"))).or_default();
            let seq = alert["seq"].as_u64().unwrap();
            // A repetition is allowed; what is new comes in order.
            if !seqs.contains(&seq) {
                seqs.push(seq);
            }
        }
        let counts: BTreeMap<_, _> =
            forwarded.iter().map(|(boot, seqs)| (boot.clone(), seqs.len() as u64)).collect();
        (counts == stored).then_some(forwarded)
    });
    for seqs in forwarded.values() {
        assert_eq!(*seqs, (0..seqs.len() as u64).collect::<Vec<_>>());
    }
}
