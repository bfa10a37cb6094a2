//! Alerts that go on to somebody else. Each forwarder drains its part of the outbox: at least once, in order.

mod aws;
mod http;
mod in_turn;
mod kafka;
mod notify;
mod rows;
mod webhook;

pub use aws::TopicTemplate;
pub use kafka::{KafkaError, config as kafka_config};
pub use notify::{NotifyError, QuietHours, Service as NotifyService};
pub use webhook::{WebhookError, open as open_webhook};

use crate::{
    catalog::{Catalog, Outbox, OutboxRow},
    metrics::Metrics,
    settings::Settings,
};
use edgeveil_wire::{Alert, DeviceName, Name};
use in_turn::InTurn;
use rows::Rows;
use serde::Serialize;
use std::sync::Arc;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// The outbox's target for AWS IoT Core.
pub const AWS: &str = "aws";
/// The outbox's target for a URL of the operator's.
pub const WEBHOOK: &str = "webhook";

/// The outbox's target for Kafka.
pub const KAFKA: &str = "kafka";
/// The outbox's target for people.
pub const NOTIFY: &str = "notify";
/// All of them.
pub const TARGETS: [&str; 4] = [AWS, WEBHOOK, KAFKA, NOTIFY];

/// Starts a forwarder for each target that the settings name: the targets, and the tasks.
pub fn start(
    settings: &Settings,
    catalog: &Catalog,
    woken: &watch::Receiver<()>,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> anyhow::Result<(Vec<&'static str>, Vec<JoinHandle<()>>)> {
    let (mut targets, mut tasks) = (Vec::new(), Vec::new());
    let mut rows = |target| {
        targets.push(target);
        metrics.add_target(target);
        Rows::new(Outbox::new(catalog.clone(), target, woken.clone()), metrics.clone())
    };
    if let Some(aws) = &settings.forward.aws {
        let aws = aws::AwsForwarder::new(aws.clone(), rows(AWS))?;
        tasks.push(tokio::spawn(aws.run(stop.clone())));
    }
    if let Some(webhook) = &settings.forward.webhook {
        let webhook = webhook::Webhook::new(webhook.clone())?;
        tasks.push(tokio::spawn(InTurn::new(webhook, rows(WEBHOOK)).run(stop.clone())));
    }
    if let Some(kafka) = &settings.forward.kafka {
        let kafka = kafka::Kafka::new(kafka.clone())?;
        tasks.push(tokio::spawn(InTurn::new(kafka, rows(KAFKA)).run(stop.clone())));
    }
    if let Some(notify) = &settings.forward.notify {
        let service = NotifyService::open(notify)?;
        tasks.push(tokio::spawn(notify::Notifier::new(service, rows(NOTIFY)).run(stop.clone())));
    }
    Ok((targets, tasks))
}

/// Of an attempt to pass a row on.
fn span(target: &'static str, row: &OutboxRow) -> tracing::Span {
    tracing::info_span!("forward", target, device = row.device, record = row.record, attempts = row.attempts)
}

/// What is sent of an alert: the fields that consumers of the first publishers know (`timestamp`, the values by name,
/// `anomaly`) at the top level, and ours beside them. At most [`edgeveil_wire::MAX_VALUES`] values and shares make at
/// most some 12 KiB of it, far below the 128 KiB that AWS IoT Core takes.
pub fn payload(device: &DeviceName, source: &Name, alert: &Alert) -> String {
    #[derive(Serialize)]
    struct Forwarded<'a> {
        device: &'a DeviceName,
        source: &'a Name,
        #[serde(flatten)]
        alert: &'a Alert,
    }
    serde_json::to_string(&Forwarded { device, source, alert }).expect("an alert was JSON before")
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeveil_wire::{BootId, ClockState, Lane, RecordId, Severity, Stamp};

    #[test]
    fn the_seeds_fields_stand_at_the_top() {
        let boot = BootId::from_random([1; 10]);
        let time = "2026-11-21T10:00:00.250Z".parse().unwrap();
        let value = |name: &str, value| (name.parse().unwrap(), value);
        let alert = Alert {
            stamp: Stamp::new(boot, Lane::Alert, 4, time, ClockState::Synced, 1),
            reading: RecordId::new(boot, Lane::Reading, 40),
            anomaly: true,
            score: 0.9,
            threshold: 0.6,
            contributions: [value("sensor2", 1.0)].into(),
            severity: Severity::Critical,
            values: [value("sensor1", 20.1), value("sensor2", 2.5)].into(),
        };
        let json: serde_json::Value =
            serde_json::from_str(&payload(&"pi".parse().unwrap(), &"env".parse().unwrap(), &alert)).unwrap();
        assert_eq!(json["timestamp"], "2026-11-21T10:00:00.25Z");
        assert_eq!((&json["sensor2"], &json["anomaly"]), (&2.5.into(), &true.into()));
        for key in
            ["id", "device", "source", "score", "threshold", "contributions", "severity", "boot", "seq"]
        {
            assert!(!json[key].is_null(), "{key}");
        }
    }
}
