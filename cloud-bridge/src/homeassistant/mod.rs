//! Home Assistant's discovery: it is told, by retained messages, which topic of which device is what.
//!
//! A device may write only below its own name, so the bridge does it. [`Sightings`] is what one batch shows of the devices; ingest
//! gathers it and [`Announcer`] publishes what is new in it. What it has published stands in the catalog, so that it is told again
//! after a restart, and taken back once it was not seen for long. A replica may publish what another one has published: the message
//! is the same, byte for byte, and retained.

mod entity;
mod thing;
mod units;

pub use entity::Entities;
pub use thing::{Gauge, Thing, ThingError};
pub use units::Units;

use crate::{
    backoff::Backoff,
    catalog::{Catalog, CatalogError, Content, Record},
    settings::HomeAssistantSettings,
    source::{Delivery, ToDevices},
};
use edgeveil_wire::{Board, DeviceName, DeviceState, Health, Name, Status, Topics};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Batches' sightings on their way. When it is full, the newest are dropped: whatever sends, sends again.
const SIGHTINGS: usize = 16;
/// Things in all. More are not told of: the embedded broker keeps them in memory, about 1 KiB each.
pub const MAX_THINGS: usize = 16_384;
/// Things of one device.
const MAX_THINGS_OF_ONE: usize = 256;
/// Between two messages, so that acknowledgements to devices have their turn.
const PACE: Duration = Duration::from_millis(5);
/// Between two rounds in which all is told again.
const QUIET: Duration = Duration::from_secs(10);
/// The longest version that is told.
const MAX_VERSION: usize = 64;

/// What a batch shows of the devices that are there.
#[derive(Debug, Default)]
pub struct Sightings(BTreeMap<DeviceName, Sighting>);

#[derive(Debug, Default)]
struct Sighting {
    version: Option<String>,
    things: BTreeSet<Thing>,
    /// Groups of which one reading was looked at: the next batch has others.
    groups: Vec<Name>,
}

impl Sightings {
    fn of(&mut self, device: &DeviceName) -> &mut Sighting {
        if !self.0.contains_key(device) {
            self.0.insert(device.clone(), Sighting::default());
        }
        self.0.get_mut(device).expect("it was put there")
    }

    /// Of a record of an agent.
    pub fn record(&mut self, record: &Record) {
        match &record.content {
            Content::Reading(group, reading) => {
                let sighting = self.of(&record.device);
                if sighting.groups.contains(group) {
                    return;
                }
                sighting.groups.push(group.clone());
                let values = reading.values.keys().map(|name| Thing::Value(group.clone(), name.clone()));
                sighting.things.extend(values);
                if reading.score.is_some() {
                    sighting.things.extend([Thing::Score(group.clone()), Thing::Anomaly(group.clone())]);
                }
            }
            Content::Alert(group, _) => {
                _ = self.of(&record.device).things.insert(Thing::Anomaly(group.clone()));
            }
            Content::Image { meta, .. } => {
                _ = self.of(&record.device).things.insert(Thing::Image(meta.camera.clone()));
            }
            Content::Event(_) => {}
        }
    }

    /// Of a device's presence. A broker repeats the last one of a device that is long gone: only `online` counts.
    pub fn status(&mut self, device: &DeviceName, status: &Status) {
        if status.state == DeviceState::Online {
            let sighting = self.of(device);
            sighting.version = Some(status.version.chars().take(MAX_VERSION).collect());
            sighting.things.extend([Thing::Connectivity, Thing::Problem]);
        }
    }

    /// Of a device's health, in JSON as it was accepted.
    pub fn health(&mut self, device: &DeviceName, json: &str) {
        let Ok(health) = Health::from_json(json.as_bytes()) else { return };
        let sighting = self.of(device);
        sighting.things.extend([Thing::Gauge(Gauge::Backlog), Thing::Gauge(Gauge::Dropped)]);
        sighting.things.extend(gauges(&health.board).map(Thing::Gauge));
        sighting.things.extend(health.cameras.into_keys().map(Thing::Camera));
    }
}

/// What a board can tell.
fn gauges(board: &Board) -> impl Iterator<Item = Gauge> {
    [
        (Gauge::Temperature, board.temperature_c.is_some()),
        (Gauge::Load, board.load_1m.is_some()),
        (Gauge::Memory, board.memory_available_bytes.is_some()),
        (Gauge::Disk, board.disk_free_bytes.is_some()),
        (Gauge::Throttled, board.throttling.is_some()),
        (Gauge::Signal, board.wireless.is_some()),
    ]
    .into_iter()
    .filter_map(|(gauge, is_there)| is_there.then_some(gauge))
}

/// Where others tell the [`Announcer`] what they see.
#[derive(Debug, Clone)]
pub struct Desk {
    sightings: mpsc::Sender<Sightings>,
    again: watch::Sender<()>,
    birth: String,
    state: String,
}

