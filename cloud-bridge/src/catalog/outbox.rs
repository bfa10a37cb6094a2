//! What has to go on to others, and how far that is.

use super::{Catalog, CatalogError, writing::Writing};
use tokio::sync::watch;

/// One target's part of the outbox.
#[derive(Debug, Clone)]
pub struct Outbox {
    catalog: Catalog,
    target: &'static str,
    wake: watch::Receiver<()>,
}

/// A row that has to go.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct OutboxRow {
    /// Its place in the order.
    pub number: i64,
    /// Whose record it is.
    pub device: String,
    /// The record's id.
    pub record: String,
    /// What is sent.
    pub payload: String,
    /// Attempts that failed.
    pub attempts: i64,
    /// Those at which the target refused this very row.
    pub refusals: i64,
    /// Why the last one did.
    pub last_error: Option<String>,
}

/// How far one target is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct OutboxCount {
    /// The target's name.
    pub target: String,
    /// Rows that have arrived there.
    pub done: i64,
    /// Rows that have not.
    pub open: i64,
    /// Rows that it refuses for ever, set aside.
    pub failed: i64,
}

/// A target's answer to a row that it did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// It would have answered so to any row, or did not answer at all.
    Target,
    /// It refused this very row.
    Row,
}

impl Catalog {
    /// Every target's count of rows.
    pub async fn outbox_counts(&self) -> Result<Vec<OutboxCount>, CatalogError> {
        sqlx::query_as(
            "SELECT target, count(done) AS done, count(*) - count(done) - count(failed) AS open,
             count(failed) AS failed FROM outbox GROUP BY target ORDER BY target",
        )
        .fetch_all(&self.read)
        .await
        .map_err(self.failed("counting the outbox"))
    }
}

impl Outbox {
    /// Woken by `wake` after each commit.
    pub fn new(catalog: Catalog, target: &'static str, wake: watch::Receiver<()>) -> Self {
        Self { catalog, target, wake }
    }

    /// The target's name.
    pub fn target(&self) -> &'static str {
        self.target
    }

    /// Waits for a commit since it last returned. For ever once nobody commits any more.
    pub async fn changed(&mut self) {
        if self.wake.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The oldest rows that have to go, after a number.
    pub async fn open(&self, after: i64, most: u32) -> Result<Vec<OutboxRow>, CatalogError> {
        sqlx::query_as(
            "SELECT number, device, record, payload, attempts, refusals, last_error FROM outbox
             WHERE target = ? AND done IS NULL AND failed IS NULL AND number > ? ORDER BY number LIMIT ?",
        )
        .bind(self.target)
        .bind(after)
        .bind(most)
        .fetch_all(&self.catalog.read)
        .await
        .map_err(self.catalog.failed("reading the outbox"))
    }

    /// The target has these.
    pub async fn done(&self, numbers: &[i64], now: i64) -> Result<(), CatalogError> {
        let failed = self.catalog.failed("marking outbox rows done");
        let mut tx = Writing::begin(&self.catalog.write).await.map_err(&failed)?;
        for number in numbers {
            sqlx::query("UPDATE outbox SET done = ? WHERE number = ? AND done IS NULL")
                .bind(now)
                .bind(number)
                .execute(&mut *tx)
                .await
                .map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)
    }

    /// It was tried and failed.
    pub async fn failed(&self, number: i64, error: &str, blame: Blame) -> Result<(), CatalogError> {
        sqlx::query(
            "UPDATE outbox SET attempts = attempts + 1, refusals = refusals + ?, last_error = ? WHERE number = ?",
        )
        .bind(i64::from(blame == Blame::Row))
        .bind(error)
        .bind(number)
        .execute(&self.catalog.write)
        .await
        .map(drop)
        .map_err(self.catalog.failed("noting a failed attempt"))
    }

    /// The target will never take this row: it is kept, and what stands behind it goes on.
    pub async fn set_aside(&self, number: i64, error: &str, now: i64) -> Result<(), CatalogError> {
        sqlx::query("UPDATE outbox SET failed = ?, last_error = ? WHERE number = ? AND done IS NULL")
            .bind(now)
            .bind(error)
            .bind(number)
            .execute(&self.catalog.write)
            .await
            .map(drop)
            .map_err(self.catalog.failed("setting an outbox row aside"))
    }

    /// Rows that have to go, and rows that are done.
    pub async fn counts(&self) -> Result<(i64, i64), CatalogError> {
        let count = self.count().await?;
        Ok((count.open, count.done))
    }

    /// How far the target is.
    pub async fn count(&self) -> Result<OutboxCount, CatalogError> {
        let counts = self.catalog.outbox_counts().await?;
        let nothing = || OutboxCount { target: self.target.to_owned(), done: 0, open: 0, failed: 0 };
        Ok(counts.into_iter().find(|count| count.target == self.target).unwrap_or_else(nothing))
    }

    /// Rows that have to go, and rows that are set aside.
    pub async fn depth(&self) -> Result<(i64, i64), CatalogError> {
        sqlx::query_as(
            "SELECT (SELECT count(*) FROM outbox WHERE target = ?1 AND done IS NULL AND failed IS NULL),
                    (SELECT count(*) FROM outbox WHERE target = ?1 AND failed IS NOT NULL)",
        )
        .bind(self.target)
        .fetch_one(&self.catalog.read)
        .await
        .map_err(self.catalog.failed("counting the outbox"))
    }
}
