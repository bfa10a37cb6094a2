//! Processes are killed while records flow, and afterwards every number of every lane is in the catalog once.
//!
//! `EDGEVEIL_LONG=1` takes a minute of outage and twenty kills; without it the forms are short.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Process, Watcher, free_port, models, program, run, stderr, wait_for};
use std::{process::Command, thread::sleep, time::Duration};

fn long() -> bool {
    std::env::var_os("EDGEVEIL_LONG").is_some()
}

fn bridge_settings(lab: &Lab, port: u16, more: &str) -> String {
    let [ca, cert, key] = lab.identity("brokers", "localhost");
    format!(
        "data_dir = \"{}\"\n[broker]\nlisten = \"127.0.0.1:{port}\"\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n{more}",
        lab.path("bridge").display()
    )
}

const LINK: &str = "ack_timeout = \"3 s\"\n[spool]\ncommit_interval = \"100 ms\"\nmin_free = \"0 B\"\n[health]\ninterval = \"1 s\"\n";

fn sources() -> String {
    format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 200\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 10\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    )
}

/// Runs an agent without sources until its spool is empty, so that all that was kept has arrived.
fn drain(lab: &Lab, port: u16) {
    let agent = lab.agent("drain", &lab.agent_settings("edge-001", port, LINK));
    let watcher = Watcher::start(lab, port, &["edgeveil/edge-001/health"]);
    wait_for("an empty spool", || {
        let (_, health) = watcher.seen().pop()?;
        let health: serde_json::Value = serde_json::from_str(&health).unwrap();
        let lanes = health["spool"].as_object()?.clone();
        lanes.values().all(|lane| lane["records"] == 0).then_some(())
    });
    assert!(agent.stop().success());
}

/// `edgeveil-bridge verify --gapless`: no gap, no double, no row without its object and no object without its row.
fn verify(lab: &Lab) -> String {
    let output = run(Command::new(program("edgeveil-bridge"))
        .args(["verify", "--gapless", "--config"])
        .arg(lab.path("bridge.toml")));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", stderr(&output));
    said
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
    let settings = bridge_settings(&lab, port, "");
    let bridge = lab.bridge("bridge", &settings);
    let mut agent =
        lab.agent("agent", &lab.agent_settings("edge-001", port, &format!("{LINK}{}", sources())));
    wait_until_online(&mut agent);
    sleep(Duration::from_secs(3));
    bridge.kill();
    sleep(Duration::from_secs(if long() { 60 } else { 5 }));
    let bridge = lab.bridge("bridge", &settings);
    sleep(Duration::from_secs(3));
    agent.assert_running();
    assert!(agent.stop().success());
    drain(&lab, port);
    assert!(bridge.stop().success());
    println!("{}", verify(&lab));
}

#[test]
fn an_agent_that_is_killed_leaves_no_gap_within_a_boot() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let bridge = lab.bridge("bridge", &bridge_settings(&lab, port, ""));
    let settings = lab.agent_settings("edge-001", port, &format!("{LINK}{}", sources()));
    for round in 0..if long() { 20 } else { 5 } {
        let mut agent = lab.agent("agent", &settings);
        // Between a start that has hardly begun and one that is in full flow.
        sleep(Duration::from_millis(300 + 997 * round % 2500));
        agent.assert_running();
        agent.kill();
    }
    drain(&lab, port);
    assert!(bridge.stop().success());
    println!("{}", verify(&lab));
}
