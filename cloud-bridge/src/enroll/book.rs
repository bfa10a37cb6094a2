//! The registrar's book: tokens for a first certificate, what was signed, and who gets nothing. A SQLite file of its own,
//! since it belongs to the CA and not to the records, and is written some times a day.
//!
//! Each look has a connection of its own, so that one on which something went wrong is never used again, and what was not
//! committed is undone. A commit is durable when it returns.

use crate::certs::Signed;
use edgeveil_wire::DeviceName;
use sqlx::{
    Connection, FromRow, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use subtle::ConstantTimeEq;

/// Where it is in the bridge's data folder.
const FILE: &str = "enroll.sqlite";
/// A lost answer may be asked for again so long, in milliseconds.
const REPEAT: i64 = 10 * 60 * 1000;
/// Certificates of one device that are remembered.
const MAX_ENROLLED: i64 = 50;
/// A token is forgotten so long after its end, in milliseconds.
const FORGET: i64 = 90 * 86_400_000;

/// A token as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct TokenRow {
    /// What it is revoked by.
    pub number: i64,
    /// Whom it is for.
    pub device: String,
    /// Milliseconds since 1970.
    pub expires: i64,
    /// When it was revoked.
    pub revoked: Option<i64>,
    /// When it was used.
    pub used: Option<i64>,
    /// From where.
    pub used_from: Option<String>,
}

/// A certificate as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct EnrolledRow {
    /// Hexadecimal.
    pub serial: String,
    /// Whose.
    pub device: String,
    /// Milliseconds since 1970.
    pub issued: i64,
    /// Milliseconds since 1970.
    pub expires: i64,
    /// By what.
    pub origin: String,
}

/// Somebody wants to use a token.
#[derive(Debug)]
pub struct Redemption<'a> {
    /// The token's number.
    pub number: i64,
    /// SHA-256 of the token.
    pub hash: &'a [u8; 32],
    /// For whom.
    pub device: &'a DeviceName,
    /// SHA-256 of the public key.
    pub key: &'a [u8; 32],
    /// Milliseconds since 1970.
    pub now: i64,
    /// The asker's address.
    pub from: &'a str,
}

/// Why no certificate is given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotGiven {
    /// There is none of this number, or its secret is another.
    #[error("this token is not known here; make one with `edgeveil-bridge enroll token --device {0}`")]
    Unknown(DeviceName),
    /// It is for somebody else.
    #[error(
        "token {0} is for {1}; enrol as {1}, or make one for {2} with `edgeveil-bridge enroll token --device {2}`"
    )]
    OtherDevice(i64, String, DeviceName),
    /// Its time is over.
    #[error("token {0} has expired; make another with `edgeveil-bridge enroll token --device {1}`")]
    Expired(i64, DeviceName),
    /// It was used, with another key or some time ago.
    #[error(
        "token {0} has been used, from {1}; if that was not {2}, somebody else has its certificate: `edgeveil-bridge enroll block {2}`. Else make another with `edgeveil-bridge enroll token --device {2}`"
    )]
    Used(i64, String, DeviceName),
    /// It was taken back.
    #[error("token {0} has been revoked; make another with `edgeveil-bridge enroll token --device {1}`")]
    Revoked(i64, DeviceName),
    /// The name is blocked.
    #[error("{0} is blocked; `edgeveil-bridge enroll unblock {0}` lets it have certificates again")]
    Blocked(DeviceName),
}

/// What comes of asking.
pub type Given = Result<String, NotGiven>;

#[derive(FromRow)]
struct Token {
    device: String,
    hash: Vec<u8>,
    expires: i64,
    revoked: Option<i64>,
    used: Option<i64>,
    used_from: Option<String>,
    key: Option<Vec<u8>>,
    certificate: Option<String>,
}

/// What was being done to which book, and what went wrong.
#[derive(Debug, thiserror::Error)]
#[error("{}: {action}: {why}; it must be writable for the bridge's user, on a disk with room", file.display())]
pub struct BookError {
    file: PathBuf,
    action: &'static str,
    why: sqlx::Error,
}

