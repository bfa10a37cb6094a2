//! What the pages ask: always a bounded number of rows, by an index, and on from where the page before ended.

use super::{
    AlertRow, Catalog, CatalogError, DeviceRow, ImageRow,
    store::{Ask, ask},
};
use edgeveil_wire::{DeviceName, Name, RecordId};
use serde::{Deserialize, Serialize};

/// A place in a list that is ordered by time, the newest first: what comes next is older.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Place {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Of the record there.
    pub device: String,
    /// Its id.
    pub id: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.at, self.id, self.device)
    }
}

impl TryFrom<String> for Place {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map_err(|()| "it is no place of a list of ours")
    }
}

impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(());
        let (at, id, device) = (part()?, part()?, part()?);
        let at = at.parse().map_err(|_| ())?;
        let id: RecordId = id.parse().map_err(|_| ())?;
        let device: DeviceName = device.parse().map_err(|_| ())?;
        Ok(Self { at, device: device.to_string(), id: id.to_string() })
    }
}

/// Which images.
#[derive(Debug, Clone, Default)]
pub struct ImagesOf {
    /// Of this device alone.
    pub device: Option<DeviceName>,
    /// Of this camera of the device alone.
    pub camera: Option<Name>,
    /// From this moment on: milliseconds since 1970, by the devices' clocks.
    pub from: Option<i64>,
    /// Before that one.
    pub to: Option<i64>,
    /// Those after this place.
    pub after: Option<Place>,
}

/// Which alerts.
#[derive(Debug, Clone, Default)]
pub struct AlertsOf {
    /// Of this device alone.
    pub device: Option<DeviceName>,
    /// `warning` or `critical` alone.
    pub severity: Option<String>,
    /// Those alone that nobody has acknowledged.
    pub open: bool,
    /// Those after this place, by arrival.
    pub after: Option<Place>,
}

/// How many devices are how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Fleet {
    /// All.
    pub devices: i64,
    /// Connected.
    pub online: i64,
    /// Gone without a word.
    pub offline: i64,
    /// With something wrong that they have told.
    pub troubled: i64,
}

/// A reading for a chart.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Point {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// In [0, 1], once the detector was warm.
    pub score: Option<f64>,
    /// JSON: values by name.
    pub vals: String,
}

const IMAGE: &str =
    "SELECT device, id, camera, timestamp, received, object, bytes, faces, cover, thumbnail FROM image";
pub(super) const ALERT: &str =
    "SELECT device, id, source, timestamp, received, score, threshold, severity, contributions, vals,
     acknowledged, acknowledged_by, note FROM alert";
const DEVICE: &str = "SELECT name, first_seen, last_seen, state, state_at, version, clock, problems, health, health_at FROM device";
const TROUBLED: &str = "(problems IS NOT NULL AND problems <> '[]')";

/// Conditions and what is bound to them.
#[derive(Default)]
struct Wanted {
    conditions: Vec<String>,
    values: Vec<super::store::Value<'static>>,
}

impl Wanted {
    /// `{}` in the condition stands for the value.
    fn and(&mut self, condition: &str, value: impl Into<super::store::Value<'static>>) {
        self.values.push(value.into());
        self.conditions.push(condition.replace("{}", &format!("${}", self.values.len())));
    }

    fn after(&mut self, column: &str, place: Option<&Place>) {
        let Some(place) = place else { return };
        let first = self.values.len() + 1;
        self.values.extend([place.at.into(), place.device.clone().into(), place.id.clone().into()]);
        let (at, device, id) = (first, first + 1, first + 2);
        self.conditions
            .push(format!("{column} <= ${at} AND ({column} < ${at} OR (device, id) < (${device}, ${id}))"));
    }

    fn sql(&self, select: &str, order: &str, most: u32) -> String {
        let wanted = self.conditions.join(" AND ");
        let start = if wanted.is_empty() { "" } else { " WHERE " };
        format!("{select}{start}{wanted} ORDER BY {order} LIMIT {most}")
    }
}

fn with<'q>(sql: &'q str, values: Vec<super::store::Value<'q>>) -> Ask<'q> {
    ask(sql).bind_all(values)
}

impl Catalog {
    /// Images, the newest first by their devices' clocks.
    pub async fn images(&self, of: &ImagesOf, most: u32) -> Result<Vec<ImageRow>, CatalogError> {
        let wanted = wanted_images(of);
        let sql = wanted.sql(IMAGE, "timestamp DESC, device DESC, id DESC", most);
        self.store.rows(with(&sql, wanted.values)).await.map_err(self.failed("reading images"))
    }

