//! What all forwarders do with the rows that they took.

use crate::{
    catalog::{Blame, CatalogError, Outbox, OutboxRow},
    metrics::{Metrics, TargetLabel},
};
use std::sync::Arc;

/// Refusals of one row, before another one is tried in its place.
const REFUSALS: i64 = 5;

/// One target's rows, and what is counted of them.
pub struct Rows {
    pub outbox: Outbox,
    metrics: Arc<Metrics>,
}

impl Rows {
    pub fn new(outbox: Outbox, metrics: Arc<Metrics>) -> Self {
        Self { outbox, metrics }
    }

    fn label(&self) -> TargetLabel {
        TargetLabel { target: self.outbox.target() }
    }

    /// Counts an attempt that failed.
    pub fn count_error(&self) {
        self.metrics.forward_errors.get_or_create(&self.label()).inc();
    }

    /// The target has these. What it refused before it took them is to blame itself, and is set aside.
    pub async fn done(
        &self,
        numbers: &[i64],
        suspects: &mut Vec<(OutboxRow, String)>,
    ) -> Result<(), CatalogError> {
        for (row, reason) in std::mem::take(suspects) {
            self.set_aside(&row, &reason).await?;
        }
        self.outbox.done(numbers, jiff::Timestamp::now().as_millisecond()).await?;
        self.metrics.forwarded.get_or_create(&self.label()).inc_by(numbers.len() as u64);
        Ok(())
    }

    /// People were told of these.
    pub async fn told(&self, numbers: &[i64]) -> Result<(), CatalogError> {
        self.outbox.told(numbers, jiff::Timestamp::now().as_millisecond()).await?;
        self.metrics.forwarded.get_or_create(&self.label()).inc_by(numbers.len() as u64);
        Ok(())
    }

    /// Gives a row up. Those behind it go on.
    pub async fn set_aside(&self, row: &OutboxRow, reason: &str) -> Result<(), CatalogError> {
        self.outbox.set_aside(row.number, reason, jiff::Timestamp::now().as_millisecond()).await?;
        tracing::error!(
            number = row.number,
            device = row.device,
            record = row.record,
            reason,
            "an alert is set aside and not tried again; those behind it go on"
        );
        Ok(())
    }

    /// Notes a refusal. Whether it was refused so often that another one may be tried in its place.
    pub async fn refused(&self, row: &OutboxRow, reason: &str, blame: Blame) -> bool {
        self.note(row.number, reason, blame).await;
        let refusals = row.refusals + i64::from(blame == Blame::Row);
        tracing::error!(
            number = row.number,
            device = row.device,
            refusals,
            reason,
            "an alert was refused; it stays in the outbox and is tried again later"
        );
        blame == Blame::Row && refusals >= REFUSALS
    }

    /// Keeps the reason with the row.
    pub async fn note(&self, number: i64, reason: &str, blame: Blame) {
        if let Err(error) = self.outbox.failed(number, reason, blame).await {
            tracing::warn!(%error, "cannot note why an alert was not forwarded");
        }
    }

    /// How many wait, for the metrics.
    pub async fn measure(&self) {
        if let Ok((open, failed)) = self.outbox.depth().await {
            self.metrics.outbox_depth.get_or_create(&self.label()).set(open);
            self.metrics.outbox_failed.get_or_create(&self.label()).set(failed);
        }
    }
}
