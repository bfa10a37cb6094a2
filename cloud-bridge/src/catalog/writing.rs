//! A transaction that writes, on a connection that is not used again unless it was committed.
//!
//! After a commit that the disk had no room for, sqlx may hold a connection to be within the failed transaction still. What is
//! written on it then goes into that transaction: it looks committed, and is gone when the connection is closed. So nothing
//! here is left to sqlx's own transactions, and a connection on which anything went wrong is closed.

use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};
use std::ops::{Deref, DerefMut};

/// One transaction. Dropped before it was committed, it closes its connection, and SQLite undoes what was written.
#[derive(Debug)]
pub struct Writing {
    connection: PoolConnection<Sqlite>,
    committed: bool,
}

impl Writing {
    /// Waits for the connection, and for whoever else writes.
    pub async fn begin(pool: &SqlitePool) -> sqlx::Result<Self> {
        let mut writing = Self { connection: pool.acquire().await?, committed: false };
        // An error where there is a transaction already.
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *writing).await?;
        Ok(writing)
    }

    /// All of it is durable when this returns well.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        sqlx::query("COMMIT").execute(&mut *self).await?;
        self.committed = true;
        Ok(())
    }
}

impl Deref for Writing {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}
