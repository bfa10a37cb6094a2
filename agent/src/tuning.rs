//! Settings from afar: what of the settings file somebody at the bridge may change, and the memory of it.
//!
//! A wish (`config/desired`) is put over the settings file and read like a file of that content; when it is wrong, it is refused
//! and what ran before goes on. A good one is kept in the data folder, and the agent goes on with it as after a SIGHUP. It is proved a minute
//! after the agent has connected with it. A process that was started with one three times and has not come so far goes back to the one before.

use crate::settings::{self, Alerts, Settings};
#[cfg(feature = "vision")]
use edgeveil_wire::CameraTuning;
use edgeveil_wire::{Desired, DesiredAnswer, HealthTuning, SensorTuning, Tuning, Verdict};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use toml::{Table, Value};

/// Below the data folder.
const FILE: &str = "desired.json";
/// Starts of the process that a wish has to connect in.
const STARTS: u8 = 3;
/// What has run so long since the agent has connected is proved.
const PROVED: Duration = Duration::from_secs(60);
/// Messages of the link that wait to be read. What comes beyond is dropped: a retained wish comes again with the next connection.
const HEARD: usize = 8;
/// Problems that an answer names, and bytes of each.
const MAX_PROBLEMS: usize = 16;
const MAX_PROBLEM: usize = 400;

/// What the link hears that matters here.
#[derive(Debug)]
pub enum Heard {
    /// It has connected.
    Connected,
    /// Somebody wants other settings.
    Desired(Vec<u8>),
}

/// What the link tells of it, as `config/reported`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standing {
    /// What runs.
    pub settings: Tuning,
    /// What became of the last wish.
    pub desired: Option<DesiredAnswer>,
}

/// The link's end.
#[derive(Debug, Clone)]
pub struct Afar {
    /// What is told.
    pub standing: watch::Receiver<Standing>,
    heard: mpsc::Sender<Heard>,
}

impl Afar {
    /// Passes on what was heard.
    pub fn hear(&self, heard: Heard) {
        if self.heard.try_send(heard).is_err() {
            tracing::debug!("a message about settings was dropped: others wait");
        }
    }
}

/// In the data folder.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Memory {
    /// What runs over the file.
    #[serde(default)]
    runs: Option<Desired>,
    /// Whether it has run for a minute with a connection.
    #[serde(default)]
    proved: bool,
    /// Starts of the process since it was taken up, while it has not.
    #[serde(default)]
    starts: u8,
    /// What ran before.
    #[serde(default)]
    before: Option<Desired>,
    /// What was given up, and why: it is not tried again.
    #[serde(default)]
    given_up: Option<(Desired, String)>,
}

/// Keeps what is wanted, and makes settings of it.
pub struct Tuner {
    config: PathBuf,
    text: String,
    memory: Memory,
    /// Where it is kept.
    file: PathBuf,
    standing: watch::Sender<Standing>,
    heard: mpsc::Receiver<Heard>,
    afar: Afar,
    /// Whether they are wanted at all (`link.remote_settings`).
    enabled: bool,
    /// Whether this start of the process is counted.
    counted: bool,
    /// When what runs is proved: some time after the agent has connected.
    proves_at: Option<Instant>,
}

