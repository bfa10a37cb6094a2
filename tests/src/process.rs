//! A child process whose output goes to a file, and which does not outlive its test.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A program of this workspace, beside the tests that run.
pub fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("this test is a program");
    let dir = tests.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built: run the tests by tests/run", path.display());
    path
}

impl Process {
    /// Starts it, with both outputs appended to a log.
    pub fn start(name: &str, mut command: Command, log: PathBuf) -> Self {
        let file =
            File::options().create(true).append(true).open(&log).expect("a log in the temporary folder");
        let out = file.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(out).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Fails the test when the program has ended by itself.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("our own child") {
            panic!("{} ended with {status}:\n{}", self.name, self.log());
        }
    }

    /// SIGKILL: no goodbye, as when power is cut to the process.
    pub fn kill(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// SIGSTOP: it is there and does nothing.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("our own child")
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("our own child")
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").arg(format!("-{signal}")).arg(pid).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot signal {}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}", self.name, self.log());
        }
    }
}
