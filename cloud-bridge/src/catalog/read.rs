//! Questions to the catalog.

use super::{Catalog, CatalogError, store::ask};
use edgeveil_wire::{DeviceName, Lane, Name, RecordId, Values};
use serde::Serialize;
use sqlx::FromRow;
use std::collections::{BTreeMap, HashSet};

/// A veiled image.
#[derive(Debug, Clone, FromRow)]
pub struct ImageRow {
    /// Whose.
    pub device: String,
    /// Its id.
    pub id: String,
    /// Of which camera.
    pub camera: String,
    /// Milliseconds since 1970, by the device's clock.
    pub timestamp: i64,
    /// Milliseconds since 1970, by the bridge's clock.
    pub received: i64,
    /// Its key in the object store.
    pub object: String,
    /// Its length.
    pub bytes: i64,
    /// Faces covered in it.
    pub faces: i64,
    /// How they were covered.
    pub cover: String,
    /// 1: the store has a thumbnail of it.
    pub thumbnail: i64,
}

/// An alert.
#[derive(Debug, Clone, FromRow)]
pub struct AlertRow {
    /// Whose.
    pub device: String,
    /// Its id.
    pub id: String,
    /// Of which source.
    pub source: String,
    /// Milliseconds since 1970, by the device's clock.
    pub timestamp: i64,
    /// Milliseconds since 1970, by the bridge's clock.
    pub received: i64,
    /// In [0, 1].
    pub score: f64,
    /// What it was held against.
    pub threshold: f64,
    /// `warning` or `critical`.
    pub severity: String,
    /// JSON: shares by value name.
    pub contributions: String,
    /// JSON: values by name.
    pub vals: String,
    /// When somebody acknowledged it: milliseconds since 1970.
    pub acknowledged: Option<i64>,
    /// Who did.
    pub acknowledged_by: Option<String>,
    /// What they had to say.
    pub note: Option<String>,
}

/// A device.
#[derive(Debug, Clone, FromRow)]
pub struct DeviceRow {
    /// Its name.
    pub name: String,
    /// Milliseconds since 1970.
    pub first_seen: i64,
    /// Milliseconds since 1970.
    pub last_seen: i64,
    /// `online`, `offline` or `stopped`.
    pub state: Option<String>,
    /// Since when: milliseconds since 1970.
    pub state_at: Option<i64>,
    /// The agent's version.
    pub version: Option<String>,
    /// `synced` or `unsynced`.
    pub clock: Option<String>,
    /// JSON: what is wrong, one text each.
    pub problems: Option<String>,
    /// JSON: the last health message.
    pub health: Option<String>,
    /// When it came: milliseconds since 1970.
    pub health_at: Option<i64>,
}

/// What arrived of one lane within one boot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, FromRow)]
pub struct Gap {
    /// Whose.
    pub device: String,
    /// Which start of the agent.
    pub boot: String,
    /// Which lane.
    pub lane: String,
    /// Records.
    pub count: i64,
    /// The first.
    pub min_seq: i64,
    /// The last.
    pub max_seq: i64,
    /// Of these records, those that retention has removed since.
    pub expired: i64,
}

/// What arrived, by two ways that have to agree.
#[derive(Debug)]
pub struct Sequences {
    /// As it was accounted for with every commit.
    pub accounted: Vec<Gap>,
    /// Counted from the rows themselves.
    pub counted: Vec<Gap>,
}

impl Gap {
    /// Whether the rows that are there are those that this account speaks of.
    pub fn accounts_for(&self, rows: &Self) -> bool {
        if self.expired == 0 {
            return self == rows;
        }
        self.count - self.expired == rows.count
            && self.min_seq <= rows.min_seq
            && rows.max_seq <= self.max_seq
    }

    /// Records that should be there, counted from 0, and are not.
    pub fn missing(&self) -> i64 {
        self.max_seq + 1 - self.count
    }
}

pub(super) const fn table(lane: Lane) -> &'static str {
    match lane {
        Lane::Alert => "alert",
        Lane::Status => "event",
        Lane::Reading => "reading",
        Lane::Image => "image",
    }
}

/// Pairs in one statement: far below the parameters that either database takes.
const KNOWN_AT_ONCE: usize = 500;

impl Catalog {
    /// Whether a device has this reading, whatever its id.
    pub async fn has_reading(
        &self,
        device: &DeviceName,
        group: &Name,
        timestamp: i64,
        values: &Values,
    ) -> Result<bool, CatalogError> {
        let sql = "SELECT vals FROM reading WHERE device = $1 AND timestamp = $2 AND grp = $3";
        let asked = ask(sql).bind(device.as_str()).bind(timestamp).bind(group.as_str());
        let rows: Vec<(String,)> =
            self.store.rows(asked).await.map_err(self.failed("looking for a reading"))?;
        Ok(rows
            .iter()
            .any(|(there,)| serde_json::from_str::<Values>(there).is_ok_and(|there| there == *values)))
    }

    /// The values of a device's newest readings, in their order.
    pub async fn past_values(
        &self,
        device: &DeviceName,
        group: &Name,
        most: u32,
    ) -> Result<Vec<Values>, CatalogError> {
        let sql = "SELECT vals FROM reading WHERE device = $1 AND grp = $2 ORDER BY timestamp DESC LIMIT $3";
        let asked = ask(sql).bind(device.as_str()).bind(group.as_str()).bind(i64::from(most));
        let rows: Vec<(String,)> =
            self.store.rows(asked).await.map_err(self.failed("reading a device's past"))?;
        Ok(rows.iter().rev().filter_map(|(values,)| serde_json::from_str(values).ok()).collect())
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), CatalogError> {
        let none: Result<Vec<(String,)>, _> = self.store.rows(ask("SELECT name FROM device LIMIT 0")).await;
        none.map(drop).map_err(self.failed("asking it"))
    }