/// The book of one bridge.
#[derive(Debug, Clone)]
pub struct Book {
    file: PathBuf,
}

impl Book {
    /// In the bridge's data folder, made when it is not there.
    pub async fn open(data_dir: &Path) -> Result<Self, BookError> {
        let book = Self { file: data_dir.join(FILE) };
        let made = async {
            let mut connection = book.connect().await?;
            sqlx::raw_sql(include_str!("book.sql")).execute(&mut connection).await?;
            connection.close().await
        };
        made.await.map_err(book.failed("opening"))?;
        Ok(book)
    }

    async fn connect(&self) -> sqlx::Result<SqliteConnection> {
        let options = SqliteConnectOptions::new()
            .filename(&self.file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Delete)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        SqliteConnection::connect_with(&options).await
    }

    /// Nobody else writes until it is committed.
    async fn begin(&self) -> sqlx::Result<SqliteConnection> {
        let mut connection = self.connect().await?;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await?;
        Ok(connection)
    }

    /// Whether a row was changed.
    async fn change<'q>(
        &self,
        action: &'static str,
        query: Query<'q, Sqlite, SqliteArguments<'q>>,
    ) -> Result<bool, BookError> {
        let failed = self.failed(action);
        let mut connection = self.connect().await.map_err(&failed)?;
        let done = query.execute(&mut connection).await.map_err(&failed)?;
        connection.close().await.map_err(failed)?;
        Ok(done.rows_affected() == 1)
    }

    fn failed(&self, action: &'static str) -> impl Fn(sqlx::Error) -> BookError + '_ {
        move |why| BookError { file: self.file.clone(), action, why }
    }

    /// Notes a token before its number is known to anybody: the token's text holds the number, so its hash comes after.
    pub async fn add_token(
        &self,
        device: &DeviceName,
        now: i64,
        expires: i64,
        hash: impl FnOnce(i64) -> [u8; 32],
    ) -> Result<(), BookError> {
        let failed = self.failed("noting a token");
        let mut tx = self.begin().await.map_err(&failed)?;
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO token (device, hash, created, expires) VALUES (?, x'', ?, ?) RETURNING number",
        )
        .bind(device.as_str())
        .bind(now)
        .bind(expires)
        .fetch_one(&mut tx)
        .await
        .map_err(&failed)?;
        sqlx::query("UPDATE token SET hash = ? WHERE number = ?")
            .bind(hash(number).as_slice())
            .bind(number)
            .execute(&mut tx)
            .await
            .map_err(&failed)?;
        sqlx::query("DELETE FROM token WHERE expires < ?")
            .bind(now - FORGET)
            .execute(&mut tx)
            .await
            .map_err(&failed)?;
        commit(tx).await.map_err(&failed)
    }

    /// All tokens, the oldest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, BookError> {
        let failed = self.failed("listing tokens");
        let mut connection = self.connect().await.map_err(&failed)?;
        sqlx::query_as("SELECT number, device, expires, revoked, used, used_from FROM token ORDER BY number")
            .fetch_all(&mut connection)
            .await
            .map_err(failed)
    }

    /// Takes a token back. False when there is none of this number that could still be used.
    pub async fn revoke_token(&self, number: i64, now: i64) -> Result<bool, BookError> {
        let revoke =
            sqlx::query("UPDATE token SET revoked = ? WHERE number = ? AND revoked IS NULL AND used IS NULL");
        self.change("revoking a token", revoke.bind(now).bind(number)).await
    }

    /// The newest certificate of each device.
    pub async fn enrolled(&self) -> Result<Vec<EnrolledRow>, BookError> {
        let failed = self.failed("listing certificates");
        let mut connection = self.connect().await.map_err(&failed)?;
        sqlx::query_as(
            "SELECT serial, device, issued, expires, origin FROM enrolled AS one
             WHERE NOT EXISTS (SELECT 1 FROM enrolled AS newer WHERE newer.device = one.device
                               AND (newer.issued, newer.serial) > (one.issued, one.serial))
             ORDER BY device",
        )
        .fetch_all(&mut connection)
        .await
        .map_err(failed)
    }

    /// The names that get no certificate.
    pub async fn blocked(&self) -> Result<Vec<String>, BookError> {
        let failed = self.failed("listing blocked names");
        let mut connection = self.connect().await.map_err(&failed)?;
        sqlx::query_scalar("SELECT device FROM blocked ORDER BY device")
            .fetch_all(&mut connection)
            .await
            .map_err(failed)
    }

    /// From now on this name gets no certificate. False when that was so already.
    pub async fn block(&self, device: &DeviceName, now: i64) -> Result<bool, BookError> {
        let block = sqlx::query("INSERT INTO blocked (device, since) VALUES (?, ?) ON CONFLICT DO NOTHING");
        self.change("blocking a name", block.bind(device.as_str()).bind(now)).await
    }

    /// It may have certificates again. False when it was not blocked.
    pub async fn unblock(&self, device: &DeviceName) -> Result<bool, BookError> {
        let unblock = sqlx::query("DELETE FROM blocked WHERE device = ?");
        self.change("unblocking a name", unblock.bind(device.as_str())).await
    }

    /// Uses a token up for the certificate that `sign` makes, in one transaction. The certificate comes back only when
    /// both are durable.
    pub async fn redeem(
        &self,
        asked: &Redemption<'_>,
        sign: impl FnOnce() -> anyhow::Result<Signed>,
    ) -> anyhow::Result<Given> {
        let failed = self.failed("using a token");
        let mut tx = self.begin().await.map_err(&failed)?;
        match look(&mut tx, asked).await.map_err(&failed)? {
            Ok(None) => {}
            Ok(Some(again)) => return Ok(Ok(again)),
            Err(why) => return Ok(Err(why)),
        }
        let signed = sign()?;
        sqlx::query("UPDATE token SET used = ?, used_from = ?, key = ?, certificate = ? WHERE number = ?")
            .bind(asked.now)
            .bind(asked.from)
            .bind(asked.key.as_slice())
            .bind(signed.pem.as_str())
            .bind(asked.number)
            .execute(&mut tx)
            .await
            .map_err(&failed)?;
        let origin = format!("token {}", asked.number);
        note(&mut tx, asked.device, &signed, &origin).await.map_err(&failed)?;
        commit(tx).await.map_err(&failed)?;
        Ok(Ok(signed.pem))
    }

    /// Notes the certificate that `sign` makes for a device that has shown the one with this serial number.
    pub async fn renew(
        &self,
        device: &DeviceName,
        shown: &str,
        sign: impl FnOnce() -> anyhow::Result<Signed>,
    ) -> anyhow::Result<Given> {
        let failed = self.failed("noting a renewed certificate");
        let mut tx = self.begin().await.map_err(&failed)?;
        if is_blocked(&mut tx, device).await.map_err(&failed)? {
            return Ok(Err(NotGiven::Blocked(device.clone())));
        }
        let signed = sign()?;
        note(&mut tx, device, &signed, &format!("renewal of {shown}")).await.map_err(&failed)?;
        commit(tx).await.map_err(&failed)?;
        Ok(Ok(signed.pem))
    }
}