    /// The image that is shown before this one: the next newer one.
    pub async fn newer_image(&self, of: &ImagesOf, than: &Place) -> Result<Option<ImageRow>, CatalogError> {
        let mut wanted = wanted_images(&ImagesOf { after: None, ..of.clone() });
        let first = wanted.values.len() + 1;
        wanted.values.extend([than.at.into(), than.device.clone().into(), than.id.clone().into()]);
        let (at, device, id) = (first, first + 1, first + 2);
        wanted
            .conditions
            .push(format!("timestamp >= ${at} AND (timestamp > ${at} OR (device, id) > (${device}, ${id}))"));
        let sql = wanted.sql(IMAGE, "timestamp, device, id", 1);
        self.store.row(with(&sql, wanted.values)).await.map_err(self.failed("reading images"))
    }

    /// An image.
    pub async fn image(&self, device: &DeviceName, id: RecordId) -> Result<Option<ImageRow>, CatalogError> {
        let sql = format!("{IMAGE} WHERE device = $1 AND id = $2");
        let asked = ask(&sql).bind(device.as_str()).bind(id.to_string());
        self.store.row(asked).await.map_err(self.failed("looking for an image"))
    }

    /// Notes that the store has a thumbnail of it.
    pub async fn has_thumbnail(&self, device: &str, id: &str) -> Result<bool, CatalogError> {
        let sql = "UPDATE image SET thumbnail = 1 WHERE device = $1 AND id = $2";
        let run = self.store.run(ask(sql).bind(device).bind(id)).await;
        run.map(|rows| rows > 0).map_err(self.failed("noting a thumbnail"))
    }

