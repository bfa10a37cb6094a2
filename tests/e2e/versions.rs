//! Brokers that speak only MQTT 3.1.1, whose PUBACK says nothing: what is promised holds all the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{
    Dice, Lab, Mosquitto, PATIENT, Process, Watcher, models, program, run, stderr, wait_for,
};
use std::{fs, process::Command, thread::sleep, time::Duration};

const OLD: &str = "mqtt_version = \"3.1.1\"\n";
const SENSOR: &str = "[[sensor]]\ngroup = \"env\"\nsource = { simulate = {} }\nrate = 50\n";

fn camera() -> String {
    format!(
        "[[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 2\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    )
}

/// The agent with what goes on after its link, and the same settings once more for what it has left over.
fn agent(lab: &Lab, port: u16, more: &str) -> Process {
    lab.agent("agent", &lab.agent_settings("edge-001", port, &format!("{OLD}{more}")))
}

/// Stops the agent, sends what it still has, and counts.
fn account(lab: &Lab, port: u16, running: Process, bridge: Process) {
    let ended = running.stop();
    assert!(ended.success(), "{ended}");
    let watcher = Watcher::start(lab, port, &["edgeveil/edge-001/health"]);
    let mut drain = agent(lab, port, PATIENT);
    wait_for("an empty spool", || {
        drain.assert_running();
        let (_, health) = watcher.seen().pop()?;
        let health: serde_json::Value = serde_json::from_str(&health).unwrap();
        health["spool"].as_object()?.values().all(|lane| lane["records"] == 0).then_some(())
    });
    assert!(drain.stop().success());
    assert!(bridge.stop().success());
    println!("{}", lab.oracle(&[]));
    println!("{}", lab.verify());
}

#[test]
fn a_broker_that_is_killed_again_and_again_loses_nothing() {
    let seed = Dice::seed(311);
    println!("EDGEVEIL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let lab = Lab::new(&["edge-001"]);
    let mut broker = Mosquitto::start(&lab, "broker", "autosave_interval 2\n", Mosquitto::ACL);
    let bridge = lab.bridge("bridge", &lab.bridge_settings_external(broker.port, ""));
    let mut agent = agent(&lab, broker.port, &format!("{PATIENT}{SENSOR}{}", camera()));
    let connected = |agent: &mut Process, times: usize| {
        wait_for(&format!("connection {times}"), || {
            agent.assert_running();
            (agent.log().matches(" connected ").count() >= times).then_some(())
        });
    };
    for round in 1..=6 {
        connected(&mut agent, round);
        sleep(Duration::from_millis(500 + dice.below(2000)));
        if round % 3 == 0 {
            broker.stop()
        } else {
            broker.kill()
        }
        sleep(Duration::from_millis(dice.below(500)));
        broker.restart();
    }
    connected(&mut agent, 7);
    // p2 is mosquitto's word for 3.1.1, c0 for a session that is kept.
    let mut spoken = broker.log();
    spoken.retain(|c| c != '\0');
    assert!(spoken.contains("as edge-001 (p2, c0,") && !spoken.contains("as edge-001 (p5"), "{spoken}");
    let watcher = Watcher::start(&lab, broker.port, &["edgeveil/+/alert/+", "edgeveil/+/image/+"]);
    for kind in ["/alert/", "/image/"] {
        wait_for(kind, || watcher.seen().iter().any(|(topic, _)| topic.contains(kind)).then_some(()));
    }
    account(&lab, broker.port, agent, bridge);
}

#[test]
fn presence_is_told_as_with_mqtt_5() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let bridge = lab.bridge("bridge", &lab.bridge_settings_external(broker.port, ""));
    let retained = |state: &str| {
        let state = format!("\"state\":\"{state}\"");
        wait_for(&state, || {
            let mut status =
                Watcher::command(&lab, broker.port, &["edgeveil/+/status"], &["-C", "1", "-W", "60"]);
            String::from_utf8_lossy(&run(&mut status).stdout).contains(&state).then_some(())
        });
    };
    let running = agent(&lab, broker.port, PATIENT);
    retained("online");
    running.kill();
    retained("offline");
    let mut running = agent(&lab, broker.port, &format!("{PATIENT}{SENSOR}"));
    retained("online");
    // A certificate that is exchanged: a goodbye, and no last will.
    let watcher = Watcher::start(&lab, broker.port, &["edgeveil/edge-001/status"]);
    lab.certs(&["device", "edge-001", "--force"]);
    wait_for("the connection with the new one", || {
        running.assert_running();
        running.log().contains("connecting with the new ones").then_some(())
    });
    retained("online");
    let told = watcher.seen();
    assert!(!told.iter().any(|(_, status)| status.contains("\"offline\"")), "{told:?}");
    let log = running.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "normal operation warns of nothing:\n{log}");
    account(&lab, broker.port, running, bridge);
    retained("stopped");
}

