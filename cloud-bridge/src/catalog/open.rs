//! Opening: to write, which makes what is missing, and to look only, which makes and changes nothing.

use super::{
    Catalog, CatalogError, failure,
    store::{Database, Store, ask},
};
use crate::settings::{CatalogSettings, PostgresSettings};
use sqlx::{
    PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{cmp::Ordering, fs, io::ErrorKind, os::unix::fs::DirBuilderExt, path::Path, time::Duration};

static MIGRATIONS: Migrator = sqlx::migrate!();
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Connections of one replica to PostgreSQL. With those that hold devices it takes some more: see [`super::claims`].
const CONNECTIONS: u32 = 8;

fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new().acquire_timeout(Duration::from_secs(10))
}

impl Catalog {
    /// Opens it, makes it when it is not there, and brings its tables up to date.
    pub async fn open(settings: &CatalogSettings) -> Result<Self, CatalogError> {
        match settings {
            CatalogSettings::Sqlite(file) => Self::open_file(file).await,
            CatalogSettings::Postgres(server) => Self::open_server(server).await,
        }
    }

    async fn open_file(file: &Path) -> Result<Self, CatalogError> {
        let place = file.display().to_string();
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(|error| {
                CatalogError {
                    place: place.clone(),
                    action: "making its folder",
                    why: format!(
                        "{error}; make the folder above it writable for this user, or set catalog.file"
                    ),
                    since: None,
                }
            })?;
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What a statement of many rows notes for its undoing: a container from scratch has no folder for temporary files.
            .pragma("temp_store", "MEMORY")
            .busy_timeout(Duration::from_secs(5));
        let cannot = |action, error: &sqlx::Error| failure(&place, action, error);
        let write = pool()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(|error| cannot("opening", &error))?;
        MIGRATIONS.run(&write).await.map_err(|error| not_migrated(&place, &error))?;
        let read = pool()
            .max_connections(4)
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(|error| cannot("opening for reading", &error))?;
        Ok(Self { store: Store::new(Database::Sqlite { write, read }), place })
    }

    async fn open_server(settings: &PostgresSettings) -> Result<Self, CatalogError> {
        let (pool, place) = connect(settings, Purpose::Write).await?;
        let store = Store::new(Database::Postgres(pool.clone()));
        let catalog = Self { store, place: place.clone() };
        let said: Option<(String,)> = catalog
            .store
            .row(ask("SELECT current_setting('synchronous_commit')"))
            .await
            .map_err(catalog.failed("asking for its settings"))?;
        if said.is_some_and(|(value,)| value == "off") {
            let why = "synchronous_commit is off, so that a commit is not durable when it returns; set it on, for this user at least (ALTER ROLE .. SET synchronous_commit = on)";
            return Err(CatalogError { place, action: "opening", why: why.to_owned(), since: None });
        }
        POSTGRES_MIGRATIONS.run(&pool).await.map_err(|error| not_migrated(&place, &error))?;
        Ok(catalog)
    }

    /// Opens one that is there and of this version, to look at it only.
    pub async fn open_read_only(settings: &CatalogSettings) -> Result<Self, CatalogError> {
        let (catalog, migrations) = match settings {
            CatalogSettings::Sqlite(file) => (Self::look_into(file).await?, &MIGRATIONS),
            CatalogSettings::Postgres(server) => {
                let (pool, place) = connect(server, Purpose::Look).await?;
                (Self { store: Store::new(Database::Postgres(pool)), place }, &POSTGRES_MIGRATIONS)
            }
        };
        let sql = "SELECT max(version) FROM _sqlx_migrations WHERE success";
        let newest: Option<(Option<i64>,)> = match catalog.store.row(ask(sql)).await {
            // No such table: nobody has ever been here.
            Err(error) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some("42P01") => {
                let why = "there is none in this database; run `edgeveil-bridge migrate`, start the bridge once, or mend catalog.postgres.database";
                return Err(CatalogError {
                    place: catalog.place,
                    action: "opening",
                    why: why.to_owned(),
                    since: None,
                });
            }
            answer => answer.map_err(catalog.failed("looking for its version"))?,
        };
        let newest = newest.and_then(|(version,)| version);
        let ours = migrations.iter().map(|migration| migration.version).max();
        let why = match newest.cmp(&ours) {
            Ordering::Equal => return Ok(catalog),
            Ordering::Less => {
                "its tables are of an earlier version; run `edgeveil-bridge migrate`, or start the bridge once"
            }
            Ordering::Greater => "a later version of the bridge has written it; use that one",
        };
        Err(CatalogError { place: catalog.place, action: "opening", why: why.to_owned(), since: None })
    }

