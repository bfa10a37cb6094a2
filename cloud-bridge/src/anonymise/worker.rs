//! A worker: claims jobs, one after the other, and veils their pictures.
//!
//! At least once: a worker that is killed leaves a lease that runs out, and another one does the job anew. Since the result's
//! key comes from the job's id there is one result still. An attempt that finds the result of an earlier one takes it. A
//! store that is away costs no attempt, nor does the worker's own end.

use super::{
    Places, RAW_IS_GONE,
    veiler::{Failure, Veiled, Veiler},
};
use crate::{
    backoff::Backoff,
    catalog::{Catalog, CatalogError, Counted, Job},
    metrics::Metrics,
    objects::ObjectError,
    readiness::{Part, Readiness},
    settings::AnonymiseSettings,
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How often to look for jobs of which nobody has told us.
const POLL: Duration = Duration::from_millis(500);
/// What the job in hand has, at the end, before it is given back.
const GRACE: Duration = Duration::from_secs(3);

/// Veils what is posted.
pub struct Worker {
    /// Bounds.
    pub settings: AnonymiseSettings,
    /// Rows.
    pub catalog: Catalog,
    /// Pictures.
    pub places: Places,
    /// What veils.
    pub veiler: Veiler,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether catalog and stores answer.
    pub readiness: Arc<Readiness>,
    /// Told of jobs that came within this process.
    pub woken: watch::Receiver<()>,
    /// Its name in the rows of its jobs: no two are the same, and none comes again.
    pub name: String,
}

/// What came of an attempt.
enum Outcome {
    Done(Option<usize>),
    Failed(String),
    Again(String),
    Away(ObjectError),
    /// Another worker has the job.
    Lost,
    /// It was asked to end.
    Ended,
}

/// A name for a worker of this process.
pub fn new_name() -> Result<String, getrandom::Error> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    Ok(format!("{}-{:016x}", std::process::id(), u64::from_be_bytes(random)))
}

