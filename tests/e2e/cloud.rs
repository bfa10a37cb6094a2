//! Alerts reach a broker in AWS IoT Core's place that demands what AWS demands: X.509, QoS 1 at most, 128 KiB at most.
//! It comes late and goes away on the way; each alert arrives at least once, in order. In front of it a gate keeps to the
//! rates of AWS, which mosquitto does not know.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{
    Gate, Lab, Mosquitto, PATIENT, Watcher, free_port, long, program, run, stderr, wait_for,
};
use serde_json::Value;
use std::{collections::BTreeMap, process::Command, thread::sleep, time::Duration};

/// Publishes of QoS 2, of more than 128 KiB or to another topic are refused, as are strangers.
const LIMITS: &str = "max_qos 1\nmessage_size_limit 131072\nmax_keepalive 1200\nmax_inflight_messages 100\n";
const ACL: &str = "user bridge\ntopic write edgecloud/alerts\nuser watcher\ntopic read #\n";

/// The outbox as `edgeveil-bridge verify` counts it: done, open.
fn outbox(findings: &str) -> (u64, u64) {
    let line = findings.lines().find(|line| line.contains("\"found\":\"outbox\"")).unwrap();
    let count: Value = serde_json::from_str(line).unwrap();
    (count["done"].as_u64().unwrap(), count["open"].as_u64().unwrap())
}

fn forward(lab: &Lab, port: u16, more: &str) -> String {
    let [ca, cert, key] = lab.identity("devices", "bridge");
    format!(
        "[forward.aws]\nendpoint = \"localhost\"\nport = {port}\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n\
         client_id = \"bridge\"\n{more}"
    )
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
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, &forward(&lab, cloud.port, "")));
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

/// Thousands of alerts at once, at the rate that is allowed; in the middle of it nobody answers any more.
#[test]
fn a_flood_goes_at_the_allowed_rate_and_outlives_silence() {
    let alerts = if long() { 10_000 } else { 1_500 };
    let lab = Lab::new(&[]);
    let port = free_port();
    let cloud = Mosquitto::start(
        &lab,
        "cloud",
        LIMITS,
        "user bridge\ntopic write edgecloud/+/alerts\nuser watcher\ntopic read #\n",
    );
    let gate = Gate::open(&lab, &cloud);
    let watcher = Watcher::start(&lab, cloud.port, &["edgecloud/+/alerts"]);
    let topic = "topic = \"edgecloud/{device}/alerts\"\n";
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, &forward(&lab, gate.port, topic)));
    wait_for("the bridge in the cloud", || bridge.log().contains("connected to AWS IoT Core").then_some(()));
    // With every reading an alert, and the count is of both.
    let mut fleet = Command::new(program("edgeveil-agent"));
    fleet.args(["simulate", "--json", "--port", &port.to_string(), "--devices", "10", "--ramp", "1 s"]);
    fleet.args(["--readings", "500", "--alerts", "1", "--count", &(2 * alerts).to_string(), "--dev-ca"]);
    let output = run(fleet.arg(lab.path("certs")));
    assert!(output.status.success(), "{}", stderr(&output));
    wait_for("a third of them", || (gate.passed().publishes >= alerts / 3).then_some(()));
    gate.silence(true);
    wait_for("the bridge to miss the answers", || {
        bridge.log().contains("no PUBACK within 30 s").then_some(())
    });
    gate.silence(false);
    wait_for("an empty outbox", || (outbox(&lab.verify_now()) == (alerts, 0)).then_some(()));

    let passed = gate.passed();
    println!("{passed:?}");
    assert_eq!((passed.discarded, &passed.broken), (0, &Vec::new()), "{passed:?}");
    assert!(passed.connects >= 2 && passed.busiest <= 100 && passed.unacknowledged <= 100, "{passed:?}");
    wait_for("every alert in the cloud", || {
        let mut seqs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (topic, payload) in watcher.seen() {
            let alert: Value = serde_json::from_str(&payload).unwrap();
            let device = alert["device"].as_str().unwrap();
            assert_eq!(topic, format!("edgecloud/{device}/alerts"));
            let seqs = seqs.entry(device.to_owned()).or_default();
            let seq = alert["seq"].as_u64().unwrap();
            // What was under way in the silence may come twice.
            if !seqs.contains(&seq) {
                seqs.push(seq);
            }
        }
        let all: usize = seqs.values().map(Vec::len).sum();
        assert!(seqs.values().all(|seqs| seqs.is_sorted()), "{seqs:?}");
        (all as u64 == alerts && seqs.len() == 10).then_some(())
    });
    assert!(bridge.stop().success());
}

/// What the operator has to mend is named, and nothing is given up meanwhile.
#[test]
fn a_wrong_certificate_and_a_denied_policy_are_named() {
    let lab = Lab::new(&["edge-001"]);
    lab.certs_elsewhere("elsewhere");
    let output = run(Command::new(program("edgeveil-bridge"))
        .args(["certs", "device", "bridge", "--dir"])
        .arg(lab.path("elsewhere")));
    assert!(output.status.success(), "{}", stderr(&output));
    let cloud = Mosquitto::start(&lab, "cloud", LIMITS, ACL);
    let gate = Gate::open(&lab, &cloud);
    let stranger = |settings: &str| {
        let [_, cert, key] = lab.identity("devices", "bridge");
        let other = lab.path("elsewhere/devices/bridge");
        let file = |name: &str| other.join(name).to_str().unwrap().to_owned();
        settings.replace(&cert, &file("cert.pem")).replace(&key, &file("key.pem"))
    };
    let right = forward(&lab, gate.port, "");
    let cases = [
        (stranger(&right), "the server refuses the certificate in"),
        (
            right.replace("[forward.aws]", "[forward.aws]\ntopic = \"edgecloud/other\""),
            "let the certificate's policy allow iot:Publish on the topic",
        ),
        (
            right.replace(&format!("port = {}", gate.port), &format!("port = {}", free_port())),
            "Connection refused",
        ),
    ];
    let sensor = "[[sensor]]\ngroup = \"env\"\nsource = { simulate = {} }\nrate = 200\n";
    for (settings, said) in cases {
        let port = free_port();
        let bridge = lab.bridge("bridge", &lab.bridge_settings(port, &settings));
        let agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &format!("{PATIENT}{sensor}")));
        wait_for(said, || bridge.log().contains(said).then_some(()));
        // The reason stands with the oldest row too, for `outbox ls`.
        let list = wait_for("the reason in the outbox", || {
            let mut command = Command::new(program("edgeveil-bridge"));
            command.args(["outbox", "--config"]).arg(lab.path("bridge.toml"));
            let output = run(command.args(["ls", "--state", "open", "--limit", "1"]));
            let list = String::from_utf8_lossy(&output.stdout).into_owned();
            list.contains(said).then_some(list)
        });
        println!("{}", list.lines().next().unwrap_or_default());
        assert!(agent.stop().success());
        assert!(bridge.stop().success());
        let (done, open) = outbox(&lab.verify_now());
        assert!(done == 0 && open > 0, "{done} done, {open} open");
    }
    assert_eq!(gate.passed().broken, Vec::<String>::new());
}