impl Tuner {
    /// Reads the memory of a start before. `text` is that of the settings file, which is a good one.
    pub fn open(config: PathBuf, text: String, data_dir: &Path) -> Self {
        let file = data_dir.join(FILE);
        let memory = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(file = %file.display(), %error, "settings from afar cannot be read; the settings file alone counts");
                Memory::default()
            }),
            Err(_) => Memory::default(),
        };
        let (standing, watched) = watch::channel(Standing::default());
        let (sender, heard) = mpsc::channel(HEARD);
        let afar = Afar { standing: watched, heard: sender };
        Self {
            config,
            text,
            memory,
            file,
            standing,
            heard,
            afar,
            enabled: false,
            counted: false,
            proves_at: None,
        }
    }

    /// One that was never proved is given up after some starts.
    fn count_start(&mut self) {
        let Some(runs) = self.memory.runs.clone() else { return };
        if self.memory.proved {
            return;
        }
        if self.memory.starts >= STARTS {
            let why = format!(
                "the agent was started {STARTS} times with it and never ran for a minute with a connection"
            );
            tracing::error!(
                id = runs.id,
                why,
                "settings from afar are given up; those before them run again"
            );
            let before = self.memory.before.take();
            self.memory =
                Memory { runs: before, proved: true, given_up: Some((runs, why)), ..Memory::default() };
        } else {
            self.memory.starts += 1;
        }
        self.keep();
    }

    /// The link's end of it.
    pub fn afar(&self) -> Afar {
        self.afar.clone()
    }

    /// What to run with: the file, and what is wanted over it where that fits. `text` is that of the settings file as it is now.
    pub fn settings(&mut self, text: Option<String>) -> Result<Settings, settings::Problems> {
        let plain = settings::parse(&self.config, text.as_deref().unwrap_or(&self.text))?;
        if let Some(text) = text {
            self.text = text;
        }
        self.enabled = plain.link.remote_settings;
        // What the link before has heard is about what ran before; a wish comes again with the next one.
        while self.heard.try_recv().is_ok() {}
        self.proves_at = None;
        if !self.enabled {
            return Ok(plain);
        }
        if !std::mem::replace(&mut self.counted, true) {
            self.count_start();
        }
        let given_up = self.memory.given_up.as_ref();
        let mut answer = given_up.map(|(desired, why)| refusal(&desired.id, vec![why.clone()]));
        let settings = match &self.memory.runs {
            None => plain,
            Some(desired) => match over(&self.text, &desired.settings) {
                Ok(settings) => {
                    let applied = DesiredAnswer {
                        id: desired.id.clone(),
                        state: Verdict::Applied,
                        problems: Vec::new(),
                    };
                    answer = answer.or(Some(applied));
                    settings
                }
                Err(problems) => {
                    tracing::error!(
                        ?problems,
                        "settings from afar do not fit the settings file; it alone counts"
                    );
                    answer = Some(refusal(&desired.id, problems));
                    plain
                }
            },
        };
        self.standing.send_replace(Standing { settings: tuning(&settings), desired: answer });
        Ok(settings)
    }

    /// Waits for a wish that is to run: [`Self::settings`] has it.
    pub async fn wish(&mut self) {
        if !self.enabled {
            return std::future::pending().await;
        }
        loop {
            let proves_at = self.proves_at;
            let proved = async {
                match proves_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = proved => self.prove(),
                // This end has a sender too, so it is never closed.
                Some(heard) = self.heard.recv() => match heard {
                    Heard::Connected => self.proves_at = Some(Instant::now() + PROVED),
                    Heard::Desired(payload) => {
                        if self.read(&payload) {
                            return;
                        }
                    }
                },
            }
        }
    }

    fn prove(&mut self) {
        self.proves_at = None;
        if !self.memory.proved {
            (self.memory.proved, self.memory.starts, self.memory.before) = (true, 0, None);
            self.keep();
        }
    }

    /// Whether it is to run.
    fn read(&mut self, payload: &[u8]) -> bool {
        // Whoever clears the retained message wants nothing any more.
        let nothing = Desired { id: "none".to_owned(), settings: Tuning::default() };
        let desired = if payload.is_empty() { Ok(nothing) } else { Desired::from_json(payload) };
        let desired = match desired {
            Ok(desired) => desired,
            Err(error) => {
                self.refuse("", vec![error.to_string()]);
                return false;
            }
        };
        if payload.is_empty() && self.memory.runs.is_none() {
            return false;
        }
        if let Some(answer) = self.known(&desired) {
            // Whoever asks again may have missed the answer.
            self.standing.send_modify(|standing| standing.desired = Some(answer));
            return false;
        }
        if let Err(problems) = over(&self.text, &desired.settings) {
            self.refuse(&desired.id, problems);
            return false;
        }
        let before = if self.memory.proved { self.memory.runs.take() } else { self.memory.before.take() };
        let runs = (!payload.is_empty()).then(|| desired.clone());
        let was = std::mem::replace(&mut self.memory, Memory { runs, before, ..Memory::default() });
        if !self.keep() {
            self.memory = was;
            self.refuse(&desired.id, vec![format!("{}: cannot be written", self.file.display())]);
            return false;
        }
        tracing::info!(id = desired.id, "starting anew with settings from afar");
        true
    }

    /// The answer to a wish that was answered before.
    fn known(&self, desired: &Desired) -> Option<DesiredAnswer> {
        if let Some((known, why)) = &self.memory.given_up
            && known == desired
        {
            return Some(refusal(&desired.id, vec![why.clone()]));
        }
        if self.memory.runs.as_ref() != Some(desired) {
            return None;
        }
        // It may run, or no longer fit the file.
        Some(match over(&self.text, &desired.settings) {
            Ok(_) => DesiredAnswer { id: desired.id.clone(), state: Verdict::Applied, problems: Vec::new() },
            Err(problems) => refusal(&desired.id, problems),
        })
    }

    fn refuse(&mut self, id: &str, problems: Vec<String>) {
        let answer = Some(refusal(id, problems));
        self.standing.send_if_modified(|standing| {
            let is_new = standing.desired != answer;
            if is_new {
                tracing::error!(?answer, "settings from afar are not taken; the agent goes on as it was");
                standing.desired.clone_from(&answer);
            }
            is_new
        });
    }

    /// Whole or not at all. Whether it is on the disk.
    fn keep(&self) -> bool {
        let part = self.file.with_extension("json.part");
        let written = (|| {
            let mut file = fs::File::create(&part)?;
            file.write_all(&serde_json::to_vec(&self.memory)?)?;
            file.sync_all()?;
            fs::rename(&part, &self.file)
        })();
        if let Err(error) = &written {
            tracing::error!(file = %self.file.display(), %error, "settings from afar cannot be kept");
        }
        written.is_ok()
    }
}