impl Desk {
    /// What a batch shows.
    pub fn seen(&self, sightings: Sightings) {
        if !sightings.0.is_empty() && self.sightings.try_send(sightings).is_err() {
            tracing::debug!("what a batch shows is not told to Home Assistant: too much of it waits");
        }
    }

    /// All is to be told again: the broker may have forgotten it.
    pub fn again(&self) {
        self.again.send_replace(());
    }

    /// Whether a message is Home Assistant's own; it then says that it has started, or that it stops.
    pub fn takes(&self, topic: &str, payload: &[u8]) -> bool {
        if topic == self.birth && payload == b"online" {
            self.again();
        }
        topic == self.birth
    }

    /// The topic on which Home Assistant says that it has started.
    pub fn birth(&self) -> &str {
        &self.birth
    }

    /// The topic of the bridge's own presence, `online` or `offline`.
    pub fn state(&self) -> &str {
        &self.state
    }
}

/// A device as Home Assistant knows it.
#[derive(Debug, Default)]
struct Told {
    version: Option<String>,
    /// When each thing was noted in the catalog, milliseconds since 1970. At most [`MAX_THINGS_OF_ONE`].
    things: BTreeMap<Thing, i64>,
}

/// Publishes what is new, and takes back what is gone.
pub struct Announcer {
    settings: HomeAssistantSettings,
    entities: Entities,
    state: String,
    catalog: Catalog,
    devices: ToDevices,
    sightings: mpsc::Receiver<Sightings>,
    again: watch::Receiver<()>,
    /// At most [`MAX_THINGS`] in all.
    told: BTreeMap<DeviceName, Told>,
    count: usize,
    is_full: bool,
}

/// A desk, and what its announcer needs of it.
pub struct Opening {
    /// For those who see something.
    pub desk: Desk,
    sightings: mpsc::Receiver<Sightings>,
    again: watch::Receiver<()>,
}

impl Opening {
    /// By these settings.
    pub fn new(settings: &HomeAssistantSettings, topics: &Topics) -> Self {
        let (sender, sightings) = mpsc::channel(SIGHTINGS);
        let (again, heard) = watch::channel(());
        let desk = Desk {
            sightings: sender,
            again,
            birth: settings.birth_topic(),
            state: settings.state_topic(topics),
        };
        Self { desk, sightings, again: heard }
    }

    /// The announcer behind the desk.
    pub fn announcer(
        self,
        settings: HomeAssistantSettings,
        topics: Topics,
        catalog: Catalog,
        devices: ToDevices,
    ) -> Announcer {
        Announcer {
            entities: Entities::new(topics, settings.clone()),
            state: self.desk.state,
            settings,
            catalog,
            devices,
            sightings: self.sightings,
            again: self.again,
            told: BTreeMap::new(),
            count: 0,
            is_full: false,
        }
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Announcer {
    /// Runs until it is stopped, and then says that the bridge is away.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.announce() => {}
        }
        self.devices.publish(self.state, b"offline".to_vec(), Delivery::Retained).await;
    }

