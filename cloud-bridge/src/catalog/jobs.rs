//! Pictures that wait for their veil: taken in, claimed by workers, ended, forgotten.
//!
//! A claim is a lease: `due` is its end, and a worker that is alive moves it on. A job whose lease has run out is claimed
//! by the next worker as if it waited. All times are the database's, so that the clocks of replicas do not matter. Every
//! change by a worker names the worker, and changes nothing once another one has the job.

use super::{
    Catalog, CatalogError,
    store::{Ask, Database, Store, Tx, ask},
};
use crate::anonymise::JobId;
use std::time::Duration;

/// Rows looked at in one go at the most.
const AT_ONCE: i64 = 500;

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It waits for a worker.
    Queued,
    /// A worker has it.
    Working,
    /// Its result is in the output place.
    Done,
    /// It has none, and will have none.
    Failed,
}

impl JobState {
    /// As in the table, and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Working => "working",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        [Self::Queued, Self::Working, Self::Done, Self::Failed].into_iter().find(|s| s.as_str() == text)
    }
}

/// A job as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Milliseconds since 1970.
    pub received: i64,
    /// When its state was last changed.
    pub changed: i64,
    /// How far it is.
    pub state: JobState,
    /// Attempts so far.
    pub attempts: i64,
    /// Why it failed, or its last attempt.
    pub reason: Option<String>,
    /// Of the raw picture.
    pub bytes: i64,
    /// SHA-256 of the raw picture.
    pub digest: String,
    /// That were covered.
    pub faces: Option<i64>,
}

const JOB: &str = "id, received, changed, state, attempts, reason, bytes, digest, faces";

impl<'r, R: sqlx::Row> sqlx::FromRow<'r, R> for Job
where
    &'static str: sqlx::ColumnIndex<R>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        let bad = |what: &str| sqlx::Error::Decode(format!("a job with a wrong {what}").into());
        let (id, state): (String, String) = (row.try_get("id")?, row.try_get("state")?);
        Ok(Self {
            id: id.parse().map_err(|_| bad("id"))?,
            received: row.try_get("received")?,
            changed: row.try_get("changed")?,
            state: JobState::from_text(&state).ok_or_else(|| bad("state"))?,
            attempts: row.try_get("attempts")?,
            reason: row.try_get("reason")?,
            bytes: row.try_get("bytes")?,
            digest: row.try_get("digest")?,
            faces: row.try_get("faces")?,
        })
    }
}

/// A picture that is to be taken in, and whose object is in the input place already.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Of the raw picture.
    pub bytes: usize,
    /// SHA-256 of it.
    pub digest: String,
    /// SHA-256 of the Idempotency-Key.
    pub idempotency: Option<String>,
}

/// Whether it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It waits now.
    New(Job),
    /// One with this Idempotency-Key is there already.
    Known(Job),
    /// As many wait as may.
    Full,
}

impl Store {
    /// Milliseconds since 1970, by the database's clock.
    fn now(&self) -> &'static str {
        match &self.database {
            Database::Sqlite { .. } => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Database::Postgres(_) => "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)",
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX >> 1)
}

async fn known(tx: &mut Tx, idempotency: Option<&str>) -> sqlx::Result<Option<Job>> {
    let Some(idempotency) = idempotency else { return Ok(None) };
    let sql = format!("SELECT {JOB} FROM image_job WHERE idempotency = $1");
    Ok(tx.rows(ask(&sql).bind(idempotency)).await?.pop())
}

