//! One transaction for a batch: rows, what goes on to others, and the account of sequences.

use super::{
    Catalog, CatalogError,
    store::{Tx, Value, ask, is_collision},
    together::Rows,
};
use edgeveil_wire::{
    Alert, ClockState, DeviceName, DeviceState, Event, ImageMeta, Lane, Name, Reading, RecordId, Severity,
    Stamp, Status,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// A record that was found good.
#[derive(Debug, Clone)]
pub struct Record {
    /// Who sent it.
    pub device: DeviceName,
    /// What it is.
    pub content: Content,
}

/// What a record is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A row of a sensor group.
    Reading(Name, Reading),
    /// An anomaly.
    Alert(Name, Alert),
    /// Something that happened to the agent.
    Event(Event),
    /// An image, whose bytes are in the object store under this key.
    Image {
        /// What it says of itself.
        meta: ImageMeta,
        /// Its key in the object store.
        object: String,
        /// Its length.
        bytes: usize,
    },
}

impl Record {
    /// Its identity and time.
    pub fn stamp(&self) -> &Stamp {
        match &self.content {
            Content::Reading(_, reading) => &reading.stamp,
            Content::Alert(_, alert) => &alert.stamp,
            Content::Event(event) => &event.stamp,
            Content::Image { meta, .. } => &meta.stamp,
        }
    }

    /// Its lane.
    pub fn lane(&self) -> Lane {
        match &self.content {
            Content::Reading(..) => Lane::Reading,
            Content::Alert(..) => Lane::Alert,
            Content::Event(_) => Lane::Status,
            Content::Image { .. } => Lane::Image,
        }
    }
}

/// A message that was refused.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where it came.
    pub topic: String,
    /// Who sent it, where that is known.
    pub device: Option<DeviceName>,
    /// Its id, where one could be read.
    pub record: Option<RecordId>,
    /// Why it was refused.
    pub reason: String,
    /// Its length.
    pub bytes: usize,
    /// A copy of it, bounded; none where it is an object.
    pub payload: Option<Vec<u8>>,
    /// The key of the object that holds it whole.
    pub object: Option<String>,
}

/// A device's word, or its last will, on whether it is there.
#[derive(Debug, Clone)]
pub struct Presence {
    /// Whose.
    pub device: DeviceName,
    /// What it says.
    pub status: Status,
}

/// A device's counters, as they came.
#[derive(Debug, Clone)]
pub struct Health {
    /// Whose.
    pub device: DeviceName,
    /// JSON.
    pub json: String,
}

/// The settings that run on a device, as they came.
#[derive(Debug, Clone)]
pub struct Told {
    /// Whose.
    pub device: DeviceName,
    /// JSON.
    pub json: String,
    /// The wish that they answer.
    pub answered: Option<String>,
}

/// What is committed together.
#[derive(Debug, Default)]
pub struct Batch {
    /// When it is committed: milliseconds since 1970.
    pub received: i64,
    /// Good records; each id of a device once.
    pub records: Vec<Record>,
    /// Refused messages.
    pub dead_letters: Vec<DeadLetter>,
    /// In the order in which they came.
    pub presence: Vec<Presence>,
    /// In the order in which they came.
    pub health: Vec<Health>,
    /// In the order in which they came.
    pub told: Vec<Told>,
    /// For each target, what is sent of an alert.
    pub targets: Vec<&'static str>,
}

/// Times that a batch is written anew at once, when another replica was in the way.
const COLLISIONS: u32 = 5;

impl Catalog {
    /// Commits all of it or nothing. Tells for each record whether it is new.
    pub async fn commit(&self, batch: &Batch) -> Result<Vec<bool>, CatalogError> {
        let failed = self.failed("committing a batch");
        let mut left = COLLISIONS;
        loop {
            match self.try_commit(batch).await {
                Err(error) if left > 0 && is_collision(&error) => left -= 1,
                done => return done.map_err(failed),
            }
        }
    }

    async fn try_commit(&self, batch: &Batch) -> sqlx::Result<Vec<bool>> {
        let mut tx = self.store.begin().await?;
        let fresh = write(&mut tx, batch).await?;
        tx.commit().await?;
        Ok(fresh)
    }

    /// After a restart of the embedded broker nobody is connected: those who were must say so again.
    pub async fn nobody_is_connected(&self, now: i64) -> Result<(), CatalogError> {
        let sql = "UPDATE device SET state = 'offline', state_at = $1 WHERE state = 'online'";
        self.store
            .run(ask(sql).bind(now))
            .await
            .map(drop)
            .map_err(self.failed("noting that nobody is connected"))
    }
}

