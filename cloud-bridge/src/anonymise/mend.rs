//! What a crash has left half done is finished, and what has expired is removed: at the start, and then every ten minutes.
//! Any number of processes may do so at once.

use super::{JobId, Places};
use crate::{
    catalog::{Catalog, CatalogError, JobState},
    objects::ObjectError,
    settings::AnonymiseSettings,
};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(600);
/// An upload takes no longer than [`super::api::UPLOAD`], so a raw picture this old will have no row any more.
const ORPHAN: Duration = Duration::from_secs(900);

/// What was begun longer ago and has not come to its end was left half written by somebody who was killed. Others may be
/// writing there now.
const LONGEST_WRITE: Duration = Duration::from_secs(600);

/// Finishes and removes.
#[derive(Debug)]
pub struct Mender {
    /// How long things are kept.
    pub settings: AnonymiseSettings,
    /// Rows.
    pub catalog: Catalog,
    /// Pictures.
    pub places: Places,
}

/// What one round has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Mended {
    /// Raw pictures without a row, removed.
    pub orphans: u64,
    /// Raw pictures of results, removed.
    pub raw: u64,
    /// Rows that waited without a raw picture, failed.
    pub without_raw: u64,
    /// Jobs that have expired, forgotten.
    pub expired: u64,
}

/// Why a round was not finished.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A store failed.
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

impl Mender {
    /// Until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let done = tokio::select! {
                () = stop.cancelled() => return,
                done = self.round(SystemTime::now()) => done,
            };
            match done {
                Ok(mended) if mended == Mended::default() => {}
                Ok(Mended { orphans, raw, without_raw, expired }) => {
                    tracing::info!(orphans, raw, without_raw, expired, "pictures mended and removed");
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot mend or remove pictures; trying again in the next round");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(ROUND) => {}
            }
        }
    }

    /// All that is to be done by now.
    pub async fn round(&self, now: SystemTime) -> Result<Mended, MendError> {
        let mut mended = Mended::default();
        if !self.settings.keep_raw {
            loop {
                let left = self.catalog.raw_of_done().await?;
                for id in &left {
                    self.places.input.delete(&id.raw_key()).await?;
                    self.catalog.raw_is_gone(*id).await?;
                    mended.raw += 1;
                }
                if left.is_empty() {
                    break;
                }
            }
        }
        self.expire(JobState::Failed, self.settings.keep_failed, &mut mended).await?;
        if let Some(kept) = self.settings.keep_results {
            self.expire(JobState::Done, kept, &mut mended).await?;
        }
        self.half_written(now).await;
        self.orphans(now, &mut mended).await?;
        self.without_raw(&mut mended).await?;
        Ok(mended)
    }

    /// Objects go before their row does: an interruption leaves a row that names them still.
    async fn expire(&self, state: JobState, kept: Duration, mended: &mut Mended) -> Result<(), MendError> {
        loop {
            let ended = self.catalog.ended_jobs(state, kept).await?;
            for id in &ended {
                self.places.output.delete(&id.result_key()).await?;
                self.places.input.delete(&id.raw_key()).await?;
                self.catalog.forget_job(*id).await?;
                mended.expired += 1;
            }
            if ended.is_empty() {
                return Ok(());
            }
        }
    }

    /// In the input place these are raw pictures, too.
    async fn half_written(&self, now: SystemTime) {
        let (Places { input, output }, before) = (self.places.clone(), now - LONGEST_WRITE);
        let sweep = move || {
            input.sweep(before);
            output.sweep(before);
        };
        if let Err(error) = tokio::task::spawn_blocking(sweep).await {
            tracing::warn!(%error, "cannot look for what was left half written");
        }
    }

    /// Whoever posted them was never told that they were taken.
    async fn orphans(&self, now: SystemTime, mended: &mut Mended) -> Result<(), MendError> {
        for (key, _) in self.places.input.list().await? {
            let Some(id) = JobId::of_raw_key(&key) else { continue };
            let is_old = now.duration_since(id.made()).is_ok_and(|age| age > ORPHAN);
            if is_old && self.catalog.job(id).await?.is_none() {
                self.places.input.delete(&key).await?;
                mended.orphans += 1;
            }
        }
        Ok(())
    }

    async fn without_raw(&self, mended: &mut Mended) -> Result<(), MendError> {
        let mut after = None;
        loop {
            let queued = self.catalog.queued_jobs(after).await?;
            let Some(last) = queued.last() else { return Ok(()) };
            after = Some(*last);
            for id in queued {
                // A worker that was killed may have come as far as the result: the next one will see it.
                let is_lost = !self.places.input.has(&id.raw_key()).await?
                    && !self.places.output.has(&id.result_key()).await?;
                if is_lost && self.catalog.job_without_raw(id, super::RAW_IS_GONE).await? {
                    mended.without_raw += 1;
                }
            }
        }
    }
}
