//! The catalog: what is known of every record, in SQLite or PostgreSQL.
//!
//! A commit is durable when it returns (`synchronous = FULL`; in PostgreSQL `synchronous_commit`, which has to be on). The
//! tables stand in `migrations/` for SQLite and in `migrations/postgres/`; every statement is the same for both.

mod claims;
mod discovery;
mod expire;
mod films;
mod jobs;
mod letters;
mod open;
mod outbox;
mod patience;
mod read;
mod replay;
mod sessions;
mod shown;
mod store;
mod together;
mod turn;
mod wishes;
mod write;
mod writing;

pub use expire::ExpiredImage;
pub use films::{FilmRow, Finished, MAX_FILMS};
pub use jobs::{Accepted, Counted, Job, JobState, NewJob};
pub use letters::MAX_DEAD_LETTERS;
pub use outbox::{Blame, Outbox, OutboxCount, OutboxRow};
pub use read::{AlertRow, DeviceRow, Gap, ImageRow, Sequences};
pub use replay::{OutboxEntry, OutboxState};
pub use sessions::Action;
pub use shown::{AlertsOf, Fleet, ImagesOf, Place, Point};
pub use turn::Turn;
pub use wishes::SettingsRow;
pub use write::{Batch, Content, DeadLetter, Health, Presence, Record, Told};

use jiff::Timestamp;
use patience::Patience;
use std::time::Duration;
use store::Store;

/// The open catalog.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Store,
    place: String,
}

/// What was being done to which catalog, and what went wrong.
#[derive(Debug, thiserror::Error)]
#[error("catalog {place}: {action}: {why}")]
pub struct CatalogError {
    place: String,
    action: &'static str,
    why: String,
    since: Option<Timestamp>,
}

impl CatalogError {
    /// Since when it does not answer, where somebody has kept account of that ([`Catalog::within`]).
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }
}

/// SQLite's own numbers (<https://www.sqlite.org/rescode.html>) that an operator can do something about.
fn remedy(code: &str) -> Option<&'static str> {
    // PostgreSQL's codes always have five places, SQLite's numbers never.
    if code.len() == 5 {
        return postgres_remedy(code);
    }
    let primary = code.parse::<u32>().ok()? & 0xff;
    match primary {
        5 | 6 => Some("another process holds it; stop that one"),
        8 => Some("it is read-only for this user; mend its owner or mode"),
        13 => Some("no space left; free some, nothing is lost meanwhile"),
        14 => Some("it cannot be opened; make its folder writable for this user, or set catalog.file"),
        11 | 26 => Some("it is damaged or no SQLite file; move it aside and start again"),
        _ => None,
    }
}

/// PostgreSQL's (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn postgres_remedy(code: &str) -> Option<&'static str> {
    match code {
        "28000" | "28P01" => {
            Some("it refuses this user; mend catalog.postgres.user, its password_file, or pg_hba.conf")
        }
        "3D000" => {
            Some("there is no such database; make it (CREATE DATABASE), or mend catalog.postgres.database")
        }
        "42501" => Some("this user may not; make it the database's owner, or grant it CREATE on the schema"),
        "53100" => Some("no space left on the server; free some, nothing is lost meanwhile"),
        "53300" => Some("it has too many connections; raise max_connections, a replica takes up to 10"),
        "57014" => Some("it did not answer in time; see what holds its tables locked (pg_stat_activity)"),
        "57P03" => Some("it is starting up or shutting down; trying again helps"),
        "25006" => Some("it is read-only, a standby perhaps; name the primary in catalog.postgres.host"),
        _ => None,
    }
}

impl Catalog {
    /// Writes what is under way and closes it.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// The same for somebody who rather hears an error than wait longer for an answer. Such an error tells since when there is none,
    /// by an account that those have in common who are made from each other; the log tells its beginning and its end.
    #[must_use]
    pub fn within(&self, most: Duration) -> Self {
        Self { store: self.store.within(most), place: self.place.clone() }
    }

    fn failed(&self, action: &'static str) -> impl Fn(sqlx::Error) -> CatalogError + '_ {
        move |error| {
            let since = self.store.patience.as_ref().and_then(Patience::silent_since);
            CatalogError { since, ..failure(&self.place, action, &error) }
        }
    }
}

fn failure(place: &str, action: &'static str, error: &sqlx::Error) -> CatalogError {
    let known = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let why = known.and_then(|code| remedy(&code)).map_or_else(|| error.to_string(), str::to_owned);
    CatalogError { place: place.to_owned(), action, why, since: None }
}