fn refusal(id: &str, mut problems: Vec<String>) -> DesiredAnswer {
    problems.truncate(MAX_PROBLEMS);
    let cut = |text: String| text.chars().take(MAX_PROBLEM).collect();
    let problems = problems.into_iter().map(cut).collect();
    DesiredAnswer { id: id.to_owned(), state: Verdict::Refused, problems }
}

/// The settings file's text with this over it, read anew.
fn over(text: &str, tuning: &Tuning) -> Result<Settings, Vec<String>> {
    let mut table: Table = text.parse().map_err(|error| vec![format!("the settings file: {error}")])?;
    let mut problems = Vec::new();
    if let Some(HealthTuning { interval: Some(interval) }) = &tuning.health {
        let health = table.entry("health").or_insert_with(|| Table::new().into());
        set(health, "interval", Some(interval.as_str()), &[]);
    }
    for (group, sensor) in &tuning.sensor {
        match named(&mut table, "sensor", "group", group.as_str()) {
            None => problems.push(format!("sensor.{group}: there is no such group")),
            Some(table) => {
                set(table, "rate", sensor.rate, &[]);
                set(table, "detect", sensor.detect, &[]);
                set(table, "alerts", sensor.alerts.as_deref(), &[]);
            }
        }
    }
    for (name, camera) in &tuning.camera {
        match named(&mut table, "camera", "name", name.as_str()) {
            None => problems.push(format!("camera.{name}: there is no such camera")),
            Some(table) => {
                // Each stands in place of the other, and what belongs to that one goes with it.
                if camera.fps.is_none() || camera.every.is_none() {
                    let throttled = table.get("throttled_fps").and_then(number);
                    let too_fast = camera.fps.zip(throttled).is_some_and(|(fps, throttled)| throttled > fps);
                    let others = ["every", "warm_up", "throttled_fps"];
                    set(table, "fps", camera.fps, &others[..if too_fast { 3 } else { 2 }]);
                    set(table, "every", camera.every.as_deref(), &["fps", "throttled_fps"]);
                } else {
                    problems.push(format!("camera.{name}: wants fps or every, not both"));
                }
                set(table, "quality", camera.quality.map(i64::from), &[]);
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let merged = toml::to_string(&table).map_err(|error| vec![error.to_string()])?;
    let settings = settings::parse(Path::new("settings from afar"), &merged).map_err(|problems| {
        let list = problems.list().iter();
        list.map(|problem| format!("{}: {}", problem.key, problem.what)).collect::<Vec<_>>()
    })?;
    #[cfg(feature = "vision")]
    {
        let problems = too_fast(text, &settings);
        if !problems.is_empty() {
            return Err(problems);
        }
    }
    Ok(settings)
}

/// The veil keeps a face that it has lost for a number of frames, so more frames in the same time would shorten that.
#[cfg(feature = "vision")]
fn too_fast(text: &str, settings: &Settings) -> Vec<String> {
    let pace = |camera: &settings::Camera| {
        camera.schedule.every.map_or(camera.fps, |every| 1.0 / every.as_secs_f64())
    };
    let Ok(plain) = settings::parse(Path::new("the settings file"), text) else { return Vec::new() };
    let pairs = settings.cameras.iter().zip(&plain.cameras);
    let faster = pairs.filter(|(wanted, own)| pace(wanted) > pace(own) * 1.000_001);
    faster
        .map(|(wanted, own)| {
            let (name, wanted, own) = (&wanted.name, pace(wanted), pace(own));
            format!(
                "camera.{name}: {wanted} images a second are more than the device's own file allows, {own}"
            )
        })
        .collect()
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|number| number as f64))
}

/// The table of an array in which a key has a value.
fn named<'t>(table: &'t mut Table, array: &str, key: &str, value: &str) -> Option<&'t mut Value> {
    let tables = table.get_mut(array)?.as_array_mut()?;
    tables.iter_mut().find(|table| table.get(key).and_then(Value::as_str) == Some(value))
}

