//! A publisher of plain JSON, as `mosquitto_pub` is one: its messages become readings, each once though the bridge is killed, and
//! what stands out becomes an alert.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, Process, wait_for};
use serde_json::Value;
use std::{
    fmt::Write as _,
    io::Write as _,
    ops::Range,
    process::{Command, Stdio},
};

const ACL: &str = "\nuser bridge\ntopic read sensor/data\nuser old-pi\ntopic write sensor/data\n";

/// A message a line, a second apart; the second value of some rows is far out.
fn lines(rows: Range<u32>, far_out: &[u32]) -> String {
    let mut text = String::new();
    for row in rows {
        let noise = f64::from(row.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
        let second = if far_out.contains(&row) { 9.0 } else { 0.5 + noise / 10.0 };
        let first = 20.0 + (f64::from(row) / 50.0).sin() + noise / 10.0;
        let (hour, minute, second_of) = (row / 3600, row / 60 % 60, row % 60);
        let _ = writeln!(
            text,
            "{{\"timestamp\": \"2026-11-21T{hour:02}:{minute:02}:{second_of:02}\", \"sensor1\": {first}, \"sensor2\": {second}}}"
        );
    }
    text
}

fn publish(lab: &Lab, port: u16, lines: &str) {
    let [ca, cert, key] = lab.identity("devices", "old-pi");
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "localhost", "-p", &port.to_string(), "-q", "1", "-t", "sensor/data", "-l"]);
    command.args(["--cafile", &ca, "--cert", &cert, "--key", &key, "-i", "old-pi"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// How many records of a lane there are, and how many are missing.
fn count(lab: &Lab, lane: &str) -> (i64, i64) {
    let findings = lab.verify_now();
    let findings = findings.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_lane = findings.filter(|found| found["lane"] == lane && found["device"] == "old-pi");
    let number = |found: &Value, key: &str| found[key].as_i64().unwrap();
    of_lane.fold((0, 0), |sum, found| (sum.0 + number(&found, "count"), sum.1 + number(&found, "missing")))
}

#[test]
fn plain_messages_become_readings_and_alerts() {
    let lab = Lab::new(&["old-pi"]);
    let broker =
        Mosquitto::start(&lab, "broker", "max_inflight_messages 50\n", &format!("{}{ACL}", Mosquitto::ACL));
    let settings = lab.bridge_settings_external(broker.port, "[legacy]\ndevice = \"old-pi\"\n");
    let mut bridge = lab.bridge("bridge", &settings);
    let subscribed = |bridge: &Process, times: usize| {
        wait_for("the subscription", || (bridge.log().matches("subscribed").count() == times).then_some(()));
    };
    subscribed(&bridge, 1);
    publish(&lab, broker.port, &lines(0..1200, &[]));
    publish(&lab, broker.port, "no JSON\n{\"timestamp\": 1, \"sensor1\": \"20\"}\n");
    // Some are committed and not acknowledged, some are neither: the broker sends both again.
    wait_for("some readings", || (count(&lab, "reading").0 >= 300).then_some(()));
    bridge.kill();
    bridge = lab.bridge("bridge", &settings);
    subscribed(&bridge, 2);
    let alerts_before = wait_for("all readings, each once", || {
        let (readings, missing) = count(&lab, "reading");
        assert!(readings <= 1200 && missing == 0, "{readings} readings, {missing} missing");
        (readings == 1200).then(|| count(&lab, "alert").0)
    });
    // The detector knows what was there before it was killed: it need not warm up.
    publish(&lab, broker.port, &lines(1200..1240, &[1210, 1225]));
    wait_for("the rest", || (count(&lab, "reading").0 == 1240).then_some(()));
    let (alerts, missing) = count(&lab, "alert");
    assert!(
        (2..=4).contains(&(alerts - alerts_before)) && missing == 0,
        "{alerts_before} and {alerts} alerts"
    );
    wait_for("the refused ones", || bridge.log().contains("no JSON object").then_some(()));
    assert!(bridge.stop().success());
    println!("{}", lab.oracle(&[]));
}
