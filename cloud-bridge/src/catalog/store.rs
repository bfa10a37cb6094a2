//! One way to ask either database. The statements are the same text for both: `$1` names a parameter in each.
//!
//! In SQLite one connection writes; readers have their own and never wait for it (WAL). PostgreSQL takes any number of
//! writers, also those of other replicas.

use super::{
    patience::{Patience, Question},
    writing::Writing,
};
use sqlx::{
    FromRow, PgPool, Postgres, Sqlite, SqlitePool, Transaction, postgres::PgArguments, postgres::PgRow,
    query::Query, query::QueryAs, sqlite::SqliteArguments, sqlite::SqliteRow,
};
use std::{borrow::Cow, future::Future, time::Duration};

/// The open database, and how long whoever asks it waits.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub database: Database,
    /// None: for ever.
    pub patience: Option<Patience>,
}

/// One or the other.
#[derive(Debug, Clone)]
pub(super) enum Database {
    Sqlite { write: SqlitePool, read: SqlitePool },
    Postgres(PgPool),
}

/// What is bound to a parameter.
#[derive(Debug, Clone)]
pub(super) enum Value<'q> {
    Int(Option<i64>),
    Real(Option<f64>),
    Text(Option<Cow<'q, str>>),
    Bytes(Option<&'q [u8]>),
}

macro_rules! values {
    ($($type:ty => |$given:ident| $value:expr;)*) => {$(
        impl<'q> From<$type> for Value<'q> {
            fn from($given: $type) -> Self { $value }
        }
    )*};
}
values! {
    i64 => |n| Self::Int(Some(n));
    Option<i64> => |n| Self::Int(n);
    f64 => |x| Self::Real(Some(x));
    Option<f64> => |x| Self::Real(x);
    &'q str => |text| Self::Text(Some(text.into()));
    Option<&'q str> => |text| Self::Text(text.map(Cow::from));
    String => |text| Self::Text(Some(text.into()));
    Option<String> => |text| Self::Text(text.map(Cow::from));
    Option<&'q [u8]> => |bytes| Self::Bytes(bytes);
}

/// A statement and what is bound to it.
#[derive(Debug, Clone)]
pub(super) struct Ask<'q> {
    sql: &'q str,
    values: Vec<Value<'q>>,
    once: bool,
}

/// A statement, to be prepared once and kept.
pub(super) fn ask(sql: &str) -> Ask<'_> {
    Ask { sql, values: Vec::new(), once: false }
}

impl<'q> Ask<'q> {
    pub fn bind(mut self, value: impl Into<Value<'q>>) -> Self {
        self.values.push(value.into());
        self
    }

    pub fn bind_all(mut self, values: Vec<Value<'q>>) -> Self {
        self.values.extend(values);
        self
    }

    /// Its text hardly ever comes again: not worth keeping it prepared.
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }
}

/// PostgreSQL has no NUL in a text.
fn without_nul(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text }
}

macro_rules! bind {
    ($query:expr, $values:expr, $text:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match value {
                Value::Int(n) => query.bind(n),
                Value::Real(x) => query.bind(x),
                Value::Text(text) => query.bind(text.map($text)),
                Value::Bytes(bytes) => query.bind(bytes),
            };
        }
        query
    }};
}

fn in_sqlite(ask: Ask<'_>) -> Query<'_, Sqlite, SqliteArguments<'_>> {
    bind!(sqlx::query::<Sqlite>(ask.sql), ask.values, |text| text).persistent(!ask.once)
}

fn in_postgres(ask: Ask<'_>) -> Query<'_, Postgres, PgArguments> {
    bind!(sqlx::query::<Postgres>(ask.sql), ask.values, without_nul).persistent(!ask.once)
}

fn as_in_sqlite<'q, T: for<'r> FromRow<'r, SqliteRow>>(
    ask: Ask<'q>,
) -> QueryAs<'q, Sqlite, T, SqliteArguments<'q>> {
    bind!(sqlx::query_as::<Sqlite, T>(ask.sql), ask.values, |text| text).persistent(!ask.once)
}

fn as_in_postgres<'q, T: for<'r> FromRow<'r, PgRow>>(ask: Ask<'q>) -> QueryAs<'q, Postgres, T, PgArguments> {
    bind!(sqlx::query_as::<Postgres, T>(ask.sql), ask.values, without_nul).persistent(!ask.once)
}

/// What can be read from a row of either.
pub(super) trait Row:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}
impl<T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin> Row for T {}

impl Database {
    async fn run(&self, ask: Ask<'_>) -> sqlx::Result<u64> {
        Ok(match self {
            Self::Sqlite { write, .. } => in_sqlite(ask).execute(write).await?.rows_affected(),
            Self::Postgres(pool) => in_postgres(ask).execute(pool).await?.rows_affected(),
        })
    }