    /// Images of a camera and time, up to `most`.
    pub async fn count_images(
        &self,
        device: &DeviceName,
        camera: &Name,
        from: i64,
        to: i64,
        most: i64,
    ) -> Result<i64, CatalogError> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM image
             WHERE device = $1 AND camera = $2 AND timestamp >= $3 AND timestamp < $4 LIMIT $5) AS those";
        let asked = ask(sql).bind(device.as_str()).bind(camera.as_str()).bind(from).bind(to).bind(most);
        let found: Result<Option<(i64,)>, _> = self.store.row(asked).await;
        Ok(found.map_err(self.failed("counting images"))?.map_or(0, |(count,)| count))
    }

    /// When the first image of a camera and time was received.
    pub async fn oldest_image(
        &self,
        device: &DeviceName,
        camera: &Name,
        from: i64,
        to: i64,
    ) -> Result<Option<i64>, CatalogError> {
        let sql = "SELECT min(received) FROM image
             WHERE device = $1 AND camera = $2 AND timestamp >= $3 AND timestamp < $4";
        let asked = ask(sql).bind(device.as_str()).bind(camera.as_str()).bind(from).bind(to);
        let found: Result<Option<(Option<i64>,)>, _> = self.store.row(asked).await;
        Ok(found.map_err(self.failed("looking for the first image"))?.and_then(|(oldest,)| oldest))
    }

    /// The image of a device that is nearest to a moment, within so many milliseconds of it.
    pub async fn image_near(
        &self,
        device: &DeviceName,
        at: i64,
        within: i64,
    ) -> Result<Option<ImageRow>, CatalogError> {
        let before = format!(
            "{IMAGE} WHERE device = $1 AND timestamp BETWEEN $2 AND $3 ORDER BY timestamp DESC LIMIT 1"
        );
        let after =
            format!("{IMAGE} WHERE device = $1 AND timestamp BETWEEN $2 AND $3 ORDER BY timestamp LIMIT 1");
        let mut nearest: Option<ImageRow> = None;
        for (sql, from, to) in [(&before, at - within, at), (&after, at, at + within)] {
            let asked = ask(sql).bind(device.as_str()).bind(from).bind(to);
            let found: Option<ImageRow> =
                self.store.row(asked).await.map_err(self.failed("looking for an image"))?;
            let distance = |image: &ImageRow| (image.timestamp - at).abs();
            nearest = [nearest, found].into_iter().flatten().min_by_key(distance);
        }
        Ok(nearest)
    }

    /// The cameras of a device of which there are images: 64 at most.
    pub async fn cameras(&self, device: &DeviceName) -> Result<Vec<String>, CatalogError> {
        // From one to the next by the index, however many images there are of each.
        let sql = "WITH RECURSIVE known(camera, n) AS (
                SELECT min(camera), 1 FROM image WHERE device = $1
                UNION ALL
                SELECT (SELECT min(camera) FROM image WHERE device = $1 AND camera > known.camera), n + 1
                FROM known WHERE known.camera IS NOT NULL AND n < 64)
             SELECT camera FROM known WHERE camera IS NOT NULL";
        let rows: Vec<(String,)> =
            self.store.rows(ask(sql).bind(device.as_str())).await.map_err(self.failed("listing cameras"))?;
        Ok(rows.into_iter().map(|(camera,)| camera).collect())
    }

    /// Alerts, the last to arrive first.
    pub async fn alerts(&self, of: &AlertsOf, most: u32) -> Result<Vec<AlertRow>, CatalogError> {
        let mut wanted = Wanted::default();
        if let Some(device) = &of.device {
            wanted.and("device = {}", device.to_string());
        }
        if let Some(severity) = &of.severity {
            wanted.and("severity = {}", severity.clone());
        }
        if of.open {
            wanted.conditions.push("acknowledged IS NULL".to_owned());
        }
        wanted.after("received", of.after.as_ref());
        let sql = wanted.sql(ALERT, "received DESC, device DESC, id DESC", most);
        self.store.rows(with(&sql, wanted.values)).await.map_err(self.failed("reading alerts"))
    }

    /// Alerts that arrived after another one, which is named by when it did, its device and its id; the first first.
    pub async fn alerts_after(
        &self,
        (received, device, id): (i64, &str, &str),
        most: u32,
    ) -> Result<Vec<AlertRow>, CatalogError> {
        let sql = format!(
            "{ALERT} WHERE received >= $1 AND (received > $1 OR (device, id) > ($2, $3)) ORDER BY received, device, id LIMIT {most}"
        );
        let asked = ask(&sql).bind(received).bind(device).bind(id);
        self.store.rows(asked).await.map_err(self.failed("reading alerts"))
    }

    /// The last of those that arrived since a moment, the first of them first.
    pub async fn last_alerts_since(&self, received: i64, most: u32) -> Result<Vec<AlertRow>, CatalogError> {
        let sql =
            format!("{ALERT} WHERE received >= $1 ORDER BY received DESC, device DESC, id DESC LIMIT {most}");
        let rows: Result<Vec<AlertRow>, _> = self.store.rows(ask(&sql).bind(received)).await;
        let mut rows = rows.map_err(self.failed("reading alerts"))?;
        rows.reverse();
        Ok(rows)
    }

    /// A device's alerts of some time by its own clock.
    pub async fn alerts_between(
        &self,
        device: &DeviceName,
        from: i64,
        to: i64,
        most: u32,
    ) -> Result<Vec<AlertRow>, CatalogError> {
        let sql = format!(
            "{ALERT} WHERE device = $1 AND timestamp BETWEEN $2 AND $3 ORDER BY timestamp DESC LIMIT {most}"
        );
        let asked = ask(&sql).bind(device.as_str()).bind(from).bind(to);
        self.store.rows(asked).await.map_err(self.failed("reading alerts"))
    }

    /// An alert.
    pub async fn alert(&self, device: &DeviceName, id: RecordId) -> Result<Option<AlertRow>, CatalogError> {
        let sql = format!("{ALERT} WHERE device = $1 AND id = $2");
        let asked = ask(&sql).bind(device.as_str()).bind(id.to_string());
        self.store.row(asked).await.map_err(self.failed("looking for an alert"))
    }

    /// Acknowledges an alert. False when it is not there, or somebody has done it before.
    pub async fn acknowledge_alert(
        &self,
        device: &DeviceName,
        id: RecordId,
        who: &str,
        note: &str,
        at: i64,
    ) -> Result<bool, CatalogError> {
        let failed = self.failed("acknowledging an alert");
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let sql = "UPDATE alert SET acknowledged = $1, acknowledged_by = $2, note = $3
             WHERE device = $4 AND id = $5 AND acknowledged IS NULL";
        let row = ask(sql).bind(at).bind(who).bind(note).bind(device.as_str()).bind(id.to_string());
        let done = tx.run(row).await.map_err(&failed)? > 0;
        if done {
            let subject = format!("{device}/{id}");
            super::sessions::note(&mut tx, at, who, "acknowledge", &subject, note).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(done)
    }

    /// How the devices are.
    pub async fn fleet(&self) -> Result<Fleet, CatalogError> {
        let sql = format!(
            "SELECT count(*) AS devices, count(CASE WHEN state = 'online' THEN 1 END) AS online,
             count(CASE WHEN state = 'offline' THEN 1 END) AS offline, count(CASE WHEN {TROUBLED} THEN 1 END) AS troubled FROM device"
        );
        let row = self.store.row(ask(&sql)).await.map_err(self.failed("counting devices"))?;
        Ok(row.unwrap_or_default())
    }

    /// Devices whose names have this in them, by name.
    pub async fn devices_after(
        &self,
        name: &str,
        after: Option<&DeviceName>,
        most: u32,
    ) -> Result<Vec<DeviceRow>, CatalogError> {
        let sql = format!("{DEVICE} WHERE name LIKE $1 ESCAPE '\\' AND name > $2 ORDER BY name LIMIT {most}");
        let asked = ask(&sql).bind(like(name)).bind(after.map_or("", DeviceName::as_str));
        self.store.rows(asked).await.map_err(self.failed("reading devices"))
    }

    /// Devices whose names have this in them, those with something wrong first.
    pub async fn devices_like(
        &self,
        name: &str,
        skip: i64,
        most: u32,
    ) -> Result<Vec<DeviceRow>, CatalogError> {
        let sql = format!(
            "{DEVICE} WHERE name LIKE $1 ESCAPE '\\' ORDER BY CASE WHEN state = 'offline' THEN 0 WHEN {TROUBLED} THEN 1
             WHEN state = 'online' THEN 2 ELSE 3 END, name LIMIT {most} OFFSET $2"
        );
        let asked = ask(&sql).bind(like(name)).bind(skip);
        self.store.rows(asked).await.map_err(self.failed("reading devices"))
    }

    /// A device.
    pub async fn device(&self, name: &DeviceName) -> Result<Option<DeviceRow>, CatalogError> {
        let sql = format!("{DEVICE} WHERE name = $1");
        self.store.row(ask(&sql).bind(name.as_str())).await.map_err(self.failed("reading a device"))
    }

    /// Sensor groups among a device's newest readings.
    pub async fn groups(&self, device: &DeviceName) -> Result<Vec<String>, CatalogError> {
        let sql = "SELECT DISTINCT grp FROM (SELECT grp FROM reading WHERE device = $1 ORDER BY timestamp DESC LIMIT 500) AS newest
             ORDER BY grp";
        let rows: Vec<(String,)> =
            self.store.rows(ask(sql).bind(device.as_str())).await.map_err(self.failed("listing sensors"))?;
        Ok(rows.into_iter().map(|(group,)| group).collect())
    }

    /// Readings of a group within [from, to): the first of each of so many equal parts of that time, or of fewer.
    pub async fn points(
        &self,
        device: &DeviceName,
        group: &Name,
        from: i64,
        to: i64,
        parts: u32,
    ) -> Result<Vec<Point>, CatalogError> {
        let parts = i64::from(parts.max(1));
        let step = ((to - from + parts - 1) / parts).max(1);
        // CROSS: else SQLite may take each reading of the device in turn and look which part it is the first of.
        let sql = "WITH RECURSIVE part(at) AS (
                SELECT CAST($3 AS BIGINT) UNION ALL SELECT at + $5 FROM part WHERE at + $5 < $4)
             SELECT r.timestamp, r.score, r.vals FROM part CROSS JOIN reading r WHERE r.device = $1 AND r.id = (
                SELECT id FROM reading WHERE device = $1 AND grp = $2 AND timestamp >= part.at AND timestamp < part.at + $5
                ORDER BY timestamp LIMIT 1)
             ORDER BY r.timestamp";
        let asked = ask(sql).bind(device.as_str()).bind(group.as_str()).bind(from).bind(to).bind(step);
        self.store.rows(asked).await.map_err(self.failed("reading values"))
    }

    /// When a device's newest reading of a group was made.
    pub async fn newest_reading(&self, device: &DeviceName) -> Result<Option<i64>, CatalogError> {
        let sql = "SELECT timestamp FROM reading WHERE device = $1 ORDER BY timestamp DESC LIMIT 1";
        let found: Option<(i64,)> =
            self.store.row(ask(sql).bind(device.as_str())).await.map_err(self.failed("reading values"))?;
        Ok(found.map(|(at,)| at))
    }
}

/// What is no part of a name finds nothing; `_` is one, and a wildcard. Patterns have a bound in SQLite, and names have at most
/// 64 characters.
fn like(name: &str) -> String {
    let part: String = name.chars().take(65).collect();
    format!("%{}%", part.replace('\\', "").replace('%', "\\%").replace('_', "\\_"))
}

fn wanted_images(of: &ImagesOf) -> Wanted {
    let mut wanted = Wanted::default();
    if let Some(device) = &of.device {
        wanted.and("device = {}", device.to_string());
        if let Some(camera) = &of.camera {
            wanted.and("camera = {}", camera.to_string());
        }
    }
    if let Some(from) = of.from {
        wanted.and("timestamp >= {}", from);
    }
    if let Some(to) = of.to {
        wanted.and("timestamp < {}", to);
    }
    wanted.after("timestamp", of.after.as_ref());
    wanted
}
