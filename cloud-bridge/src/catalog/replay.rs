//! The outbox by hand: looked at, tried again, sent again.

use super::{Catalog, CatalogError, store::ask};
use edgeveil_wire::{Alert, ClockState, Lane, RecordId, Severity, Stamp};
use serde::Serialize;

/// How far a row of the outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutboxState {
    /// It waits.
    Open,
    /// The target refuses it for ever.
    Failed,
    /// It has arrived.
    Done,
}

/// A row of the outbox, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct OutboxEntry {
    /// Its place in the order.
    pub number: i64,
    /// Where it goes.
    pub target: String,
    /// Whose record it is.
    pub device: String,
    /// The record's id.
    pub record: String,
    /// When it was received: milliseconds since 1970.
    pub created: i64,
    /// Attempts that failed.
    pub attempts: i64,
    /// Why the last one did.
    pub last_error: Option<String>,
    /// When it arrived.
    pub done: Option<i64>,
    /// When it was set aside.
    pub failed: Option<i64>,
}

/// An alert as it stands in its table.
#[derive(sqlx::FromRow)]
struct Stored {
    device: String,
    id: String,
    boot: String,
    seq: i64,
    timestamp: i64,
    clock: String,
    uptime: i64,
    source: String,
    reading: String,
    score: f64,
    threshold: f64,
    severity: String,
    contributions: String,
    vals: String,
}

impl Catalog {
    /// Rows of the outbox in this state, the oldest first.
    pub async fn outbox_entries(
        &self,
        state: OutboxState,
        most: u32,
    ) -> Result<Vec<OutboxEntry>, CatalogError> {
        let of_state = match state {
            OutboxState::Open => "done IS NULL AND failed IS NULL",
            OutboxState::Failed => "failed IS NOT NULL AND done IS NULL",
            OutboxState::Done => "done IS NOT NULL",
        };
        let sql = format!(
            "SELECT number, target, device, record, created, attempts, last_error, done, failed FROM outbox
             WHERE {of_state} ORDER BY number LIMIT $1"
        );
        let rows = self.store.rows(ask(&sql).bind(i64::from(most))).await;
        rows.map_err(self.failed("reading the outbox"))
    }

    /// Lets what was set aside wait again: these rows, or all of them. How many.
    pub async fn outbox_retry(&self, numbers: Option<&[i64]>) -> Result<u64, CatalogError> {
        let failed = self.failed("trying outbox rows again");
        let sql = "UPDATE outbox SET failed = NULL, refusals = 0 WHERE failed IS NOT NULL AND done IS NULL";
        let Some(numbers) = numbers else { return self.store.run(ask(sql)).await.map_err(failed) };
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let one = format!("{sql} AND number = $1");
        let mut rows = 0;
        for number in numbers {
            rows += tx.run(ask(&one).bind(*number)).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(rows)
    }

    /// Lets the alerts that were received within this time, in milliseconds since 1970, go once more: those that have
    /// arrived or were set aside, and those that were never meant to go. How many.
    pub async fn outbox_replay(&self, target: &str, from: i64, to: i64) -> Result<u64, CatalogError> {
        let failed = self.failed("replaying alerts");
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let sql = "UPDATE outbox SET done = NULL, failed = NULL, refusals = 0
             WHERE target = $1 AND created >= $2 AND created < $3 AND (done IS NOT NULL OR failed IS NOT NULL)";
        let mut rows = tx.run(ask(sql).bind(target).bind(from).bind(to)).await.map_err(&failed)?;
        let sql = "SELECT device, id, boot, seq, timestamp, clock, uptime, source, reading, score, threshold, severity,
             contributions, vals FROM alert WHERE received >= $1 AND received < $2 AND NOT EXISTS
             (SELECT 1 FROM outbox WHERE target = $3 AND outbox.device = alert.device AND outbox.record = alert.id)
             ORDER BY received, device, boot, seq";
        let alerts: Vec<Stored> =
            tx.rows(ask(sql).bind(from).bind(to).bind(target)).await.map_err(&failed)?;
        for stored in alerts {
            let unreadable = |why: &str| CatalogError {
                place: self.place.clone(),
                action: "replaying alerts",
                why: format!("alert {} of {}: {why}", stored.id, stored.device),
                since: None,
            };
            let payload = stored.payload().map_err(|why| unreadable(&why))?;
            let row = ask("INSERT INTO outbox (target, device, record, payload, created)
                 SELECT $1, device, id, $2, received FROM alert WHERE device = $3 AND id = $4
                 ON CONFLICT DO NOTHING");
            let row =
                row.bind(target).bind(payload.as_str()).bind(stored.device.as_str()).bind(stored.id.as_str());
            rows += tx.run(row).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(rows)
    }
}

impl Stored {
    /// What was, or would have been, sent of it.
    fn payload(&self) -> Result<String, String> {
        fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
            text.parse().map_err(|error: T::Err| format!("`{text}`: {error}"))
        }
        fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
            serde_json::from_str(text).map_err(|error| error.to_string())
        }
        let time = jiff::Timestamp::from_millisecond(self.timestamp).map_err(|error| error.to_string())?;
        let clock = if self.clock == "synced" { ClockState::Synced } else { ClockState::Unsynced };
        let (seq, uptime) = (self.seq.cast_unsigned(), self.uptime.cast_unsigned());
        let stamp = Stamp::new(parsed(&self.boot)?, Lane::Alert, seq, time, clock, uptime);
        let alert = Alert {
            stamp,
            reading: parsed::<RecordId>(&self.reading)?,
            anomaly: true,
            score: self.score,
            threshold: self.threshold,
            contributions: json(&self.contributions)?,
            severity: if self.severity == "critical" { Severity::Critical } else { Severity::Warning },
            values: json(&self.vals)?,
        };
        Ok(crate::forward::payload(&parsed(&self.device)?, &parsed(&self.source)?, &alert))
    }
}