async fn commit(mut tx: SqliteConnection) -> sqlx::Result<()> {
    sqlx::query("COMMIT").execute(&mut tx).await?;
    tx.close().await
}

/// Whether the token is good; with the certificate when this is a repeat.
async fn look(
    tx: &mut SqliteConnection,
    asked: &Redemption<'_>,
) -> sqlx::Result<Result<Option<String>, NotGiven>> {
    let device = || asked.device.clone();
    let token: Option<Token> = sqlx::query_as(
        "SELECT device, hash, expires, revoked, used, used_from, key, certificate FROM token WHERE number = ?",
    )
    .bind(asked.number)
    .fetch_optional(&mut *tx)
    .await?;
    // Nothing is told to somebody who does not know the secret.
    let known = token.filter(|token| bool::from(token.hash.as_slice().ct_eq(asked.hash)));
    let Some(token) = known else { return Ok(Err(NotGiven::Unknown(device()))) };
    if token.device != asked.device.as_str() {
        return Ok(Err(NotGiven::OtherDevice(asked.number, token.device, device())));
    }
    if is_blocked(tx, asked.device).await? {
        return Ok(Err(NotGiven::Blocked(device())));
    }
    if let Some(used) = token.used {
        let repeats = asked.now < used + REPEAT && token.key.as_deref() == Some(asked.key);
        return Ok(match token.certificate.filter(|_| repeats) {
            Some(certificate) => Ok(Some(certificate)),
            None => Err(NotGiven::Used(asked.number, token.used_from.unwrap_or_default(), device())),
        });
    }
    if token.revoked.is_some() {
        return Ok(Err(NotGiven::Revoked(asked.number, device())));
    }
    if asked.now >= token.expires {
        return Ok(Err(NotGiven::Expired(asked.number, device())));
    }
    Ok(Ok(None))
}

