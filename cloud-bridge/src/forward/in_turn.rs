//! Targets that take one row after the other, so that the order is that of the commits.
//!
//! A row that is refused holds up those behind it, since most often everything is refused and has to wait. Once it was
//! refused five times the next one is tried: when that is taken, the refused one is to blame, and is set aside.

use super::rows::Rows;
use crate::{
    backoff::Backoff,
    catalog::{Blame, CatalogError, OutboxRow},
};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Rows that are taken from the outbox at once.
const ROWS: u32 = 32;

/// Whoever takes rows.
pub trait Target: Send + 'static {
    /// Where it is, for the log.
    fn place(&self) -> String;
    /// Rows a second.
    fn rate(&self) -> u32;
    /// Sends one and waits for the answer.
    fn send(&mut self, row: &OutboxRow) -> impl Future<Output = Answer> + Send;
}

/// What the other side said to a row.
#[derive(Debug)]
pub enum Answer {
    /// It has it.
    Taken,
    /// It does not want this very row.
    Refused(String),
    /// It would have said so to any row, or said nothing. It may have asked for some time.
    Unavailable { reason: String, wait: Option<Duration> },
}

/// Why it has to wait.
enum End {
    Refused,
    Unavailable { reason: String, wait: Option<Duration> },
    Catalog(CatalogError),
}

impl From<CatalogError> for End {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

/// Drains the outbox to a target.
pub struct InTurn<T> {
    target: T,
    rows: Rows,
    /// When the next row may go.
    next: Instant,
}

impl<T: Target> InTurn<T> {
    pub fn new(target: T, rows: Rows) -> Self {
        Self { target, rows, next: Instant::now() }
    }

    /// Sends, until it is stopped. What was not answered then stays in the outbox.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut unavailable = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        let mut refused = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        let mut quiet = false;
        loop {
            let mut progress = false;
            let end = tokio::select! {
                () = stop.cancelled() => return,
                end = self.drain(&mut progress) => end,
            };
            if progress {
                unavailable.reset();
                refused.reset();
                quiet = false;
            }
            self.rows.count_error();
            let wait = match end {
                End::Refused => refused.wait(),
                End::Unavailable { reason, wait } => {
                    if !std::mem::replace(&mut quiet, true) {
                        let to = self.target.place();
                        tracing::warn!(to, reason, "cannot forward alerts; they wait in the outbox");
                    }
                    unavailable.wait().max(wait.unwrap_or_default())
                }
                End::Catalog(error) => {
                    tracing::error!(%error, "cannot forward alerts");
                    unavailable.wait()
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// Until something has to wait.
    async fn drain(&mut self, progress: &mut bool) -> End {
        if let Err(error) = self.rows.outbox.give_back(&[]).await {
            return error.into();
        }
        // Rows that were refused, each too often, and nothing was taken since.
        let mut suspects = Vec::new();
        loop {
            let rows = match self.rows.outbox.take(ROWS).await {
                Ok(rows) => rows,
                Err(error) => return error.into(),
            };
            self.rows.measure().await;
            if rows.is_empty() {
                if !suspects.is_empty() {
                    // Nobody is there to be tried in their place.
                    return End::Refused;
                }
                let patience = self.rows.outbox.patience();
                tokio::select! {
                    () = self.rows.outbox.changed() => {}
                    () = sleep(patience) => {}
                }
                continue;
            }
            for row in rows {
                sleep_until(self.next).await;
                self.next = Instant::now() + Duration::from_secs(1) / self.target.rate();
                let span = super::span(self.rows.outbox.target(), &row);
                match self.target.send(&row).instrument(span).await {
                    Answer::Taken => match self.rows.done(&[row.number], &mut suspects).await {
                        Ok(()) => *progress = true,
                        Err(error) => return error.into(),
                    },
                    Answer::Refused(reason) => {
                        let others = self.rows.refused(&row, &reason, Blame::Row).await;
                        suspects.push((row, reason));
                        if !others {
                            return End::Refused;
                        }
                    }
                    Answer::Unavailable { reason, wait } => {
                        self.rows.note(row.number, &reason, Blame::Target).await;
                        return End::Unavailable { reason, wait };
                    }
                }
            }
        }
    }
}
