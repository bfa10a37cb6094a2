//! Whatever is set up wrongly is told in one clear line that names the place and the remedy.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, free_port, models, program, run, stderr, wait_for};
use std::{fs, process::Command};

/// Runs `edgeveil-agent COMMAND` to its end.
fn agent(lab: &Lab, command: &str, settings: &str) -> (Option<i32>, String) {
    let config = lab.write("agent.toml", settings);
    let output = run(Command::new(program("edgeveil-agent")).arg(command).arg("--config").arg(config));
    (output.status.code(), stderr(&output))
}

/// Starts an agent and waits until its log has a line with all of these.
fn logs(lab: &Lab, settings: &str, wanted: &[&str]) {
    // What an earlier agent has said does not count.
    let _ = fs::remove_file(lab.path("agent.log"));
    let mut process = lab.agent("agent", settings);
    wait_for(&format!("a line with {wanted:?}"), || {
        process.assert_running();
        process.log().lines().any(|line| wanted.iter().all(|text| line.contains(text))).then_some(())
    });
    assert!(process.stop().success());
}

#[test]
fn bad_settings_end_with_64_before_anything_is_opened() {
    let lab = Lab::new(&[]);
    let data = lab.path("data");
    let settings = format!(
        "[device]\ndata_dir = \"{}\"\n[link]\nhost = \"h\"\nprot = 1\ncert = \"c\"\nkey = \"k\"\n",
        data.display()
    );
    for command in ["run", "check"] {
        let (code, said) = agent(&lab, command, &settings);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains("agent.toml:5: link.prot: is not known here"), "{said}");
        assert!(said.contains("link.ca: is missing"), "{said}");
        assert!(!data.exists());
    }
    let missing = run(Command::new(program("edgeveil-agent")).args(["run", "--config", "/nonexistent.toml"]));
    assert_eq!(missing.status.code(), Some(64));
    assert!(stderr(&missing).contains("/nonexistent.toml"));
}

#[test]
fn a_missing_or_strange_certificate_is_named() {
    let lab = Lab::new(&["edge-001"]);
    let settings = lab.agent_settings("edge-001", free_port(), "");
    let [_, cert, key] = lab.identity("devices", "edge-001");
    fs::rename(&cert, lab.path("away.pem")).unwrap();
    let (code, said) = agent(&lab, "run", &settings);
    assert_eq!(code, Some(1));
    assert!(said.contains(&cert) && said.contains("edgeveil-bridge certs device"), "{said}");

    fs::copy(&key, &cert).unwrap();
    let (_, said) = agent(&lab, "run", &settings);
    assert!(said.contains(&cert) && said.contains("PEM"), "{said}");

    fs::copy(lab.path("away.pem"), &cert).unwrap();
    let named = settings.replace("[link]", "name = \"other\"\n[link]");
    let (_, said) = agent(&lab, "run", &named);
    assert!(said.contains("made out to edge-001, but device.name is other"), "{said}");
}

#[test]
fn an_expired_certificate_is_named_and_recording_goes_on() {
    let lab = Lab::new(&["edge-001"]);
    let [ca, cert, key] = lab.identity("devices", "edge-001");
    let request = lab.path("request.pem");
    let openssl = |arguments: &[&str]| {
        let output = run(Command::new("openssl").args(arguments));
        assert!(output.status.success(), "openssl {arguments:?}: {}", stderr(&output));
    };
    let request = request.to_str().unwrap();
    openssl(&["req", "-new", "-key", &key, "-subj", "/CN=edge-001", "-out", request]);
    let ca_key = ca.replace("ca.pem", "ca.key");
    let conf = lab.write("ca.conf", format!(
        "[ca]\ndefault_ca=a\n[a]\ndatabase={0}/index\nnew_certs_dir={0}\nserial={0}/serial\ndefault_md=sha256\npolicy=p\nx509_extensions=v3\n[v3]\nextendedKeyUsage=clientAuth\n[p]\ncommonName=supplied\n",
        lab.path("").display()
    ));
    lab.write("index", "");
    lab.write("serial", "01\n");
    openssl(&[
        "ca",
        "-batch",
        "-notext",
        "-config",
        conf.to_str().unwrap(),
        "-cert",
        &ca,
        "-keyfile",
        &ca_key,
        "-in",
        request,
        "-out",
        &cert,
        "-startdate",
        "20200101000000Z",
        "-enddate",
        "20210101000000Z",
    ]);
    let settings = lab.agent_settings("edge-001", free_port(), "");
    logs(&lab, &settings, &["expired on 2021-01-01", &cert, "certs device edge-001 --force"]);
    let (code, said) = agent(&lab, "check", &settings);
    assert_eq!(code, Some(1));
    assert!(said.contains("expired on 2021-01-01"), "{said}");
}

#[test]
fn a_wrong_ca_is_named() {
    let lab = Lab::new(&["edge-001"]);
    let other = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let [ca, ..] = lab.identity("devices", "edge-001");
    let [other_ca, ..] = other.identity("devices", "edge-001");

    let settings = lab.agent_settings("edge-001", broker.port, "");
    logs(&lab, &settings.replace(&ca, &other_ca), &["not signed by link.ca", &other_ca]);

    // A certificate that the broker's CA did not sign.
    let [_, cert, key] = lab.identity("devices", "edge-001");
    let [_, other_cert, other_key] = other.identity("devices", "edge-001");
    let strange = settings.replace(&cert, &other_cert).replace(&key, &other_key);
    logs(&lab, &strange, &["does not accept certificate", &other_cert]);
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let lab = Lab::new(&["edge-001"]);
    let settings = lab.agent_settings("edge-001", free_port(), "");
    logs(&lab, &settings, &["nothing listens there"]);
}

#[test]
fn unreadable_cameras_sensors_and_models_are_named() {
    let lab = Lab::new(&["edge-001"]);
    let more = format!(
        "[[camera]]\nname = \"desk\"\nsource = {{ replay = \"/nonexistent/photos\" }}\n[veil]\nmodel = \"{}\"\n\
         [[camera]]\nname = \"door\"\nsource = {{ v4l2 = \"/dev/video99\" }}\n\
         [[sensor]]\ngroup = \"env\"\nsource = {{ csv = \"/nonexistent.csv\" }}\n",
        models().display()
    );
    let settings = lab.agent_settings("edge-001", free_port(), &more);
    logs(&lab, &settings, &["camera lost", "/nonexistent/photos"]);
    logs(&lab, &settings, &["camera lost", "/dev/video99"]);
    logs(&lab, &settings, &["sensor cannot be read", "/nonexistent.csv"]);
    let (code, said) = agent(&lab, "check", &settings);
    assert_eq!(code, Some(1));
    for place in ["/nonexistent/photos", "/dev/video99", "/nonexistent.csv"] {
        assert!(said.contains(place), "{said}");
    }
}
