//! What one replica at a time does.

use super::{Catalog, CatalogError, store::Database};
use sqlx::{Connection, PgConnection};

/// The right to do it. With SQLite there is nobody else. With PostgreSQL it is an advisory lock of a connection of its own: when the
/// replica dies, or the connection does, the server lets it go.
#[derive(Debug)]
pub struct Turn {
    catalog: Catalog,
    name: &'static str,
    connection: Option<PgConnection>,
    held: bool,
}

impl Turn {
    pub(super) fn new(catalog: &Catalog, name: &'static str) -> Self {
        Self { catalog: catalog.clone(), name, connection: None, held: false }
    }

    /// Whether it is ours, now that it is asked.
    pub async fn is_ours(&mut self) -> Result<bool, CatalogError> {
        let Database::Postgres(pool) = &self.catalog.store.database else { return Ok(true) };
        let options = pool.connect_options();
        let asked = self.ask(&options).await;
        if asked.is_err() {
            (self.connection, self.held) = (None, false);
        }
        asked.map_err(self.catalog.failed("asking whose turn it is"))
    }

    async fn ask(&mut self, options: &sqlx::postgres::PgConnectOptions) -> sqlx::Result<bool> {
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
