//! What has to go on to others, and how far that is.

use super::{
    Catalog, CatalogError, Turn,
    claims::Claims,
    store::{Database, ask},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, watch};

/// One target's part of the outbox.
#[derive(Debug, Clone)]
pub struct Outbox {
    catalog: Catalog,
    target: &'static str,
    wake: watch::Receiver<()>,
    claims: Arc<Mutex<Claims>>,
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
        let sql = "SELECT target, count(done) AS done, count(*) - count(done) - count(failed) AS open,
             count(failed) AS failed FROM outbox GROUP BY target ORDER BY target";
        self.store.rows(ask(sql)).await.map_err(self.failed("counting the outbox"))
    }
}

impl Outbox {
    /// Woken by `wake` after each commit.
    pub fn new(catalog: Catalog, target: &'static str, wake: watch::Receiver<()>) -> Self {
        let claims = Arc::new(Mutex::new(Claims::new(&catalog.store, target)));
        Self { catalog, target, wake, claims }
    }

    /// How often to look for rows of which nobody has told us: other replicas write some too.
    pub fn patience(&self) -> Duration {
        match self.catalog.store.database {
            Database::Sqlite { .. } => Duration::from_secs(30),
            Database::Postgres(_) => Duration::from_secs(1),
        }
    }

    /// The oldest rows that have to go and that nobody has taken, neither this forwarder nor one of another replica. While
    /// a row of a device is taken, all of its rows are this forwarder's.
    pub async fn take(&self, most: u32) -> Result<Vec<OutboxRow>, CatalogError> {
        let taken = self.claims.lock().await.take(&self.catalog.store, most).await;
        taken.map_err(self.catalog.failed("taking from the outbox"))
    }

    /// Gives back what was taken and is neither done nor set aside, but for these.
    pub async fn give_back(&self, keep: &[i64]) -> Result<(), CatalogError> {
        let given = self.claims.lock().await.give_back(keep).await;
        given.map_err(self.catalog.failed("giving back to the outbox"))
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
        let sql = "SELECT number, device, record, payload, attempts, refusals, last_error FROM outbox
             WHERE target = $1 AND done IS NULL AND failed IS NULL AND number > $2 ORDER BY number LIMIT $3";
        let query = ask(sql).bind(self.target).bind(after).bind(i64::from(most));
        self.catalog.store.rows(query).await.map_err(self.catalog.failed("reading the outbox"))
    }

    /// The target has these.
    pub async fn done(&self, numbers: &[i64], now: i64) -> Result<(), CatalogError> {
        let mut claims = self.claims.lock().await;
        let failed = self.catalog.failed("marking outbox rows done");
        claims.still_held().await.map_err(&failed)?;
        let mut tx = self.catalog.store.begin().await.map_err(&failed)?;
        for number in numbers {
            let mark = ask("UPDATE outbox SET done = $1 WHERE number = $2 AND done IS NULL");
            tx.run(mark.bind(now).bind(*number)).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)?;
        claims.let_go(numbers).await.map_err(failed)
    }

    /// The same for whoever has its [`Turn`] and takes nothing.
    pub async fn told(&self, numbers: &[i64], now: i64) -> Result<(), CatalogError> {
        let failed = self.catalog.failed("marking outbox rows done");
        let mut tx = self.catalog.store.begin().await.map_err(&failed)?;
        for number in numbers {
            let mark = ask("UPDATE outbox SET done = $1 WHERE number = $2 AND done IS NULL");
            tx.run(mark.bind(now).bind(*number)).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(failed)
    }

    /// When the last row that is done was; with `like` of those whose payload is.
    pub async fn last_done(&self, like: Option<&str>) -> Result<Option<i64>, CatalogError> {
        let sql = "SELECT done FROM outbox WHERE target = $1 AND done IS NOT NULL AND payload LIKE $2
             ORDER BY number DESC LIMIT 1";
        let asked = ask(sql).bind(self.target).bind(like.unwrap_or("%"));
        let done: Result<Option<(i64,)>, _> = self.catalog.store.row(asked).await;
        Ok(done.map_err(self.catalog.failed("reading the outbox"))?.map(|(done,)| done))
    }

    /// Whether this replica is the one that looks after the target.
    pub fn turn(&self) -> Turn {
        Turn::new(&self.catalog, self.target)
    }

    /// It was tried and failed.
    pub async fn failed(&self, number: i64, error: &str, blame: Blame) -> Result<(), CatalogError> {
        let note = ask(
            "UPDATE outbox SET attempts = attempts + 1, refusals = refusals + $1, last_error = $2 WHERE number = $3",
        );
        let note = note.bind(i64::from(blame == Blame::Row)).bind(error).bind(number);
        self.catalog.store.run(note).await.map(drop).map_err(self.catalog.failed("noting a failed attempt"))
    }

    /// The target will never take this row: it is kept, and what stands behind it goes on.
    pub async fn set_aside(&self, number: i64, error: &str, now: i64) -> Result<(), CatalogError> {
        let failed = self.catalog.failed("setting an outbox row aside");
        let mark = ask("UPDATE outbox SET failed = $1, last_error = $2 WHERE number = $3 AND done IS NULL");
        self.catalog.store.run(mark.bind(now).bind(error).bind(number)).await.map_err(&failed)?;
        self.claims.lock().await.let_go(&[number]).await.map_err(failed)
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
        let sql =
            "SELECT (SELECT count(*) FROM outbox WHERE target = $1 AND done IS NULL AND failed IS NULL),
                    (SELECT count(*) FROM outbox WHERE target = $1 AND failed IS NOT NULL)";
        let counts = self.catalog.store.row(ask(sql).bind(self.target)).await;
        Ok(counts.map_err(self.catalog.failed("counting the outbox"))?.unwrap_or_default())
    }
}
