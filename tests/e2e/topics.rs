//! What a person with mosquitto's own client sees of an agent, on a real mosquitto with mutual TLS and an access list.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, Watcher, models, run, wait_for};
use edgeveil_wire::{ImageMeta, Reading, Status};
use std::{collections::BTreeSet, path::PathBuf};

fn schema(kind: &str) -> jsonschema::Validator {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../wire/schemas/{kind}.schema.json"));
    let schema: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

fn sources() -> String {
    format!(
        "acknowledgement = \"broker\"\n[spool]\ncommit_interval = \"100 ms\"\nmin_free = \"0 B\"\n[health]\ninterval = \"1 s\"\n\
         [[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 200\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 5\n\
         [veil]\nmodel = \"{0}\"\n",
        models().display()
    )
}

#[test]
fn mosquitto_sub_shows_what_the_documentation_says() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let port = broker.port;
    let json = Watcher::start(
        &lab,
        port,
        &["edgeveil/+/reading/+", "edgeveil/+/alert/+", "edgeveil/+/health", "edgeveil/+/event"],
    );
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &sources()));

    let seen = wait_for("a reading with a score, an alert, an event and health with an image", || {
        agent.assert_running();
        let seen = json.seen();
        let has = |topic: &str, text: &str| seen.iter().any(|(t, p)| t == topic && p.contains(text));
        (has("edgeveil/edge-001/reading/env", "\"score\"")
            && has("edgeveil/edge-001/alert/env", "\"contributions\"")
            && has("edgeveil/edge-001/event", "\"started\"")
            && has("edgeveil/edge-001/health", "\"desk\""))
        .then_some(seen)
    });
    for (topic, payload) in &seen {
        let kind = topic.split('/').nth(2).unwrap();
        let value = serde_json::from_str(payload).unwrap();
        if let Err(error) = schema(kind).validate(&value) {
            panic!("{topic}: {error}: {payload}");
        }
    }
    // Delivered live, a lane's numbers come without a gap from 0.
    let numbers: Vec<u64> = seen
        .iter()
        .filter(|(topic, _)| topic.ends_with("/reading/env"))
        .map(|(_, payload)| Reading::from_json(payload.as_bytes()).unwrap().stamp.seq)
        .collect();
    let distinct: BTreeSet<_> = numbers.iter().copied().collect();
    assert_eq!(distinct.iter().copied().collect::<Vec<_>>(), (0..distinct.len() as u64).collect::<Vec<_>>());

    // Whoever comes later learns at once that the device is there.
    let status = run(&mut Watcher::command(&lab, port, &["edgeveil/+/status"], &["-C", "1", "-W", "60"]));
    let status = Status::from_json(status.stdout.trim_ascii()).unwrap();
    assert_eq!(status.state, edgeveil_wire::DeviceState::Online);
    assert_eq!(status.problems, Vec::<String>::new());

    // A picture is a file.
    let picture =
        run(&mut Watcher::command(&lab, port, &["edgeveil/+/image/+"], &["-C", "1", "-N", "-W", "60"]));
    let meta = ImageMeta::from_jpeg(&picture.stdout).unwrap();
    assert_eq!((meta.device.as_str(), meta.camera.as_str()), ("edge-001", "desk"));
    assert!(meta.faces >= 1);
    let decoded = image::load_from_memory(&picture.stdout).unwrap();
    assert_eq!((decoded.width(), decoded.height()), (512, 512));

    // A goodbye is no death, and a death is noticed.
    let retained = |state: &str| {
        let state = format!("\"state\":\"{state}\"");
        wait_for(&state, || {
            let status =
                run(&mut Watcher::command(&lab, port, &["edgeveil/+/status"], &["-C", "1", "-W", "60"]));
            String::from_utf8_lossy(&status.stdout).contains(&state).then_some(())
        });
    };
    let log = agent.log();
    assert!(agent.stop().success());
    retained("stopped");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "normal operation warns of nothing:\n{log}");
    let agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &sources()));
    retained("online");
    agent.kill();
    retained("offline");
}

#[test]
fn a_device_cannot_write_below_another_name() {
    let lab = Lab::new(&["edge-001", "edge-002"]);
    let acl = "pattern write edgeveil/%u/status\npattern read edgeveil/%u/ack\nuser watcher\ntopic read #\n";
    let broker = Mosquitto::start(&lab, "broker", "", acl);
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", broker.port, &sources()));
    let watcher = Watcher::start(&lab, broker.port, &["edgeveil/+/status"]);
    // MQTT 5 tells the refusal, so the agent keeps its records and says what is wrong.
    wait_for("the refusal in the status", || {
        agent.assert_running();
        watcher.seen().iter().any(|(_, status)| status.contains("the broker refuses ")).then_some(())
    });
}
