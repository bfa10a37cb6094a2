//! `edgeveil-agent status` on the device: what it says while all is well, while there is no bridge, and when there is no
//! agent; and whose socket it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, PATIENT, Process, free_port, models, program, run, stderr, wait_for};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::{Command, Stdio},
};

/// An agent with a sensor and a camera.
struct Device {
    lab: Lab,
    port: u16,
    settings: String,
}

impl Device {
    fn new() -> Self {
        let lab = Lab::new(&["edge-001", "edge-002"]);
        let port = free_port();
        let sources = format!(
            "{PATIENT}[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 50\nprofile = \"default\"\n\
             [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 2\n\
             [veil]\nmodel = \"{0}\"\nprofile = \"fast\"\n",
            models().display()
        );
        let settings = lab.agent_settings("edge-001", port, &sources);
        Self { lab, port, settings }
    }

    fn bridge(&self) -> Process {
        self.lab.bridge("bridge", &self.lab.bridge_settings(self.port, ""))
    }

    fn agent(&self) -> Process {
        self.lab.agent("agent", &self.settings)
    }

    fn socket(&self) -> PathBuf {
        self.lab.path("agent-edge-001/agent.sock")
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(program("edgeveil-agent"));
        command.arg("status").arg("--config").arg(self.lab.path("agent.toml")).args(more);
        command
    }

    /// Exit code, and what it said on both outputs.
    fn status(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let output = run(&mut self.command(more));
        (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    }

    /// The document, when there is one, with the exit code.
    fn document(&self) -> Option<(i32, Value)> {
        let (code, said, _) = self.status(&["--json"]);
        Some((code?, serde_json::from_str(&said).ok()?))
    }
}

#[test]
fn it_tells_how_the_agent_is_whatever_happens_to_the_bridge_and_to_it() {
    let device = Device::new();
    let bridge = device.bridge();
    let mut agent = device.agent();
    let well = wait_for("a device that is well, with a face and a score", || {
        agent.assert_running();
        let (code, document) = device.document()?;
        let is_well = document["link"]["state"] == "connected"
            && document["health"]["cameras"]["desk"]["faces"].as_u64()? > 0
            && document["cameras"]["desk"]["fps"].is_number()
            && document["sensors"]["env"]["score"].is_number();
        is_well.then_some((code, document))
    });
    let (code, document) = well;
    assert_eq!(code, 0, "{document:#}");
    assert_eq!(document["schema"], "edgeveil.local-status/1");
    assert_eq!((&document["device"], &document["pid"]), (&"edge-001".into(), &agent.pid().into()));
    assert_eq!(document["boot"], document["health"]["boot"]);
    // Of what a sensor measures it tells how much there was, and how strange it was.
    let told: BTreeSet<_> = document["sensors"]["env"].as_object().unwrap().keys().collect();
    assert_eq!(told.into_iter().collect::<Vec<_>>(), ["last_row_ms", "score", "values"]);
    let told: BTreeSet<_> = document["cameras"]["desk"].as_object().unwrap().keys().collect();
    assert_eq!(told.into_iter().collect::<Vec<_>>(), ["fps", "last_frame_ms"]);

    let (code, said, _) = device.status(&[]);
    assert_eq!(code, Some(0), "{said}");
    println!("{said}");
    for text in [
        "edge-001: edgeveil-agent 0.",
        &format!("connection connected to localhost:{} for ", device.port),
        "problems   none",
        "\nreading ",
        "\ndesk ",
        "\nenv ",
    ] {
        assert!(said.contains(text), "no `{text}` in:\n{said}");
    }
    assert_eq!(fs::metadata(device.socket()).unwrap().permissions().mode() & 0o777, 0o660);

    nobody_is_listened_to(&device, &mut agent);
    no_other_agent_takes_it_away(&device);
    it_goes_on_until_it_is_stopped(&device);

    bridge.kill();
    let (code, document) = wait_for("a device without its bridge, whose records wait", || {
        agent.assert_running();
        let (code, document) = device.document()?;
        let waits = |lane: &str| document["health"]["spool"][lane]["records"].as_u64() > Some(0);
        // The first word is that the connection was lost, and the next one why there is no other.
        let why = document["link"]["why"].as_str()?;
        let is_off = document["link"]["state"] == "disconnected" && why.contains("nothing listens there");
        (is_off && waits("reading") && waits("image")).then_some((code, document))
    });
    assert_eq!(code, 1, "{document:#}");
    assert_eq!(document["link"]["why"], document["problems"]["link"]);
    let (code, said, failure) = device.status(&[]);
    println!("{said}");
    let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code, Some(1), "{said}");
    assert!(flat.contains(&format!("connection not connected to localhost:{} for ", device.port)), "{said}");
    let why = format!("link: broker localhost:{}: nothing listens there", device.port);
    assert!(flat.contains(&why), "{said}");
    assert!(failure.contains("the agent tells of"), "{failure}");

    agent.kill();
    let socket = device.socket();
    assert!(socket.exists(), "a killed agent cleans nothing up");
    let (code, said, failure) = device.status(&[]);
    assert_eq!((code, said.as_str()), (Some(69), ""), "{failure}");
    for text in [
        &format!("{} (the agent that had made it is gone)", socket.display()),
        "systemctl status edgeveil-agent",
    ] {
        assert!(failure.contains(text), "no `{text}` in: {failure}");
    }

    // The next one replaces what the killed one has left, and takes its own away when it is stopped.
    let agent = device.agent();
    wait_for("the new agent at the old place", || (device.document()?.1["pid"] == agent.pid()).then_some(()));
    assert!(agent.stop().success());
    assert!(!socket.exists());
    let (code, _, failure) = device.status(&["--json"]);
    assert_eq!(code, Some(69), "{failure}");
    assert!(failure.contains(&format!("{} (there is none)", socket.display())), "{failure}");
}

fn nobody_is_listened_to(device: &Device, agent: &mut Process) {
    for said in ["stop\n".to_owned(), "x".repeat(1 << 20)] {
        let mut stream = UnixStream::connect(device.socket()).unwrap();
        // It may have closed by then.
        let _ = stream.write_all(said.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
    }
    // Those who say nothing and hear nothing hold nobody else up.
    let idle: Vec<_> = (0..50).map(|_| UnixStream::connect(device.socket()).unwrap()).collect();
    let mut said = String::new();
    UnixStream::connect(device.socket()).unwrap().read_to_string(&mut said).unwrap();
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(document["device"], "edge-001");
    drop(idle);
    agent.assert_running();
}

fn no_other_agent_takes_it_away(device: &Device) {
    let place = format!("[device]\nstatus_socket = \"{}\"\n", device.socket().display());
    let settings = device.lab.agent_settings("edge-002", device.port, "").replace("[device]\n", &place);
    let mut other = device.lab.agent("other", &settings);
    wait_for("word of the socket that is taken", || {
        other.assert_running();
        let log = other.log();
        (log.contains("another program serves it") && log.contains("device.status_socket")).then_some(())
    });
    assert_eq!(device.document().unwrap().1["device"], "edge-001");
    assert!(other.stop().success());
    assert_eq!(device.document().unwrap().1["device"], "edge-001", "nor when it goes");
}

fn it_goes_on_until_it_is_stopped(device: &Device) {
    let mut watch = device.command(&["--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut tables = 0;
    for line in BufReader::new(watch.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        assert!(!line.contains('\u{1b}'), "it is no terminal: {line:?}");
        tables += usize::from(line.starts_with("edge-001: "));
        if tables == 3 {
            break;
        }
    }
    assert_eq!(tables, 3);
    watch.kill().unwrap();
    watch.wait().unwrap();
}
