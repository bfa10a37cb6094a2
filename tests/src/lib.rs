//! What the end-to-end tests share: programs of this workspace and real servers, started on free ports of the loopback
//! interface with everything in a temporary folder, and stopped by pid.

mod bridge;
mod bucket;
mod dice;
mod gate;
mod mosquitto;
pub mod namespace;
mod postgres;
mod process;
mod publisher;
mod rabbit;
mod replicas;
mod road;
mod unruly;

pub use bridge::{PATIENT, oracle, verified};
pub use bucket::{Bucket, PutDeed, PutScript};
pub use dice::Dice;
pub use gate::{Gate, Passed};
pub use mosquitto::{Mosquitto, Watcher};
pub use postgres::Postgres;
pub use process::{Process, program};
pub use publisher::{Publisher, Sent};
pub use rabbit::{Queue, Rabbit};
pub use replicas::{Replica, kill_one_of_two};
pub use road::{BadRoad, slow_road};
pub use unruly::{Deed, Script, Seen, Unruly};

use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

/// A folder with a development CA, which goes when it is dropped.
pub struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// A folder with a CA, and certificates for the broker, for `bridge`, and for these devices.
    pub fn new(devices: &[&str]) -> Self {
        Self::with(tempfile::tempdir().expect("a temporary folder"), devices)
    }

    /// The same in memory where that is possible, for tests that need no disk: an fsync there costs nothing.
    pub fn in_memory(devices: &[&str]) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::with(dir.expect("a temporary folder"), devices)
    }

    fn with(dir: tempfile::TempDir, devices: &[&str]) -> Self {
        let lab = Self { dir };
        lab.certs(&["init"]);
        lab.certs(&["broker", "localhost"]);
        lab.certs(&["device", "bridge"]);
        lab.certs(&["observer", "watcher"]);
        devices.iter().for_each(|device| lab.certs(&["device", device]));
        lab
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("within the folder")).expect("a folder");
        fs::write(&path, text).expect("a file in the temporary folder");
        path
    }

    /// Runs `edgeveil-bridge certs ..` on the folder's CA.
    pub fn certs(&self, arguments: &[&str]) {
        let output = run(Command::new(program("edgeveil-bridge"))
            .arg("certs")
            .args(arguments)
            .arg("--dir")
            .arg(self.path("certs")));
        assert!(output.status.success(), "certs {arguments:?}: {}", stderr(&output));
    }

    /// Makes another CA in a folder of this name.
    pub fn certs_elsewhere(&self, name: &str) {
        let output = run(Command::new(program("edgeveil-bridge"))
            .args(["certs", "init", "--dir"])
            .arg(self.path(name)));
        assert!(output.status.success(), "certs init: {}", stderr(&output));
    }

    /// The files of a device's identity: CA, certificate, key.
    pub fn identity(&self, kind: &str, name: &str) -> [String; 3] {
        let folder = self.path(&format!("certs/{kind}/{name}"));
        [self.path("certs/ca.pem"), folder.join("cert.pem"), folder.join("key.pem")]
            .map(|path| path.to_str().expect("a temporary path in UTF-8").to_owned())
    }

    /// The link and spool of an agent's settings.
    pub fn agent_settings(&self, device: &str, port: u16, more: &str) -> String {
        let [ca, cert, key] = self.identity("devices", device);
        let data = self.path(&format!("agent-{device}"));
        let mut text = String::new();
        let _ = write!(
            text,
            "[device]\ndata_dir = \"{}\"\n[link]\nhost = \"localhost\"\nport = {port}\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n{more}",
            data.display()
        );
        text
    }

    /// Starts an agent.
    pub fn agent(&self, name: &str, settings: &str) -> Process {
        Process::start(name, self.agent_command(name, settings), self.path(&format!("{name}.log")))
    }

    /// The command that starts an agent.
    pub fn agent_command(&self, name: &str, settings: &str) -> Command {
        let config = self.write(&format!("{name}.toml"), settings);
        let mut command = Command::new(program("edgeveil-agent"));
        command.arg("run").arg("--config").arg(config);
        command
    }

    /// Starts a bridge.
    pub fn bridge(&self, name: &str, settings: &str) -> Process {
        Process::start(name, self.bridge_command(name, settings), self.path(&format!("{name}.log")))
    }

    /// The command that starts a bridge.
    pub fn bridge_command(&self, name: &str, settings: &str) -> Command {
        let config = self.write(&format!("{name}.toml"), settings);
        let mut command = Command::new(program("edgeveil-bridge"));
        command.arg("serve").arg("--config").arg(config);
        command
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// What a command said of its failure.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// The models' folder. A machine that runs these tests has them: `tests/run` fetches them.
pub fn models() -> PathBuf {
    let dir =
        std::env::var_os("EDGEVEIL_MODELS").expect("EDGEVEIL_MODELS is set: run the tests by tests/run");
    let dir = PathBuf::from(dir);
    assert!(dir.join("centerface.onnx").exists(), "no model in {}: run veil/fetch-models", dir.display());
    dir
}

/// Whether the long forms of the fault tests are wanted: `tests/faults --long`.
pub fn long() -> bool {
    std::env::var_os("EDGEVEIL_LONG").is_some()
}

/// Waits until something is there. The patience bounds a test that has failed; it measures nothing.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let patience = Duration::from_secs(if long() { 1200 } else { 120 });
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not seen within {patience:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// All files below a folder.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
