//! From messages to durable records, and only then to acknowledgements.
//!
//! Batch by batch: validate, leave out what came twice, put the images' bytes into the object store, commit one
//! transaction, tell the devices, tell the source. When the store or the database fails, the batch is tried again and
//! nothing is acknowledged; the bounded [`crate::source::Intake`] then fills up, and that is the back-pressure.
//!
//! What is refused is kept whole as a dead letter before it is acknowledged. What only a later bridge can read is not
//! accepted: its device keeps it, and a broker's session is no second place for it.

mod legacy;
mod record;

pub use legacy::Legacy;

use crate::{
    backoff::Backoff,
    catalog::{Batch, Catalog, CatalogError, Content, DeadLetter, MAX_DEAD_LETTERS, Record},
    homeassistant::{Desk, Sightings},
    metrics::Metrics,
    objects::{KeyTemplate, Objects},
    readiness::{Part, Readiness},
    settings::IngestSettings,
    source::{Delivery, Inbound, Receipt, Room, ToDevices},
    troubles::{self, Troubles},
};
use bytes::Bytes;
use edgeveil_wire::{Ack, DeviceName, Lane, MAX_ACK_IDS, RecordId, Topic, Topics};
use record::Message;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Objects written at the same time.
const PUTS: usize = 8;
/// So many messages at once come from somebody who has sent all that may be under way, and waits. When nothing more
/// comes for the time of `QUIET_BURST`, waiting for a fuller batch would only hold them up.
const BURST: usize = 32;
const QUIET_BURST: Duration = Duration::from_millis(2);
/// Between two lines about refused messages.
const QUIET: Duration = Duration::from_secs(10);

/// Takes messages and makes them durable.
pub struct Ingest {
    /// Where they come from.
    pub intake: mpsc::Receiver<Inbound>,
    /// How they are batched.
    pub settings: IngestSettings,
    /// How topics are read.
    pub topics: Topics,
    /// Where rows go.
    pub catalog: Catalog,
    /// Where images go.
    pub objects: Objects,
    /// How they are named there.
    pub image_key: KeyTemplate,
    /// Publishers that know nothing of Edgeveil.
    pub legacy: Option<Legacy>,
    /// Home Assistant, when it is told what is there.
    pub homeassistant: Option<Desk>,
    /// Where acknowledgements go.
    pub devices: ToDevices,
    /// Whom alerts are forwarded to.
    pub targets: Vec<&'static str>,
    /// Woken after a commit with something for the outbox.
    pub wake: watch::Sender<()>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is missing.
    pub readiness: Arc<Readiness>,
    /// What is wrong with single devices.
    pub troubles: Arc<Troubles>,
    /// What was said of refused messages.
    pub refusals: Refusals,
}

/// Refused messages are all kept as dead letters; of a stream of them only one in ten seconds is logged.
#[derive(Debug, Default)]
pub struct Refusals {
    last: Option<Instant>,
    unlogged: u64,
}

impl Refusals {
    fn note(&mut self, letter: &DeadLetter) {
        if self.last.is_some_and(|last| last.elapsed() < QUIET) {
            self.unlogged += 1;
            return;
        }
        self.last = Some(Instant::now());
        let unlogged = std::mem::take(&mut self.unlogged);
        tracing::warn!(
            topic = letter.topic,
            reason = letter.reason,
            unlogged,
            "refused a message: it is a dead letter now"
        );
    }
}

/// How ingest is stopped.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    /// The source has stopped: finish what is there.
    pub drain: CancellationToken,
    /// There is no more time: leave a batch whose store or database does not come back. Its messages were not
    /// acknowledged.
    pub give_up: CancellationToken,
}

/// A batch between its reading and its commit.
#[derive(Default)]
struct Work {
    batch: Batch,
    /// The images' bytes by their place in `batch.records`.
    images: BTreeMap<usize, Bytes>,
    /// The bytes of dead letters that are kept as objects, by their place in `batch.dead_letters`.
    letters: BTreeMap<usize, Bytes>,
    /// What devices may forget once it is committed.
    ids: BTreeMap<DeviceName, Vec<RecordId>>,
    receipts: Vec<Receipt>,
    /// The messages' share of the intake's memory, given back with the batch.
    rooms: Vec<Room>,
    /// Each id of a device once.
    seen: HashSet<(DeviceName, RecordId)>,
    alerts: bool,
    /// Filled only when somebody wants to know.
    sightings: Sightings,
}

