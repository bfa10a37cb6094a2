//! What Home Assistant was told of. It outlives a restart, so that what is gone by then can be taken back.

use super::{Catalog, CatalogError, store::ask, together::Rows};

/// Rows removed in one transaction at the most.
const AT_ONCE: i64 = 500;

impl Catalog {
    /// Device, thing and when it was seen: the newest ones.
    pub async fn discovered(&self, most: usize) -> Result<Vec<(String, String, i64)>, CatalogError> {
        let sql = "SELECT device, thing, seen FROM discovery ORDER BY seen DESC LIMIT $1";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.store.rows(ask(sql).bind(most)).await.map_err(self.failed("reading what was discovered"))
    }

    /// Notes that these were seen. Each may stand there once only.
    pub async fn note_discovered(&self, things: &[(&str, String)], now: i64) -> Result<(), CatalogError> {
        let failed = self.failed("noting what was discovered");
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let mut rows = Rows::new(
            "discovery (device, thing, seen)",
            "ON CONFLICT (device, thing) DO UPDATE SET seen = excluded.seen",
        );
        for (device, thing) in things {
            rows.push([(*device).into(), thing.as_str().into(), now.into()]);
        }
        rows.run(&mut tx).await.map_err(&failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Device and thing of some that were seen before and not since.
    pub async fn unseen(&self, before: i64) -> Result<Vec<(String, String)>, CatalogError> {
        let sql = "SELECT device, thing FROM discovery WHERE seen < $1 ORDER BY seen LIMIT $2";
        let found = self.store.rows(ask(sql).bind(before).bind(AT_ONCE)).await;
        found.map_err(self.failed("looking for what is gone"))
    }

    /// Forgets one, unless it was seen since. Whether it is forgotten.
    pub async fn forget_discovered(
        &self,
        device: &str,
        thing: &str,
        before: i64,
    ) -> Result<bool, CatalogError> {
        let sql = "DELETE FROM discovery WHERE device = $1 AND thing = $2 AND seen < $3";
        let gone = self.store.run(ask(sql).bind(device).bind(thing).bind(before)).await;
        gone.map(|gone| gone > 0).map_err(self.failed("forgetting what is gone"))
    }
}
