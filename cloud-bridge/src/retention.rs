//! What is kept only for a time: records by kind, and what was forwarded. Off unless it is set.
//!
//! The time counts from when the bridge received a record, since a device's clock may be anywhere. An image's object goes
//! before its row does: an interruption leaves a row that names it still, and the next round finishes it.

use crate::{
    catalog::{Catalog, CatalogError},
    metrics::Metrics,
    objects::{ObjectError, Objects},
    settings::RetentionSettings,
    web::thumbnail_key,
};
use edgeveil_wire::Lane;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(600);
/// Between two transactions, so that commits have their turn.
const PAUSE: Duration = Duration::from_millis(20);

/// Removes what has expired.
pub struct Retention {
    /// How long.
    pub settings: RetentionSettings,
    /// Rows.
    pub catalog: Catalog,
    /// Images.
    pub objects: Objects,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Why a round was not finished.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The object store failed.
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

impl Retention {
    /// A round at once and then one in ten minutes, until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let now = jiff::Timestamp::now().as_millisecond();
            tokio::select! {
                () = stop.cancelled() => return,
                done = self.round(now) => {
                    if let Err(error) = done {
                        tracing::warn!(%error, "cannot remove what has expired; trying again in the next round");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(ROUND) => {}
            }
        }
    }

    /// Removes all that has expired by now, in milliseconds since 1970.
    pub async fn round(&self, now: i64) -> Result<(), RetentionError> {
        let before = |kept: Duration| now.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        let records = [
            (Lane::Reading, self.settings.readings),
            (Lane::Alert, self.settings.alerts),
            (Lane::Status, self.settings.events),
        ];
        for (lane, kept) in records {
            let Some(kept) = kept else { continue };
            loop {
                let gone = self.catalog.expire(lane, before(kept)).await?;
                self.metrics.expired.get_or_create(&Some(lane).into()).inc_by(gone);
                if gone == 0 {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        if let Some(kept) = self.settings.images {
            loop {
                let images = self.catalog.expired_images(before(kept)).await?;
                if images.is_empty() {
                    break;
                }
                for image in &images {
                    self.objects.delete(&image.object).await?;
                    if image.thumbnail == 1 {
                        self.objects.delete(&thumbnail_key(&image.object)).await?;
                    }
                }
                let gone = self.catalog.forget_images(&images).await?;
                self.metrics.expired.get_or_create(&Some(Lane::Image).into()).inc_by(gone);
                tokio::time::sleep(PAUSE).await;
            }
        }
        if let Some(kept) = self.settings.forwarded {
            while self.catalog.expire_forwarded(before(kept)).await? > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}
