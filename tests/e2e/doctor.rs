//! `edgeveil-agent doctor` on a set-up that is right, and on ones that are not: each fault is named, and its remedy.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, free_port, models, program, run};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

/// Everything in place: a broker with its access list, models, a camera, a sensor.
struct SetUp {
    lab: Lab,
    broker: Mosquitto,
    settings: String,
}

impl SetUp {
    fn new() -> Self {
        let lab = Lab::new(&["edge-001", "edge-002"]);
        let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
        lab.write("sys/bus/w1/devices/28-1/temperature", "21500\n");
        lab.write("models/centerface.onnx", fs::read(models().join("centerface.onnx")).unwrap());
        lab.write("models/yunet.onnx", fs::read(models().join("yunet.onnx")).unwrap());
        lab.write("login", "anna:secret\n");
        fs::create_dir(lab.path("agent-edge-001")).unwrap();
        let settings = lab.agent_settings("edge-001", broker.port, "");
        // `device` is the first table.
        let settings =
            settings.replace("[link]", &format!("sysfs = \"{}\"\n[link]", lab.path("sys").display()));
        let settings = format!(
            "{settings}[spool]\nmax_bytes = \"8 MiB\"\nmin_free = \"1 MiB\"\n[veil]\nmodel = \"{}\"\n\
             [[camera]]\nname = \"door\"\nsource = {{ command = [{}] }}\n\
             [[sensor]]\ngroup = \"room\"\nsource = {{ w1 = \"28-1\" }}\n",
            lab.path("models").display(),
            "ffmpeg -v error -f lavfi -i testsrc=size=320x240:rate=10 -c:v mjpeg -f mjpeg -"
                .split_whitespace()
                .map(|word| format!("{word:?}"))
                .collect::<Vec<_>>()
                .join(", "),
        );
        let set_up = Self { lab, broker, settings };
        for secret in [set_up.lab.path("login"), set_up.lab.path("agent-edge-001")] {
            only_for_its_user(&secret);
        }
        set_up
    }

    fn doctor(&self, settings: &str, json: &[&str]) -> (Option<i32>, String) {
        let config = self.lab.write("doctor.toml", settings);
        let output =
            run(Command::new(program("edgeveil-agent")).arg("doctor").args(json).arg("--config").arg(config));
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Exit code, and what is wrong: `verdict check: what; remedy`.
    fn findings(&self, settings: &str) -> (Option<i32>, Vec<String>) {
        let (code, said) = self.doctor(settings, &["--json"]);
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(report["schema"], "edgeveil.doctor/1");
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let findings = report["findings"].as_array().unwrap();
        let line = |finding: &Value| {
            let [verdict, check, said, remedy] =
                ["verdict", "check", "said", "remedy"].map(|key| text(finding, key));
            assert!(verdict == "ok" || !remedy.is_empty(), "{check}: {said} has no remedy");
            format!("{verdict} {check}: {said}; {remedy}")
        };
        let wrong = findings.iter().map(line).filter(|line| !line.starts_with("ok ")).collect();
        (code, wrong)
    }
}

fn only_for_its_user(path: &Path) {
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn openssl(arguments: &[&str]) {
    let status = Command::new("openssl").args(arguments).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "openssl {arguments:?}");
}

/// A certificate of the lab, signed anew by its CA for so many days from now on, with these extensions.
fn sign(set_up: &SetUp, kind: &str, name: &str, days: &str, extensions: &str) {
    let [ca, cert, key] = set_up.lab.identity(kind, name);
    let request = set_up.lab.path("request.pem");
    let request = request.to_str().unwrap();
    openssl(&["req", "-new", "-key", &key, "-subj", &format!("/CN={name}"), "-out", request]);
    let extensions = set_up.lab.write("request.ext", extensions);
    let ca_key = ca.replace("ca.pem", "ca.key");
    openssl(&[
        "x509",
        "-req",
        "-in",
        request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        days,
        "-sha256",
        "-extfile",
        extensions.to_str().unwrap(),
        "-out",
        &cert,
    ]);
}

#[test]
fn a_set_up_that_is_right_is_well() {
    let set_up = SetUp::new();
    let (code, said) = set_up.doctor(&set_up.settings, &[]);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "ok    settings",
        "ok    certificate",
        "ok    broker ",
        "ok    broker's ACL       lets edge-001 write below edgeveil/edge-001/ and nowhere else, and to read its acknowledgements",
        "ok    disk",
        "ok    models",
        "ok    camera door        320x240",
        "ok    sensor room        temperature 21.5 °C",
    ] {
        assert!(said.contains(line), "no `{line}` in:\n{said}");
    }
    assert!(said.ends_with(" 0 failed\n"), "{said}");
}

/// A fault that is put into a set-up that is right: gives the settings to look at.
type Fault = fn(&mut SetUp) -> String;

