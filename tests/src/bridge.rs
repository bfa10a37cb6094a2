//! A bridge in a test, and the question whether everything has arrived there.

use crate::{Lab, Watcher, program, run, stderr, wait_for};
use std::{collections::BTreeSet, net::TcpStream, process::Command};

/// What an agent's settings go on with after its link, so that a test need not wait long.
pub const PATIENT: &str = "ack_timeout = \"3 s\"\n[spool]\ncommit_interval = \"100 ms\"\nmin_free = \"0 B\"\n[health]\ninterval = \"1 s\"\n";

impl Lab {
    /// Settings of a bridge with its embedded broker on this port.
    pub fn bridge_settings(&self, port: u16, more: &str) -> String {
        let [ca, cert, key] = self.identity("brokers", "localhost");
        format!(
            "data_dir = \"{}\"\n[broker]\nlisten = \"127.0.0.1:{port}\"\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n\
             [http]\nlisten = \"127.0.0.1:0\"\n{more}",
            self.path("bridge").display()
        )
    }

    /// Runs an agent without sources until its spool is empty, so that all that was kept has arrived.
    pub fn drain(&self, device: &str, port: u16) {
        wait_for("the broker", || TcpStream::connect(("127.0.0.1", port)).ok());
        let agent = self.agent("drain", &self.agent_settings(device, port, PATIENT));
        let watcher = Watcher::start(self, port, &[&format!("edgeveil/{device}/health")]);
        wait_for("an empty spool", || {
            let (_, health) = watcher.seen().pop()?;
            let health: serde_json::Value = serde_json::from_str(&health).expect("health is JSON");
            let lanes = health["spool"].as_object()?;
            lanes.values().all(|lane| lane["records"] == 0).then_some(())
        });
        assert!(agent.stop().success());
    }

    /// `edgeveil-bridge verify --gapless`: no gap, no double, no row without its object and no object without its row.
    pub fn verify(&self) -> String {
        let mut command = Command::new(program("edgeveil-bridge"));
        verified(command.args(["verify", "--gapless", "--config"]).arg(self.path("bridge.toml")))
    }

    /// Settings of a bridge that gets its records from a mosquitto on this port.
    pub fn bridge_settings_external(&self, port: u16, more: &str) -> String {
        let [ca, cert, key] = self.identity("devices", "bridge");
        format!(
            "data_dir = \"{}\"\n[mqtt]\nhost = \"localhost\"\nport = {port}\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n\
             client_id = \"bridge\"\n[http]\nlisten = \"127.0.0.1:0\"\n{more}",
            self.path("bridge").display()
        )
    }

    /// `tests/oracle` on what the bridge has stored: gaps, doubles, files and rows, by other code than the bridge's own.
    pub fn oracle(&self, options: &[&str]) -> String {
        verified(oracle(options).arg(self.path("bridge")))
    }

    /// What `edgeveil-bridge verify` finds while records still flow, when gaps are no error.
    pub fn verify_now(&self) -> String {
        let mut command = Command::new(program("edgeveil-bridge"));
        let output = run(command.args(["verify", "--config"]).arg(self.path("bridge.toml")));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Runs `edgeveil-bridge verify` and fails the test when it does.
pub fn verified(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", stderr(&output));
    said
}

/// `tests/oracle`, to be told the bridge's data folder.
pub fn oracle(options: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/oracle")).args(options);
    command
}

impl Lab {
    /// The ids of all records that the bridge has in its catalog.
    pub fn stored(&self) -> BTreeSet<String> {
        verified(oracle(&["--ids"]).arg(self.path("bridge"))).lines().map(str::to_owned).collect()
    }
}