impl Worker {
    /// Until it is stopped; then it finishes the job in hand within three seconds, or gives it back.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        while !stop.is_cancelled() {
            let wait = match self.next(&stop).await {
                Ok(Next::Worked) => {
                    self.well(Part::Database);
                    self.well(Part::Pictures);
                    backoff.reset();
                    continue;
                }
                Ok(Next::Nothing) => {
                    self.well(Part::Database);
                    backoff.reset();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(POLL) => {}
                        // Once nobody is left who would tell, looking has to do.
                        Ok(()) = self.woken.changed() => {}
                    }
                    continue;
                }
                Ok(Next::Away(error)) => self.ill(Part::Pictures, error.to_string(), &mut backoff),
                Err(error) => self.ill(Part::Database, error.to_string(), &mut backoff),
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(wait) => {}
            }
        }
    }

    fn well(&self, part: Part) {
        if self.readiness.up(part) {
            tracing::info!(part = part.as_str(), "answers");
        }
    }

    /// One line until it is well again.
    fn ill(&self, part: Part, why: String, backoff: &mut Backoff) -> Duration {
        if self.readiness.down(part, why.clone()) {
            tracing::warn!(
                error = why,
                part = part.as_str(),
                "does not answer; trying again, nothing is lost"
            );
        }
        backoff.wait()
    }

    async fn next(&self, stop: &CancellationToken) -> Result<Next, CatalogError> {
        let Some(job) = self.catalog.claim_job(&self.name, self.settings.lease).await? else {
            return Ok(Next::Nothing);
        };
        let span = tracing::info_span!("picture", id = %job.id, attempts = job.attempts);
        let outcome = tokio::select! {
            outcome = self.attempt(&job).instrument(span.clone()) => outcome,
            () = self.hold(&job) => Outcome::Lost,
            () = async { stop.cancelled().await; sleep(GRACE).await } => Outcome::Ended,
        };
        self.settle(&job, outcome).instrument(span).await
    }

    /// Renews the lease, and ends once it is lost.
    async fn hold(&self, job: &Job) {
        loop {
            sleep(self.settings.lease / 3).await;
            match self.catalog.renew_job(job.id, &self.name, self.settings.lease).await {
                Ok(true) => {}
                Ok(false) => return,
                // Another worker may take it when this goes on: the result is the same one then.
                Err(error) => tracing::debug!(%error, id = %job.id, "cannot renew the lease"),
            }
        }
    }

    async fn attempt(&self, job: &Job) -> Outcome {
        let Places { input, output } = &self.places;
        let most = i64::from(self.settings.attempts);
        if job.attempts > 1 {
            match output.has(&job.id.result_key()).await {
                Ok(true) => return Outcome::Done(None),
                Ok(false) => {}
                Err(error) => return Outcome::Away(error),
            }
        }
        if job.attempts > most {
            let last = job.reason.as_deref().unwrap_or("its worker ended or fell silent");
            return Outcome::Failed(format!("given up after {most} attempts: {last}"));
        }
        let raw = match input.get(&job.id.raw_key()).await {
            Ok(raw) => raw,
            Err(error) if error.missing => return Outcome::Failed(RAW_IS_GONE.to_owned()),
            Err(error) => return Outcome::Away(error),
        };
        match self.veiler.veil(raw).await {
            Ok(Veiled { picture, faces }) => match output.put(&job.id.result_key(), picture).await {
                Ok(()) => Outcome::Done(Some(faces)),
                Err(error) => Outcome::Away(error),
            },
            Err(Failure::Picture(why)) => Outcome::Failed(why),
            Err(Failure::Search(why)) if job.attempts < most => Outcome::Again(why),
            Err(Failure::Search(why)) => Outcome::Failed(format!("given up after {most} attempts: {why}")),
        }
    }

    async fn settle(&self, job: &Job, outcome: Outcome) -> Result<Next, CatalogError> {
        let (id, name) = (job.id, self.name.as_str());
        match outcome {
            Outcome::Done(faces) => {
                if let Some(done) = self.catalog.job_done(id, name, faces).await? {
                    self.metrics.anonymise_done.inc();
                    let took = done.changed.saturating_sub(done.received).max(0);
                    self.metrics.anonymise_seconds.observe(took as f64 / 1000.0);
                    tracing::debug!(%id, faces, took_ms = took, "picture veiled");
                    self.forget_raw(job).await;
                }
            }
            Outcome::Failed(why) => {
                if self.catalog.job_failed(id, name, &why).await?.is_some() {
                    self.metrics.anonymise_failed.inc();
                    tracing::warn!(%id, reason = why, "picture not veiled; its raw picture is kept for a time");
                }
            }
            Outcome::Again(why) => {
                let wait = Duration::from_secs(1 << job.attempts.clamp(0, 6));
                self.catalog.job_again(id, name, Some(&why), wait, Counted::Yes).await?;
                self.metrics.anonymise_retries.inc();
            }
            Outcome::Away(error) => {
                self.catalog.job_again(id, name, None, POLL, Counted::No).await?;
                return Ok(Next::Away(error));
            }
            Outcome::Ended => {
                self.catalog.job_again(id, name, None, Duration::ZERO, Counted::No).await?;
                tracing::info!(%id, "picture given back, as the worker ends");
            }
            Outcome::Lost => {
                tracing::warn!(%id, "another worker has taken a picture over; anonymise.lease is short")
            }
        }
        Ok(Next::Worked)
    }

    /// What cannot be removed now is removed by mending.
    async fn forget_raw(&self, job: &Job) {
        if self.settings.keep_raw {
            return;
        }
        let removed = self.places.input.delete(&job.id.raw_key()).await;
        let noted = match removed {
            Ok(()) => self.catalog.raw_is_gone(job.id).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = noted {
            tracing::debug!(error, id = %job.id, "a raw picture stays until it is mended");
        }
    }
}

enum Next {
    Worked,
    Nothing,
    Away(ObjectError),
}
