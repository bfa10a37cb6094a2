//! Settings from afar: what devices tell of theirs, and what is wanted of them.

use super::{Catalog, CatalogError, store::ask};
use edgeveil_wire::{Desired, DeviceName};

/// What is known of a device's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct SettingsRow {
    /// JSON: the last `config/reported`.
    pub reported: Option<String>,
    /// When it came: milliseconds since 1970, like all times.
    pub reported_at: Option<i64>,
    /// JSON: what is wanted.
    pub desired: Option<String>,
    /// Since when.
    pub desired_at: Option<i64>,
    /// By whom.
    pub desired_by: Option<String>,
}

impl Catalog {
    /// What is known of a device's settings.
    pub async fn settings_of(&self, device: &DeviceName) -> Result<SettingsRow, CatalogError> {
        let sql = "SELECT reported, reported_at, desired, desired_at, desired_by FROM device WHERE name = $1";
        let row = self.store.row(ask(sql).bind(device.as_str())).await;
        Ok(row.map_err(self.failed("reading a device's settings"))?.unwrap_or_default())
    }

    /// Notes what is wanted of a device. False when there is no such.
    pub async fn want(
        &self,
        device: &DeviceName,
        desired: &Desired,
        who: &str,
        now: i64,
    ) -> Result<bool, CatalogError> {
        let failed = self.failed("noting what is wanted of a device");
        let json = String::from_utf8(desired.to_json()).unwrap_or_default();
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let sql = "UPDATE device SET desired = $1, desired_id = $2, desired_at = $3, desired_by = $4 WHERE name = $5";
        let row = ask(sql).bind(json.as_str()).bind(desired.id.as_str()).bind(now).bind(who);
        let known = tx.run(row.bind(device.as_str())).await.map_err(&failed)? > 0;
        if known {
            let wanted = serde_json::to_string(&desired.settings).unwrap_or_default();
            let noted = super::sessions::note(&mut tx, now, who, "settings", device.as_str(), &wanted);
            noted.await.map_err(&failed)?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(known)
    }

    /// Devices that are there and have not answered what is wanted of them, with that: by name, after one of them.
    pub async fn unanswered_wishes(
        &self,
        after: &str,
        most: u32,
    ) -> Result<Vec<(String, String)>, CatalogError> {
        let sql = "SELECT name, desired FROM device WHERE desired IS NOT NULL AND state = 'online'
             AND (answered IS NULL OR answered <> desired_id) AND name > $1 ORDER BY name LIMIT $2";
        let asked = ask(sql).bind(after).bind(i64::from(most));
        self.store.rows(asked).await.map_err(self.failed("reading what is wanted of devices"))
    }
}
