//! Pictures of cameras that run no agent, from a POST to the veiled result: real pictures, the real detector, real workers.

mod amqp;
mod api;
mod kills;
mod mending;
mod pictures;
mod workers;

use crate::{
    described::{Described, ask},
    harness::Bench,
};
use edgeveil_bridge::anonymise::JobId;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

/// Detectors are slow in a build for tests, and machines busy. It bounds a test that has failed, and measures nothing.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Waits for a condition.
pub async fn patiently(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never came: {what}");
}

/// A form as curl sends it.
pub fn form(fields: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let boundary = "------------------------d74496d66958873e";
    let mut body = Vec::new();
    for (name, bytes) in fields {
        body.extend(
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"photo.jpg\"\r\ncontent-type: application/octet-stream\r\n\r\n")
                .into_bytes(),
        );
        body.extend_from_slice(bytes);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").into_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// The settings' section: the models where this machine has them.
pub fn section(more: &str) -> String {
    let models = edgeveil_veil::models_dir();
    assert!(models.join("yunet.onnx").exists(), "no model in {}: run veil/fetch-models", models.display());
    format!("{more}\n[anonymise.veil]\nmodel = {models:?}\n")
}

/// Waits until a job has come to its end, and gives its last state.
pub async fn ended(described: &Described, id: JobId) -> Value {
    let mut last = Value::Null;
    patiently("the end of a job", async || {
        let answer = described.get(&format!("/v1/images/{id}")).await;
        assert_eq!(answer.status, 200);
        last = answer.json();
        matches!(last["state"].as_str(), Some("done" | "failed"))
    })
    .await;
    last
}

/// Names of all objects below a place, without folders and what is half written.
pub fn objects(place: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![place.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else if !name.contains('#') {
                found.insert(name);
            }
        }
    }
    found
}

/// `edgeveil-bridge worker`, which does not outlive its test.
pub struct Worker {
    child: Option<Child>,
    log: PathBuf,
}

impl Worker {
    /// Starts one with these settings.
    pub fn start(dir: &Path, settings: &str) -> Self {
        let config = dir.join("worker.toml");
        fs::write(&config, settings).unwrap();
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let log = dir.join(format!("worker-{}.log", COUNT.fetch_add(1, Relaxed)));
        let out = fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_edgeveil-bridge"))
            .args(["worker", "--config"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child: Some(child), log }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, once it runs; it has to end well.
    pub fn stop(mut self) {
        let patience = Instant::now() + PATIENCE;
        while !self.log().contains("worker runs") {
            assert!(Instant::now() < patience, "it does not come to run: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if std::thread::panicking() {
            eprintln!("--- worker:\n{}", self.log());
        }
    }
}

/// The settings of a worker beside a bridge of a bench.
pub fn worker_settings(bench: &Bench, extra: &str) -> String {
    format!("data_dir = {:?}\n{extra}", bench.path())
}
