//! Puts the parts together, and takes them apart in the order of the data: sources, spool, link.

#[cfg(feature = "vision")]
use crate::vision;
use crate::{
    clock::{Clock, SystemClock},
    enroll::{Folder, renewal::Renewal},
    health::{Meter, Monitor},
    link::{Identity, Link},
    record::{self, Writer},
    sense,
    settings::Settings,
    state::State,
    status::{self, Teller},
    tuning::Afar,
    watchdog::{self, Progress},
};
use anyhow::{Context, Result};
use edgeveil_spool::OpenReport;
use edgeveil_wire::{BootId, EventKind};
use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// What is not done by then is left: the spool has it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Runs until `stop`. `ready` is called once, when every part has been started.
pub async fn run(
    settings: Settings,
    afar: Afar,
    stop: CancellationToken,
    ready: impl FnOnce(),
) -> Result<()> {
    let identity = Identity::load(&settings.link)?;
    identity.check_name(settings.device.name.as_ref(), &settings.link.cert)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    if let Err(error) = identity.check_time(clock.now().timestamp, &settings.link.cert) {
        // Recording goes on: the records wait on disk for a new certificate.
        tracing::error!(%error, "cannot connect; records wait on disk");
    }
    let boot = boot_id()?;
    record::claim(&settings.device.data_dir, &identity.device).context("cannot claim the spool")?;
    let (spool, report) = record::open(&settings).context("cannot open the spool")?;
    tell(&report);

    let state = Arc::new(State::default());
    for (device, dir) in record::left_behind(&settings.device.data_dir) {
        let what = format!(
            "records of {device}, this device's former name, wait in {}: fetch them with `edgeveil-agent spool export --dir`, then remove the folder",
            dir.display()
        );
        tracing::error!("{what}");
        state.problem("former name", &what);
    }
    let (watchman, mut ended) = Watchman::new();
    let progress = Arc::new(Progress::default());
    let committed = Arc::new(Notify::new());
    let interval = settings.spool.commit_interval;
    let (writer, records) = Writer::new(
        spool.clone(),
        boot,
        interval,
        clock.clone(),
        committed.clone(),
        state.clone(),
        progress.clone(),
    );
    #[cfg(feature = "vision")]
    let writer_numbers = writer.image_numbers();
    let runtime = Handle::current();
    let writer = watchman.spawn("writer", move || writer.run(&runtime))?;
    let (newest_health, health) = watch::channel(Vec::new());

    let mut sources = JoinSet::new();
    for sensor in &settings.sensors {
        let group = sense::Group {
            settings: sensor.clone(),
            data_dir: settings.device.data_dir.clone(),
            save_interval: settings.detector_save_interval,
            records: records.clone(),
            state: state.clone(),
            clock: clock.clone(),
            stop: stop.clone(),
        };
        sources.spawn(sense::watch(group));
    }
    #[cfg(feature = "vision")]
    let threads = {
        let (records, state, clock) = (records.clone(), state.clone(), clock.clone());
        let device = identity.device.clone();
        let start = vision::Start {
            device,
            numbers: writer_numbers,
            records,
            state,
            clock,
            stop: stop.clone(),
            progress: progress.clone(),
        };
        start.start(&settings, &mut sources, |name, work| watchman.spawn(name, work))?
    };
    #[cfg(not(feature = "vision"))]
    let threads = Vec::new();
    let meter = Arc::new(Meter {
        boot,
        sysfs: settings.device.sysfs.clone(),
        spool: spool.clone(),
        state: state.clone(),
        clock: clock.clone(),
    });
    let told = CancellationToken::new();
    let teller = Teller::new(&settings, identity.device.clone(), meter.clone(), health.clone());
    let socket = status::agents(&settings.device);
    let teller = tokio::spawn(status::serve(socket, teller, state.clone(), told.clone()));
    let monitor =
        Monitor { meter, every: settings.health_interval, records: records.clone(), newest: newest_health };
    let measured = CancellationToken::new();
    let mut monitor = tokio::spawn(monitor.run(measured.clone()));
    let link = Link {
        settings: settings.link.clone(),
        device: identity.device.clone(),
        data_dir: settings.device.data_dir.clone(),
        boot,
        spool: spool.clone(),
        committed,
        health,
        state,
        clock,
        afar: settings.link.remote_settings.then_some(afar),
        progress: progress.clone(),
    };
    let mut renewal = tokio::spawn(renew(&settings, &link, stop.clone()));
    let hang_up = CancellationToken::new();
    let mut link = tokio::spawn(link.run(hang_up.clone()));
    records
        .event_async(
            EventKind::Started,
            None,
            concat!("edgeveil-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
        )
        .await;
    if let Some(repair) = &report.repair {
        records.event_async(EventKind::SpoolDamaged, None, format!("{repair:?}")).await;
    }
    tracing::info!(device = %identity.device, %boot, sensors = settings.sensors.len(), "started");
    ready();
    let fed = stop.clone();
    tokio::spawn(async move { watchdog::feed(&progress, fed).await });

    let failed = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        Some(part) = ended.recv() => Some(part),
        Some(_) = sources.join_next() => Some("a sensor's task"),
        _ = &mut monitor => Some("health"),
        _ = &mut link => Some("link"),
        _ = &mut renewal => Some("renewal"),
    };
    let why = failed.map_or_else(|| "asked to stop".to_owned(), |part| format!("{part} ended by itself"));
    if failed.is_some() {
        tracing::error!(why, "stopping, so as to be started anew");
        stop.cancel();
    }
    tracing::info!("stopping");
    let end = async {
        records.event_async(EventKind::Stopped, None, why.clone()).await;
        while sources.join_next().await.is_some() {}
    };
    if timeout(DEADLINE, end).await.is_err() {
        tracing::warn!("sensors did not stop in time");
    }
    join("cameras", threads).await;
    // It tells of drops once more, now that nothing else comes.
    measured.cancel();
    if !monitor.is_finished() && timeout(DEADLINE, monitor).await.is_err() {
        tracing::warn!("health did not stop in time");
    }
    // The writer may be what has ended.
    let _ = timeout(DEADLINE, records.end()).await;
    join("writer", vec![writer]).await;
    let committed = tokio::task::block_in_place(|| spool.commit()).context("the last commit of the spool");
    hang_up.cancel();
    if !link.is_finished() && timeout(DEADLINE, link).await.is_err() {
        tracing::warn!("the link did not stop in time");
    }
    told.cancel();
    if timeout(DEADLINE, teller).await.is_err() {
        tracing::warn!("the status socket did not stop in time");
    }
    tracing::info!("stopped");
    committed?;
    if failed.is_some() { Err(anyhow::anyhow!(why)) } else { Ok(()) }
}