    async fn announce(&mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        while let Err(error) = self.load().await {
            tracing::warn!(%error, "cannot read what Home Assistant was told; trying again");
            sleep(backoff.wait()).await;
        }
        let mut rounds = interval((self.settings.forget / 4).min(Duration::from_secs(600)));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_due, mut next) = (false, Instant::now());
        loop {
            tokio::select! {
                sightings = self.sightings.recv() => match sightings {
                    Some(sightings) => self.take(sightings).await,
                    None => return,
                },
                heard = self.again.changed(), if !is_due => match heard {
                    Ok(()) => is_due = true,
                    Err(_) => return,
                },
                () = sleep_until(next), if is_due => {
                    is_due = false;
                    self.tell_all().await;
                    next = Instant::now() + QUIET;
                }
                _ = rounds.tick() => {
                    if let Err(error) = self.forget().await {
                        tracing::warn!(%error, "cannot forget what is gone; trying again in the next round");
                    }
                }
            }
        }
    }

    async fn load(&mut self) -> Result<(), CatalogError> {
        let versions = self.catalog.devices().await?.into_iter().map(|row| (row.name, row.version));
        let versions: BTreeMap<_, _> = versions.collect();
        for (device, thing, seen) in self.catalog.discovered(MAX_THINGS).await? {
            // What a later bridge has written is that one's.
            let (Ok(name), Ok(thing)) = (device.parse(), thing.parse()) else { continue };
            let told: &mut Told = self.told.entry(name).or_default();
            if told.things.len() >= MAX_THINGS_OF_ONE {
                continue;
            }
            told.version = versions.get(&device).cloned().flatten();
            self.count += usize::from(told.things.insert(thing, seen).is_none());
        }
        Ok(())
    }

    /// Notes what is new before it is published: nothing is published that could not be taken back.
    async fn take(&mut self, mut sightings: Sightings) {
        let (now, forget) = (now(), millis(self.settings.forget));
        // A status comes with a connection, which may last longer than anything is remembered: whoever sends is there.
        for (device, sighting) in &mut sightings.0 {
            let Some(told) = self.told.get(device) else { continue };
            let presence = [Thing::Connectivity, Thing::Problem];
            sighting.things.extend(presence.into_iter().filter(|thing| told.things.contains_key(thing)));
        }
        let refresh = (forget / 4).min(3_600_000);
        let (mut notes, mut tell) = (Vec::new(), Vec::new());
        let (mut left, mut full) = (MAX_THINGS.saturating_sub(self.count), None);
        for (device, sighting) in &sightings.0 {
            let known = self.told.get(device);
            let mut room = MAX_THINGS_OF_ONE.saturating_sub(known.map_or(0, |told| told.things.len()));
            let is_other =
                sighting.version.is_some() && known.is_some_and(|known| known.version != sighting.version);
            if let Some(known) = known.filter(|_| is_other) {
                let current = known.things.iter().filter(|(_, noted)| now - **noted < forget);
                tell.extend(current.map(|(thing, _)| (device.clone(), thing.clone())));
            }
            for thing in &sighting.things {
                let noted = known.and_then(|told| told.things.get(thing));
                let is_new = match noted {
                    Some(noted) if now - noted < refresh => continue,
                    // Another replica may have taken it back.
                    Some(noted) => now - noted >= forget,
                    None if room == 0 || left == 0 => {
                        full = full.or(Some((device, thing)));
                        continue;
                    }
                    None => {
                        (room, left) = (room - 1, left - 1);
                        true
                    }
                };
                notes.push((device, thing));
                if is_new {
                    tell.push((device.clone(), thing.clone()));
                }
            }
        }
        if let Some((device, thing)) = full
            && !std::mem::replace(&mut self.is_full, true)
        {
            tracing::warn!(
                %device, %thing,
                "not told to Home Assistant, nor what comes after it: it knows {MAX_THINGS} things, or {MAX_THINGS_OF_ONE} of this device"
            );
        }
        if !notes.is_empty() {
            let rows: Vec<_> =
                notes.iter().map(|(device, thing)| (device.as_str(), thing.to_string())).collect();
            if let Err(error) = self.catalog.note_discovered(&rows, now).await {
                tracing::warn!(%error, "cannot note what is new for Home Assistant; trying again when it comes again");
                return;
            }
        }
        for (device, thing) in notes {
            let told = self.told.entry(device.clone()).or_default();
            self.count += usize::from(told.things.insert(thing.clone(), now).is_none());
        }
        for (device, sighting) in sightings.0 {
            if let (Some(told), Some(version)) = (self.told.get_mut(&device), sighting.version) {
                told.version = Some(version);
            }
        }
        for (device, thing) in &tell {
            self.tell(device, thing).await;
        }
        if !tell.is_empty() {
            tracing::info!(things = tell.len(), first = %tell[0].0, "told Home Assistant of what is new");
        }
    }

    async fn tell(&self, device: &DeviceName, thing: &Thing) {
        let version = self.told.get(device).and_then(|told| told.version.as_deref());
        let payload = self.entities.payload(device, version, thing);
        self.publish(self.entities.topic(device, thing), payload).await;
    }

    async fn publish(&self, topic: String, payload: Vec<u8>) {
        self.devices.publish_at_leisure(topic, payload, Delivery::Retained).await;
        sleep(PACE).await;
    }

    async fn tell_all(&self) {
        self.publish(self.entities.bridge_topic(), self.entities.bridge_payload()).await;
        self.publish(self.state.clone(), b"online".to_vec()).await;
        for (device, told) in &self.told {
            for (thing, noted) in &told.things {
                // What was not seen for so long another replica may have taken back: nobody would do so a second time.
                if now() - noted < millis(self.settings.forget) {
                    self.tell(device, thing).await;
                }
            }
        }
        tracing::info!(things = self.count, "told Home Assistant of all");
    }

    /// Takes back what was not seen for long. An interruption leaves a row that names it still, and the next round goes on.
    async fn forget(&mut self) -> Result<(), CatalogError> {
        let before = now() - millis(self.settings.forget);
        loop {
            let gone = self.catalog.unseen(before).await?;
            if gone.is_empty() {
                break;
            }
            for (device, thing) in gone {
                let names = device.parse::<DeviceName>().ok().zip(thing.parse::<Thing>().ok());
                if let Some((device, thing)) = &names {
                    tracing::info!(%device, %thing, "not seen for long: taken back from Home Assistant");
                    self.publish(self.entities.topic(device, thing), Vec::new()).await;
                }
                let is_gone = self.catalog.forget_discovered(&device, &thing, before).await?;
                if let Some((device, thing)) = names.filter(|_| !is_gone) {
                    // It came back in this very moment, to another replica.
                    self.tell(&device, &thing).await;
                }
            }
        }
        // Another replica may have taken them back. Those that it sees are told again when they come to this one.
        for told in self.told.values_mut() {
            told.things.retain(|_, noted| *noted >= before);
        }
        self.told.retain(|_, told| !told.things.is_empty());
        self.count = self.told.values().map(|told| told.things.len()).sum();
        Ok(())
    }
}
