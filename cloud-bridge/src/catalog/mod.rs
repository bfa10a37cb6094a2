//! The catalog: what is known of every record, in SQLite.
//!
//! One connection writes; readers have their own and never wait for it (WAL). A commit is durable when it returns
//! (`synchronous = FULL`). The tables stand in `migrations/`.

mod letters;
mod open;
mod outbox;
mod read;
mod write;
mod writing;

pub use letters::MAX_DEAD_LETTERS;
pub use outbox::{Blame, Outbox, OutboxCount, OutboxRow};
pub use read::{AlertRow, DeviceRow, Gap, ImageRow, Sequences};
pub use write::{Batch, Content, DeadLetter, Health, Presence, Record};

use sqlx::SqlitePool;

/// The open catalog.
#[derive(Debug, Clone)]
pub struct Catalog {
    write: SqlitePool,
    read: SqlitePool,
    place: String,
}

/// What was being done to which catalog, and what went wrong.
#[derive(Debug, thiserror::Error)]
#[error("catalog {place}: {action}: {why}")]
pub struct CatalogError {
    place: String,
    action: &'static str,
    why: String,
}

/// SQLite's own numbers (<https://www.sqlite.org/rescode.html>) that an operator can do something about.
fn remedy(code: &str) -> Option<&'static str> {
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

impl Catalog {
    /// Writes what is under way and closes it.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    fn failed(&self, action: &'static str) -> impl Fn(sqlx::Error) -> CatalogError + '_ {
        move |error| failure(&self.place, action, &error)
    }
}

fn failure(place: &str, action: &'static str, error: &sqlx::Error) -> CatalogError {
    let known = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let why = known.and_then(|code| remedy(&code)).map_or_else(|| error.to_string(), str::to_owned);
    CatalogError { place: place.to_owned(), action, why }
}
