//! What one replica at a time does.

use super::{Catalog, CatalogError, store::Database};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

/// The right to do it. With SQLite there is nobody else. With PostgreSQL it is an advisory lock of a connection of its own: when the
/// replica dies, or the connection does, the server lets it go.
#[derive(Debug)]
pub struct Turn {
    catalog: Catalog,
    name: &'static str,
    connection: Option<PgConnection>,
    held: bool,
}

/// Of a connection that holds locks: a server that hears nothing of its client's machine any more, as when its power has
/// failed, is to notice within half a minute, in place of two hours.
pub(super) fn lasting(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().options([
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
    ])
}

impl Turn {
    pub(super) fn new(catalog: &Catalog, name: &'static str) -> Self {
        Self { catalog: catalog.clone(), name, connection: None, held: false }
    }

    /// Whether it is ours, now that it is asked.
    pub async fn is_ours(&mut self) -> Result<bool, CatalogError> {
        let Database::Postgres(pool) = &self.catalog.store.database else { return Ok(true) };
        let options = lasting(&pool.connect_options());
        let asked = self.ask(&options).await;
        if asked.is_err() {
            (self.connection, self.held) = (None, false);
        }
        asked.map_err(self.catalog.failed("asking whose turn it is"))
    }

    async fn ask(&mut self, options: &PgConnectOptions) -> sqlx::Result<bool> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                self.held = false;
                none.insert(PgConnection::connect_with(options).await?)
            }
        };
        if self.held {
            connection.ping().await?;
        } else {
            let lock = "SELECT pg_try_advisory_lock(hashtext('turn'), hashtext($1))";
            (self.held,) = sqlx::query_as(lock).bind(self.name).fetch_one(connection).await?;
        }
        Ok(self.held)
    }
}