    /// Looks at every page for damage, without changing anything, whichever version has written it.
    /// A server is only asked whether it lets us in.
    pub async fn check(settings: &CatalogSettings) -> Result<(), CatalogError> {
        let file = match settings {
            CatalogSettings::Sqlite(file) => file,
            CatalogSettings::Postgres(server) => {
                connect(server, Purpose::Look).await?.0.close().await;
                return Ok(());
            }
        };
        let catalog = Self::look_into(file).await?;
        let said: Result<Option<(String,)>, _> =
            catalog.store.row(ask("PRAGMA quick_check(1)")).await.map_err(catalog.failed("checking it"));
        catalog.close().await;
        match said?.unwrap_or_default().0.as_str() {
            "ok" => Ok(()),
            damage => Err(CatalogError {
                place: catalog.place.clone(),
                action: "checking it",
                why: format!("it is damaged ({damage}); move it aside and start again"),
                since: None,
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
            since: None,
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
        let database = Database::Sqlite { write: read.clone(), read };
        Ok(Self { store: Store::new(database), place })
    }
}

fn not_migrated(place: &str, error: &sqlx::migrate::MigrateError) -> CatalogError {
    let action = "bringing its tables up to date";
    match error {
        sqlx::migrate::MigrateError::Execute(error) => failure(place, action, error),
        other => CatalogError { place: place.to_owned(), action, why: other.to_string(), since: None },
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Write,
    Look,
}

async fn connect(settings: &PostgresSettings, purpose: Purpose) -> Result<(PgPool, String), CatalogError> {
    let place = format!("postgres://{}:{}/{}", settings.host, settings.port, settings.database);
    let cannot = |why: String| CatalogError { place: place.clone(), action: "opening", why, since: None };
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&settings.host)
        .port(settings.port)
        .database(&settings.database)
        .username(&settings.user)
        .application_name("edgeveil-bridge")
        .ssl_mode(if settings.allow_plain { PgSslMode::Prefer } else { PgSslMode::VerifyFull });
    if settings.host.starts_with('/') {
        options = options.socket(&settings.host).ssl_mode(PgSslMode::Disable);
    }
    if let Some(ca) = &settings.ca {
        options = options.ssl_root_cert(ca);
    }
    if let Some(file) = &settings.password_file {
        let password = fs::read_to_string(file)
            .map_err(|error| cannot(format!("catalog.postgres.password_file {}: {error}", file.display())))?;
        options = options.password(password.trim_end_matches(['\r', '\n']));
    }
    if purpose == Purpose::Look {
        options = options.options([("default_transaction_read_only", "on")]);
    }
    let most = if purpose == Purpose::Look { 1 } else { CONNECTIONS };
    let pool = PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(options)
        .await
        .map_err(|error| match &error {
            // rustls' errors come within those of the connection.
            sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => cannot(format!(
                "TLS: {error}; name the server's CA in catalog.postgres.ca, and the host as its certificate does"
            )),
            // A port where nobody listens is tried until the pool's patience ends.
            sqlx::Error::PoolTimedOut => {
                cannot("no answer; start it, or mend catalog.postgres.host and port".to_owned())
            }
            sqlx::Error::Io(error) => cannot(format!("{error}; start it, or mend catalog.postgres.host and port")),
            sqlx::Error::Tls(error) => cannot(format!(
                "TLS: {error}; name its CA in catalog.postgres.ca, or, on a network that is trusted, set allow_plain = true"
            )),
            other => failure(&place, "opening", other),
        })?;
    Ok((pool, place))
}
