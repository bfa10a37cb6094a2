//! Opening: to write, which makes what is missing, and to look only, which makes and changes nothing.

use super::{Catalog, CatalogError, failure};
use sqlx::{
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{cmp::Ordering, fs, io::ErrorKind, os::unix::fs::DirBuilderExt, path::Path, time::Duration};

static MIGRATIONS: Migrator = sqlx::migrate!();

fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new().acquire_timeout(Duration::from_secs(10))
}

impl Catalog {
    /// Opens it, makes it when it is not there, and brings its tables up to date.
    pub async fn open(file: &Path) -> Result<Self, CatalogError> {
        let place = file.display().to_string();
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(|error| {
                CatalogError {
                    place: place.clone(),
                    action: "making its folder",
                    why: format!(
                        "{error}; make the folder above it writable for this user, or set catalog.file"
                    ),
                }
            })?;
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let cannot = |action, error: &sqlx::Error| failure(&place, action, error);
        let write = pool()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(|error| cannot("opening", &error))?;
        MIGRATIONS.run(&write).await.map_err(|error| CatalogError {
            place: place.clone(),
            action: "bringing its tables up to date",
            why: error.to_string(),
        })?;
        let read = pool()
            .max_connections(4)
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(|error| cannot("opening for reading", &error))?;
        Ok(Self { write, read, place })
    }

    /// Opens one that is there and of this version, to look at it only.
    pub async fn open_read_only(file: &Path) -> Result<Self, CatalogError> {
        let catalog = Self::look_into(file).await?;
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
                .fetch_one(&catalog.read)
                .await
                .map_err(catalog.failed("looking for its version"))?;
        let ours = MIGRATIONS.iter().map(|migration| migration.version).max();
        let why = match newest.cmp(&ours) {
            Ordering::Equal => return Ok(catalog),
            Ordering::Less => {
                "its tables are of an earlier version; run `edgeveil-bridge migrate`, or start the bridge once"
            }
            Ordering::Greater => "a later version of the bridge has written it; use that one",
        };
        Err(CatalogError { place: catalog.place, action: "opening", why: why.to_owned() })
    }

    /// Looks at every page for damage, without changing anything, whichever version has written it.
    pub async fn check(file: &Path) -> Result<(), CatalogError> {
        let catalog = Self::look_into(file).await?;
        let said: Result<String, _> = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&catalog.read)
            .await
            .map_err(catalog.failed("checking it"));
        catalog.close().await;
        match said?.as_str() {
            "ok" => Ok(()),
            damage => Err(CatalogError {
                place: catalog.place.clone(),
                action: "checking it",
                why: format!("it is damaged ({damage}); move it aside and start again"),
            }),
        }
    }

    async fn look_into(file: &Path) -> Result<Self, CatalogError> {
        let place = file.display().to_string();
        fs::metadata(file).map_err(|error| CatalogError {
            place: place.clone(),
            action: "opening",
            why: match error.kind() {
                ErrorKind::NotFound => "there is none; name the settings that the bridge runs with (--config), or mend data_dir or catalog.file".to_owned(),
                _ => error.to_string(),
            },
        })?;
        // Beside a log there is, or was, somebody who writes. Without one SQLite would make one even to read, unless it
        // is told that nobody writes.
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let options = SqliteConnectOptions::new()
            .filename(file)
            .read_only(true)
            .immutable(!Path::new(&log).exists())
            .busy_timeout(Duration::from_secs(5));
        let read = pool()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(|error| failure(&place, "opening", &error))?;
        Ok(Self { write: read.clone(), read, place })
    }
}
