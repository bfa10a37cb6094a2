//! Home Assistant's discovery, on a real mosquitto and on the embedded broker: what is told is retained, its topics carry what its
//! templates name, and what is gone is taken back. `tests/homeassistant` holds the same messages against Home Assistant's own code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{
    Lab, Mosquitto, PATIENT, Postgres, Process, Replica, Watcher, free_port, models, run, stderr, wait_for,
};
use edgeveil_wire::ImageMeta;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::Command,
};

/// What docs/homeassistant.md adds to mosquitto's access list.
const ACL: &str =
    "\nuser bridge\ntopic readwrite homeassistant/#\nuser watcher\ntopic readwrite homeassistant/#\n";
const BRIDGE: &str = "homeassistant/binary_sensor/edgeveil-bridge/bridge/config";
const STATE: &str = "homeassistant/edgeveil-bridge/bridge/state";

fn sources() -> String {
    format!(
        "{PATIENT}[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 100\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 1\n\
         [veil]\nmodel = \"{0}\"\n",
        models().display()
    )
}

fn config(component: &str, thing: &str) -> String {
    format!("homeassistant/{component}/edgeveil_edge-001/{thing}/config")
}

/// Says what Home Assistant says when it has started.
fn birth(lab: &Lab, port: u16) {
    let [ca, cert, key] = lab.identity("observers", "watcher");
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "localhost", "-p", &port.to_string(), "-i", "watcher:birth", "-q", "0"]);
    command.args(["--cafile", &ca, "--cert", &cert, "--key", &key]);
    let output = run(command.args(["-t", "homeassistant/status", "-m", "online"]));
    assert!(output.status.success(), "{}", stderr(&output));
}

/// What somebody who comes now is given at once.
fn retained(lab: &Lab, port: u16, more: &[&str]) -> BTreeMap<String, String> {
    let more = [&["-v", "--retained-only", "-W", "3", "-i", "watcher:look"], more].concat();
    let output = run(&mut Watcher::command(lab, port, &["homeassistant/#"], &more));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines().filter_map(|line| line.split_once(' ')).map(|(t, p)| (t.to_owned(), p.to_owned())).collect()
}

/// For `tests/homeassistant`, when it asks for it: messages, and the camera's picture beside them.
fn record(messages: impl IntoIterator<Item = (String, String)>, picture: &[u8]) {
    let Ok(path) = std::env::var("EDGEVEIL_HOMEASSISTANT_RECORD") else { return };
    fs::write(format!("{path}.jpg"), picture).unwrap();
    let mut file = fs::File::create(path).unwrap();
    messages.into_iter().for_each(|(topic, payload)| writeln!(file, "{topic} {payload}").unwrap());
}

