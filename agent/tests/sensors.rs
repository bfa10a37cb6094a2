//! Sensor groups as the agent runs them: what hangs holds up nobody else, and what was started ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_agent::{
    clock::SystemClock,
    record::{self, Writer},
    sense,
    settings::{self, Settings},
    state::State,
    watchdog::Progress,
};
use edgeveil_wire::{BootId, Name, SensorHealth};
use std::{
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    runtime::Runtime,
    sync::Notify,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// The groups of some settings, on a runtime that is smaller than the agent's.
struct Groups {
    state: Arc<State>,
    stop: CancellationToken,
    all: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
    dir: tempfile::TempDir,
}

impl Groups {
    fn start(dir: tempfile::TempDir, sensors: &str) -> Self {
        let settings = settings(dir.path(), sensors);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (state, stop) = (Arc::new(State::default()), CancellationToken::new());
        let clock = Arc::new(SystemClock::start());
        let (spool, _) = record::open(&settings).unwrap();
        let (committed, progress) = (Arc::new(Notify::new()), Arc::new(Progress::default()));
        let (writer, records) = Writer::new(
            spool,
            BootId::from_random([7; 10]),
            settings.spool.commit_interval,
            clock.clone(),
            committed,
            state.clone(),
            progress,
        );
        let handle = runtime.handle().clone();
        thread::spawn(move || writer.run(&handle));
        let mut tasks = JoinSet::new();
        for sensor in &settings.sensors {
            let group = sense::Group {
                settings: sensor.clone(),
                data_dir: dir.path().to_owned(),
                save_interval: settings.detector_save_interval,
                records: records.clone(),
                state: state.clone(),
                clock: clock.clone(),
                stop: stop.clone(),
            };
            tasks.spawn_on(sense::watch(group), runtime.handle());
        }
        let all = runtime.spawn(async move { while tasks.join_next().await.is_some() {} });
        Self { state, stop, all: Some(all), runtime: Some(runtime), dir }
    }

    fn health(&self, group: &str) -> SensorHealth {
        let counted = self.state.counted();
        counted.sensors.get(&group.parse::<Name>().unwrap()).cloned().unwrap_or_default()
    }

    /// Tells them to stop, and waits for all of them.
    fn stop(&mut self) {
        self.stop.cancel();
        if let (Some(runtime), Some(all)) = (&self.runtime, self.all.take()) {
            runtime.block_on(all).unwrap();
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.stop.cancel();
        // A thread that hangs in a driver hangs on.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn settings(dir: &Path, sensors: &str) -> Settings {
    let text = format!(
        "[device]\ndata_dir = \"{0}\"\nsysfs = \"{0}/sys\"\n[link]\nhost = \"h\"\nca = \"a\"\ncert = \"c\"\nkey = \"k\"\n\
         [spool]\nmin_free = \"0 B\"\ncommit_interval = \"10 ms\"\n{sensors}\n",
        dir.display()
    );
    settings::parse(Path::new("test.toml"), &text).unwrap()
}

/// The patience bounds a test that has failed; it measures nothing.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not seen: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_alive(pid: &str) -> bool {
    // A zombie has no command line.
    fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty())
}

#[test]
fn thermometers_that_hang_hold_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut sensors = "[[sensor]]\ngroup = \"quick\"\nsource = { simulate = {} }\nrate = 200\n".to_owned();
    for i in 0..6 {
        let device = dir.path().join(format!("sys/bus/w1/devices/28-{i}"));
        fs::create_dir_all(&device).unwrap();
        // Nobody writes: whoever reads it waits for ever, as on a bus that hangs.
        let made = std::process::Command::new("mkfifo").arg(device.join("temperature")).status();
        assert!(made.unwrap().success());
        sensors += &format!("[[sensor]]\ngroup = \"slow{i}\"\nsource = {{ w1 = \"28-{i}\" }}\n");
    }
    let groups = Groups::start(dir, &sensors);
    wait_for("rows of the quick one", || (groups.health("quick").readings > 200).then_some(()));
    for i in 0..6 {
        assert_eq!(groups.health(&format!("slow{i}")), SensorHealth::default());
    }
    // Each comes back by itself.
    let file = groups.dir.path().join("sys/bus/w1/devices/28-3/temperature");
    thread::spawn(move || fs::write(file, "21500\n"));
    wait_for("a row of the one that goes on", || (groups.health("slow3").readings > 0).then_some(()));
}

#[test]
fn a_program_has_ended_when_its_group_has() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    // It does not want to end.
    let script = format!(
        "trap '' TERM; echo $$ > {}; while :; do echo '{{\"a\": 1}}'; sleep 0.01; done",
        pid.display()
    );
    let sensor = format!(
        "[[sensor]]\ngroup = \"soil\"\nsource = {{ command = [\"sh\", \"-c\", {script:?}] }}\nrate = 50\n"
    );
    let mut groups = Groups::start(dir, &sensor);
    wait_for("rows", || (groups.health("soil").readings > 3).then_some(()));
    let pid = fs::read_to_string(pid).unwrap();
    assert!(is_alive(&pid));
    groups.stop();
    assert!(!is_alive(&pid));
}