    /// Which of these images are there already.
    pub async fn known_images(
        &self,
        wanted: &[(&DeviceName, RecordId)],
    ) -> Result<HashSet<(String, String)>, CatalogError> {
        self.known("SELECT device, id FROM image WHERE (device, id)", wanted).await
    }

    /// Which of these pairs a query finds that ends where their list belongs.
    pub(super) async fn known(
        &self,
        select: &str,
        wanted: &[(&DeviceName, RecordId)],
    ) -> Result<HashSet<(String, String)>, CatalogError> {
        if wanted.is_empty() {
            return Ok(HashSet::new());
        }
        let mut known = HashSet::new();
        for wanted in wanted.chunks(KNOWN_AT_ONCE) {
            let pairs: Vec<_> = (1..=wanted.len()).map(|n| format!("(${}, ${})", 2 * n - 1, 2 * n)).collect();
            let sql = format!("{select} IN (VALUES {})", pairs.join(", "));
            let mut query = ask(&sql).once();
            for (device, id) in wanted {
                query = query.bind(device.as_str()).bind(id.to_string());
            }
            let found: Vec<(String, String)> =
                self.store.rows(query).await.map_err(self.failed("looking for what is known"))?;
            known.extend(found);
        }
        Ok(known)
    }

    /// The newest images.
    pub async fn latest_images(&self, most: u32) -> Result<Vec<ImageRow>, CatalogError> {
        let sql = "SELECT device, id, camera, timestamp, received, object, bytes, faces, cover, thumbnail FROM image
             ORDER BY received DESC, timestamp DESC LIMIT $1";
        self.store.rows(ask(sql).bind(i64::from(most))).await.map_err(self.failed("reading images"))
    }

    /// The newest alerts.
    pub async fn latest_alerts(&self, most: u32) -> Result<Vec<AlertRow>, CatalogError> {
        let sql = format!("{} ORDER BY received DESC, timestamp DESC LIMIT $1", super::shown::ALERT);
        self.store.rows(ask(&sql).bind(i64::from(most))).await.map_err(self.failed("reading alerts"))
    }

    /// All devices by name.
    pub async fn devices(&self) -> Result<Vec<DeviceRow>, CatalogError> {
        let sql =
            "SELECT name, first_seen, last_seen, state, state_at, version, clock, problems, health, health_at
             FROM device ORDER BY name";
        self.store.rows(ask(sql)).await.map_err(self.failed("reading devices"))
    }

    /// The key of an image's object.
    pub async fn image_object(
        &self,
        device: &DeviceName,
        id: RecordId,
    ) -> Result<Option<String>, CatalogError> {
        let sql = "SELECT object FROM image WHERE device = $1 AND id = $2";
        let found: Result<Option<(String,)>, _> =
            self.store.row(ask(sql).bind(device.as_str()).bind(id.to_string())).await;
        Ok(found.map_err(self.failed("looking for an image"))?.map(|(object,)| object))
    }

    /// Keys and lengths of all images' objects.
    pub async fn image_objects(&self) -> Result<BTreeMap<String, i64>, CatalogError> {
        let rows: Vec<(String, i64)> = self
            .store
            .rows(ask("SELECT object, bytes FROM image"))
            .await
            .map_err(self.failed("listing images"))?;
        Ok(rows.into_iter().collect())
    }

    /// What arrived of each lane of each boot, as it was accounted for with every commit.
    pub async fn gaps(&self) -> Result<Vec<Gap>, CatalogError> {
        Ok(self.sequences().await?.accounted)
    }

    /// What arrived of each lane of each boot, by its account and by the rows, both of the same moment.
    pub async fn sequences(&self) -> Result<Sequences, CatalogError> {
        let failed = self.failed("reading sequences");
        let mut tx = self.store.moment().await.map_err(&failed)?;
        let sql = "SELECT device, boot, lane, count, min_seq, max_seq, expired FROM sequence ORDER BY device, boot, lane";
        let accounted = tx.rows(ask(sql)).await.map_err(&failed)?;
        let mut counted: Vec<Gap> = Vec::new();
        for lane in Lane::ALL {
            let sql = format!(
                "SELECT device, boot, '{lane}' AS lane, count(*) AS count, min(seq) AS min_seq, max(seq) AS max_seq,
                 CAST(0 AS BIGINT) AS expired FROM {} GROUP BY device, boot",
                table(lane)
            );
            let rows: Vec<Gap> = tx.rows(ask(&sql)).await.map_err(&failed)?;
            counted.extend(rows);
        }
        counted.sort();
        Ok(Sequences { accounted, counted })
    }

    /// Milliseconds from a record's own time to its commit, for every record of a lane.
    pub async fn latencies(&self, lane: Lane) -> Result<Vec<i64>, CatalogError> {
        let sql = format!("SELECT received - timestamp FROM {} ORDER BY 1", table(lane));
        let rows: Vec<(i64,)> = self.store.rows(ask(&sql)).await.map_err(self.failed("reading latencies"))?;
        Ok(rows.into_iter().map(|(latency,)| latency).collect())
    }
}