/// mosquitto answers what its ACL denies, and what is too large for it, with a PUBACK like any other. The bridge does not.
#[test]
fn what_the_broker_throws_away_stays_on_disk() {
    let lab = Lab::new(&["edge-001"]);
    let denied = "pattern read edgeveil/%u/ack\npattern write edgeveil/%u/status\npattern write edgeveil/%u/reading/+\n\
                  user bridge\ntopic read edgeveil/#\ntopic write edgeveil/+/ack\nuser watcher\ntopic read #\n";
    let strict = Mosquitto::start(&lab, "strict", "max_queued_messages 1000", denied);
    let strict_bridge = lab.bridge("bridge", &lab.bridge_settings_external(strict.port, ""));
    let mut running = agent(&lab, strict.port, &format!("{PATIENT}{SENSOR}{}", camera()));
    let watcher = Watcher::start(&lab, strict.port, &["edgeveil/+/status", "edgeveil/+/reading/+"]);
    wait_for("the records that wait, in the status", || {
        running.assert_running();
        let told =
            |status: &str| status.contains("they wait on disk") && status.contains("MQTT 3.1.1 does not say");
        watcher.seen().iter().any(|(_, status)| told(status)).then_some(())
    });
    let before = watcher.seen().len();
    wait_for("readings all the same", || (watcher.seen().len() > before + 200).then_some(()));
    let connections = |running: &Process| running.log().matches(" connected ").count();
    let so_far = connections(&running);
    assert!(running.stop().success());
    assert!(strict_bridge.stop().success());
    drop(strict);
    // They arrive with a broker that takes them.
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let bridge = lab.bridge("bridge", &lab.bridge_settings_external(broker.port, ""));
    let mut running = agent(&lab, broker.port, PATIENT);
    // One that has just begun would not hear that it has to stop.
    wait_for("its connection", || {
        running.assert_running();
        (connections(&running) > so_far).then_some(())
    });
    account(&lab, broker.port, running, bridge);
    assert!(lab.stored().len() > 200);
}

/// A broker of 3.1.1 does not say what it takes: the settings do.
#[test]
fn what_is_larger_than_the_bound_of_the_settings_is_set_aside() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "max_packet_size 20000", Mosquitto::ACL);
    let watcher = Watcher::start(&lab, broker.port, &["edgeveil/+/reading/+", "edgeveil/+/status"]);
    let bridge = lab.bridge("bridge", &lab.bridge_settings_external(broker.port, ""));
    let settings = format!("max_packet = \"20 kB\"\n{PATIENT}{SENSOR}{}", camera());
    let mut running = agent(&lab, broker.port, &settings);
    wait_for("the bound in the status", || {
        running.assert_running();
        let told = |status: &str| status.contains("image/desk") && status.contains("bytes are more than");
        watcher.seen().iter().any(|(_, status)| told(status)).then_some(())
    });
    let before = watcher.seen().len();
    wait_for("more readings", || {
        running.assert_running();
        (watcher.seen().len() > before + 200).then_some(())
    });
    let log = running.log();
    assert_eq!(log.matches(" connected ").count(), 1, "{log}");
    assert!(running.stop().success());
    assert!(bridge.stop().success());
}

#[test]
fn who_believes_the_broker_is_warned() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let blind = "acknowledgement = \"broker\"\n";
    let mut running = agent(&lab, broker.port, &format!("{blind}{PATIENT}{SENSOR}"));
    wait_for("the warning", || {
        running.assert_running();
        running.log().lines().any(|line| line.contains("WARN") && line.contains("3.1.1")).then_some(())
    });
    assert!(running.stop().success());

    let doctor = |more: &str| {
        let config =
            lab.write("doctor.toml", lab.agent_settings("edge-001", broker.port, &format!("{OLD}{more}")));
        fs::create_dir_all(lab.path("agent-edge-001")).unwrap();
        let output = run(Command::new(program("edgeveil-agent")).arg("doctor").arg("--config").arg(config));
        String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
    };
    let said = doctor(&format!("{blind}[spool]\nmin_free = \"0 B\"\n"));
    assert!(said.contains("warn  broker's answers") && said.contains("counts as delivered"), "{said}");
    let said = doctor("[spool]\nmin_free = \"0 B\"\n");
    assert!(said.contains("ok    broker's ACL") && !said.contains("broker's answers"), "{said}");
    assert!(said.contains(" 0 failed"), "{said}");
}
