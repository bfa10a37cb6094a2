//! Processes are killed while records flow, and afterwards every number of every lane is in the catalog once.
//!
//! `EDGEVEIL_LONG=1` takes a minute of outage and twenty kills; without it the forms are short.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, PATIENT, Process, free_port, models, wait_for};
use std::{thread::sleep, time::Duration};

fn long() -> bool {
    std::env::var_os("EDGEVEIL_LONG").is_some()
}

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
    let [ca, cert, key] = lab.identity("devices", "bridge");
    let settings = format!(
        "data_dir = \"{}\"\n[mqtt]\nhost = \"localhost\"\nport = {port}\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n\
         client_id = \"bridge\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        lab.path("bridge").display()
    );
    let bridge = lab.bridge("bridge", &settings);
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