/// Renews the certificate, where that is the agent's to do.
fn renew(settings: &Settings, link: &Link, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
    let renewal = settings.link.folder.as_ref().map(|folder| Renewal {
        folder: Folder::new(folder),
        settings: settings.renew.clone(),
        link: settings.link.clone(),
        device: link.device.clone(),
        state: link.state.clone(),
        clock: link.clock.clone(),
    });
    async move {
        match renewal {
            Some(renewal) => renewal.run(stop).await,
            None => stop.cancelled().await,
        }
    }
}

/// Starts threads, and hears of each that ends, by a panic too.
struct Watchman(mpsc::Sender<&'static str>);

impl Watchman {
    fn new() -> (Self, mpsc::Receiver<&'static str>) {
        let (sender, ended) = mpsc::channel(1);
        (Self(sender), ended)
    }

    fn spawn(&self, name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
        let end = End(name, self.0.clone());
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _end = end;
                work();
            })
            .with_context(|| format!("cannot start thread {name}"))
    }
}

struct End(&'static str, mpsc::Sender<&'static str>);

impl Drop for End {
    fn drop(&mut self) {
        // One word is enough.
        let _ = self.1.try_send(self.0);
    }
}

fn boot_id() -> Result<BootId> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).context("the system gives no random numbers")?;
    Ok(BootId::from_random(random))
}

fn tell(report: &OpenReport) {
    let waiting: u64 = report.records.iter().sum();
    tracing::info!(waiting, "spool open");
    if let Some(repair) = &report.repair {
        tracing::error!(?repair, "the spool was damaged; what could be read was kept");
    }
    if report.waiting_for_room {
        tracing::error!("the disk is full: the spool opens when there is room");
    }
    for (lane, records) in &report.unknown_lanes {
        tracing::warn!(lane, records, "the spool has records of a lane that is not used any more");
    }
}

/// Waits for threads. One that hangs in a driver is left behind: the process ends anyway.
async fn join(name: &str, threads: Vec<JoinHandle<()>>) {
    let end = Instant::now() + DEADLINE;
    for thread in threads {
        while !thread.is_finished() && Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
        }
        if !thread.is_finished() {
            tracing::warn!(part = name, "did not stop in time");
        } else if thread.join().is_err() {
            tracing::error!(part = name, "had panicked");
        }
    }
}
