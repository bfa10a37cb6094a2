//! Who is logged in, and what operators did.

use super::{
    Catalog, CatalogError,
    store::{Tx, ask},
};
use serde::Serialize;

/// Sessions of one user; of more the oldest go.
const MAX_SESSIONS: i64 = 20;
/// Actions that are kept; of more the oldest go.
const MAX_ACTIONS: i64 = 10_000;

/// Somebody did something.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct Action {
    /// Milliseconds since 1970.
    pub at: i64,
    /// The user.
    pub who: String,
    /// `login`, `logout`, `refused`, `acknowledge`, `retry`, `timelapse`
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// In the user's words, where there are some.
    pub detail: String,
}

pub(super) async fn note(
    tx: &mut Tx,
    at: i64,
    who: &str,
    action: &str,
    subject: &str,
    detail: &str,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO audit (at, who, action, subject, detail) VALUES ($1, $2, $3, $4, $5)";
    tx.run(ask(sql).bind(at).bind(who).bind(action).bind(subject).bind(detail)).await?;
    let sql =
        "DELETE FROM audit WHERE number <= (SELECT number FROM audit ORDER BY number DESC LIMIT 1 OFFSET $1)";
    tx.run(ask(sql).bind(MAX_ACTIONS)).await.map(drop)
}

impl Catalog {
    /// Begins a session. `digest` is of what the browser gets.
    pub async fn begin_session(
        &self,
        digest: &str,
        name: &str,
        now: i64,
        expires: i64,
    ) -> Result<(), CatalogError> {
        let failed = self.failed("beginning a session");
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let gone = "DELETE FROM session WHERE expires <= $1";
        tx.run(ask(gone).bind(now)).await.map_err(&failed)?;
        let many = "DELETE FROM session WHERE digest IN
             (SELECT digest FROM session WHERE name = $1 ORDER BY created DESC LIMIT 1000 OFFSET $2)";
        tx.run(ask(many).bind(name).bind(MAX_SESSIONS - 1)).await.map_err(&failed)?;
        let sql = "INSERT INTO session (digest, name, created, expires) VALUES ($1, $2, $3, $4)";
        tx.run(ask(sql).bind(digest).bind(name).bind(now).bind(expires)).await.map_err(&failed)?;
        note(&mut tx, now, name, "login", "", "").await.map_err(&failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Whose session it is, while it lasts.
    pub async fn session(&self, digest: &str, now: i64) -> Result<Option<String>, CatalogError> {
        let sql = "SELECT name FROM session WHERE digest = $1 AND expires > $2";
        let found: Option<(String,)> = self
            .store
            .row(ask(sql).bind(digest).bind(now))
            .await
            .map_err(self.failed("looking for a session"))?;
        Ok(found.map(|(name,)| name))
    }

    /// Ends a session.
    pub async fn end_session(&self, digest: &str) -> Result<(), CatalogError> {
        let run = self.store.run(ask("DELETE FROM session WHERE digest = $1").bind(digest)).await;
        run.map(drop).map_err(self.failed("ending a session"))
    }

    /// Notes what somebody did.
    pub async fn note_action(
        &self,
        at: i64,
        who: &str,
        action: &str,
        subject: &str,
        detail: &str,
    ) -> Result<(), CatalogError> {
        let failed = self.failed("noting an action");
        let mut tx = self.store.begin().await.map_err(&failed)?;
        note(&mut tx, at, who, action, subject, detail).await.map_err(&failed)?;
        tx.commit().await.map_err(failed)
    }

    /// The last actions, the newest first.
    pub async fn actions(&self, most: u32) -> Result<Vec<Action>, CatalogError> {
        let sql = "SELECT at, who, action, subject, detail FROM audit ORDER BY number DESC LIMIT $1";
        self.store.rows(ask(sql).bind(i64::from(most))).await.map_err(self.failed("reading actions"))
    }
}
