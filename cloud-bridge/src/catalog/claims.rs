//! Which rows of the outbox a forwarder has in its hands.
//!
//! With SQLite there is one forwarder for a target, and this is only its memory. With PostgreSQL every replica has one.
//! They share the devices among them: whoever sends for a device holds an advisory lock for it, so that a device's rows
//! go one after the other and none goes twice. The locks belong to a connection of their own: when the replica dies, or
//! the connection does, the server lets them go, and others take over. A replica that has lost that connection is told
//! when it wants to mark a row, starts anew, and so may send again what it had under way; nothing is lost.

use super::{
    OutboxRow,
    store::{Database, Store, ask},
};
use sqlx::{Connection, PgConnection};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Devices that are looked at for rows at once, the one that waits longest first.
const DEVICES: i64 = 1000;

const OPEN: &str = "SELECT number, device, record, payload, attempts, refusals, last_error FROM outbox
     WHERE target = $1 AND done IS NULL AND failed IS NULL";

/// What is taken.
#[derive(Debug)]
pub(super) struct Claims {
    target: &'static str,
    /// Rows by number, with their devices.
    taken: BTreeMap<i64, String>,
    locks: Option<Locks>,
}

/// The devices that are held in PostgreSQL.
#[derive(Debug)]
struct Locks {
    connection: Option<PgConnection>,
    held: BTreeSet<String>,
}

impl Claims {
    pub fn new(store: &Store, target: &'static str) -> Self {
        let locks = match &store.database {
            Database::Sqlite { .. } => None,
            Database::Postgres(_) => Some(Locks { connection: None, held: BTreeSet::new() }),
        };
        Self { target, taken: BTreeMap::new(), locks }
    }

    pub async fn take(&mut self, store: &Store, most: u32) -> sqlx::Result<Vec<OutboxRow>> {
        // Those that are taken stand before the others, or among them.
        let limit = i64::from(most) + i64::try_from(self.taken.len()).unwrap_or(i64::MAX >> 1);
        let mut rows = match (&mut self.locks, &store.database) {
            (Some(locks), Database::Postgres(pool)) => {
                locks.rows(pool, self.target, &self.taken, most, limit).await?
            }
            _ => {
                let sql = format!("{OPEN} ORDER BY number LIMIT $2");
                store.rows(ask(&sql).bind(self.target).bind(limit)).await?
            }
        };
        rows.retain(|row| !self.taken.contains_key(&row.number));
        rows.truncate(most as usize);
        self.taken.extend(rows.iter().map(|row| (row.number, row.device.clone())));
        self.unlock().await?;
        Ok(rows)
    }

    /// Whether the devices' locks are still ours.
    pub async fn still_held(&mut self) -> sqlx::Result<()> {
        match &mut self.locks {
            Some(locks) => locks.still_held().await,
            None => Ok(()),
        }
    }

    /// These have found their end.
    pub async fn let_go(&mut self, numbers: &[i64]) -> sqlx::Result<()> {
        numbers.iter().for_each(|number| _ = self.taken.remove(number));
        self.unlock().await
    }

    pub async fn give_back(&mut self, keep: &[i64]) -> sqlx::Result<()> {
        self.taken.retain(|number, _| keep.contains(number));
        self.unlock().await
    }

    /// Devices of which nothing is taken are free for others.
    async fn unlock(&mut self) -> sqlx::Result<()> {
        match &mut self.locks {
            Some(locks) => locks.unlock(self.target, &self.taken).await,
            None => Ok(()),
        }
    }
}

impl Locks {
    /// Rows of devices that are held, or can be.
    async fn rows(
        &mut self,
        pool: &sqlx::PgPool,
        target: &str,
        taken: &BTreeMap<i64, String>,
        most: u32,
        limit: i64,
    ) -> sqlx::Result<Vec<OutboxRow>> {
        if self.connection.is_none() {
            // Whatever a connection before this one held is no longer held.
            self.held.clear();
            self.connection =
                Some(PgConnection::connect_with(&super::turn::lasting(&pool.connect_options())).await?);
        }
        let tried = self.lock_and_read(target, taken, most, limit).await;
        if tried.is_err() {
            self.connection = None;
        }
        tried
    }

    async fn lock_and_read(
        &mut self,
        target: &str,
        taken: &BTreeMap<i64, String>,
        most: u32,
        limit: i64,
    ) -> sqlx::Result<Vec<OutboxRow>> {
        let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        let numbers: Vec<i64> = taken.keys().copied().collect();
        let waiting: Vec<(String, i64)> = sqlx::query_as(
            "SELECT device, count(*) FROM outbox WHERE target = $1 AND done IS NULL AND failed IS NULL
             AND number <> ALL($2) GROUP BY device ORDER BY min(number) LIMIT $3",
        )
        .bind(target)
        .bind(&numbers)
        .bind(DEVICES)
        .fetch_all(&mut *connection)
        .await?;
        // No more devices than are needed, so that the others are left to others.
        let mut found = 0;
        for (device, rows) in waiting {
            if found >= i64::from(most) {
                break;
            }
            if !self.held.contains(&device) {
                let (locked,): (bool,) =
                    sqlx::query_as("SELECT pg_try_advisory_lock(hashtext($1), hashtext($2))")
                        .bind(target)
                        .bind(&device)
                        .fetch_one(&mut *connection)
                        .await?;
                if !locked {
                    continue;
                }
                self.held.insert(device);
            }
            found += rows;
        }
        // Read only now: before its lock another one may have sent them.
        let held: Vec<&String> = self.held.iter().collect();
        let sql = format!("{OPEN} AND device = ANY($2) ORDER BY number LIMIT $3");
        sqlx::query_as(&sql).bind(target).bind(&held).bind(limit).fetch_all(connection).await
    }

    async fn still_held(&mut self) -> sqlx::Result<()> {
        let alive = match &mut self.connection {
            Some(connection) => connection.ping().await,
            None => Err(sqlx::Error::Protocol("the connection that held its devices was lost".to_owned())),
        };
        if alive.is_err() {
            self.connection = None;
        }
        alive
    }

    async fn unlock(&mut self, target: &str, taken: &BTreeMap<i64, String>) -> sqlx::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let wanted: HashSet<&String> = taken.values().collect();
        let free: Vec<String> = self.held.iter().filter(|device| !wanted.contains(device)).cloned().collect();
        for device in free {
            let unlocked = sqlx::query("SELECT pg_advisory_unlock(hashtext($1), hashtext($2))")
                .bind(target)
                .bind(&device)
                .execute(&mut *connection)
                .await;
            if let Err(error) = unlocked {
                // With the connection its locks go too.
                self.connection = None;
                return Err(error);
            }
            self.held.remove(&device);
        }
        Ok(())
    }
}