async fn write(tx: &mut Tx, batch: &Batch) -> sqlx::Result<Vec<bool>> {
    // Devices first: holding their rows, replicas number what goes on of one device in the order of their commits.
    seen(tx, batch).await?;
    let new = insert(tx, batch).await?;
    let mut fresh = Vec::with_capacity(batch.records.len());
    let mut sequences: BTreeMap<_, (i64, i64, i64)> = BTreeMap::new();
    let mut outbox = Rows::new("outbox (target, device, record, payload, created)", "ON CONFLICT DO NOTHING");
    for record in &batch.records {
        let stamp = record.stamp();
        let (device, id) = (record.device.as_str(), stamp.id.to_string());
        let key = (device.to_owned(), id);
        let is_new = new.contains(&key);
        fresh.push(is_new);
        if !is_new {
            continue;
        }
        let seq = stamp.seq.cast_signed();
        let account = sequences.entry((&record.device, stamp.boot, record.lane())).or_insert((0, seq, seq));
        *account = (account.0 + 1, account.1.min(seq), account.2.max(seq));
        if let Content::Alert(source, alert) = &record.content {
            let payload = crate::forward::payload(&record.device, source, alert);
            for target in &batch.targets {
                let (id, payload) = (key.1.clone(), payload.clone());
                outbox.push([
                    (*target).into(),
                    device.into(),
                    id.into(),
                    payload.into(),
                    batch.received.into(),
                ]);
            }
        }
    }
    outbox.run(tx).await?;
    let mut rows = Rows::new(
        "sequence (device, boot, lane, count, min_seq, max_seq)",
        "ON CONFLICT (device, boot, lane) DO UPDATE SET count = sequence.count + excluded.count,
         min_seq = CASE WHEN excluded.min_seq < sequence.min_seq THEN excluded.min_seq ELSE sequence.min_seq END,
         max_seq = CASE WHEN excluded.max_seq > sequence.max_seq THEN excluded.max_seq ELSE sequence.max_seq END",
    );
    for ((device, boot, lane), (count, min, max)) in sequences {
        let boot = boot.to_string();
        rows.push([
            device.as_str().into(),
            boot.into(),
            lane.as_str().into(),
            count.into(),
            min.into(),
            max.into(),
        ]);
    }
    rows.run(tx).await?;
    dead_letters(tx, batch).await?;
    devices(tx, batch).await?;
    Ok(fresh)
}