/// Sets what is given, and takes others out for it.
fn set(table: &mut Value, key: &str, value: Option<impl Into<Value>>, others: &[&str]) {
    let (Some(table), Some(value)) = (table.as_table_mut(), value) else { return };
    others.iter().for_each(|other| _ = table.remove(*other));
    table.insert(key.to_owned(), value.into());
}

/// What of the settings can be wanted, as they are.
fn tuning(settings: &Settings) -> Tuning {
    let sensor = settings.sensors.iter().map(|sensor| {
        let alerts = sensor.detector.as_ref().map(|detector| match detector.alerts {
            Alerts::Rows => "rows".to_owned(),
            Alerts::Episodes => "episodes".to_owned(),
        });
        let detect = Some(sensor.detector.is_some());
        (sensor.group.clone(), SensorTuning { rate: Some(sensor.rate), detect, alerts })
    });
    #[cfg(feature = "vision")]
    let camera = settings.cameras.iter().map(|camera| {
        let every = camera.schedule.every.map(time);
        let fps = every.is_none().then_some(camera.fps);
        (camera.name.clone(), CameraTuning { fps, every, quality: Some(camera.quality) })
    });
    #[cfg(feature = "vision")]
    let camera = camera.collect();
    #[cfg(not(feature = "vision"))]
    let camera = BTreeMap::new();
    Tuning {
        health: Some(HealthTuning { interval: Some(time(settings.health_interval)) }),
        sensor: sensor.collect::<BTreeMap<_, _>>(),
        camera,
    }
}

