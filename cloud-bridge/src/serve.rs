//! The parts put together, and taken apart again in the order of the data.

use crate::{
    anonymise::{Images, Mender, Places},
    backoff::Backoff,
    broker::{Broker, DevicePolicy, Setup},
    catalog::Catalog,
    certs, enroll,
    film::Studio,
    forward, homeassistant,
    ingest::{self, Ingest, Legacy},
    metrics::Metrics,
    objects::Objects,
    readiness::{Part, Readiness},
    retention::Retention,
    settings::{BrokerCertificates, BrokerSettings, ImageAccess, Settings, SourceSettings, TlsFiles},
    source::{self, Intake, ToDevices, amqp::Amqp, external::External},
    tls,
    troubles::Troubles,
    web::{self, access::Access},
    wishes::Wishes,
};
use anyhow::{Context, Result};
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// How long stopping may take.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// A running bridge.
pub struct Bridge {
    /// Where the pages are.
    pub http: SocketAddr,
    /// Where devices connect; none with a broker elsewhere.
    pub mqtt: Option<SocketAddr>,
    /// Where they get their certificates, if here.
    pub enroll: Option<SocketAddr>,
    /// Rows.
    pub catalog: Catalog,
    /// Images.
    pub objects: Objects,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    source: Source,
    ingest: JoinHandle<()>,
    forwarders: Vec<JoinHandle<()>>,
    retention: JoinHandle<()>,
    /// Makes films.
    studio: JoinHandle<()>,
    /// Tells Home Assistant.
    announcer: Option<JoinHandle<()>>,
    /// Of the anonymisation service: mending, and a worker.
    pictures: Vec<JoinHandle<()>>,
    web: JoinHandle<()>,
    stops: Stops,
}

enum Source {
    Embedded(Broker),
    External(JoinHandle<()>),
    Amqp(JoinHandle<()>),
}

/// Each part is stopped by itself, in the order of the data.
#[derive(Default)]
struct Stops {
    source: source::Stops,
    ingest: ingest::Stops,
    forwarder: CancellationToken,
    retention: CancellationToken,
    announcer: CancellationToken,
    pictures: CancellationToken,
    web: CancellationToken,
}