fn no_warnings(bridge: &Process) {
    let log = bridge.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn what_is_told_is_there_and_goes_when_the_device_does() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "", &format!("{}{ACL}", Mosquitto::ACL));
    let port = broker.port;
    let settings =
        lab.bridge_settings_external(port, "[homeassistant]\nforget = \"10 s\"\noff_delay = \"5 s\"\n");
    let bridge = lab.bridge("bridge", &settings);
    let live = Watcher::start(&lab, port, &["homeassistant/#"]);
    let topics = ["edgeveil/+/status", "edgeveil/+/reading/+", "edgeveil/+/alert/+", "edgeveil/+/health"];
    let states = Watcher::start(&lab, port, &topics);
    let agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &sources()));

    let wanted = [
        BRIDGE.to_owned(),
        STATE.to_owned(),
        config("binary_sensor", "connectivity"),
        config("binary_sensor", "problem"),
        config("sensor", "reading_env_sensor1"),
        config("sensor", "reading_env_sensor2"),
        config("sensor", "score_env"),
        config("binary_sensor", "alert_env"),
        config("image", "image_desk"),
        config("binary_sensor", "camera_desk"),
        config("sensor", "health_backlog"),
        config("sensor", "health_dropped"),
        config("sensor", "health_disk"),
    ];
    wait_for("all of it", || {
        let seen = live.seen();
        wanted.iter().all(|topic| seen.iter().any(|(t, _)| t == topic)).then_some(())
    });
    let kept = retained(&lab, port, &[]);
    for topic in &wanted {
        assert!(kept.contains_key(topic), "{topic} is not retained: {:?}", kept.keys());
    }
    assert_eq!(kept[STATE], "online");

    let last = |topic: &str| states.seen().into_iter().rfind(|(t, _)| t == topic);
    wait_for("an alert, health and a camera's frames", || {
        let health: Value = serde_json::from_str(&last("edgeveil/edge-001/health")?.1).unwrap();
        (last("edgeveil/edge-001/alert/env").is_some() && health["cameras"]["desk"]["images"] != 0)
            .then_some(())
    });
    let told: Vec<(String, Value)> = kept
        .iter()
        .filter(|(topic, _)| topic.ends_with("/config"))
        .map(|(topic, payload)| (topic.clone(), serde_json::from_str(payload).unwrap()))
        .collect();
    for (topic, entity) in told.iter().filter(|(topic, _)| topic != BRIDGE) {
        assert_eq!(entity["device"]["identifiers"][0], "edgeveil_edge-001", "{topic}");
        assert_eq!(entity["device"]["via_device"], "edgeveil-bridge", "{topic}");
        assert_eq!(entity["device"]["sw_version"], env!("CARGO_PKG_VERSION"), "{topic}");
        let Some(state) = entity["state_topic"].as_str() else { continue };
        let (_, payload) = last(state).unwrap_or_else(|| panic!("{topic}: nothing on {state}"));
        let payload: Value = serde_json::from_str(&payload).unwrap();
        let template = entity["value_template"].as_str().unwrap();
        let named = template.split("value_json.get('").nth(1).and_then(|rest| rest.split('\'').next());
        assert!(payload.get(named.unwrap()).is_some(), "{topic}: {template}: {payload}");
        if topic.contains("/reading_") {
            assert!(payload[named.unwrap()].is_f64(), "{topic}: {payload}");
        }
    }
    let picture = run(&mut Watcher::command(
        &lab,
        port,
        &[told.iter().find_map(|(_, entity)| entity["image_topic"].as_str()).unwrap()],
        &["-C", "1", "-N", "-W", "60"],
    ));
    assert_eq!(ImageMeta::from_jpeg(&picture.stdout).unwrap().camera.as_str(), "desk");
    record(kept.clone().into_iter().chain(states.seen()), &picture.stdout);

    // When Home Assistant starts it is told again; nothing new is published otherwise.
    let times = || live.seen().iter().filter(|(topic, _)| topic == BRIDGE).count();
    let before = times();
    birth(&lab, port);
    wait_for("it again", || (times() > before).then_some(()));
    no_warnings(&bridge);

    // A bridge that stops says so, for one that is killed the broker does.
    let is = |state: &str| live.seen().iter().rfind(|(topic, _)| topic == STATE).unwrap().1 == state;
    assert!(bridge.stop().success());
    wait_for("its goodbye", || is("offline").then_some(()));
    let bridge = lab.bridge("bridge", &settings);
    wait_for("its return", || is("online").then_some(()));
    bridge.kill();
    wait_for("its last will", || is("offline").then_some(()));

    // What is gone is taken back, by a bridge that was not there when it was told.
    assert!(agent.stop().success());
    let bridge = lab.bridge("bridge", &settings);
    wait_for("nothing but the bridge", || {
        let kept = retained(&lab, port, &[]);
        (kept.keys().collect::<Vec<_>>() == [BRIDGE, STATE]).then_some(())
    });
    // And is told of when it comes back.
    let agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &sources()));
    wait_for("it again", || {
        retained(&lab, port, &[]).contains_key(&config("sensor", "reading_env_sensor1")).then_some(())
    });
    assert!(agent.stop().success());
    assert!(bridge.stop().success());
}

#[test]
fn the_embedded_broker_lets_an_observer_read_it_and_has_it_after_a_restart() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let settings = lab.bridge_settings(port, "[homeassistant]\n");
    let bridge = lab.bridge("bridge", &settings);
    let sensor = format!("{PATIENT}[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 20\n");
    let live = Watcher::start(&lab, port, &["homeassistant/#"]);
    let agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &sensor));
    let value = config("sensor", "reading_env_sensor1");
    wait_for("a value", || live.seen().iter().any(|(topic, _)| *topic == value).then_some(()));
    let bridge_config = "homeassistant/binary_sensor/edgeveil-bridge/edgeveil-bridge/config";
    let times = || live.seen().iter().filter(|(topic, _)| topic == bridge_config).count();
    let before = times();
    birth(&lab, port);
    wait_for("it again", || (times() > before).then_some(()));
    assert!(agent.stop().success());
    assert!(bridge.stop().success());

    // The broker's memory is new, the catalog is not. MQTT 3.1.1 is what Home Assistant speaks unless it is told otherwise.
    let bridge = lab.bridge("bridge", &settings);
    wait_for("the value without its device", || {
        let kept = retained(&lab, port, &["-V", "mqttv311"]);
        let state = kept.get("homeassistant/edgeveil-bridge/edgeveil-bridge/state");
        (kept.contains_key(&value) && state.is_some_and(|state| state == "online")).then_some(())
    });
    assert!(bridge.stop().success());
}

