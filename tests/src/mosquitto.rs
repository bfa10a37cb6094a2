//! A real mosquitto with mutual TLS, and its own client watching.

use crate::{Lab, Process, free_port, wait_for};
use std::{net::TcpStream, path::Path, process::Command};

/// A broker.
pub struct Mosquitto {
    /// Where it listens.
    pub port: u16,
    config: std::path::PathBuf,
    log: std::path::PathBuf,
    process: Option<Process>,
}

impl Mosquitto {
    /// Starts one that demands certificates of the lab's CA and takes their common names as users. `more` is added to
    /// its configuration, `acl` is its access list.
    pub fn start(lab: &Lab, name: &str, more: &str, acl: &str) -> Self {
        let port = free_port();
        let [ca, cert, key] = lab.identity("brokers", "localhost");
        let acl = lab.write(&format!("{name}.acl"), acl);
        let data = lab.path(&format!("{name}-data"));
        std::fs::create_dir_all(&data).expect("a folder in the temporary folder");
        let config = format!(
            "user root\nlistener {port} 127.0.0.1\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\n\
             use_identity_as_username true\nallow_anonymous false\nacl_file {}\npersistence true\npersistence_location {}/\n\
             max_queued_messages 0\nlog_type all\n{more}\n",
            acl.display(),
            data.display()
        );
        let config = lab.write(&format!("{name}.conf"), config);
        let mut broker = Self { port, config, log: lab.path(&format!("{name}.log")), process: None };
        broker.restart();
        broker
    }

    /// Starts one as people have them for their sensors: without TLS. `more` is added to its configuration, for instance who may
    /// come in.
    pub fn start_plain(lab: &Lab, name: &str, more: &str) -> Self {
        let port = free_port();
        let config =
            format!("user root\nlistener {port} 127.0.0.1\npersistence false\nlog_type all\n{more}\n");
        let config = lab.write(&format!("{name}.conf"), config);
        let mut broker = Self { port, config, log: lab.path(&format!("{name}.log")), process: None };
        broker.restart();
        broker
    }

    /// Publishes as `mosquitto_pub` does, to a broker without TLS.
    pub fn publish(&self, topic: &str, payload: &str, more: &[&str]) {
        let port = self.port.to_string();
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "localhost", "-p", &port, "-q", "1", "-t", topic, "-m", payload]).args(more);
        let output = crate::run(&mut command);
        assert!(output.status.success(), "mosquitto_pub: {}", crate::stderr(&output));
    }

    /// The access list of docs/mqtt.md, with a reader.
    pub const ACL: &'static str = include_str!("../../certs/mosquitto.acl");

    /// Starts it again on the same port, with what it has kept.
    pub fn restart(&mut self) {
        let mut command = Command::new("mosquitto");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin")).arg("-c").arg(&self.config);
        if Path::new("/usr/sbin/mosquitto").exists() {
            let mut found = Command::new("/usr/sbin/mosquitto");
            found.arg("-c").arg(&self.config);
            command = found;
        }
        let mut process = Process::start("mosquitto", command, self.log.clone());
        wait_for("mosquitto listening", || {
            process.assert_running();
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        self.process = Some(process);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM: it keeps what it has acknowledged.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            assert!(process.stop().success());
        }
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// `mosquitto_sub`, as a person would run it.
pub struct Watcher(Process);

impl Watcher {
    /// Subscribes as `watcher` and writes a line `topic payload` a message.
    pub fn start(lab: &Lab, port: u16, topics: &[&str]) -> Self {
        Self::start_with(lab, port, topics, &[])
    }

    /// The same with more options of `mosquitto_sub`.
    pub fn start_with(lab: &Lab, port: u16, topics: &[&str], more: &[&str]) -> Self {
        // It ends when nobody listens.
        wait_for("the broker", || TcpStream::connect(("127.0.0.1", port)).ok());
        let command = Self::command(lab, port, topics, &[&["-v"], more].concat());
        let name = format!("watcher-{port}-{}", topics.join("-").replace(['/', '+', '#'], "_"));
        let log = lab.path(&format!("{name}.log"));
        // What one before has seen is not what this one sees.
        let _ = std::fs::remove_file(&log);
        Self(Process::start("mosquitto_sub", command, log))
    }

    /// The command line.
    pub fn command(lab: &Lab, port: u16, topics: &[&str], more: &[&str]) -> Command {
        let [ca, cert, key] = lab.identity("observers", "watcher");
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "localhost", "-p", &port.to_string(), "-V", "mqttv5", "-q", "1"]);
        command.args(["--cafile", &ca, "--cert", &cert, "--key", &key]).args(more);
        topics.iter().for_each(|topic| _ = command.args(["-t", topic]));
        command
    }

    /// What it has seen: topic and payload of each message.
    pub fn seen(&self) -> Vec<(String, String)> {
        let log = self.0.log();
        // The last line may be half written.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(t, p)| (t.to_owned(), p.to_owned()))
            .collect()
    }
}
