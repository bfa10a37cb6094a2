//! Dead letters: what was refused, bounded in number. A letter's object goes before its row does, so that an
//! interruption leaves a row that still names it.

use super::{Catalog, CatalogError, store::ask};
use edgeveil_wire::{DeviceName, RecordId};
use std::collections::{BTreeMap, HashSet};

/// Letters that are kept; of more the oldest go.
pub const MAX_DEAD_LETTERS: i64 = 10_000;

impl Catalog {
    /// Letters and their reasons, the newest first.
    pub async fn dead_letters(&self, most: u32) -> Result<Vec<(String, String)>, CatalogError> {
        let sql = "SELECT topic, reason FROM dead_letter ORDER BY number DESC LIMIT $1";
        self.store.rows(ask(sql).bind(i64::from(most))).await.map_err(self.failed("reading dead letters"))
    }

    /// Keys and lengths of the objects of all letters.
    pub async fn dead_objects(&self) -> Result<BTreeMap<String, i64>, CatalogError> {
        let sql = "SELECT object, bytes FROM dead_letter WHERE object IS NOT NULL";
        let rows: Vec<(String, i64)> =
            self.store.rows(ask(sql)).await.map_err(self.failed("listing dead letters"))?;
        Ok(rows.into_iter().collect())
    }

    /// Which of these are dead letters already.
    pub async fn known_letters(
        &self,
        wanted: &[(&DeviceName, RecordId)],
    ) -> Result<HashSet<(String, String)>, CatalogError> {
        self.known("SELECT device, record FROM dead_letter WHERE (device, record)", wanted).await
    }

    /// The objects of the letters that are too many, with the number of the last of these letters.
    pub async fn too_many_letters(&self, keep: i64) -> Result<Option<(i64, Vec<String>)>, CatalogError> {
        let failed = self.failed("looking for old dead letters");
        let sql = "SELECT number FROM dead_letter ORDER BY number DESC LIMIT 1 OFFSET $1";
        let last: Option<(i64,)> = self.store.row(ask(sql).bind(keep)).await.map_err(&failed)?;
        let Some((last,)) = last else { return Ok(None) };
        let sql = "SELECT object FROM dead_letter WHERE number <= $1 AND object IS NOT NULL";
        let objects: Vec<(String,)> = self.store.rows(ask(sql).bind(last)).await.map_err(&failed)?;
        Ok(Some((last, objects.into_iter().map(|(object,)| object).collect())))
    }

    /// Forgets the letters up to this number, whose objects are gone.
    pub async fn forget_letters(&self, last: i64) -> Result<(), CatalogError> {
        self.store
            .run(ask("DELETE FROM dead_letter WHERE number <= $1").bind(last))
            .await
            .map(drop)
            .map_err(self.failed("forgetting old dead letters"))
    }
}
