//! The link over its life: renewed certificates and a metered connection.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, PATIENT, Watcher, free_port, wait_for};

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
