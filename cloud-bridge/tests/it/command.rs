//! The command as operators meet it: mistakes give a line that names the place and the remedy.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

pub fn bridge(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgeveil-bridge"));
    command.current_dir(dir).args(arguments).env_remove("EDGEVEIL_BRIDGE_CONFIG");
    command
}

pub fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = bridge(dir, arguments).output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code(), text)
}

fn serve(settings: &str) -> (Option<i32>, String, bool) {
    let dir = tempfile::tempdir().unwrap();
    serve_in(dir.path(), settings)
}

fn serve_in(dir: &Path, settings: &str) -> (Option<i32>, String, bool) {
    fs::write(dir.join("b.toml"), settings).unwrap();
    let (code, text) = run(dir, &["serve", "--config", "b.toml"]);
    (code, text, dir.join("edgeveil-data").exists())
}

#[test]
fn bad_settings_are_all_named_and_nothing_is_opened() {
    let (code, text, opened) = serve("prefix = \"a/b/c/d\"\n\n[http]\nlisten = 80\n[brokre]\n");
    assert_eq!((code, opened), (Some(64), false), "{text}");
    for start in ["b.toml:1: `prefix`", "b.toml:4: `http.listen`", "b.toml:5: `brokre`: is no setting"] {
        assert!(text.contains(start), "{start} in\n{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = run(dir.path(), &["check", "--config", "nowhere.toml"]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("nowhere.toml: cannot be read"), "{text}");
}

#[test]
fn a_mistyped_variable_is_named_with_the_nearest_one() {
    let dir = tempfile::tempdir().unwrap();
    let output = bridge(dir.path(), &["serve"]).env("EDGEVEIL_BRIDGE_HTTP_LISTN", "x").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("LISTN: is no setting; the nearest one is EDGEVEIL_BRIDGE_HTTP_LISTEN"), "{text}");
    let output =
        bridge(dir.path(), &["check"]).env("EDGEVEIL_BRIDGE_SERVICE_HOST", "10.0.0.1").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "Kubernetes gives this to every container");
}

#[test]
fn a_missing_certificate_is_named_with_the_remedy() {
    let (code, text, _) = serve(
        "[broker]\nlisten = \"127.0.0.1:0\"\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"k.pem\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
    );
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("CA certificate ca.pem") && text.contains("edgeveil-bridge certs"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn an_expired_certificate_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    fs::write(dir.path().join("c.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.path().join("k.pem"), key.serialize_pem()).unwrap();
    run(dir.path(), &["certs", "init", "--dir", "ca"]);
    let settings = "[broker]\nlisten = \"127.0.0.1:0\"\nca = \"ca/ca.pem\"\ncert = \"c.pem\"\nkey = \"k.pem\"\n[http]\nlisten = \"127.0.0.1:0\"\n";
    let (code, text, _) = serve_in(dir.path(), settings);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("certificate c.pem expired on 2021-01-01"), "{text}");
}

#[test]
fn a_port_in_use_and_a_folder_in_the_way_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, text, _) = serve(&format!("[http]\nlisten = \"{address}\"\n"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("cannot listen on {address}")) && text.contains("http.listen"), "{text}");

    let free = "http.listen = \"127.0.0.1:0\"\nbroker.listen = \"127.0.0.1:0\"\n";
    let (code, text, _) = serve(&format!("{free}objects.folder = \"b.toml\"\n"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("object folder b.toml") && text.contains("objects.folder"), "{text}");
    let (code, text, _) = serve(&format!("{free}catalog.file = \"b.toml\"\n"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("catalog b.toml") && text.contains("no SQLite file"), "{text}");
}

#[test]
fn it_starts_without_any_settings_and_stops_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = bridge(dir.path(), &["serve"])
        .env("EDGEVEIL_BRIDGE_HTTP_LISTEN", "127.0.0.1:0")
        .env("EDGEVEIL_BRIDGE_BROKER_LISTEN", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("MQTT over TLS on 127.0.0.1:"));
    assert!(lines.next().unwrap().unwrap().starts_with("pages on http://127.0.0.1:"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let data = dir.path().join("edgeveil-data");
    for entry in ["", "objects", "catalog.sqlite", "certs", "certs/ca.pem"] {
        let mode = fs::metadata(data.join(entry)).unwrap().permissions().mode();
        assert_eq!(mode & 0o027, 0, "{entry} is {mode:o}: others may read it, or the group write");
    }
    for made in ["certs/ca.pem", "certs/brokers/localhost/cert.pem", "catalog.sqlite", "objects"] {
        assert!(dir.path().join("edgeveil-data").join(made).exists(), "{made}");
    }
    let (code, text) = run(dir.path(), &["verify", "--gapless"]);
    assert_eq!((code, text.as_str()), (Some(0), ""));
}

#[test]
fn certificates_are_issued_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = run(dir.path(), &["certs", "device", "pi"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("certs init"), "{text}");
    for arguments in
        [&["certs", "init"][..], &["certs", "device", "pi"], &["certs", "broker", "hub", "--san", "10.0.0.7"]]
    {
        let (code, text) = run(dir.path(), arguments);
        assert_eq!(code, Some(0), "{text}");
    }
    let key = dir.path().join("edgeveil-data/certs/devices/pi/key.pem");
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, text) = run(dir.path(), &["certs", "device", "pi"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("--force"), "{text}");
    let ca = dir.path().join("edgeveil-data/certs/ca.key");
    fs::rename(&ca, dir.path().join("aside")).unwrap();
    let (code, text) = run(dir.path(), &["certs", "init"]);
    assert!(code == Some(1) && text.contains("put the key back") && !ca.exists(), "{text}");
    let (_, text) = run(dir.path(), &["certs", "list"]);
    assert!(text.contains("pi ") && text.contains("hub ") && text.contains("device"), "{text}");
}

#[test]
fn the_demo_wipes_no_folder_of_others() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["agent", "centerface.onnx", "yunet.onnx", "astronaut.png", "precious"] {
        fs::write(dir.path().join(file), "").unwrap();
    }
    let (code, text) = run(dir.path(), &["demo", "--agent", "agent", "--models", ".", "--state", "."]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("not empty") && dir.path().join("precious").exists(), "{text}");
}