/// Tells which were not there: device and id.
async fn insert(tx: &mut Tx, batch: &Batch) -> sqlx::Result<HashSet<(String, String)>> {
    const NEW: &str = "ON CONFLICT DO NOTHING RETURNING device, id";
    let mut readings = Rows::new(
        "reading (device, id, boot, seq, timestamp, clock, uptime, received, grp, score, vals)",
        NEW,
    );
    let mut alerts = Rows::new(
        "alert (device, id, boot, seq, timestamp, clock, uptime, received, source, reading, score, threshold, severity,
         contributions, vals)",
        NEW,
    );
    let mut events = Rows::new(
        "event (device, id, boot, seq, timestamp, clock, uptime, received, event, subject, detail)",
        NEW,
    );
    let mut images = Rows::new(
        "image (device, id, boot, seq, timestamp, clock, uptime, received, camera, object, bytes, faces, cover, software)",
        NEW,
    );
    for record in &batch.records {
        let stamp = record.stamp();
        let [a, b, c, d, e, f, g, h]: [Value<'_>; 8] = [
            record.device.as_str().into(),
            stamp.id.to_string().into(),
            stamp.boot.to_string().into(),
            stamp.seq.cast_signed().into(),
            stamp.timestamp.as_millisecond().into(),
            clock(stamp.clock).into(),
            i64::try_from(stamp.uptime_ms).unwrap_or(i64::MAX).into(),
            batch.received.into(),
        ];
        match &record.content {
            Content::Reading(group, reading) => {
                let (group, score, values) = (group.as_str(), reading.score, json(&reading.values));
                readings.push([a, b, c, d, e, f, g, h, group.into(), score.into(), values.into()]);
            }
            Content::Alert(source, alert) => {
                let severity = match alert.severity {
                    Severity::Warning => "warning",
                    Severity::Critical => "critical",
                };
                let (reading, shares) = (alert.reading.to_string(), json(&alert.contributions));
                let [i, j, k, l]: [Value<'_>; 4] =
                    [source.as_str().into(), reading.into(), alert.score.into(), alert.threshold.into()];
                let values = json(&alert.values);
                alerts.push([
                    a,
                    b,
                    c,
                    d,
                    e,
                    f,
                    g,
                    h,
                    i,
                    j,
                    k,
                    l,
                    severity.into(),
                    shares.into(),
                    values.into(),
                ]);
            }
            Content::Event(event) => {
                let kind =
                    serde_json::to_value(&event.event).ok().and_then(|kind| kind.as_str().map(str::to_owned));
                let (subject, detail) = (event.subject.as_deref(), event.detail.as_str());
                events.push([a, b, c, d, e, f, g, h, kind.into(), subject.into(), detail.into()]);
            }
            Content::Image { meta, object, bytes } => {
                let bytes = i64::try_from(*bytes).unwrap_or(i64::MAX);
                let [i, j, k]: [Value<'_>; 3] =
                    [meta.camera.as_str().into(), object.as_str().into(), bytes.into()];
                let (faces, cover, software) =
                    (i64::from(meta.faces), meta.cover.as_str(), meta.software.as_str());
                images.push([a, b, c, d, e, f, g, h, i, j, k, faces.into(), cover.into(), software.into()]);
            }
        }
    }
    let mut new = HashSet::new();
    new.extend(readings.returned::<(String, String)>(tx).await?);
    new.extend(alerts.returned::<(String, String)>(tx).await?);
    new.extend(events.returned::<(String, String)>(tx).await?);
    new.extend(images.returned::<(String, String)>(tx).await?);
    Ok(new)
}

async fn dead_letters(tx: &mut Tx, batch: &Batch) -> sqlx::Result<()> {
    for letter in &batch.dead_letters {
        let row =
            ask("INSERT INTO dead_letter (received, topic, device, record, reason, bytes, payload, object)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING")
            .bind(batch.received)
            .bind(letter.topic.as_str())
            .bind(letter.device.as_ref().map(DeviceName::as_str))
            .bind(letter.record.map(|id| id.to_string()))
            .bind(letter.reason.as_str())
            .bind(i64::try_from(letter.bytes).unwrap_or(i64::MAX))
            .bind(letter.payload.as_deref())
            .bind(letter.object.as_deref());
        tx.run(row).await?;
    }
    Ok(())
}

async fn seen(tx: &mut Tx, batch: &Batch) -> sqlx::Result<()> {
    let mut seen: BTreeSet<&DeviceName> = batch.records.iter().map(|record| &record.device).collect();
    seen.extend(batch.health.iter().map(|health| &health.device));
    // A last will is the broker's word, not the device's, and a goodbye is repeated by brokers: both are left to `devices`.
    let is_there = |presence: &&Presence| presence.status.state == DeviceState::Online;
    seen.extend(batch.presence.iter().filter(is_there).map(|presence| &presence.device));
    let mut rows = Rows::new(
        "device (name, first_seen, last_seen)",
        "ON CONFLICT (name) DO UPDATE SET last_seen = excluded.last_seen",
    );
    for device in seen {
        rows.push([device.as_str().into(), batch.received.into(), batch.received.into()]);
    }
    rows.run(tx).await
}

async fn devices(tx: &mut Tx, batch: &Batch) -> sqlx::Result<()> {
    let now = batch.received;
    for Presence { device, status } in &batch.presence {
        let state = match status.state {
            DeviceState::Online => "online",
            DeviceState::Offline => "offline",
            DeviceState::Stopped => "stopped",
        };
        // What is retained comes again with every new subscription, and is no news then: the state is as old as before.
        let row = ask(
            "INSERT INTO device (name, first_seen, last_seen, state, state_at, version, boot, clock, problems)
             VALUES ($1, $2, $2, $3, $2, $4, $5, $6, $7)
             ON CONFLICT (name) DO UPDATE SET state = excluded.state,
             state_at = CASE WHEN device.state = excluded.state AND device.boot = excluded.boot THEN device.state_at
                 ELSE excluded.state_at END,
             last_seen = CASE WHEN excluded.state <> 'stopped'
                 OR (device.state = excluded.state AND device.boot = excluded.boot) IS TRUE THEN device.last_seen
                 ELSE excluded.last_seen END,
             version = excluded.version, boot = excluded.boot, clock = excluded.clock, problems = excluded.problems",
        )
        .bind(device.as_str())
        .bind(now)
        .bind(state)
        .bind(status.version.as_str())
        .bind(status.boot.to_string())
        .bind(clock(status.clock))
        .bind(json(&status.problems));
        tx.run(row).await?;
    }
    for Health { device, json } in &batch.health {
        let row = ask("UPDATE device SET health = $1, health_at = $2 WHERE name = $3");
        tx.run(row.bind(json.as_str()).bind(now).bind(device.as_str())).await?;
    }
    for Told { device, json, answered } in &batch.told {
        // It is retained, and a broker that repeats it says nothing about when the device was there.
        let row = ask(
            "INSERT INTO device (name, first_seen, last_seen) VALUES ($1, $2, $2) ON CONFLICT DO NOTHING",
        );
        tx.run(row.bind(device.as_str()).bind(now)).await?;
        let row = ask("UPDATE device SET reported = $1, reported_at = $2, answered = $3
             WHERE name = $4 AND (reported IS NULL OR reported <> $1)");
        tx.run(row.bind(json.as_str()).bind(now).bind(answered.as_deref()).bind(device.as_str())).await?;
    }
    Ok(())
}

fn clock(state: ClockState) -> &'static str {
    match state {
        ClockState::Synced => "synced",
        ClockState::Unsynced => "unsynced",
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("numbers and texts under text keys")
}