impl Catalog {
    /// Takes a picture in, when fewer than `most` wait or are worked on. Replicas that take some in at the same moment may
    /// be over it by one each.
    pub async fn accept_job(&self, new: &NewJob, most: u32) -> Result<Accepted, CatalogError> {
        let failed = self.failed("taking in a picture");
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let key = new.idempotency.as_deref();
        if let Some(job) = known(&mut tx, key).await.map_err(&failed)? {
            tx.commit().await.map_err(failed)?;
            return Ok(Accepted::Known(job));
        }
        let sql = "SELECT count(*) FROM image_job WHERE state IN ('queued', 'working')";
        let open: Vec<(i64,)> = tx.rows(ask(sql)).await.map_err(&failed)?;
        if open.first().is_some_and(|(open,)| *open >= i64::from(most)) {
            tx.commit().await.map_err(failed)?;
            return Ok(Accepted::Full);
        }
        let now = self.store.now();
        let sql = format!(
            "INSERT INTO image_job (id, received, changed, state, due, bytes, digest, idempotency)
             VALUES ($1, {now}, {now}, 'queued', {now}, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING {JOB}"
        );
        let row = ask(&sql)
            .bind(new.id.to_string())
            .bind(i64::try_from(new.bytes).unwrap_or(i64::MAX))
            .bind(new.digest.as_str())
            .bind(key);
        let made: Option<Job> = tx.rows(row).await.map_err(&failed)?.pop();
        let answer = match made {
            Some(job) => Accepted::New(job),
            // Another replica was quicker with the same key.
            None => match known(&mut tx, key).await.map_err(&failed)? {
                Some(job) => Accepted::Known(job),
                None => return Err(failed(sqlx::Error::RowNotFound)),
            },
        };
        tx.commit().await.map_err(failed)?;
        Ok(answer)
    }

    /// The job with this Idempotency-Key.
    pub async fn job_by_key(&self, idempotency: &str) -> Result<Option<Job>, CatalogError> {
        let sql = format!("SELECT {JOB} FROM image_job WHERE idempotency = $1");
        self.store.row(ask(&sql).bind(idempotency)).await.map_err(self.failed("looking for a picture"))
    }

    /// A job.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, CatalogError> {
        let sql = format!("SELECT {JOB} FROM image_job WHERE id = $1");
        self.store.row(ask(&sql).bind(id.to_string())).await.map_err(self.failed("looking for a picture"))
    }

    /// How many wait, and how many are worked on.
    pub async fn open_jobs(&self) -> Result<(i64, i64), CatalogError> {
        let sql = "SELECT (SELECT count(*) FROM image_job WHERE state IN ('queued', 'working') AND state = 'queued'),
                          (SELECT count(*) FROM image_job WHERE state IN ('queued', 'working') AND state = 'working')";
        let counts = self.store.row(ask(sql)).await.map_err(self.failed("counting pictures"))?;
        Ok(counts.unwrap_or_default())
    }

    /// The job that has waited longest, or whose worker has fallen silent, as this worker's for the time of a lease. Its
    /// attempts count this one.
    pub async fn claim_job(&self, worker: &str, lease: Duration) -> Result<Option<Job>, CatalogError> {
        let (now, locked) = match &self.store.database {
            Database::Sqlite { .. } => (self.store.now(), ""),
            Database::Postgres(_) => (self.store.now(), " FOR UPDATE SKIP LOCKED"),
        };
        let sql = format!(
            "UPDATE image_job SET state = 'working', worker = $1, due = {now} + $2, changed = {now},
             attempts = attempts + 1 WHERE id =
             (SELECT id FROM image_job WHERE state IN ('queued', 'working') AND due <= {now} ORDER BY due LIMIT 1{locked})
             RETURNING {JOB}"
        );
        self.change(ask(&sql).bind(worker).bind(millis(lease)), "claiming a picture").await
    }

    /// Moves the lease on. False when the job is another worker's by now.
    pub async fn renew_job(&self, id: JobId, worker: &str, lease: Duration) -> Result<bool, CatalogError> {
        let sql = format!(
            "UPDATE image_job SET due = {} + $1 WHERE id = $2 AND worker = $3 AND state = 'working'",
            self.store.now()
        );
        let row = ask(&sql).bind(millis(lease)).bind(id.to_string()).bind(worker);
        Ok(self.store.run(row).await.map_err(self.failed("renewing a lease"))? > 0)
    }

    /// Its result is in the output place. None when the job is another worker's by now.
    pub async fn job_done(
        &self,
        id: JobId,
        worker: &str,
        faces: Option<usize>,
    ) -> Result<Option<Job>, CatalogError> {
        let sql = format!(
            "UPDATE image_job SET state = 'done', worker = NULL, reason = NULL, changed = {}, faces = $1
             WHERE id = $2 AND worker = $3 AND state = 'working' RETURNING {JOB}",
            self.store.now()
        );
        let faces = faces.and_then(|faces| i64::try_from(faces).ok());
        let row = ask(&sql).bind(faces).bind(id.to_string()).bind(worker);
        self.change(row, "noting a result").await
    }

    /// It will have no result. None when the job is another worker's by now.
    pub async fn job_failed(
        &self,
        id: JobId,
        worker: &str,
        reason: &str,
    ) -> Result<Option<Job>, CatalogError> {
        let sql = format!(
            "UPDATE image_job SET state = 'failed', worker = NULL, reason = $1, changed = {}
             WHERE id = $2 AND worker = $3 AND state = 'working' RETURNING {JOB}",
            self.store.now()
        );
        self.change(ask(&sql).bind(reason).bind(id.to_string()).bind(worker), "noting a failure").await
    }