/// What it is, how it is made, the exit code, and what one line has to hold.
const FAULTS: &[(&str, Fault, i32, &[&str])] = &[
    (
        "a wrong key in the settings",
        |s| s.settings.replace("min_free", "minfree"),
        64,
        &["fail settings", "spool.minfree: is not known here", "known are: max_bytes"],
    ),
    (
        "no certificate",
        |s| s.settings.replace("devices/edge-001/cert.pem", "devices/edge-001/none.pem"),
        1,
        &["fail certificate", "none.pem", "edgeveil-bridge certs device"],
    ),
    (
        "the key of another device",
        |s| s.settings.replace("devices/edge-001/key.pem", "devices/edge-002/key.pem"),
        1,
        &["fail certificate", "does not fit", "edgeveil-bridge certs device"],
    ),
    (
        "another name",
        |s| s.settings.replace("[device]", "[device]\nname = \"edge-002\""),
        1,
        &["fail certificate", "made out to edge-001, but device.name is edge-002", "leave device.name out"],
    ),
    (
        "a certificate that ends soon",
        |s| {
            sign(s, "devices", "edge-001", "3", "extendedKeyUsage=clientAuth\n");
            s.settings.clone()
        },
        0,
        &["warn certificate", "2 days left", "certs device edge-001 --force"],
    ),
    (
        "a broker of another CA",
        |s| {
            s.lab.certs_elsewhere("other");
            s.settings.replace("certs/ca.pem", "other/ca.pem")
        },
        1,
        &["fail broker", "not signed by link.ca", "put the CA that signed it there"],
    ),
    (
        "a broker under another name",
        |s| {
            sign(s, "brokers", "localhost", "3", "subjectAltName=DNS:broker.example\n");
            s.broker.stop();
            s.broker.restart();
            s.settings.clone()
        },
        1,
        &["fail broker", "not made out to localhost", "set link.host to a name in it"],
    ),
    (
        "no broker",
        |s| {
            s.broker.stop();
            s.settings.clone()
        },
        1,
        &["fail broker", "nothing listens there", "look at the network"],
    ),
    (
        "an access list that lets the device write nothing",
        |s| {
            s.broker = Mosquitto::start(&s.lab, "strict", "", "pattern read edgeveil/%u/ack\n");
            with_port(s)
        },
        1,
        &[
            "fail broker's ACL",
            "edge-001 publishes on edgeveil/edge-001/health",
            "let it write below edgeveil/edge-001/",
        ],
    ),
    (
        "an access list that lets the device read no acknowledgements",
        |s| {
            s.broker = Mosquitto::start(&s.lab, "deaf", "", "pattern write edgeveil/%u/#\n");
            with_port(s)
        },
        1,
        &["fail broker's ACL", "does not let edge-001 read edgeveil/edge-001/ack", "certs/mosquitto.acl"],
    ),
    (
        "an access list that lets everybody write everywhere",
        |s| {
            s.broker = Mosquitto::start(&s.lab, "open", "", "topic readwrite #\npattern readwrite #\n");
            with_port(s)
        },
        0,
        &["warn broker's ACL", "other devices' names", "use_identity_as_username"],
    ),
    (
        "a damaged model",
        |s| {
            let model = s.lab.path("models/yunet.onnx");
            let mut bytes = fs::read(&model).unwrap();
            bytes[1000] ^= 1;
            fs::write(&model, bytes).unwrap();
            s.settings.clone()
        },
        1,
        &["fail models", "yunet.onnx", "fetch-models"],
    ),
    (
        "a data folder that is a file",
        |s| {
            fs::remove_dir_all(s.lab.path("agent-edge-001")).unwrap();
            s.lab.write("agent-edge-001", "");
            s.settings.clone()
        },
        1,
        &["fail disk", "device.data_dir", "make it writable"],
    ),
    (
        "a disk without room",
        |s| s.settings.replace("min_free = \"1 MiB\"", "min_free = \"900 TiB\""),
        1,
        &["fail disk", "spool.min_free", "free some space"],
    ),
    (
        "a camera's program that is not there",
        |s| s.settings.replace("\"ffmpeg\"", "\"rpicam-vid-none\""),
        1,
        &["fail camera door", "cannot start `rpicam-vid-none`", "install it"],
    ),
    (
        "a camera's program that fails",
        |s| s.settings.replace("testsrc=", "nosuchfilter="),
        1,
        &["fail camera door", "ended (exit status", "nosuchfilter", "docs/cameras.md"],
    ),
    (
        "a thermometer that is not there",
        |s| s.settings.replace("28-1", "28-2"),
        1,
        &["fail sensor room", "no 1-wire device `28-2`", "there is: 28-1"],
    ),
    (
        "a key that everybody may read",
        |s| {
            let [_, _, key] = s.lab.identity("devices", "edge-001");
            fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
            s.settings.clone()
        },
        0,
        &["warn permissions", "everybody may read", "key.pem", "chmod o="],
    ),
];

fn with_port(set_up: &SetUp) -> String {
    let line = set_up.settings.lines().find(|line| line.starts_with("port = ")).unwrap();
    set_up.settings.replace(line, &format!("port = {}", set_up.broker.port))
}

#[test]
fn each_fault_is_named_with_its_remedy() {
    let mut missed = Vec::new();
    for (what, fault, code, expected) in FAULTS {
        let mut set_up = SetUp::new();
        let settings = fault(&mut set_up);
        let (found_code, wrong) = set_up.findings(&settings);
        let names = |line: &&String| expected.iter().all(|text| line.contains(text));
        if found_code != Some(*code) || !wrong.iter().any(|line| names(&line)) {
            missed.push(format!("{what}: no line with {expected:?}, code {found_code:?}: {wrong:#?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn without_settings_there_is_a_word_too() {
    let output =
        run(Command::new(program("edgeveil-agent")).args(["doctor", "--config", "/nonexistent.toml"]));
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("/nonexistent.toml") && said.contains("--config"), "{said}");
    // A port that is free: nothing is asked of the network.
    let set_up = SetUp::new();
    let settings = set_up
        .settings
        .replace(&format!("port = {}", set_up.broker.port), &format!("port = {}", free_port()));
    let (code, said) = set_up.doctor(&settings, &["--offline"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("broker"), "{said}");
}