async fn is_blocked(tx: &mut SqliteConnection, device: &DeviceName) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM blocked WHERE device = ?)")
        .bind(device.as_str())
        .fetch_one(tx)
        .await
}

async fn note(
    tx: &mut SqliteConnection,
    device: &DeviceName,
    signed: &Signed,
    origin: &str,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO enrolled (serial, device, issued, expires, origin) VALUES (?, ?, ?, ?, ?)")
        .bind(signed.serial.as_str())
        .bind(device.as_str())
        .bind(signed.issued.as_millisecond())
        .bind(signed.expires.as_millisecond())
        .bind(origin)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "DELETE FROM enrolled WHERE device = ?1 AND serial IN
         (SELECT serial FROM enrolled WHERE device = ?1 ORDER BY issued DESC, serial DESC LIMIT -1 OFFSET ?2)",
    )
    .bind(device.as_str())
    .bind(MAX_ENROLLED)
    .execute(tx)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    const HOUR: i64 = 3_600_000;

    fn name(text: &str) -> DeviceName {
        text.parse().unwrap()
    }

    fn signed(pem: &str) -> Signed {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        Signed { pem: pem.to_owned(), serial: pem.to_owned(), issued: at, expires: at }
    }

    async fn book() -> (tempfile::TempDir, Book) {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path()).await.unwrap();
        book.add_token(&name("pi"), 0, HOUR, |_| [7; 32]).await.unwrap();
        (dir, book)
    }

    async fn redeem(book: &Book, device: &str, hash: u8, key: u8, now: i64, pem: &str) -> Given {
        let asked = Redemption {
            number: 1,
            hash: &[hash; 32],
            device: &name(device),
            key: &[key; 32],
            now,
            from: "10.0.0.9",
        };
        book.redeem(&asked, || Ok(signed(pem))).await.unwrap()
    }

    #[tokio::test]
    async fn a_token_is_good_once_for_its_name_in_its_time() {
        let (_dir, book) = book().await;
        assert_eq!(redeem(&book, "pi", 8, 1, 1, "x").await, Err(NotGiven::Unknown(name("pi"))));
        let other = Err(NotGiven::OtherDevice(1, "pi".to_owned(), name("desk")));
        assert_eq!(redeem(&book, "desk", 7, 1, 1, "x").await, other);
        assert_eq!(redeem(&book, "pi", 7, 1, HOUR, "x").await, Err(NotGiven::Expired(1, name("pi"))));
        // None of these has used it up.
        assert_eq!(redeem(&book, "pi", 7, 1, HOUR - 1, "first").await, Ok("first".to_owned()));
        let used = Err(NotGiven::Used(1, "10.0.0.9".to_owned(), name("pi")));
        assert_eq!(redeem(&book, "pi", 7, 2, HOUR - 1, "second").await, used);
        // The answer was lost: the same key gets the same certificate, for ten minutes.
        assert_eq!(redeem(&book, "pi", 7, 1, HOUR - 2 + REPEAT, "second").await, Ok("first".to_owned()));
        assert_eq!(redeem(&book, "pi", 7, 1, HOUR - 1 + REPEAT, "second").await, used);
        let enrolled = book.enrolled().await.unwrap();
        assert_eq!(enrolled.len(), 1);
        assert_eq!((enrolled[0].serial.as_str(), enrolled[0].origin.as_str()), ("first", "token 1"));
        assert!(!book.revoke_token(1, 2).await.unwrap(), "a used token is not revoked");
    }

    #[tokio::test]
    async fn what_was_not_signed_uses_nothing_up() {
        let (_dir, book) = book().await;
        let (hash, key, device) = ([7; 32], [1; 32], name("pi"));
        let asked =
            Redemption { number: 1, hash: &hash, device: &device, key: &key, now: 1, from: "10.0.0.9" };
        assert!(book.redeem(&asked, || anyhow::bail!("no key")).await.is_err());
        assert_eq!(redeem(&book, "pi", 7, 1, 2, "first").await, Ok("first".to_owned()));
    }

    #[tokio::test]
    async fn two_at_once_do_not_both_get_one() {
        let (_dir, book) = book().await;
        let (one, two) =
            tokio::join!(redeem(&book, "pi", 7, 1, 1, "one"), redeem(&book, "pi", 7, 2, 1, "two"));
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        assert_eq!(book.enrolled().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_revoked_token_and_a_blocked_name_get_nothing() {
        let (_dir, book) = book().await;
        assert!(book.revoke_token(1, 1).await.unwrap());
        assert!(!book.revoke_token(1, 1).await.unwrap() && !book.revoke_token(2, 1).await.unwrap());
        assert_eq!(redeem(&book, "pi", 7, 1, 2, "x").await, Err(NotGiven::Revoked(1, name("pi"))));
        let pi = name("pi");
        let renewed = |pem: &'static str| book.renew(&pi, "5e", move || Ok(signed(pem)));
        assert_eq!(renewed("a").await.unwrap(), Ok("a".to_owned()));
        assert!(book.block(&name("pi"), 1).await.unwrap() && !book.block(&name("pi"), 1).await.unwrap());
        assert_eq!(renewed("b").await.unwrap(), Err(NotGiven::Blocked(name("pi"))));
        assert_eq!(redeem(&book, "pi", 7, 1, 2, "x").await, Err(NotGiven::Blocked(name("pi"))));
        assert_eq!(book.blocked().await.unwrap(), ["pi"]);
        assert!(book.unblock(&name("pi")).await.unwrap() && !book.unblock(&name("pi")).await.unwrap());
        assert_eq!(renewed("b").await.unwrap(), Ok("b".to_owned()));
        assert_eq!(book.enrolled().await.unwrap()[0].origin, "renewal of 5e");
    }

    #[tokio::test]
    async fn the_book_stays_small() {
        let (_dir, book) = book().await;
        for n in 0..MAX_ENROLLED + 10 {
            let serial = format!("{n:04}");
            book.renew(&name("pi"), "5e", || Ok(signed(&serial))).await.unwrap().unwrap();
        }
        let mut connection = book.connect().await.unwrap();
        let kept: i64 =
            sqlx::query_scalar("SELECT count(*) FROM enrolled").fetch_one(&mut connection).await.unwrap();
        assert_eq!(kept, MAX_ENROLLED);
        assert_eq!(book.enrolled().await.unwrap()[0].serial, format!("{:04}", MAX_ENROLLED + 9));
        book.add_token(&name("pi"), HOUR + FORGET + 1, i64::MAX, |_| [7; 32]).await.unwrap();
        let numbers: Vec<_> = book.tokens().await.unwrap().iter().map(|token| token.number).collect();
        assert_eq!(numbers, [2], "an old token is forgotten, and its number is not given again");
    }
}
