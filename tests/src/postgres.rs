//! A real PostgreSQL for replicas of the bridge.

use crate::{Lab, Process, free_port, run, stderr, wait_for};
use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::Command,
};

/// It refuses to run as root.
const NOBODY: u32 = 65_534;

/// A server with an empty database.
pub struct Postgres {
    port: u16,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

fn is_root() -> bool {
    run(Command::new("id").arg("-u")).stdout.trim_ascii() == b"0"
}

/// Debian's, or whichever is newest there.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    found.retain(|bin| bin.join("initdb").exists() && bin.join("postgres").exists());
    found.sort();
    found.pop().expect("PostgreSQL is installed: run the tests by tests/run")
}

impl Postgres {
    /// Starts one that is reached without TLS and password, by the loopback interface alone.
    pub fn start(lab: &Lab) -> Self {
        // Of its own, since its user may not look into the lab's.
        let folder = tempfile::tempdir().expect("a temporary folder");
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("root may do so");
        }
        let mut server = Self { port: free_port(), process: None, folder };
        let made =
            run(server.command("initdb").args(["-D", "data", "--no-sync", "-U", "edgeveil", "-A", "trust"]));
        assert!(made.status.success(), "{}", stderr(&made));
        let mut command = server.command("postgres");
        command.args(["-D", "data", "-h", "127.0.0.1", "-k", "", "-p", &server.port.to_string()]);
        server.process = Some(Process::start("postgres", command, lab.path("postgres.log")));
        let port = server.port.to_string();
        let psql = ["-h", "127.0.0.1", "-p", &port, "-U", "edgeveil", "-d", "postgres", "-c"];
        wait_for("PostgreSQL", || {
            let made = run(server.command("psql").args(psql).arg("CREATE DATABASE edgeveil"));
            made.status.success().then_some(())
        });
        server
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        command.current_dir(self.folder.path()).env("LC_ALL", "C.UTF-8");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// The settings section of a bridge whose catalog it is.
    pub fn bridge_section(&self) -> String {
        format!("[catalog.postgres]\nhost = \"127.0.0.1\"\nport = {}\nallow_plain = true\n", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its children see that it is gone.
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }
}