impl Bridge {
    /// Opens everything and starts. An error names the place and the remedy, and leaves nothing running.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let (metrics, readiness, stops) =
            (Arc::new(Metrics::default()), Arc::new(Readiness::default()), Stops::default());
        let troubles = Arc::new(Troubles::default());
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&settings.data_dir).with_context(|| {
            format!("data folder {}: cannot be made; make the folder above it writable for this user, or set data_dir", settings.data_dir.display())
        })?;
        // Both ports first: a second bridge on the same machine should not even touch the catalog.
        let http = listen(settings.http, "http.listen").await?;
        let mqtt = match &settings.source {
            SourceSettings::Embedded(broker) => Some(listen(broker.listen, "broker.listen").await?),
            SourceSettings::External(_) | SourceSettings::Amqp(_) => None,
        };
        let desk = match &settings.enroll {
            Some(enroll) => Some(listen(enroll.listen, "enroll.listen").await?),
            None => None,
        };
        let objects = Objects::open(&settings.objects).await?;
        let (sweeper, now) = (objects.clone(), SystemTime::now());
        // Not one of the runtime's threads: nobody waits for it at the end.
        std::thread::spawn(move || sweeper.sweep(now));
        let catalog = Catalog::open(&settings.catalog).await?;
        readiness.up(Part::Database);

        // One account of what is not answered, for all that is shown.
        let asked = catalog.within(web::PATIENCE);
        let access = Arc::new(Access::open(&settings.access, &asked).await?);
        let anonymise = Anonymise::open(settings, &catalog, &metrics, &readiness).await?;

        let (wake, woken) = watch::channel(());
        let (targets, forwarders) = forward::start(settings, &catalog, &woken, &metrics, &stops.forwarder)?;

        let opening =
            settings.homeassistant.as_ref().map(|told| homeassistant::Opening::new(told, &settings.topics));
        let desk_of_homeassistant = opening.as_ref().map(|opening| opening.desk.clone());
        let (intake, queue) = Intake::new(settings.ingest.queue, settings.ingest.memory.0);
        let mut source_settings =
            SourceParts { settings, intake, metrics: &metrics, readiness: &readiness, troubles: &troubles };
        let (source, devices, mqtt) = match (&settings.source, mqtt) {
            (SourceSettings::Embedded(broker), Some(listener)) => {
                catalog.nobody_is_connected(jiff::Timestamp::now().as_millisecond()).await?;
                let started = source_settings.embedded(broker, listener).await?;
                // It keeps its retained messages in memory.
                desk_of_homeassistant.iter().for_each(homeassistant::Desk::again);
                started
            }
            (SourceSettings::External(mqtt), _) => {
                let (intake, ready, metrics) = (source_settings.intake, readiness.clone(), metrics.clone());
                let (mut external, publisher) = External::new(
                    mqtt,
                    &settings.topics,
                    settings.legacy.as_ref(),
                    intake,
                    ready,
                    metrics,
                    stops.source.clone(),
                )?;
                if let Some(desk) = &desk_of_homeassistant {
                    external = external.presented_at(desk.clone());
                }
                (Source::External(alone(external.run())?), ToDevices::External(publisher), None)
            }
            (SourceSettings::Amqp(amqp), _) => {
                let (intake, ready, metrics) = (source_settings.intake, readiness.clone(), metrics.clone());
                let (amqp, publisher) = Amqp::new(
                    amqp,
                    &settings.topics,
                    settings.legacy.as_ref(),
                    intake,
                    ready,
                    metrics,
                    stops.source.clone(),
                )?;
                (Source::Amqp(alone(amqp.run())?), ToDevices::External(publisher), None)
            }
            (SourceSettings::Embedded(_), None) => unreachable!("an embedded broker has its listener"),
        };
        let wishes = Wishes::new(asked.clone(), devices.clone(), settings.topics.clone());
        let registrar = registrar(settings, &metrics).await?;
        let announcer = settings.homeassistant.clone().zip(opening).map(|(told, opening)| {
            opening.announcer(told, settings.topics.clone(), catalog.clone(), devices.clone())
        });
        let ingest = Ingest {
            intake: queue,
            settings: settings.ingest.clone(),
            topics: settings.topics.clone(),
            catalog: catalog.clone(),
            objects: objects.clone(),
            image_key: settings.image_key.clone(),
            legacy: settings.legacy.clone().map(Legacy::new),
            homeassistant: desk_of_homeassistant,
            devices,
            targets,
            wake,
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            troubles: troubles.clone(),
            refusals: ingest::Refusals::default(),
        };
        let ingest = tokio::spawn(ingest.run(stops.ingest.clone()));
        let announcer = announcer.map(|announcer| tokio::spawn(announcer.run(stops.announcer.clone())));
        // Nothing can fail from here on but the address, so it is not left behind by a start that did not come about.
        tokio::spawn(watch_objects(objects.clone(), readiness.clone(), stops.source.intake.clone()));
        tokio::spawn(wishes.clone().run(stops.retention.clone()));
        let retention = Retention {
            settings: settings.retention.clone(),
            catalog: catalog.clone(),
            objects: objects.clone(),
            metrics: metrics.clone(),
        };
        let retention = tokio::spawn(retention.run(stops.retention.clone()));
        let (ask_for_films, orders) = watch::channel(());
        let (kept, data) = (settings.retention.images, &settings.data_dir);
        let studio = Studio::new(catalog.clone(), objects.clone(), data, orders, kept, settings.films.0);
        let studio = tokio::spawn(studio.run(stops.pictures.clone()));
        let address = http.local_addr().context("the address of the pages")?;
        let mut enroll = None;
        if let (Some(desk), Some((registrar, tls))) = (desk, registrar) {
            enroll = Some(desk.local_addr().context("the address of the registrar")?);
            tokio::spawn(enroll::serve(desk, registrar, tls, stops.web.clone()));
        }
        let (images, pictures) = match anonymise {
            Some(anonymise) => anonymise.spawn(&stops.pictures),
            None => (None, Vec::new()),
        };
        let pages = web::Web {
            images,
            catalog: asked.clone(),
            objects: objects.clone(),
            links: settings.image_links,
            metrics: metrics.clone(),
            readiness,
            troubles,
            enrol: enrol(settings, mqtt).into(),
            access,
            live: web::Live::start(asked, woken, stops.web.clone()),
            wishes,
            films: settings.films.0 > 0,
            studio: ask_for_films,
            small: Arc::new(Semaphore::new(web::MEGAPIXELS as usize)),
        };
        let web = tokio::spawn(web::serve(http, pages, stops.web.clone()));
        Ok(Self {
            http: address,
            mqtt,
            enroll,
            catalog,
            objects,
            metrics,
            source,
            ingest,
            forwarders,
            retention,
            studio,
            announcer,
            pictures,
            web,
            stops,
        })
    }

    /// Ends when a part that should run for ever does not.
    pub async fn failed(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.ingest => "ingest",
            _ = &mut self.web => "web",
            _ = &mut self.retention => "retention",
        }
    }

    /// Stops the source, lets ingest finish what it has, then the rest. Names whoever does not make the deadline.
    pub async fn stop(self) -> Vec<&'static str> {
        let deadline = Instant::now() + DEADLINE;
        let mut late = Vec::new();
        // Web connections may be kept open by browsers; they lose nothing.
        self.stops.web.cancel();
        self.stops.pictures.cancel();
        self.stops.source.intake.cancel();
        let elsewhere = match self.source {
            Source::Embedded(broker) => {
                if tokio::time::timeout_at(deadline, broker.stop()).await.is_err() {
                    late.push("broker");
                }
                None
            }
            Source::External(task) => Some((task, "mqtt")),
            Source::Amqp(task) => Some((task, "amqp")),
        };
        if elsewhere.is_some() {
            // What has come goes to ingest, unless that does not get on.
            let patience = deadline - Duration::from_secs(3);
            let _ = tokio::time::timeout_at(patience, self.stops.source.handed_over.cancelled()).await;
        }
        self.stops.ingest.drain.cancel();
        let mut ingest = self.ingest;
        let drained = tokio::time::timeout_at(deadline - Duration::from_secs(2), &mut ingest).await;
        if drained.is_err() {
            // The store or the database is away: what waits was not acknowledged, so devices keep it.
            self.stops.ingest.give_up.cancel();
            end(&mut ingest, deadline, "ingest", &mut late).await;
        }
        self.stops.announcer.cancel();
        if let Some(mut announcer) = self.announcer {
            end(&mut announcer, deadline, "homeassistant", &mut late).await;
        }
        // Only now, so that the broker and the devices hear of all that was committed.
        self.stops.source.leave.cancel();
        if let Some((mut task, name)) = elsewhere {
            end(&mut task, deadline - Duration::from_millis(500), name, &mut late).await;
        }
        self.stops.retention.cancel();
        for mut task in self.pictures {
            end(&mut task, deadline, "anonymise", &mut late).await;
        }
        let mut studio = self.studio;
        end(&mut studio, deadline, "films", &mut late).await;
        let mut retention = self.retention;
        end(&mut retention, deadline, "retention", &mut late).await;
        self.stops.forwarder.cancel();
        for mut forwarder in self.forwarders {
            end(&mut forwarder, deadline, "forward", &mut late).await;
        }
        let mut web = self.web;
        if tokio::time::timeout_at(deadline.min(Instant::now() + Duration::from_millis(500)), &mut web)
            .await
            .is_err()
        {
            web.abort();
        }
        if tokio::time::timeout_at(deadline, self.catalog.close()).await.is_err() {
            late.push("catalog");
        }
        late
    }
}

