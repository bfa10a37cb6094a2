//! Settings from afar, by the bridge's page: the device takes them, remembers them, refuses bad ones and says why, and gets those
//! that were wanted while it was away. With the embedded broker and with a real mosquitto.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, PATIENT, Process, Watcher, free_port, models, wait_for};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// An operator's browser.
struct Browser {
    port: u16,
    cookie: String,
    token: String,
}

impl Browser {
    fn new(port: u16) -> Self {
        wait_for("the page of a device that has told its settings", || {
            let page = ask(port, "GET", "/devices/edge-001", "", "")?;
            let (_, cookie) = page.split_once("set-cookie: ")?;
            let (_, token) = page.split_once("name=\"token\" value=\"")?;
            page.contains("sensor env: rate").then(|| Self {
                port,
                cookie: cookie.split(';').next().unwrap().to_owned(),
                token: token.split('"').next().unwrap().to_owned(),
            })
        })
    }

    fn page(&self) -> String {
        ask(self.port, "GET", "/devices/edge-001", &self.cookie, "").unwrap_or_default()
    }

    fn want(&self, settings: &str) {
        let form = format!("token={}&{settings}", self.token);
        let answer = ask(self.port, "POST", "/devices/edge-001/settings", &self.cookie, &form).unwrap();
        assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    }
}

fn ask(port: u16, method: &str, path: &str, cookie: &str, form: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// What the device tells of its settings.
fn reported(watcher: &Watcher) -> Option<Value> {
    let (_, json) = watcher.seen().pop()?;
    serde_json::from_str(&json).ok()
}

fn settings_from_afar(lab: &Lab, port: u16, bridge: Process, http: u16) {
    let sources = format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 50\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 2\nmasks = [[[0, 0], [0.2, 0], [0.2, 0.2]]]\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    );
    let settings = lab.agent_settings("edge-001", port, &format!("{PATIENT}{sources}"));
    let mut agent = lab.agent("agent", &settings);
    let browser = Browser::new(http);
    let watcher = Watcher::start(lab, port, &["edgeveil/edge-001/config/reported"]);
    let page = browser.page();
    assert!(page.contains("As in the device") && page.contains("camera desk: fps"), "{page}");
    assert!(!page.contains("masks:") && !page.contains("yunet.onnx"), "only what can be set is told");

    browser.want("sensor.env.rate=20&camera.desk.fps=1&health.interval=3+s");
    wait_for("what is wanted", || {
        agent.assert_running();
        browser.page().contains("What is wanted runs").then_some(())
    });
    let told =
        wait_for("what runs", || reported(&watcher).filter(|told| told["desired"]["state"] == "applied"));
    assert_eq!(
        (&told["settings"]["sensor"]["env"]["rate"], &told["settings"]["health"]["interval"]),
        (&20.0.into(), &"3 s".into())
    );
    assert_eq!(told["settings"]["camera"]["desk"]["fps"], 1.0);
    assert_eq!(agent.log().matches("starting anew with settings from afar").count(), 1);

    // A bad one is answered, and changes nothing.
    browser.want("sensor.env.rate=20&sensor.air.rate=1");
    wait_for("a refusal", || browser.page().contains("there is no such group").then_some(()));
    agent.assert_running();
    let told = reported(&watcher).unwrap();
    assert_eq!(
        (&told["desired"]["state"], &told["settings"]["sensor"]["env"]["rate"]),
        (&"refused".into(), &20.0.into())
    );
    assert_eq!(agent.log().matches("starting anew with settings from afar").count(), 1);

    // What runs outlives the process, and a wish from meanwhile arrives.
    agent.kill();
    browser.want("sensor.env.rate=30");
    let mut agent = lab.agent("again", &settings);
    wait_for("what was wanted meanwhile", || {
        agent.assert_running();
        let told = reported(&watcher)?;
        (told["settings"]["sensor"]["env"]["rate"] == 30.0 && told["desired"]["state"] == "applied")
            .then_some(())
    });
    let told = reported(&watcher).unwrap();
    assert_eq!(told["settings"]["camera"]["desk"]["fps"], 2.0, "as in the file again");
    assert!(agent.stop().success());
    let agent = lab.agent("third", &settings);
    wait_for("the same after a start", || {
        let told = reported(&watcher)?;
        let log = agent.log();
        (log.contains(" connected ") && told["settings"]["sensor"]["env"]["rate"] == 30.0).then_some(())
    });
    browser.want("");
    wait_for("the device's own file", || {
        let told = reported(&watcher)?;
        (told["settings"]["sensor"]["env"]["rate"] == 50.0).then_some(())
    });
    assert!(agent.stop().success());
    lab.drain("edge-001", port);
    assert!(bridge.stop().success());
    println!("{}", lab.verify());
}

fn with_pages(settings: &str) -> (String, u16) {
    let http = free_port();
    (
        settings
            .replace("[http]\nlisten = \"127.0.0.1:0\"", &format!("[http]\nlisten = \"127.0.0.1:{http}\"")),
        http,
    )
}

#[test]
fn a_device_takes_settings_by_the_embedded_broker() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let (settings, http) = with_pages(&lab.bridge_settings(port, ""));
    let bridge = lab.bridge("bridge", &settings);
    settings_from_afar(&lab, port, bridge, http);
}

#[test]
fn a_device_takes_settings_by_mosquitto() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let (settings, http) = with_pages(&lab.bridge_settings_external(broker.port, ""));
    let bridge = lab.bridge("bridge", &settings);
    settings_from_afar(&lab, broker.port, bridge, http);
}

/// Where the access list does not let it hear of settings, or its own say so, the device works on. mosquitto grants such a subscription and
/// sends nothing for it.
#[test]
fn a_device_that_hears_nothing_works_on() {
    let lab = Lab::new(&["edge-001"]);
    let acl = Mosquitto::ACL.replace("pattern read edgeveil/%u/config/#\n", "");
    assert!(acl.len() < Mosquitto::ACL.len());
    let broker = Mosquitto::start(&lab, "broker", "", &acl);
    let (settings, http) = with_pages(&lab.bridge_settings_external(broker.port, ""));
    let bridge = lab.bridge("bridge", &settings);
    let sensor = format!("{PATIENT}[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 50\n");
    let agent = lab.agent("agent", &lab.agent_settings("edge-001", broker.port, &sensor));
    let browser = Browser::new(http);
    browser.want("sensor.env.rate=20");
    let before = lab.stored().len();
    wait_for("records", || (lab.stored().len() > before + 100).then_some(()));
    assert!(browser.page().contains("Not answered yet"), "{}", browser.page());
    assert_eq!(agent.log().matches(" connected ").count(), 1);
    assert!(agent.stop().success());

    let quiet = sensor.replacen("ack_timeout", "remote_settings = false\nack_timeout", 1);
    let agent = lab.agent("quiet", &lab.agent_settings("edge-001", broker.port, &quiet));
    let before = lab.stored().len();
    wait_for("records", || (lab.stored().len() > before + 100).then_some(()));
    assert!(agent.stop().success());
    let log = broker.log();
    let told =
        |line: &&str| line.contains("Received PUBLISH from edge-001") && line.contains("config/reported");
    assert_eq!(log.lines().filter(told).count(), 1, "by the first agent alone");
    lab.drain("edge-001", broker.port);
    assert!(bridge.stop().success());
    println!("{}", lab.verify());
}
