//! What stands near the agent: other people's sensors, by a real mosquitto to which they publish, and the board itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, Watcher, program, run, wait_for};
use edgeveil_wire::{Reading, Values};
use std::process::Command;

fn settings(lab: &Lab, port: u16, sensors: &str) -> String {
    let more = format!(
        "acknowledgement = \"broker\"\n[spool]\ncommit_interval = \"10 ms\"\nmin_free = \"0 B\"\n{sensors}"
    );
    lab.agent_settings("edge-001", port, &more)
}

fn shown(values: &Values) -> String {
    values.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// The rows that were published of a group, each once, in their order.
fn rows(watcher: &Watcher, group: &str) -> Vec<String> {
    let mut readings: Vec<_> = watcher
        .seen()
        .iter()
        .filter(|(topic, _)| topic.ends_with(&format!("/reading/{group}")))
        .map(|(_, payload)| Reading::from_json(payload.as_bytes()).unwrap())
        .collect();
    readings.sort_by_key(|reading| reading.stamp.seq);
    readings.dedup_by_key(|reading| reading.stamp.seq);
    readings.iter().map(|reading| shown(&reading.values)).collect()
}

/// A message to an agent that has only just begun to listen may be too early, so it is published until it is seen.
fn publish_until_seen(broker: &Mosquitto, watcher: &Watcher, group: &str, message: (&str, &str, &[&str])) {
    let (topic, payload, more) = message;
    wait_for("a row of a message", || {
        broker.publish(topic, payload, more);
        (!rows(watcher, group).is_empty()).then_some(())
    });
}

#[test]
fn messages_of_sensors_nearby_become_readings() {
    let lab = Lab::new(&["edge-001"]);
    let far = Mosquitto::start(&lab, "far", "", Mosquitto::ACL);
    let near = Mosquitto::start_plain(&lab, "near", "allow_anonymous true");
    let port = near.port;
    let sensors = format!(
        "[[sensor]]\ngroup = \"bench\"\nsource = {{ mqtt = \"localhost:{port}\" }}\nrate = 50\n\
         [[sensor]]\ngroup = \"plug\"\nsource = {{ mqtt = \"localhost:{port}\", topic = \"tele/+/SENSOR\" }}\n\
         [[sensor.value]]\nfrom = \"ENERGY_Power\"\nname = \"watt\"\nscale = 0.5\noffset = 1\n"
    );
    let watcher = Watcher::start(&lab, far.port, &["edgeveil/+/reading/+"]);
    // One that is kept by the broker may be of any age: it makes no row.
    near.publish("sensor/data", r#"{"sensor1": -1}"#, &["-r"]);
    let mut agent = lab.agent("agent", &settings(&lab, far.port, &sensors));

    let first = ("sensor/data", r#"{"timestamp": 1764144000.5, "sensor1": 20.25, "sensor2": 0.5}"#, &[][..]);
    publish_until_seen(&near, &watcher, "bench", first);
    let plug = ("tele/kitchen/SENSOR", r#"{"Time": "2026", "ENERGY": {"Power": 60, "Today": 1}}"#, &[][..]);
    publish_until_seen(&near, &watcher, "plug", plug);
    for i in 0..20 {
        near.publish("sensor/data", &format!(r#"{{"sensor1": {i}}}"#), &[]);
    }
    let bench = wait_for("all rows", || {
        agent.assert_running();
        let rows = rows(&watcher, "bench");
        rows.contains(&"sensor1=19".to_owned()).then_some(rows)
    });
    assert!(!bench.contains(&"sensor1=-1".to_owned()), "{bench:?}");
    assert_eq!(bench[0], "sensor1=20.25 sensor2=0.5");
    // None is lost, none doubled, none out of order.
    let expected: Vec<_> = (0..20).map(|i| format!("sensor1={i}")).collect();
    assert_eq!(bench[bench.len() - 20..], expected);
    assert_eq!(rows(&watcher, "plug")[0], "watt=31");
    assert!(agent.stop().success());
}

#[test]
fn a_broker_nearby_that_goes_is_told_and_comes_back() {
    let lab = Lab::new(&["edge-001"]);
    let far = Mosquitto::start(&lab, "far", "", Mosquitto::ACL);
    let mut near = Mosquitto::start_plain(&lab, "near", "allow_anonymous true");
    let sensors =
        format!("[[sensor]]\ngroup = \"bench\"\nsource = {{ mqtt = \"localhost:{}\" }}\n", near.port);
    let watcher = Watcher::start(&lab, far.port, &["edgeveil/+/reading/+", "edgeveil/+/event"]);
    let status = Watcher::start(&lab, far.port, &["edgeveil/+/status"]);
    let mut agent = lab.agent("agent", &settings(&lab, far.port, &sensors));
    publish_until_seen(&near, &watcher, "bench", ("sensor/data", r#"{"a": 1}"#, &[]));

    near.kill();
    let event = |kind: &str| {
        let kind = format!("\"event\":\"{kind}\"");
        watcher.seen().into_iter().find(|(_, payload)| payload.contains(&kind)).map(|(_, payload)| payload)
    };
    let lost = wait_for("word of the loss", || event("sensor-lost"));
    assert!(lost.contains(&format!("broker localhost:{}", near.port)), "{lost}");
    wait_for("the problem in the status", || {
        status
            .seen()
            .iter()
            .any(|(_, payload)| payload.contains("sensor bench: broker localhost"))
            .then_some(())
    });
    near.restart();
    wait_for("a row of the new connection", || {
        agent.assert_running();
        near.publish("sensor/data", r#"{"a": 2}"#, &[]);
        rows(&watcher, "bench").contains(&"a=2".to_owned()).then_some(())
    });
    wait_for("word of the return", || event("sensor-back"));
    assert!(agent.stop().success());
}

/// `check` on a source of this form: exit code and what it says.
fn check(lab: &Lab, far: u16, source: &str) -> (Option<i32>, String) {
    let sensors = format!("[[sensor]]\ngroup = \"bench\"\nsource = {{ {source} }}\n");
    let config = lab.write("check.toml", settings(lab, far, &sensors));
    let output = run(Command::new(program("edgeveil-agent")).arg("check").arg("--config").arg(config));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn passwords_and_certificates_of_a_broker_nearby_are_checked() {
    let lab = Lab::new(&["edge-001"]);
    let login = |name: &str, text: &str| lab.write(name, text).display().to_string();
    let passwords = lab.path("passwords");
    let made =
        run(Command::new("mosquitto_passwd").arg("-b").arg("-c").arg(&passwords).args(["anna", "secret"]));
    assert!(made.status.success());
    let near = Mosquitto::start_plain(
        &lab,
        "near",
        &format!("allow_anonymous false\npassword_file {}", passwords.display()),
    );
    let at = |more: &str| check(&lab, 1, &format!("mqtt = \"localhost:{}\"{more}", near.port));
    let (right, wrong) = (login("right", "anna:secret\n"), login("wrong", "anna:guess\n"));
    assert_eq!(at(&format!(", login = \"{right}\"")), (Some(0), String::new()));
    for more in [String::new(), format!(", login = \"{wrong}\"")] {
        let (code, said) = at(&more);
        assert!(code != Some(0) && said.contains("name it as `login`"), "{more}: {said}");
        assert!(!said.contains("guess"), "{said}");
    }

    // TLS, with the lab's CA and with another one.
    let [ca, cert, key] = lab.identity("brokers", "localhost");
    let tls = format!("allow_anonymous true\ncertfile {cert}\nkeyfile {key}");
    let near = Mosquitto::start_plain(&lab, "tls", &tls);
    let at = |ca: &str| check(&lab, 1, &format!("mqtt = \"localhost:{}\", ca = \"{ca}\"", near.port));
    assert_eq!(at(&ca), (Some(0), String::new()));
    lab.certs_elsewhere("other");
    let (code, said) = at(&lab.path("other/ca.pem").display().to_string());
    assert!(code != Some(0) && said.contains("cannot be trusted"), "{said}");
    // Nobody there.
    let (code, said) = check(&lab, 1, "mqtt = \"localhost:1\"");
    assert!(code != Some(0) && said.contains("broker localhost:1 cannot be reached"), "{said}");
}

#[test]
fn a_board_that_holds_its_processor_back_is_told() {
    let lab = Lab::new(&["edge-001"]);
    let far = Mosquitto::start(&lab, "far", "", Mosquitto::ACL);
    let firmware = "sys/devices/platform/soc/soc:firmware/get_throttled";
    // Under-voltage and throttling, now and before.
    lab.write(firmware, "50005\n");
    let sysfs = format!("sysfs = \"{}\"\n[link]", lab.path("sys").display());
    let text = settings(&lab, far.port, "[health]\ninterval = \"1 s\"\n").replace("[link]", &sysfs);
    let watcher = Watcher::start(&lab, far.port, &["edgeveil/+/event", "edgeveil/+/health"]);
    let status = Watcher::start(&lab, far.port, &["edgeveil/+/status"]);
    let mut agent = lab.agent("agent", &text);
    let event = |kind: &str| {
        let kind = format!("\"event\":\"{kind}\"");
        watcher.seen().into_iter().find(|(_, payload)| payload.contains(&kind)).map(|(_, payload)| payload)
    };
    let told = wait_for("word of it", || {
        agent.assert_running();
        event("board-throttled")
    });
    assert!(told.contains("supply is too weak") && told.contains("camera.throttled_fps"), "{told}");
    let problems = || status.seen().last().map(|(_, payload)| payload.clone()).unwrap_or_default();
    wait_for("the problem in the status", || {
        problems().contains("board: its supply is too weak").then_some(())
    });
    let health = |now: &str| {
        let throttling =
            format!("\"throttling\":{{\"now\":{now},\"since_boot\":[\"under_voltage\",\"throttled\"]}}");
        wait_for(&throttling, || {
            watcher.seen().iter().any(|(_, payload)| payload.contains(&throttling)).then_some(())
        });
    };
    health("[\"under_voltage\",\"throttled\"]");
    lab.write(firmware, "50000\n");
    wait_for("the end of it", || event("board-recovered"));
    wait_for("a status without it", || problems().contains("\"problems\":[]").then_some(()));
    health("[]");
    assert!(agent.stop().success());
}
