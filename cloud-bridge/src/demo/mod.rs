//! One bridge and one agent on this machine, from certificates to the forwarded alert, until Ctrl-C or until it is
//! shown that the whole path works.

mod agent;
mod report;
mod stand_in;

use crate::{
    catalog::Outbox,
    certs::{self, Kind, Replace},
    forward,
    serve::Bridge,
    settings::Settings,
};
use agent::Agent;
use anyhow::{Context, Result, bail};
use report::Seen;
use stand_in::StandIn;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// The demo's device.
const DEVICE: &str = "demo-pi";
/// Only a folder with this file in it is ever wiped.
const MARKER: &str = ".edgeveil-demo";
/// How often it is looked whether something new went through.
const LOOK: Duration = Duration::from_millis(200);
/// Between two lines about how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// What the demo is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The agent's binary.
    pub agent: PathBuf,
    /// The folder with the face detector and the photo.
    pub models: PathBuf,
    /// Where everything is written.
    pub state: PathBuf,
    /// Until when.
    pub end: End,
}

/// When the demo ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At Ctrl-C.
    Interrupt,
    /// As soon as all is through; badly when that takes longer.
    Check(Duration),
}

/// For people, beside the one line of JSON on standard output.
fn say(text: &str) {
    eprintln!("demo: {text}");
}

/// Runs the demo. `interrupted` turns true at Ctrl-C.
pub async fn run(options: &Options, mut interrupted: watch::Receiver<bool>) -> Result<()> {
    let started = Instant::now();
    let state = prepare(options)?;
    let settings = settings(&state).await.context("the demo's own settings")?;
    let bridge = Bridge::start(&settings.bridge).await?;
    let mqtt = bridge.mqtt.context("the embedded broker has no address")?;
    say(&format!("bridge up in {} ms, MQTT over TLS on {mqtt}", started.elapsed().as_millis()));
    say(&format!("the page: http://{}/", bridge.http));
    let agent = Agent::start(options, &state, mqtt.port())?;
    say(&format!("agent started, process {}; its log: {}", agent.pid(), agent.log().display()));

    let watched = tokio::select! {
        watched = watch_until_through(options, &bridge, &settings.stand_in, &agent) => watched,
        _ = interrupted.wait_for(|interrupted| *interrupted) => Ok(None),
    };
    say("stopping");
    let agent_end = agent.stop().await;
    let late = bridge.stop().await;
    settings.stand_in.stop().await;
    let line = watched?;
    agent_end?;
    if !late.is_empty() {
        bail!("did not stop in time: {}", late.join(", "));
    }
    if let Some(line) = line {
        println!("{line}");
    } else if matches!(options.end, End::Check(_)) {
        bail!("interrupted before all was through");
    }
    Ok(())
}

/// An empty folder with the marker in it.
fn prepare(options: &Options) -> Result<PathBuf> {
    let state = &options.state;
    for (what, path) in [("the agent", &options.agent), ("the models", &options.models)] {
        fs::metadata(path).with_context(|| format!("{what}: nothing at {}", path.display()))?;
    }
    for file in agent::MODELS.into_iter().chain([agent::PHOTO]) {
        let path = options.models.join(file);
        fs::metadata(&path).with_context(|| {
            format!("no {}: fetch it with `veil/fetch-models {}`", path.display(), options.models.display())
        })?;
    }
    if state.exists() {
        let empty =
            fs::read_dir(state).with_context(|| format!("reading {}", state.display()))?.next().is_none();
        if !empty && !state.join(MARKER).exists() {
            bail!(
                "{} is not empty and not of an earlier demo; name another folder by --state",
                state.display()
            );
        }
        fs::remove_dir_all(state).with_context(|| format!("emptying {}", state.display()))?;
    }
    fs::create_dir_all(state).with_context(|| format!("making {}", state.display()))?;
    fs::write(state.join(MARKER), "This folder is wiped whenever the demo starts.\n")
        .with_context(|| format!("writing into {}", state.display()))?;
    state.canonicalize().with_context(|| format!("the full path of {}", state.display()))
}

struct DemoSettings {
    bridge: Settings,
    stand_in: StandIn,
}

/// Certificates, the stand-in for AWS IoT Core, and the bridge's settings, written as a file that could be given to
/// `serve`.
async fn settings(state: &Path) -> Result<DemoSettings> {
    let dir = state.join("certs");
    certs::init(&dir, Replace::Refuse)?;
    let broker = certs::issue(&dir, Kind::Broker, "localhost", &[], Replace::Refuse)?;
    certs::issue(&dir, Kind::Device, DEVICE, &[], Replace::Refuse)?;
    say(&format!("fresh certificates in {}", dir.display()));
    let stand_in = StandIn::start(&state.join("aws-stand-in")).await?;
    say(&format!("a stand-in for AWS IoT Core (a second broker with X.509) on {}", stand_in.address));
    let quoted = |path: &Path| serde_json::to_string(&path.to_string_lossy()).unwrap_or_default();
    let text = format!(
        "data_dir = {data}\n\n\
         [broker]\nlisten = \"127.0.0.1:0\"\nca = {ca}\ncert = {cert}\nkey = {key}\n\n\
         [http]\nlisten = \"127.0.0.1:0\"\n\n\
         # Not AWS itself: a broker on this machine that takes its place.\n\
         [forward.aws]\nendpoint = \"localhost\"\nport = {port}\nca = {aws_ca}\ncert = {aws_cert}\nkey = {aws_key}\n\
         client_id = \"{client}\"\n",
        data = quoted(&state.join("bridge")),
        ca = quoted(&broker.ca),
        cert = quoted(&broker.cert),
        key = quoted(&broker.key),
        port = stand_in.address.port(),
        aws_ca = quoted(&stand_in.thing.ca),
        aws_cert = quoted(&stand_in.thing.cert),
        aws_key = quoted(&stand_in.thing.key),
        client = stand_in::THING,
    );
    let file = state.join("bridge.toml");
    fs::write(&file, &text).with_context(|| format!("writing {}", file.display()))?;
    let bridge = Settings::parse(&file.display().to_string(), &text, &|_| None).map_err(|problems| {
        anyhow::anyhow!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    Ok(DemoSettings { bridge, stand_in })
}

/// Tells what goes through. With `--check` it ends with the line of JSON, or with the reason why there is none.
async fn watch_until_through(
    options: &Options,
    bridge: &Bridge,
    stand_in: &StandIn,
    agent: &Agent,
) -> Result<Option<String>> {
    let started = Instant::now();
    let (_wake, woken) = watch::channel(());
    let outbox = Outbox::new(bridge.catalog.clone(), forward::AWS, woken);
    let mut seen = Seen::default();
    let mut last_line = Instant::now();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            status = agent.ended() => {
                bail!("the agent ended by itself ({status}); its last words: {}", agent.last_line());
            }
        }
        seen.look(bridge, stand_in, &outbox, started.elapsed()).await?;
        if let End::Check(timeout) = options.end {
            if seen.is_through() {
                return report::line(bridge, stand_in, &outbox).await.map(Some);
            }
            if started.elapsed() > timeout {
                bail!(
                    "not through within {} s; still missing: {}; the agent's last line: {}",
                    timeout.as_secs_f64(),
                    seen.missing().join(", "),
                    agent.last_line()
                );
            }
        }
        if last_line.elapsed() > PROGRESS {
            last_line = Instant::now();
            say(&report::progress(bridge, &seen, started.elapsed()).await?);
        }
    }
}