impl Ingest {
    /// Runs until it is told that the source has stopped, and what the source sent is durable.
    pub async fn run(mut self, stops: Stops) {
        loop {
            let first = tokio::select! {
                biased;
                first = self.intake.recv() => first,
                () = stops.drain.cancelled(), if !self.intake.is_closed() => {
                    // What is in it stays in it; what comes later is not taken, so not acknowledged either.
                    self.intake.close();
                    continue;
                }
            };
            let Some(first) = first else { return };
            let started = Instant::now();
            let messages = self.gather(first).await;
            let span = tracing::info_span!("batch", messages = messages.len());
            let Some(work) = self.store(messages, &stops.give_up).instrument(span.clone()).await else {
                return;
            };
            self.metrics.batch_seconds.observe(started.elapsed().as_secs_f64());
            self.metrics.batch_records.observe(work.batch.records.len() as f64);
            let letters = !work.batch.dead_letters.is_empty();
            self.acknowledge(work).instrument(span).await;
            if letters {
                self.forget_old_letters().await;
            }
        }
    }

    /// None when it was told to give up.
    async fn store(&mut self, messages: Vec<Inbound>, give_up: &CancellationToken) -> Option<Work> {
        let mut work = tokio::select! {
            read = self.read(messages) => read,
            () = give_up.cancelled() => return None,
        };
        self.make_durable(&mut work, give_up).await.then_some(work)
    }

    /// More messages, until the batch is full, `linger` is over or a burst has ended. When a burst has come while the batch
    /// before was written, that is enough.
    async fn gather(&mut self, first: Inbound) -> Vec<Inbound> {
        let mut messages = vec![first];
        while messages.len() < self.settings.batch
            && let Ok(next) = self.intake.try_recv()
        {
            messages.push(next);
        }
        if messages.len() >= BURST {
            return messages;
        }
        let linger = tokio::time::sleep(self.settings.linger);
        tokio::pin!(linger);
        while messages.len() < self.settings.batch {
            tokio::select! {
                biased;
                next = self.intake.recv() => match next {
                    Some(next) => messages.push(next),
                    None => break,
                },
                () = &mut linger => break,
                () = tokio::time::sleep(QUIET_BURST), if messages.len() >= BURST => break,
            }
        }
        messages
    }

    async fn read(&mut self, messages: Vec<Inbound>) -> Work {
        let mut work = Work::default();
        work.batch.targets.clone_from(&self.targets);
        for inbound in messages {
            if self.legacy.as_ref().is_some_and(|legacy| legacy.takes(&inbound.topic)) {
                self.take_legacy(&mut work, inbound).await;
                continue;
            }
            if self.homeassistant.as_ref().is_some_and(|desk| desk.takes(&inbound.topic, &inbound.payload)) {
                let (receipt, room) = inbound.settle();
                work.receipts.push(receipt);
                work.rooms.push(room);
                continue;
            }
            let (lane, message) =
                record::read(&self.topics, &self.image_key, &inbound.topic, &inbound.payload);
            self.metrics.received.get_or_create(&lane.into()).inc();
            match message {
                Message::Record(record) => self.take(&mut work, record, &inbound.payload),
                Message::Presence(presence) => {
                    if self.homeassistant.is_some() {
                        work.sightings.status(&presence.device, &presence.status);
                    }
                    work.batch.presence.push(presence);
                }
                Message::Health(health) => {
                    if self.homeassistant.is_some() {
                        work.sightings.health(&health.device, &health.json);
                    }
                    work.batch.health.push(health);
                }
                Message::Told(told) => work.batch.told.push(told),
                Message::Dead(letter) => {
                    self.refusals.note(&letter);
                    self.metrics.dead_letters.get_or_create(&lane.into()).inc();
                    if let (Some(device), Some(id)) = (&letter.device, letter.record) {
                        work.ids.entry(device.clone()).or_default().push(id);
                    }
                    if letter.object.is_some() {
                        work.letters.insert(work.batch.dead_letters.len(), inbound.payload.clone());
                    }
                    work.batch.dead_letters.push(letter);
                }
                Message::NotAccepted(device, found) => {
                    self.metrics.not_accepted.get_or_create(&lane.into()).inc();
                    let text = format!(
                        "it sends {found}, which this bridge does not know: upgrade the bridge; until then the device keeps such records"
                    );
                    self.troubles.note(&device, troubles::Kind::Version, text);
                }
                Message::Ignored => {}
            }
            let (receipt, room) = inbound.settle();
            work.receipts.push(receipt);
            work.rooms.push(room);
        }
        work
    }

