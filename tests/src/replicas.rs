//! Replicas of the bridge on one broker, one catalog and one object store.

use crate::{Lab, Postgres, Process, Publisher, free_port, long, program, verified, wait_for};
use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread::sleep,
    time::Duration,
};

/// A bridge of several.
pub struct Replica {
    name: String,
    settings: String,
    http: u16,
    process: Option<Process>,
}

impl Replica {
    /// Settings with a source of its own; not started yet.
    pub fn new(lab: &Lab, name: &str, source: &str, catalog: &str) -> Self {
        let http = free_port();
        let (data, objects) = (lab.path(name), lab.path("objects"));
        let settings = format!(
            "data_dir = \"{}\"\n{source}[http]\nlisten = \"127.0.0.1:{http}\"\n[objects]\nfolder = \"{}\"\n{catalog}",
            data.display(),
            objects.display()
        );
        Self { name: name.to_owned(), settings, http, process: None }
    }

    /// The same with the catalog of a PostgreSQL.
    pub fn sharing(lab: &Lab, name: &str, source: &str, postgres: &Postgres) -> Self {
        Self::new(lab, name, source, &postgres.bridge_section())
    }

    /// Starts it and waits until it says that it is ready.
    pub fn start(&mut self, lab: &Lab) {
        let mut process = lab.bridge(&self.name, &self.settings);
        wait_for("a bridge that is ready", || {
            process.assert_running();
            self.get("/readyz")?.starts_with("HTTP/1.1 200").then_some(())
        });
        self.process = Some(process);
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process.as_ref().expect("it was started").pause();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it was started");
        process.assert_running();
        process.kill();
    }

    /// SIGTERM, which it has to obey in order.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it was started");
        process.assert_running();
        let log = process.log();
        assert!(process.stop().success(), "it was late:\n{log}");
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// The sum of a metric over its labels, of this process.
    pub fn metric(&self, name: &str) -> u64 {
        let answer = wait_for("metrics", || self.get("/metrics"));
        let values = answer.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with(' ') || rest.starts_with('{')).then(|| rest.rsplit(' ').next())?
        });
        let values: Vec<u64> = values.map(|value| value.trim().parse().expect("a whole number")).collect();
        assert!(!values.is_empty(), "no metric {name}");
        values.iter().sum()
    }

    /// What it has said.
    pub fn log(&self, lab: &Lab) -> String {
        std::fs::read_to_string(lab.path(&format!("{}.log", self.name))).unwrap_or_default()
    }

    /// `edgeveil-bridge verify --gapless` by its settings: the records that are there, each once and without a gap.
    pub fn verify(&self, lab: &Lab) -> u64 {
        let mut command = Command::new(program("edgeveil-bridge"));
        command.args(["verify", "--gapless", "--config"]).arg(lab.path(&format!("{}.toml", self.name)));
        let said = verified(&mut command);
        let count = |line: &str| {
            let finding: serde_json::Value = serde_json::from_str(line).expect("JSON lines");
            finding["count"].as_u64().filter(|_| finding["found"] == "sequence")
        };
        said.lines().filter_map(count).sum()
    }

    /// Stops all of them, and verifies what they have in common.
    pub fn stop_and_verify(lab: &Lab, mut replicas: [Self; 2]) -> u64 {
        replicas.iter_mut().for_each(Self::stop);
        replicas[0].verify(lab)
    }
}

/// Starts both and kills one of them, in turn, again and again while records flow: three times, or with `--long` each 10 s
/// for 5 minutes. In the end both run.
pub fn kill_one_of_two(lab: &Lab, mut replicas: [Replica; 2], publisher: &Publisher) -> [Replica; 2] {
    replicas.iter_mut().for_each(|replica| replica.start(lab));
    let kills = if long() { 30 } else { 3 };
    for n in 0..kills {
        let before = publisher.sent().acknowledged;
        if long() {
            sleep(Duration::from_secs(10));
        }
        wait_for("acknowledgements", || (publisher.sent().acknowledged > before + 200).then_some(()));
        replicas[n % 2].kill();
        replicas[n % 2].start(lab);
    }
    println!("{kills} SIGKILLs");
    replicas
}