/// As in the file.
fn time(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 1000 != 0 => format!("{ms} ms"),
        ms if ms % 60_000 == 0 && ms > 0 => format!("{} min", ms / 60_000),
        ms => format!("{} s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_TEXT: &str = "# ours\n[link]\nhost = \"h\"\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n\
        [[sensor]]\ngroup = \"env\"\nsource = { csv = \"f\" }\nrate = 5\n\
        [[sensor]]\ngroup = \"soil\"\nsource = { csv = \"g\" }\ndetect = false\n";

    fn wish(id: &str, json: &str) -> Vec<u8> {
        format!("{{\"schema\":\"edgeveil.desired/1\",\"id\":\"{id}\",\"settings\":{json}}}").into_bytes()
    }

    fn open(dir: &Path) -> Tuner {
        Tuner::open("agent.toml".into(), FILE_TEXT.to_owned(), dir)
    }

    /// As the agent does: it hears a wish, and goes on with what comes of it.
    fn run(tuner: &mut Tuner, payload: &[u8]) -> Settings {
        assert!(tuner.read(payload), "{}", String::from_utf8_lossy(payload));
        tuner.settings(None).unwrap()
    }

    fn rate(settings: &Settings) -> f64 {
        settings.sensors[0].rate
    }

    fn answer(tuner: &Tuner) -> (String, Verdict) {
        let answer = tuner.standing.borrow().desired.clone().expect("an answer");
        (answer.id, answer.state)
    }

    #[test]
    fn a_wish_runs_is_remembered_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut tuner = open(dir.path());
        assert_eq!(rate(&tuner.settings(None).unwrap()), 5.0);
        let standing = tuner.standing.borrow().clone();
        assert_eq!(standing.desired, None);
        assert_eq!(
            serde_json::to_string(&standing.settings).unwrap(),
            r#"{"health":{"interval":"30 s"},"sensor":{"env":{"rate":5.0,"detect":true,"alerts":"rows"},"soil":{"rate":1.0,"detect":false}}}"#
        );
        let desired =
            wish("a", r#"{"health":{"interval":"2 min"},"sensor":{"env":{"rate":2,"alerts":"episodes"}}}"#);
        let settings = run(&mut tuner, &desired);
        assert_eq!((rate(&settings), settings.health_interval), (2.0, Duration::from_secs(120)));
        assert_eq!(settings.sensors[1].rate, 1.0);
        assert_eq!(answer(&tuner), ("a".to_owned(), Verdict::Applied));
        // The same one again, as with each connection, is no news.
        assert!(!tuner.read(&desired));
        tuner.prove();
        let mut tuner = open(dir.path());
        assert_eq!(rate(&tuner.settings(None).unwrap()), 2.0);
        assert_eq!(answer(&tuner), ("a".to_owned(), Verdict::Applied));
        // The file has changed meanwhile.
        let text = FILE_TEXT.replace("rate = 5", "rate = 7");
        assert_eq!(rate(&tuner.settings(Some(text.clone())).unwrap()), 2.0);
        assert_eq!(rate(&run(&mut tuner, &wish("b", "{}"))), 7.0);
        assert_eq!(answer(&tuner), ("b".to_owned(), Verdict::Applied));
        assert_eq!(rate(&run(&mut tuner, b"")), 7.0);
        assert_eq!(tuner.standing.borrow().desired, None);
        assert!(!tuner.read(b""));
    }

    #[test]
    fn a_bad_wish_changes_nothing_and_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let mut tuner = open(dir.path());
        tuner.settings(None).unwrap();
        run(&mut tuner, &wish("good", r#"{"sensor":{"env":{"rate":2}}}"#));
        for (json, why) in [
            (r#"{"sensor":{"env":{"rate":0}}}"#, "sensor[0].rate"),
            (r#"{"sensor":{"air":{"rate":1}}}"#, "sensor.air: there is no such group"),
            (r#"{"camera":{"door":{"fps":1}}}"#, "camera.door: there is no such camera"),
            (r#"{"health":{"interval":"soon"}}"#, "health.interval"),
            (r#"{"sensor":{"env":{"alerts":"all"}}}"#, "sensor[0].alerts"),
        ] {
            assert!(!tuner.read(&wish("bad", json)), "{json}");
            assert_eq!(answer(&tuner), ("bad".to_owned(), Verdict::Refused));
            let problems = tuner.standing.borrow().desired.clone().unwrap().problems;
            assert!(problems[0].contains(why), "{json}: {problems:?}");
        }
        assert!(!tuner.read(br#"{"schema":"edgeveil.desired/1","id":"x","settings":{"veil":{}}}"#));
        assert!(tuner.standing.borrow().desired.clone().unwrap().problems[0].contains("veil"));
        // The good one is asked for again: it is answered again.
        assert!(!tuner.read(&wish("good", r#"{"sensor":{"env":{"rate":2}}}"#)));
        assert_eq!(answer(&tuner), ("good".to_owned(), Verdict::Applied));
        let mut tuner = open(dir.path());
        assert_eq!(rate(&tuner.settings(None).unwrap()), 2.0);
    }

    #[test]
    fn one_that_never_connects_is_given_up_for_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut tuner = open(dir.path());
        tuner.settings(None).unwrap();
        run(&mut tuner, &wish("a", r#"{"sensor":{"env":{"rate":2}}}"#));
        tuner.prove();
        let b = wish("b", r#"{"sensor":{"env":{"rate":3}}}"#);
        run(&mut tuner, &b);
        for _ in 0..STARTS {
            assert_eq!(rate(&open(dir.path()).settings(None).unwrap()), 3.0);
        }
        let mut tuner = open(dir.path());
        assert_eq!(rate(&tuner.settings(None).unwrap()), 2.0);
        assert_eq!(answer(&tuner), ("b".to_owned(), Verdict::Refused));
        // It is retained at the broker, and comes again.
        assert!(!tuner.read(&b));
        assert_eq!(rate(&open(dir.path()).settings(None).unwrap()), 2.0);
    }

    #[test]
    fn what_was_taken_back_does_not_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut tuner = open(dir.path());
        tuner.settings(None).unwrap();
        run(&mut tuner, &wish("a", r#"{"sensor":{"env":{"rate":2}}}"#));
        tuner.prove();
        run(&mut tuner, b"");
        tuner.prove();
        run(&mut tuner, &wish("b", r#"{"sensor":{"env":{"rate":3}}}"#));
        for _ in 0..STARTS {
            assert_eq!(rate(&open(dir.path()).settings(None).unwrap()), 3.0);
        }
        assert_eq!(rate(&open(dir.path()).settings(None).unwrap()), 5.0, "the file, not the first wish");
    }

    #[test]
    fn what_is_not_wanted_is_neither_heard_nor_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut tuner = open(dir.path());
        tuner.settings(None).unwrap();
        run(&mut tuner, &wish("a", r#"{"sensor":{"env":{"rate":2}}}"#));
        let off = FILE_TEXT.replace("[link]\n", "[link]\nremote_settings = false\n");
        for _ in 0..STARTS + 2 {
            let mut tuner = Tuner::open("agent.toml".into(), off.clone(), dir.path());
            assert_eq!(rate(&tuner.settings(None).unwrap()), 5.0);
        }
        assert_eq!(rate(&open(dir.path()).settings(None).unwrap()), 2.0);
    }

    #[test]
    fn what_no_longer_fits_the_file_leaves_the_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut tuner = open(dir.path());
        tuner.settings(None).unwrap();
        run(&mut tuner, &wish("a", r#"{"sensor":{"soil":{"rate":2}}}"#));
        let (text, _) = FILE_TEXT.rsplit_once("[[sensor]]").unwrap();
        let settings = tuner.settings(Some(text.to_owned())).unwrap();
        assert_eq!((settings.sensors.len(), rate(&settings)), (1, 5.0));
        assert_eq!(answer(&tuner), ("a".to_owned(), Verdict::Refused));
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(rate(&open(dir.path()).settings(None).unwrap()), 5.0);
    }

    #[cfg(feature = "vision")]
    #[test]
    fn a_cameras_pace_is_one_of_two_and_its_veil_is_not_touched() {
        let camera = "[veil]\nmodel = \"m\"\n[[camera]]\nname = \"door\"\nsource = { replay = \"/tmp\" }\n";
        let text =
            format!("{FILE_TEXT}{camera}fps = 4\nthrottled_fps = 1\nmasks = [[[0, 0], [1, 0], [1, 0.1]]]\n");
        let over = |json: &str| over(&text, &serde_json::from_str(json).unwrap());
        let settings = over(r#"{"camera":{"door":{"every":"10 min","quality":70}}}"#).unwrap();
        let door = &settings.cameras[0];
        assert_eq!((door.schedule.every, door.quality), (Some(Duration::from_secs(600)), 70));
        assert_eq!((door.masks.len(), settings.veil.is_some()), (1, true));
        assert_eq!(over(r#"{"camera":{"door":{"fps":2}}}"#).unwrap().cameras[0].fps, 2.0);
        assert!(
            over(r#"{"camera":{"door":{"fps":2,"every":"1 min"}}}"#).unwrap_err()[0].contains("not both")
        );
        // Slower than the file's pace of a hot board: that one gives way.
        let door = over(r#"{"camera":{"door":{"fps":0.5}}}"#).unwrap().cameras.remove(0);
        assert_eq!((door.fps, door.throttled_fps), (0.5, 0.25));
        assert!(serde_json::from_str::<Tuning>(r#"{"camera":{"door":{"masks":[]}}}"#).is_err());
        // No faster than the file: the veil's memory counts frames.
        let fast = over(r#"{"camera":{"door":{"fps":4.1}}}"#).unwrap_err();
        assert!(fast[0].contains("more than the device's own file allows, 4"), "{fast:?}");
        assert_eq!(over(r#"{"camera":{"door":{"fps":4}}}"#).unwrap().cameras[0].fps, 4.0);
    }
}