    async fn rows<T: Row>(&self, ask: Ask<'_>) -> sqlx::Result<Vec<T>> {
        match self {
            Self::Sqlite { read, .. } => as_in_sqlite(ask).fetch_all(read).await,
            Self::Postgres(pool) => as_in_postgres(ask).fetch_all(pool).await,
        }
    }

    async fn row<T: Row>(&self, ask: Ask<'_>) -> sqlx::Result<Option<T>> {
        match self {
            Self::Sqlite { read, .. } => as_in_sqlite(ask).fetch_optional(read).await,
            Self::Postgres(pool) => as_in_postgres(ask).fetch_optional(pool).await,
        }
    }

    async fn begin(&self) -> sqlx::Result<Tx> {
        Ok(match self {
            Self::Sqlite { write, .. } => Tx::Sqlite(Writing::begin(write).await?),
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    async fn moment(&self) -> sqlx::Result<Tx> {
        Ok(match self {
            Self::Sqlite { read, .. } => Tx::SqliteMoment(read.begin().await?),
            Self::Postgres(pool) => {
                Tx::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
            }
        })
    }
}

impl Store {
    pub fn new(database: Database) -> Self {
        Self { database, patience: None }
    }

    /// The same for somebody who waits so long for each answer, and no longer.
    pub fn within(&self, most: Duration) -> Self {
        let patience =
            self.patience.as_ref().map_or_else(|| Patience::new(most), |known| known.bounded(most));
        Self { database: self.database.clone(), patience: Some(patience) }
    }

    async fn wait<T>(
        &self,
        question: Question,
        statement: &str,
        answer: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        match &self.patience {
            Some(patience) => patience.wait(question, statement, answer).await,
            None => answer.await,
        }
    }

    /// Changes something. Tells how many rows.
    pub async fn run(&self, ask: Ask<'_>) -> sqlx::Result<u64> {
        self.wait(Question::Write, ask.sql, self.database.run(ask)).await
    }

    /// All rows.
    pub async fn rows<T: Row>(&self, ask: Ask<'_>) -> sqlx::Result<Vec<T>> {
        self.wait(Question::Read, ask.sql, self.database.rows(ask)).await
    }

    /// The first row.
    pub async fn row<T: Row>(&self, ask: Ask<'_>) -> sqlx::Result<Option<T>> {
        self.wait(Question::Read, ask.sql, self.database.row(ask)).await
    }

    /// To change things together.
    pub async fn begin(&self) -> sqlx::Result<Tx> {
        let mut tx = self.wait(Question::Write, "BEGIN", self.database.begin()).await?;
        if let (Some(patience), Tx::Postgres(tx)) = (&self.patience, &mut tx) {
            // Of what follows the server itself gives up what takes too long.
            let limit = format!("SET LOCAL statement_timeout = {}", patience.most().as_millis());
            sqlx::query(&limit).execute(&mut **tx).await?;
        }
        Ok(tx)
    }

    /// To look at things as they were at one moment.
    pub async fn moment(&self) -> sqlx::Result<Tx> {
        self.wait(Question::Read, "BEGIN", self.database.moment()).await
    }

    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Database::Postgres(pool) => pool.close().await,
        }
    }
}

/// A transaction, rolled back when it is dropped.
pub(super) enum Tx {
    Sqlite(Writing),
    SqliteMoment(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    /// Changes something. Tells how many rows.
    pub async fn run(&mut self, ask: Ask<'_>) -> sqlx::Result<u64> {
        Ok(match self {
            Self::Sqlite(tx) => in_sqlite(ask).execute(&mut **tx).await?.rows_affected(),
            Self::SqliteMoment(tx) => in_sqlite(ask).execute(&mut **tx).await?.rows_affected(),
            Self::Postgres(tx) => in_postgres(ask).execute(&mut **tx).await?.rows_affected(),
        })
    }

    /// All rows.
    pub async fn rows<T: Row>(&mut self, ask: Ask<'_>) -> sqlx::Result<Vec<T>> {
        match self {
            Self::Sqlite(tx) => as_in_sqlite(ask).fetch_all(&mut **tx).await,
            Self::SqliteMoment(tx) => as_in_sqlite(ask).fetch_all(&mut **tx).await,
            Self::Postgres(tx) => as_in_postgres(ask).fetch_all(&mut **tx).await,
        }
    }

    /// Whether values are `$1` and so on; else they are `?`.
    pub fn numbers_values(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    pub async fn commit(self) -> sqlx::Result<()> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::SqliteMoment(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }
}

/// Whether another replica was in the way, so that the same may work at once.
pub(super) fn is_collision(error: &sqlx::Error) -> bool {
    // Serialization failure, deadlock.
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01"))
}
