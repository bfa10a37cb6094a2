//! `edgeveil-agent simulate` against a real mosquitto and a bridge: what it says of a run is what the bridge has.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, free_port, models, program, run, stderr};
use serde_json::Value;
use std::{
    fs,
    process::{Command, Output},
};

fn simulate(lab: &Lab, broker: &Mosquitto, more: &[&str]) -> Output {
    let mut command = Command::new(program("edgeveil-agent"));
    command
        .args(["simulate", "--json", "--port", &broker.port.to_string(), "--dev-ca"])
        .arg(lab.path("certs"));
    run(command.args(["--ack-timeout", "3 s", "--ramp", "1 s"]).args(more))
}

fn report(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{}", stderr(output)))
}

fn delivered(report: &Value, kind: &str) -> u64 {
    let row = report["records"].as_array().unwrap().iter().find(|row| row["kind"] == kind).unwrap();
    assert_eq!(row["made"], row["delivered"], "{row}");
    row["delivered"].as_u64().unwrap()
}

/// Readings, alerts and images of both versions, over connections that break: all of it arrives once, and is forwarded.
#[test]
fn a_fleet_in_storms_is_delivered_without_gaps() {
    let lab = Lab::new(&[]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let hook = free_port();
    let secret = lab.write("secret", "whsec_bG90cyBvZiBieXRlcyBmb3IgYSB0ZXN0IG9ubHk=\n");
    let more = format!(
        "[forward.webhook]\nurl = \"http://127.0.0.1:{hook}/\"\nallow_http = true\nrate = 90\nsecret_file = \"{}\"\n",
        secret.display()
    );
    let bridge = lab.bridge("bridge", &lab.bridge_settings_external(broker.port, &more));
    let mut ids = 0;
    for version in ["5", "3.1.1"] {
        let output = simulate(
            &lab,
            &broker,
            &[
                &["--mqtt", version, "--name", &format!("v{}", version.replace('.', "-"))][..],
                &[
                    "--devices",
                    "20",
                    "--readings",
                    "200",
                    "--images",
                    "10",
                    "--alerts",
                    "0.05",
                    "--duration",
                    "8 s",
                ],
                &["--storm", "3 s", "--webhook", &format!("127.0.0.1:{hook}")],
                &[
                    "--photo",
                    models().join("astronaut.png").to_str().unwrap(),
                    "--model",
                    models().to_str().unwrap(),
                ],
            ]
            .concat(),
        );
        let report = report(&output);
        assert!(output.status.success(), "{report} {}", stderr(&output));
        let [readings, alerts, images] = ["reading", "alert", "image"].map(|kind| delivered(&report, kind));
        assert!(readings > 100 && images > 5, "{report}");
        assert!(alerts > readings / 40, "{report}");
        assert!(
            report["connections"].as_u64() > Some(20) && report["connections_lost"].as_u64() > Some(0),
            "{report}"
        );
        assert_eq!(report["unacknowledged"], 0);
        let forwarded = &report["forwarded"];
        assert_eq!(
            (forwarded["alerts"].as_u64(), forwarded["missing"].as_u64()),
            (Some(alerts), Some(0)),
            "{report}"
        );
        ids += readings + alerts + images;
        let spoken = fs::read(lab.path("broker.log")).unwrap();
        let word = format!("-0001 ({}, c0,", if version == "5" { "p5" } else { "p2" });
        assert!(String::from_utf8_lossy(&spoken).contains(&word), "{word}");
    }
    assert!(bridge.stop().success());
    println!("{}", lab.oracle(&[]));
    println!("{}", lab.verify());
    assert_eq!(lab.stored().len() as u64, ids);
}

/// Certificates of files, a number of records in place of a time, and a bridge that is not there.
#[test]
fn what_is_not_acknowledged_is_counted_and_fails() {
    let lab = Lab::new(&["edge-001", "edge-002"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    for name in ["edge-001", "edge-002"] {
        let [_, cert, key] = lab.identity("devices", name);
        lab.write(&format!("issued/{name}.crt"), fs::read(cert).unwrap());
        lab.write(&format!("issued/{name}.key"), fs::read(key).unwrap());
    }
    let issued = |devices: &str, more: &[&str]| {
        let mut command = Command::new(program("edgeveil-agent"));
        command
            .args(["simulate", "--json", "--port", &broker.port.to_string(), "--ca"])
            .arg(lab.path("certs/ca.pem"));
        command.arg("--certs").arg(lab.path("issued")).args(["--devices", devices, "--ramp", "1 s"]);
        run(command
            .args(["--readings", "50", "--alerts", "0", "--count", "40", "--ack-timeout", "3 s"])
            .args(more))
    };
    let output = issued("2", &["--wait", "2 s"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(report(&output)["unacknowledged"], 40);
    assert!(
        stderr(&output).contains("40 records were not acknowledged")
            && stderr(&output).contains("is a bridge behind")
    );

    let output = issued("3", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("certificates of 2 devices, and --devices is 3"), "{}", stderr(&output));
    let output = issued("2", &["--images", "1"]);
    assert!(stderr(&output).contains("--photo"), "{}", stderr(&output));

    let bridge = lab.bridge("bridge", &lab.bridge_settings_external(broker.port, ""));
    let output = issued("2", &["--wait", "60 s"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(delivered(&report(&output), "reading"), 40);
    assert!(bridge.stop().success());
}
