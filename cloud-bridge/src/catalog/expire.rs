//! What is older than it has to be is removed, some at a time, so that commits go on between.
//!
//! The account of sequences keeps its count for ever and notes beside it how many rows have expired, in the transaction
//! that removes them: so `verify` still sees every gap.

use super::{
    Catalog, CatalogError,
    read::table,
    store::{Tx, ask},
};
use edgeveil_wire::Lane;
use std::collections::BTreeMap;

/// Rows removed in one transaction at the most.
const AT_ONCE: i64 = 500;

/// An image that has expired: its row may go once its object has.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ExpiredImage {
    /// Whose.
    pub device: String,
    /// Its id.
    pub id: String,
    /// Its key in the object store.
    pub object: String,
    /// 1: the store has a thumbnail of it.
    pub thumbnail: i64,
}

impl Catalog {
    /// Removes some records of a lane, but for images, that were received before. How many; 0 when there are none left.
    pub async fn expire(&self, lane: Lane, before: i64) -> Result<u64, CatalogError> {
        let failed = self.failed("removing what has expired");
        let table = table(lane);
        let sql = format!(
            "DELETE FROM {table} WHERE (device, id) IN
             (SELECT device, id FROM {table} WHERE received < $1 ORDER BY received LIMIT $2) RETURNING device, boot"
        );
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let gone: Vec<(String, String)> =
            tx.rows(ask(&sql).bind(before).bind(AT_ONCE)).await.map_err(&failed)?;
        note(&mut tx, lane, &gone).await.map_err(&failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(gone.len() as u64)
    }

    /// The images that were received before, the oldest first: some of them.
    pub async fn expired_images(&self, before: i64) -> Result<Vec<ExpiredImage>, CatalogError> {
        let sql =
            "SELECT device, id, object, thumbnail FROM image WHERE received < $1 ORDER BY received LIMIT $2";
        let found = self.store.rows(ask(sql).bind(before).bind(AT_ONCE)).await;
        found.map_err(self.failed("looking for expired images"))
    }

    /// Removes the rows of these images, whose objects are gone. One that got a thumbnail meanwhile stays for the next time.
    pub async fn forget_images(&self, images: &[ExpiredImage]) -> Result<u64, CatalogError> {
        let failed = self.failed("removing expired images");
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let mut gone = Vec::new();
        for image in images {
            let sql =
                "DELETE FROM image WHERE device = $1 AND id = $2 AND thumbnail = $3 RETURNING device, boot";
            let query = ask(sql).bind(image.device.as_str()).bind(image.id.as_str()).bind(image.thumbnail);
            let one: Vec<(String, String)> = tx.rows(query).await.map_err(&failed)?;
            gone.extend(one);
        }
        note(&mut tx, Lane::Image, &gone).await.map_err(&failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(gone.len() as u64)
    }

    /// Removes some rows of the outbox that arrived at their target before. How many; 0 when there are none left.
    pub async fn expire_forwarded(&self, before: i64) -> Result<u64, CatalogError> {
        let sql = "DELETE FROM outbox WHERE number IN (SELECT number FROM outbox WHERE done < $1 ORDER BY done LIMIT $2)";
        let gone = self.store.run(ask(sql).bind(before).bind(AT_ONCE)).await;
        gone.map_err(self.failed("removing what was forwarded"))
    }
}

async fn note(tx: &mut Tx, lane: Lane, gone: &[(String, String)]) -> sqlx::Result<()> {
    let mut counts = BTreeMap::new();
    for of in gone {
        *counts.entry(of).or_insert(0_i64) += 1;
    }
    for ((device, boot), count) in counts {
        let sql = "UPDATE sequence SET expired = expired + $1 WHERE device = $2 AND boot = $3 AND lane = $4";
        let note = ask(sql).bind(count).bind(device.as_str()).bind(boot.as_str()).bind(lane.as_str());
        tx.run(note).await?;
    }
    Ok(())
}