/// The anonymisation service, with everything that can fail behind it.
struct Anonymise {
    images: Images,
    mender: Mender,
    #[cfg(feature = "worker")]
    worker: Option<crate::anonymise::worker::Worker>,
}

impl Anonymise {
    async fn open(
        settings: &Settings,
        catalog: &Catalog,
        metrics: &Arc<Metrics>,
        readiness: &Arc<Readiness>,
    ) -> Result<Option<Self>> {
        readiness.up(Part::Pictures);
        let Some(settings) = settings.anonymise.clone() else { return Ok(None) };
        if let ImageAccess::Tokens(file) = &settings.access {
            crate::anonymise::token::read(file).await?;
        }
        let places = Places::open(&settings).await?;
        let (wake, woken) = watch::channel(());
        #[cfg(not(feature = "worker"))]
        {
            drop(woken);
            anyhow::ensure!(!settings.worker, "anonymise.worker = true: {NO_WORKER}");
        }
        #[cfg(feature = "worker")]
        let worker = if settings.worker {
            use crate::anonymise::{veiler::Veiler, worker};
            Some(worker::Worker {
                veiler: Veiler::start(&settings)?,
                settings: settings.clone(),
                catalog: catalog.clone(),
                places: places.clone(),
                metrics: metrics.clone(),
                readiness: readiness.clone(),
                woken,
                name: worker::new_name()?,
            })
        } else {
            None
        };
        let mender = Mender { settings: settings.clone(), catalog: catalog.clone(), places: places.clone() };
        let images = Images::new(settings, catalog.clone(), places, metrics.clone(), wake);
        Ok(Some(Self {
            images,
            mender,
            #[cfg(feature = "worker")]
            worker,
        }))
    }

    fn spawn(self, stop: &CancellationToken) -> (Option<Images>, Vec<JoinHandle<()>>) {
        #[cfg_attr(not(feature = "worker"), allow(unused_mut, reason = "nobody but a worker comes to it"))]
        let mut tasks = vec![tokio::spawn(self.mender.run(stop.clone()))];
        #[cfg(feature = "worker")]
        tasks.extend(self.worker.map(|worker| tokio::spawn(worker.run(stop.clone()))));
        (Some(self.images), tasks)
    }
}