    /// Asks the catalog until it answers: what it does not know yet has no number.
    async fn take_legacy(&mut self, work: &mut Work, inbound: Inbound) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        self.metrics.received.get_or_create(&Some(Lane::Reading).into()).inc();
        loop {
            let Some(legacy) = &mut self.legacy else { return };
            let (topic, payload) = (&inbound.topic, &inbound.payload);
            match legacy.records(&self.catalog, topic, payload, inbound.again).await {
                Ok(Ok(records)) if records.is_empty() => {
                    self.metrics.duplicates.get_or_create(&Some(Lane::Reading).into()).inc();
                }
                Ok(Ok(records)) => {
                    work.alerts |= records.iter().any(|record| matches!(record.content, Content::Alert(..)));
                    // Nobody waits for an acknowledgement of ours.
                    work.batch.records.extend(records);
                }
                Ok(Err(why)) => {
                    let letter = record::dead(topic, None, payload, None, why);
                    self.refusals.note(&letter);
                    self.metrics.dead_letters.get_or_create(&Some(Lane::Reading).into()).inc();
                    work.batch.dead_letters.push(letter);
                }
                Err(error) => {
                    self.metrics.retries.inc();
                    self.readiness.down(Part::Database, error.to_string());
                    tokio::time::sleep(backoff.wait()).await;
                    continue;
                }
            }
            break;
        }
        let (receipt, room) = inbound.settle();
        work.receipts.push(receipt);
        work.rooms.push(room);
    }

    fn take(&self, work: &mut Work, record: Record, payload: &Bytes) {
        let id = record.stamp().id;
        work.ids.entry(record.device.clone()).or_default().push(id);
        if !work.seen.insert((record.device.clone(), id)) {
            self.metrics.duplicates.get_or_create(&Some(record.lane()).into()).inc();
            return;
        }
        if self.homeassistant.is_some() {
            work.sightings.record(&record);
        }
        match record.content {
            Content::Image { .. } => _ = work.images.insert(work.batch.records.len(), payload.clone()),
            Content::Alert(..) => work.alerts = true,
            Content::Reading(..) | Content::Event(_) => {}
        }
        work.batch.records.push(record);
    }

    /// Tries until it works. False when it was told to give up.
    async fn make_durable(&self, work: &mut Work, give_up: &CancellationToken) -> bool {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            let tried = tokio::select! {
                tried = self.attempt(work) => tried,
                () = give_up.cancelled() => return false,
            };
            let Err((part, reason)) = tried else { return true };
            self.metrics.retries.inc();
            if self.readiness.down(part, reason.clone()) {
                tracing::error!(
                    reason,
                    "nothing is acknowledged until this works again; devices keep their records"
                );
            } else {
                tracing::debug!(reason, "still failing");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.wait()) => {}
                () = give_up.cancelled() => return false,
            }
        }
    }

    async fn attempt(&self, work: &mut Work) -> Result<(), (Part, String)> {
        self.put_objects(work).instrument(tracing::info_span!("objects")).await?;
        self.up(Part::Objects);
        work.batch.received = jiff::Timestamp::now().as_millisecond();
        let commit = self.catalog.commit(&work.batch).instrument(tracing::info_span!("commit"));
        let fresh = commit.await.map_err(|error| (Part::Database, error.to_string()))?;
        self.up(Part::Database);
        for (record, fresh) in work.batch.records.iter().zip(fresh) {
            let counter = if fresh { &self.metrics.committed } else { &self.metrics.duplicates };
            counter.get_or_create(&Some(record.lane()).into()).inc();
            let (device, id) = (&record.device, record.stamp().id);
            tracing::debug!(%device, record = %id, fresh, "committed");
        }
        Ok(())
    }

    fn up(&self, part: Part) {
        if self.readiness.up(part) {
            tracing::info!(part = part.as_str(), "works");
        }
    }

    /// Images and dead letters that are not there yet.
    async fn put_objects(&self, work: &Work) -> Result<(), (Part, String)> {
        let database = |error: CatalogError| (Part::Database, error.to_string());
        let mut puts = Vec::new();
        let image = |at: &usize| {
            let record = &work.batch.records[*at];
            (&record.device, record.stamp().id)
        };
        let wanted: Vec<_> = work.images.keys().map(image).collect();
        let known = self.catalog.known_images(&wanted).await.map_err(database)?;
        for (at, bytes) in &work.images {
            let Content::Image { object, .. } = &work.batch.records[*at].content else { continue };
            let (device, id) = image(at);
            if !known.contains(&(device.to_string(), id.to_string())) {
                puts.push((object.clone(), bytes.clone()));
            }
        }
        let letter = |at: &usize| {
            let letter = &work.batch.dead_letters[*at];
            Some((letter.device.as_ref()?, letter.record?))
        };
        let wanted: Vec<_> = work.letters.keys().filter_map(letter).collect();
        let known = self.catalog.known_letters(&wanted).await.map_err(database)?;
        let mut seen = HashSet::new();
        for (at, bytes) in &work.letters {
            let (Some((device, id)), Some(object)) = (letter(at), &work.batch.dead_letters[*at].object)
            else {
                continue;
            };
            // The first one counts, as with rows.
            if seen.insert((device, id)) && !known.contains(&(device.to_string(), id.to_string())) {
                puts.push((object.clone(), bytes.clone()));
            }
        }
        let mut running = JoinSet::new();
        for (object, bytes) in puts {
            if running.len() >= PUTS {
                finished(running.join_next().await)?;
            }
            let objects = self.objects.clone();
            let span = tracing::info_span!("object", key = object);
            running.spawn(async move { objects.create(&object, bytes).await }.instrument(span));
        }
        while let Some(put) = running.join_next().await {
            finished(Some(put))?;
        }
        Ok(())
    }

    /// Makes room for new dead letters. What fails here is tried again with the next letter.
    async fn forget_old_letters(&self) {
        let forgotten = async {
            let Some((last, objects)) = self.catalog.too_many_letters(MAX_DEAD_LETTERS).await? else {
                return Ok(());
            };
            for object in objects {
                self.objects.delete(&object).await?;
            }
            self.catalog.forget_letters(last).await.map_err(anyhow::Error::from)
        };
        if let Err(error) = forgotten.await {
            tracing::warn!(%error, "cannot forget old dead letters");
        }
    }

    async fn acknowledge(&self, work: Work) {
        if work.alerts {
            self.wake.send_replace(());
        }
        for (device, ids) in work.ids {
            let topic = self.topics.of(&device, &Topic::Ack);
            for ids in ids.chunks(MAX_ACK_IDS) {
                let ack = Ack { ids: ids.to_vec() };
                self.devices.publish(topic.clone(), ack.to_json(), Delivery::AtLeastOnce).await;
                self.metrics.acknowledged.inc_by(ids.len() as u64);
            }
        }
        if let Some(desk) = &self.homeassistant {
            desk.seen(work.sightings);
        }
        for receipt in work.receipts {
            receipt.done();
        }
    }
}

type Put = Result<Result<(), crate::objects::ObjectError>, tokio::task::JoinError>;

fn finished(put: Option<Put>) -> Result<(), (Part, String)> {
    match put {
        Some(Ok(Err(error))) => Err((Part::Objects, error.to_string())),
        Some(Err(error)) => Err((Part::Objects, error.to_string())),
        Some(Ok(Ok(()))) | None => Ok(()),
    }
}