    /// It waits again, for this long at least. `counted`: whether the attempt counts.
    pub async fn job_again(
        &self,
        id: JobId,
        worker: &str,
        reason: Option<&str>,
        wait: Duration,
        counted: Counted,
    ) -> Result<(), CatalogError> {
        let now = self.store.now();
        let sql = format!(
            "UPDATE image_job SET state = 'queued', worker = NULL, reason = coalesce($1, reason), changed = {now},
             due = {now} + $2, attempts = attempts - $3 WHERE id = $4 AND worker = $5 AND state = 'working'"
        );
        let back = i64::from(counted == Counted::No);
        let row = ask(&sql).bind(reason).bind(millis(wait)).bind(back).bind(id.to_string()).bind(worker);
        self.store.run(row).await.map(drop).map_err(self.failed("giving a picture back"))
    }

    /// A job that waits, and whose raw picture is not there. False when it does not wait any more.
    pub async fn job_without_raw(&self, id: JobId, reason: &str) -> Result<bool, CatalogError> {
        let sql = format!(
            "UPDATE image_job SET state = 'failed', reason = $1, changed = {}, raw = 0
             WHERE id = $2 AND state = 'queued'",
            self.store.now()
        );
        let row = ask(&sql).bind(reason).bind(id.to_string());
        Ok(self.store.run(row).await.map_err(self.failed("noting a failure"))? > 0)
    }

    /// Its raw picture is gone from the input place.
    pub async fn raw_is_gone(&self, id: JobId) -> Result<(), CatalogError> {
        let sql = "UPDATE image_job SET raw = 0 WHERE id = $1";
        let gone = self.store.run(ask(sql).bind(id.to_string())).await;
        gone.map(drop).map_err(self.failed("noting that a raw picture is gone"))
    }

    /// Jobs that wait, some of them after an id: for a look whether their raw pictures are there.
    pub async fn queued_jobs(&self, after: Option<JobId>) -> Result<Vec<JobId>, CatalogError> {
        let sql = "SELECT id FROM image_job WHERE state = 'queued' AND id > $1 ORDER BY id LIMIT $2";
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.ids(ask(sql).bind(after).bind(AT_ONCE), "listing pictures that wait").await
    }

    /// Jobs with a result whose raw pictures are still there: some of them.
    pub async fn raw_of_done(&self) -> Result<Vec<JobId>, CatalogError> {
        let sql = "SELECT id FROM image_job WHERE raw = 1 AND state = 'done' ORDER BY id LIMIT $1";
        self.ids(ask(sql).bind(AT_ONCE), "listing raw pictures of results").await
    }

    /// Jobs that ended so, and so long ago: some of them.
    pub async fn ended_jobs(&self, state: JobState, kept: Duration) -> Result<Vec<JobId>, CatalogError> {
        let sql = format!(
            "SELECT id FROM image_job WHERE state = $1 AND changed < {} - $2 ORDER BY changed LIMIT $3",
            self.store.now()
        );
        let row = ask(&sql).bind(state.as_str()).bind(millis(kept)).bind(AT_ONCE);
        self.ids(row, "looking for jobs that have expired").await
    }

    /// Forgets a job that has ended, whose objects are gone.
    pub async fn forget_job(&self, id: JobId) -> Result<(), CatalogError> {
        let sql = "DELETE FROM image_job WHERE id = $1 AND state IN ('done', 'failed')";
        let gone = self.store.run(ask(sql).bind(id.to_string())).await;
        gone.map(drop).map_err(self.failed("forgetting a job"))
    }

    async fn ids(&self, asked: Ask<'_>, action: &'static str) -> Result<Vec<JobId>, CatalogError> {
        let rows: Vec<(String,)> = self.store.rows(asked).await.map_err(self.failed(action))?;
        Ok(rows.iter().filter_map(|(id,)| id.parse().ok()).collect())
    }

    async fn change(&self, asked: Ask<'_>, action: &'static str) -> Result<Option<Job>, CatalogError> {
        let failed = self.failed(action);
        let mut tx = self.store.begin().await.map_err(&failed)?;
        let changed = tx.rows(asked).await.map_err(&failed)?.pop();
        tx.commit().await.map_err(failed)?;
        Ok(changed)
    }
}

/// Whether an attempt counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// The picture may be to blame.
    Yes,
    /// A store was away, or the worker had to end.
    No,
}