/// Why there is none, and what to do.
pub const NO_WORKER: &str =
    "this edgeveil-bridge is built without the feature `worker`; use one that is built with it";

type Desk = (Arc<enroll::Registrar>, tokio_rustls::TlsAcceptor);

/// With everything that can fail behind it.
async fn registrar(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Option<Desk>> {
    let data_dir = &settings.data_dir;
    let Some(settings) = &settings.enroll else { return Ok(None) };
    let book = enroll::Book::open(data_dir).await?;
    let made = enroll::Registrar::new(settings.clone(), book, metrics.clone())
        .and_then(|registrar| registrar.tls().map(|tls| (Arc::new(registrar), tls)));
    made.map(Some).with_context(|| format!("the registrar's CA (enroll.ca) in {}", settings.ca.display()))
}

/// Until the object store has answered once; from then on ingest knows best.
async fn watch_objects(objects: Objects, readiness: Arc<Readiness>, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    while let Err(error) = objects.answers().await {
        if readiness.down(Part::Objects, error.to_string()) {
            tracing::warn!(%error, "the object store does not answer; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.wait()) => {}
        }
    }
    readiness.up(Part::Objects);
}

/// Runs a source on a thread of its own, where its tasks, which wake each other for every message, do so without another
/// processor. With mosquitto and 2,400 readings a second on two processors 95 % came within 0.34 s in place of 1.77 s, the
/// simulated devices being on one thread too.
fn alone(source: impl Future<Output = ()> + Send + 'static) -> Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("source".to_owned()).spawn(move || {
        runtime.block_on(source);
        let _ = ended.send(());
    })?;
    Ok(tokio::spawn(async move { _ = end.await }))
}

async fn end(task: &mut JoinHandle<()>, deadline: Instant, name: &'static str, late: &mut Vec<&'static str>) {
    if tokio::time::timeout_at(deadline, &mut *task).await.is_err() {
        task.abort();
        late.push(name);
    }
}

pub(crate) async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what listens there, or set {key} to another address")
    })
}

struct SourceParts<'a> {
    settings: &'a Settings,
    intake: Intake,
    metrics: &'a Arc<Metrics>,
    readiness: &'a Readiness,
    troubles: &'a Arc<Troubles>,
}

impl SourceParts<'_> {
    async fn embedded(
        &mut self,
        broker: &BrokerSettings,
        listener: TcpListener,
    ) -> Result<(Source, ToDevices, Option<SocketAddr>)> {
        let files = broker_files(&broker.certificates)?;
        let topics = self.settings.topics.clone();
        let discovery = self.settings.homeassistant.as_ref().map(|told| told.prefix.clone());
        let policy = DevicePolicy::new(topics.clone(), self.settings.legacy.clone());
        let policy = policy.with_homeassistant(discovery);
        let setup = Setup {
            listener,
            tls: tls::server(&files)?,
            presence: Some(format!("{}/+/status", topics.prefix())),
            policy: Arc::new(policy),
            intake: self.intake.clone(),
            max_connections: broker.max_connections,
            metrics: self.metrics.clone(),
            troubles: self.troubles.clone(),
        };
        let broker = Broker::start(setup).await.context("starting the embedded broker")?;
        self.readiness.up(Part::Source);
        let (publisher, address) = (broker.publisher(), broker.address);
        Ok((Source::Embedded(broker), ToDevices::Embedded(publisher), Some(address)))
    }
}

fn broker_files(certificates: &BrokerCertificates) -> Result<TlsFiles> {
    match certificates {
        BrokerCertificates::Own(files) => Ok(files.clone()),
        BrokerCertificates::Development(dir) => {
            let issued = certs::development(dir).with_context(|| {
                format!("development certificates in {}; or name your own in [broker]", dir.display())
            })?;
            Ok(TlsFiles { ca: issued.ca, cert: issued.cert, key: issued.key })
        }
    }
}

/// The command for a first device, as this bridge is set.
fn enrol(settings: &Settings, mqtt: Option<SocketAddr>) -> String {
    let SourceSettings::Embedded(broker) = &settings.source else {
        return "edgeveil-bridge certs device desk-pi   # or with your own CA: certs/README.md".to_owned();
    };
    let dir = match &broker.certificates {
        BrokerCertificates::Development(dir) => dir.as_path(),
        BrokerCertificates::Own(_) => return "# with your own CA: certs/README.md".to_owned(),
    };
    let port = mqtt.map_or(8883, |address| address.port());
    format!(
        "edgeveil-bridge certs device desk-pi --dir {}\n# then, in the agent's settings: [link] host = \"<this machine>\", port = {port}",
        dir.display()
    )
}