#[test]
fn two_replicas_tell_the_same_and_neither_brings_back_what_the_other_took_back() {
    let lab = Lab::new(&["edge-001"]);
    let postgres = Postgres::start(&lab);
    let broker = Mosquitto::start(&lab, "broker", "", &format!("{}{ACL}", Mosquitto::ACL));
    let port = broker.port;
    let [ca, cert, key] = lab.identity("devices", "bridge");
    let names = ["replica-0", "replica-1"];
    let shared = format!("{}[homeassistant]\nforget = \"10 s\"\n", postgres.bridge_section());
    let mut replicas = names.map(|name| {
        let source = format!(
            "[mqtt]\nhost = \"localhost\"\nport = {port}\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\nclient_id = \"{name}\"\n"
        );
        let mut replica = Replica::new(&lab, name, &source, &shared);
        replica.start(&lab);
        replica
    });
    let live = Watcher::start(&lab, port, &["homeassistant/#"]);
    let readings = Watcher::start(&lab, port, &["edgeveil/+/reading/+"]);
    let sensor = format!("{PATIENT}[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 20\n");
    let agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &sensor));

    let of_bridges = names.map(|name| format!("homeassistant/binary_sensor/edgeveil-bridge/{name}/config"));
    let states = names.map(|name| format!("homeassistant/edgeveil-bridge/{name}/state"));
    let times = |topic: &str| live.seen().iter().filter(|(seen, _)| seen == topic).count();
    let last = |topic: &str| live.seen().into_iter().rfind(|(seen, _)| seen == topic).map(|(_, said)| said);
    let all_again = || {
        let before = of_bridges.each_ref().map(|topic| times(topic));
        birth(&lab, port);
        wait_for("all of it from both", || {
            of_bridges.iter().zip(before).all(|(topic, before)| times(topic) > before).then_some(())
        });
    };
    // mosquitto gives a reading to the one or to the other, so each finds out by itself.
    let wanted = [
        config("binary_sensor", "connectivity"),
        config("sensor", "reading_env_sensor1"),
        config("sensor", "score_env"),
        config("binary_sensor", "alert_env"),
        config("sensor", "health_backlog"),
    ];
    wait_for("both to tell", || wanted.iter().all(|topic| times(topic) >= 2).then_some(()));
    all_again();

    // One is killed, and what the other still sees stays for longer than things are remembered.
    replicas[0].kill();
    wait_for("its last will", || (last(&states[0])? == "offline").then_some(()));
    let before = readings.seen().len();
    wait_for("15 s of readings", || (readings.seen().len() > before + 300).then_some(()));
    replicas[0].start(&lab);
    wait_for("its return", || (last(&states[0])? == "online").then_some(()));
    all_again();
    let mut payloads: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (topic, payload) in live.seen().into_iter().filter(|(topic, _)| topic.ends_with("/config")) {
        payloads.entry(topic).or_default().insert(payload);
    }
    for (topic, payloads) in &payloads {
        assert_eq!(payloads.len(), 1, "{topic} is not always the same, or was taken back: {payloads:?}");
    }
    let kept = retained(&lab, port, &[]);
    for topic in wanted.iter().chain(&of_bridges) {
        assert_eq!(Some(&kept[topic]), payloads[topic].first(), "{topic}");
    }

    // Home Assistant starts just when the first of them takes back what is gone.
    assert!(agent.stop().success());
    wait_for("the first to be taken back", || {
        live.seen().iter().any(|(topic, said)| topic.ends_with("/config") && said == "(null)").then_some(())
    });
    all_again();
    let expected: BTreeSet<_> = of_bridges.iter().chain(&states).cloned().collect();
    let left = || retained(&lab, port, &[]).into_keys().collect::<BTreeSet<_>>();
    wait_for("nothing but the bridges", || (left() == expected).then_some(()));
    all_again();
    assert_eq!(left(), expected, "and nothing comes back");

    let agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &sensor));
    wait_for("it again", || left().contains(&wanted[1]).then_some(()));
    assert!(agent.stop().success());
    for replica in &mut replicas {
        replica.stop();
    }
    for (name, state) in names.iter().zip(&states) {
        wait_for("its goodbye", || (last(state)? == "offline").then_some(()));
        let log = fs::read_to_string(lab.path(&format!("{name}.log"))).unwrap();
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    }
}
