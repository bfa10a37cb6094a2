//! The demo's agent: its settings, its process, its last words.

use super::{DEVICE, Options};
use crate::certs::{self, Kind};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// The face detectors' files in the models' folder.
pub const MODELS: [&str; 2] = ["centerface.onnx", "yunet.onnx"];
/// The photo that stands in for a camera.
pub const PHOTO: &str = "astronaut.png";
/// How long the agent may take to stop.
const STOP: Duration = Duration::from_secs(15);

/// What the agent is told.
pub fn agent_settings(state: &Path, models: &Path, port: u16) -> String {
    let device = certs::paths(&state.join("certs"), Kind::Device, DEVICE);
    let quoted = |path: &Path| serde_json::to_string(&path.to_string_lossy()).unwrap_or_default();
    format!(
        "[device]\ndata_dir = {data}\n\n\
         [link]\nhost = \"127.0.0.1\"\nport = {port}\nca = {ca}\ncert = {cert}\nkey = {key}\n\n\
         [spool]\ncommit_interval = \"200 ms\"\n\n\
         [health]\ninterval = \"1 s\"\n\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = {photo} }}\nfps = 1\n\n\
         [[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 10\n\n\
         [veil]\nmodel = {model}\n",
        data = quoted(&state.join("agent")),
        ca = quoted(&device.ca),
        cert = quoted(&device.cert),
        key = quoted(&device.key),
        photo = quoted(&models.join(PHOTO)),
        model = quoted(models),
    )
}

/// A running agent.
pub struct Agent {
    pid: u32,
    log: PathBuf,
    last: Arc<Mutex<String>>,
    status: watch::Receiver<Option<ExitStatus>>,
    /// Ends the child when nobody waits for it any more.
    cut: CancellationToken,
    waiter: JoinHandle<()>,
}

impl Agent {
    /// Writes its settings and starts it.
    pub fn start(options: &Options, state: &Path, port: u16) -> Result<Self> {
        let models = options.models.canonicalize().context("the full path of the models' folder")?;
        let config = state.join("agent.toml");
        std::fs::write(&config, agent_settings(state, &models, port))
            .with_context(|| format!("writing {}", config.display()))?;
        let log = state.join("agent.log");
        let file = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        let mut child = Command::new(&options.agent)
            .arg("run")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::from(file.try_clone().context("a second handle of the agent's log")?))
            .stderr(Stdio::piped())
            // Ctrl-C is for the demo, which then stops the agent.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", options.agent.display()))?;
        let pid = child.id().context("the agent has no process id")?;
        let last = Arc::new(Mutex::new("(nothing)".to_owned()));
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(keep(stderr, file, last.clone()));
        }
        let (sender, status) = watch::channel(None);
        let cut = CancellationToken::new();
        let waiter = tokio::spawn(wait(child, sender, cut.clone()));
        Ok(Self { pid, log, last, status, cut, waiter })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its words are.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last thing it said.
    pub fn last_line(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it ends by itself.
    pub async fn ended(&self) -> String {
        let mut status = self.status.clone();
        let ended = status.wait_for(Option::is_some).await.map(|status| *status);
        ended.ok().flatten().map_or_else(|| "lost".to_owned(), |status| status.to_string())
    }

    /// Asks it to stop, and waits.
    pub async fn stop(self) -> Result<()> {
        if self.status.borrow().is_none() {
            let pid =
                i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("the agent's process id")?;
            kill_process(pid, Signal::TERM).context("asking the agent to stop")?;
        }
        let in_time = tokio::time::timeout(STOP, self.ended()).await;
        self.cut.cancel();
        self.waiter.await.context("waiting for the agent")?;
        let Ok(_) = in_time else {
            bail!("the agent did not stop within {} s and was killed", STOP.as_secs())
        };
        let status = *self.status.borrow();
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the agent stopped with {status}; see {}", self.log.display()),
            None => bail!("the agent was lost"),
        }
    }
}

async fn wait(mut child: Child, status: watch::Sender<Option<ExitStatus>>, cut: CancellationToken) {
    tokio::select! {
        ended = child.wait() => {
            status.send_replace(ended.ok());
        }
        () = cut.cancelled() => {
            if let Err(error) = child.kill().await {
                tracing::warn!(%error, "cannot kill the agent");
            }
        }
    }
}

async fn keep(stderr: impl AsyncRead + Unpin, mut log: File, last: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // A log that cannot be written is no reason to stop reading: the agent would block.
        let _ = writeln!(log, "{line}");
        *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}
