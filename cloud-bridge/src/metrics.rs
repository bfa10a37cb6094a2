//! What `/metrics` shows, in Prometheus' text form.

use edgeveil_wire::Lane;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// A lane as a label. `other` stands for what is no record.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LaneLabel {
    lane: &'static str,
}

impl From<Option<Lane>> for LaneLabel {
    fn from(lane: Option<Lane>) -> Self {
        Self { lane: lane.map_or("other", Lane::as_str) }
    }
}

/// Whom something is forwarded to, as a label.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TargetLabel {
    /// `aws`, `webhook`, `kafka`
    pub target: &'static str,
}

type ByLane = Family<LaneLabel, Counter>;
type ByTarget = Family<TargetLabel, Counter>;

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Messages taken in.
    pub received: ByLane,
    /// Records that are new and durable.
    pub committed: ByLane,
    /// Records that were there already.
    pub duplicates: ByLane,
    /// Messages refused.
    pub dead_letters: ByLane,
    /// Messages in a version that this bridge does not know; their devices keep them.
    pub not_accepted: ByLane,
    /// Records that retention has removed.
    pub expired: ByLane,
    /// Messages that a broker elsewhere has sent before.
    pub redelivered: Counter,
    /// Ids acknowledged to devices.
    pub acknowledged: Counter,
    /// Times a batch had to be tried again.
    pub retries: Counter,
    /// From the first message of a batch being at hand to its commit.
    pub batch_seconds: Histogram,
    /// Records in a batch.
    pub batch_records: Histogram,
    /// Connections to the embedded broker.
    pub connected: Gauge,
    /// Connections that it refused.
    pub refused_connections: Counter,
    /// Connections to it that another one of the same name has ended.
    pub taken_over: Counter,
    /// Certificates signed for devices.
    pub enrolled: Counter,
    /// Devices that were refused one.
    pub enroll_refused: Counter,
    /// Records that wait for a target.
    pub outbox_depth: Family<TargetLabel, Gauge>,
    /// Records that a target refuses for ever, set aside.
    pub outbox_failed: Family<TargetLabel, Gauge>,
    /// Records that a target has confirmed.
    pub forwarded: ByTarget,
    /// Attempts that failed.
    pub forward_errors: ByTarget,
    /// Pictures taken in.
    pub anonymise_accepted: Counter,
    /// Requests with a picture that were refused.
    pub anonymise_refused: Counter,
    /// Pictures that wait for a worker.
    pub anonymise_queued: Gauge,
    /// Pictures that a worker has.
    pub anonymise_working: Gauge,
    /// Pictures that this process has veiled.
    pub anonymise_done: Counter,
    /// Pictures that this process has given up.
    pub anonymise_failed: Counter,
    /// Attempts of this process that failed and are made again.
    pub anonymise_retries: Counter,
    /// From a picture being taken in to its result.
    pub anonymise_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = exponential_buckets(0.001, 2.0, 14);
        let mut metrics = Self {
            registry: Registry::with_prefix("edgeveil_bridge"),
            received: ByLane::default(),
            committed: ByLane::default(),
            duplicates: ByLane::default(),
            dead_letters: ByLane::default(),
            not_accepted: ByLane::default(),
            expired: ByLane::default(),
            redelivered: Counter::default(),
            acknowledged: Counter::default(),
            retries: Counter::default(),
            batch_seconds: Histogram::new(seconds),
            batch_records: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            connected: Gauge::default(),
            refused_connections: Counter::default(),
            taken_over: Counter::default(),
            enrolled: Counter::default(),
            enroll_refused: Counter::default(),
            outbox_depth: Family::default(),
            outbox_failed: Family::default(),
            forwarded: ByTarget::default(),
            forward_errors: ByTarget::default(),
            anonymise_accepted: Counter::default(),
            anonymise_refused: Counter::default(),
            anonymise_queued: Gauge::default(),
            anonymise_working: Gauge::default(),
            anonymise_done: Counter::default(),
            anonymise_failed: Counter::default(),
            anonymise_retries: Counter::default(),
            anonymise_seconds: Histogram::new(exponential_buckets(0.05, 2.0, 14)),
        };
        metrics.register();
        // From the start at 0: what first appears as a 1 has not increased, for Prometheus.
        for lane in Lane::ALL.into_iter().map(Some).chain([None]) {
            for family in [
                &metrics.received,
                &metrics.committed,
                &metrics.duplicates,
                &metrics.dead_letters,
                &metrics.not_accepted,
                &metrics.expired,
            ] {
                drop(family.get_or_create(&lane.into()));
            }
        }
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("received", "Messages taken in", self.received.clone());
        r.register("committed", "Records that are new and durable", self.committed.clone());
        r.register("duplicates", "Records that were there already", self.duplicates.clone());
        r.register("dead_letters", "Messages refused and kept as dead letters", self.dead_letters.clone());
        r.register(
            "not_accepted",
            "Messages in a version that only a later bridge knows; devices keep them",
            self.not_accepted.clone(),
        );
        r.register("expired", "Records that retention has removed", self.expired.clone());
        r.register(
            "redelivered",
            "Messages that a broker elsewhere has sent before",
            self.redelivered.clone(),
        );
        r.register("acknowledged", "Record ids acknowledged to devices", self.acknowledged.clone());
        r.register("retries", "Batches tried again, since database or objects failed", self.retries.clone());
        r.register_with_unit("batch", "Time to commit a batch", Unit::Seconds, self.batch_seconds.clone());
        r.register("batch_records", "Records in a batch", self.batch_records.clone());
        r.register("connected_clients", "Connections to the embedded broker", self.connected.clone());
        r.register(
            "refused_connections",
            "Connections that the embedded broker refused",
            self.refused_connections.clone(),
        );
        r.register(
            "taken_over",
            "Connections that another one of the same name has ended",
            self.taken_over.clone(),
        );
        r.register("enrolled", "Certificates signed for devices", self.enrolled.clone());
        r.register(
            "enroll_refused",
            "Requests for a certificate that were refused",
            self.enroll_refused.clone(),
        );
        r.register(
            "outbox_failed",
            "Records that a target refuses for ever, set aside",
            self.outbox_failed.clone(),
        );
        r.register("outbox_depth", "Records that wait for a target", self.outbox_depth.clone());
        r.register("forwarded", "Records that a target has confirmed", self.forwarded.clone());
        r.register("forward_errors", "Attempts to forward that failed", self.forward_errors.clone());
        self.register_anonymise();
    }

    fn register_anonymise(&mut self) {
        let r = &mut self.registry;
        r.register("anonymise_accepted", "Pictures taken in", self.anonymise_accepted.clone());
        r.register("anonymise_refused", "Requests with a picture refused", self.anonymise_refused.clone());
        r.register("anonymise_queued", "Pictures that wait for a worker", self.anonymise_queued.clone());
        r.register("anonymise_working", "Pictures that a worker has", self.anonymise_working.clone());
        r.register("anonymise_done", "Pictures that this process has veiled", self.anonymise_done.clone());
        r.register(
            "anonymise_failed",
            "Pictures that this process has given up",
            self.anonymise_failed.clone(),
        );
        r.register("anonymise_retries", "Attempts that are made again", self.anonymise_retries.clone());
        r.register_with_unit(
            "anonymise",
            "From a picture being taken in to its result",
            Unit::Seconds,
            self.anonymise_seconds.clone(),
        );
    }

    /// A target that may be forwarded to: it is shown from the start.
    pub fn add_target(&self, target: &'static str) {
        let label = TargetLabel { target };
        drop(self.outbox_depth.get_or_create(&label));
        drop(self.outbox_failed.get_or_create(&label));
        drop(self.forwarded.get_or_create(&label));
        drop(self.forward_errors.get_or_create(&label));
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every name of ours in a text.
    fn named(text: &str) -> BTreeSet<&str> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("edgeveil_bridge_"))
            .collect()
    }

    #[test]
    fn documents_rules_and_dashboard_name_the_metrics_that_there_are() {
        let metrics = Metrics::default();
        metrics.add_target(crate::forward::AWS);
        let text = metrics.text();
        let series: BTreeSet<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split([' ', '{']).next())
            .collect();
        let is_part = |name: &&str| ["_bucket", "_sum", "_count"].iter().any(|part| name.ends_with(part));
        let mut documented: BTreeSet<_> = series.iter().copied().filter(|name| !is_part(name)).collect();
        documented.extend([
            "edgeveil_bridge_batch_seconds",
            "edgeveil_bridge_batch_records",
            "edgeveil_bridge_anonymise_seconds",
        ]);
        let (table, queries) =
            include_str!("../../docs/metrics.md").split_once("What a query may begin with").unwrap();
        assert_eq!(named(table), documented, "docs/metrics.md");
        for (file, text) in [
            ("k3s/dashboard.json", include_str!("../../k3s/dashboard.json")),
            ("alerts.yaml", include_str!("../../k3s/components/monitoring/alerts.yaml")),
            ("docs/metrics.md", queries),
        ] {
            let named = named(text);
            assert!(named.len() > 2, "{file} names {named:?}");
            let unknown: Vec<_> =
                named.difference(&series).filter(|name| !name.ends_with("_bridge_")).collect();
            assert!(unknown.is_empty(), "{file} names {unknown:?}, which there are not");
        }
    }
}
