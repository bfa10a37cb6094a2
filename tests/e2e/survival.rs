//! Processes are killed while records flow, and afterwards every number of every lane is in the catalog once.
//!
//! `EDGEVEIL_LONG=1` takes a minute of outage and twenty kills; without it the forms are short.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, PATIENT, Process, Watcher, free_port, long, models, wait_for};
use std::{thread::sleep, time::Duration};

fn sources() -> String {
    format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 200\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 10\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    )
}

fn wait_until_online(agent: &mut Process) {
    wait_for("the agent connected", || {
        agent.assert_running();
        agent.log().contains("connected").then_some(())
    });
}

#[test]
fn a_bridge_that_is_killed_misses_nothing() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let settings = lab.bridge_settings(port, "");
    let bridge = lab.bridge("bridge", &settings);
    let mut agent =
        lab.agent("agent", &lab.agent_settings("edge-001", port, &format!("{PATIENT}{}", sources())));
    wait_until_online(&mut agent);
    sleep(Duration::from_secs(3));
    bridge.kill();
    sleep(Duration::from_secs(if long() { 60 } else { 5 }));
    let bridge = lab.bridge("bridge", &settings);
    sleep(Duration::from_secs(3));
    agent.assert_running();
    assert!(agent.stop().success());
    lab.drain("edge-001", port);
    assert!(bridge.stop().success());
    println!("{}", lab.verify());
}

#[test]
fn an_agent_that_is_killed_leaves_no_gap_within_a_boot() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    let settings = lab.agent_settings("edge-001", port, &format!("{PATIENT}{}", sources()));
    for round in 0..if long() { 20 } else { 5 } {
        let mut agent = lab.agent("agent", &settings);
        // Between a start that has hardly begun and one that is in full flow.
        sleep(Duration::from_millis(300 + 997 * round % 2500));
        agent.assert_running();
        agent.kill();
    }
    lab.drain("edge-001", port);
    assert!(bridge.stop().success());
    println!("{}", lab.verify());
}

/// mosquitto forgets what it has acknowledged when it is killed; the device has it still, for the bridge has not said
/// that it is durable.
#[test]
fn a_mosquitto_that_is_killed_misses_nothing() {
    let lab = Lab::new(&["edge-001"]);
    let mut broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let port = broker.port;
    let bridge = lab.bridge("bridge", &lab.bridge_settings_external(port, ""));
    let mut agent =
        lab.agent("agent", &lab.agent_settings("edge-001", port, &format!("{PATIENT}{}", sources())));
    wait_until_online(&mut agent);
    for round in 0..if long() { 20 } else { 3 } {
        sleep(Duration::from_millis(1500 + 611 * round % 2000));
        broker.kill();
        sleep(Duration::from_millis(500));
        broker.restart();
    }
    agent.assert_running();
    assert!(agent.stop().success());
    lab.drain("edge-001", port);
    assert!(bridge.stop().success());
    println!("{}", lab.verify());
}

/// The broker is there and the bridge is not. Nobody pays for the same records again and again.
#[test]
fn a_bridge_that_is_away_is_not_met_by_a_storm() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let watcher = Watcher::start(&lab, broker.port, &["edgeveil/+/reading/+", "edgeveil/+/health"]);
    let settings = lab.agent_settings("edge-001", broker.port, &format!("{PATIENT}{}", sources()));
    let mut agent = lab.agent("agent", &settings.replace("ack_timeout = \"3 s\"", "ack_timeout = \"1 s\""));
    let mut health = |count: usize| {
        wait_for("some health", || {
            agent.assert_running();
            (watcher.seen().iter().filter(|(topic, _)| topic.ends_with("/health")).count() >= count)
                .then_some(())
        });
    };
    // One a second.
    health(20);
    let readings = || watcher.seen().iter().filter(|(topic, _)| topic.contains("/reading/")).count();
    let before = readings();
    health(35);
    let more = readings() - before;
    // The window has 200 places, and there were 3,000 readings meanwhile.
    println!("{before} readings were sent in 20 s, {more} in the next 15 s");
    assert!(before <= 450 && more <= 100, "{before}, {more}");
    let bridge = lab.bridge("bridge", &lab.bridge_settings_external(broker.port, ""));
    assert!(agent.stop().success());
    lab.drain("edge-001", broker.port);
    assert!(bridge.stop().success());
    println!("{}", lab.oracle(&[]));
}
