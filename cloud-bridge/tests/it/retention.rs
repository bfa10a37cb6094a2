//! What expires goes, with its object, and the account still sees every gap. Alerts that went can go once more.

use crate::harness::{Bench, alert, boot, jpeg, reading};
use edgeveil_bridge::{
    catalog::{Batch, Content, Outbox, OutboxState, Record},
    forward,
    retention::Retention,
    settings::RetentionSettings,
    verify::{self, Finding},
};
use edgeveil_wire::{Event, EventKind, Lane};
use std::time::Duration;
use tokio::sync::watch;

const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MS: i64 = 3_600_000;

fn event(seq: u64) -> Event {
    Event {
        stamp: crate::harness::stamp(boot(1), Lane::Status, seq),
        event: EventKind::Started,
        subject: None,
        detail: "up".to_owned(),
    }
}

/// One of each lane, received then. Seq 2 is never there.
async fn commit(bench: &Bench, seq: u64, received: i64) {
    let (meta, file) = jpeg("pi", "door", boot(1), seq);
    let object = format!("pi/door/{seq}.jpg");
    bench.bridge.objects.put(&object, file.clone().into()).await.unwrap();
    let contents = [
        Content::Reading("env".parse().unwrap(), reading(boot(1), seq)),
        Content::Alert("env".parse().unwrap(), alert(boot(1), seq)),
        Content::Event(event(seq)),
        Content::Image { meta, object, bytes: file.len() },
    ];
    let records = contents.map(|content| Record { device: "pi".parse().unwrap(), content }).to_vec();
    let batch = Batch { received, records, targets: vec![forward::AWS], ..Batch::default() };
    assert!(bench.bridge.catalog.commit(&batch).await.unwrap().iter().all(|fresh| *fresh));
}

async fn missing(bench: &Bench) -> Vec<(String, i64)> {
    let found = verify::verify(&bench.bridge.catalog, &bench.bridge.objects).await.unwrap();
    assert!(found.iter().all(|finding| !finding.is_wrong()), "{found:?}");
    found
        .into_iter()
        .filter_map(|finding| match finding {
            Finding::Sequence { gap, missing } => Some((gap.lane, missing)),
            _ => None,
        })
        .collect()
}

fn retention(bench: &Bench, settings: RetentionSettings) -> Retention {
    Retention {
        settings,
        catalog: bench.bridge.catalog.clone(),
        objects: bench.bridge.objects.clone(),
        metrics: bench.bridge.metrics.clone(),
    }
}

/// In whichever catalog the bench has.
pub async fn expires_with_its_objects_and_stays_accounted_for(bench: &Bench) {
    for seq in [0, 1, 3, 4] {
        commit(bench, seq, i64::try_from(seq).unwrap() * HOUR_MS).await;
    }
    let each = |count| ["alert", "image", "reading", "status"].map(|lane| (lane.to_owned(), count)).to_vec();
    let sorted = |mut found: Vec<(String, i64)>| {
        found.sort();
        found
    };
    assert_eq!(sorted(missing(bench).await), each(1));
    let kept = |kept| Some(HOUR * kept);
    let all = RetentionSettings {
        readings: kept(2),
        alerts: kept(2),
        events: kept(2),
        images: kept(2),
        forwarded: kept(2),
    };
    // Images only: the others are for ever.
    let images = RetentionSettings { images: kept(2), ..RetentionSettings::default() };
    retention(bench, images).round(4 * HOUR_MS).await.unwrap();
    assert_eq!(bench.bridge.objects.list().await.unwrap().len(), 2, "3 and 4");
    assert_eq!(bench.bridge.catalog.image_objects().await.unwrap().len(), 2);
    assert_eq!(bench.bridge.catalog.latest_alerts(9).await.unwrap().len(), 4);
    assert_eq!(sorted(missing(bench).await), each(1));
    retention(bench, all.clone()).round(4 * HOUR_MS).await.unwrap();
    assert_eq!(bench.bridge.catalog.latest_alerts(9).await.unwrap().len(), 2);
    assert_eq!(sorted(missing(bench).await), each(1), "2 is still known to be missing");
    // Those that have not gone yet stay in the outbox, however old.
    let outbox = Outbox::new(bench.bridge.catalog.clone(), forward::AWS, watch::channel(()).1);
    let rows = outbox.take(9).await.unwrap();
    assert_eq!(rows.len(), 4);
    outbox.done(&[rows[0].number, rows[1].number], HOUR_MS).await.unwrap();
    outbox.done(&[rows[2].number], 3 * HOUR_MS).await.unwrap();
    retention(bench, all.clone()).round(4 * HOUR_MS).await.unwrap();
    let count = outbox.count().await.unwrap();
    assert_eq!((count.open, count.done), (1, 1));
    // Until nothing is left but the account.
    retention(bench, all.clone()).round(99 * HOUR_MS).await.unwrap();
    assert!(bench.bridge.objects.list().await.unwrap().is_empty());
    assert_eq!(sorted(missing(bench).await), each(1));
    let shown = bench.bridge.metrics.text();
    assert!(shown.contains("edgeveil_bridge_expired_total{lane=\"image\"} 4"), "{shown}");
    // What comes afterwards goes on where it was.
    commit(bench, 5, 99 * HOUR_MS).await;
    assert_eq!(sorted(missing(bench).await), each(1));
    // Half-way: the object is gone, its row is not. The next round finishes it.
    let (object, _) = bench.bridge.objects.list().await.unwrap().remove(0);
    bench.bridge.objects.delete(&object).await.unwrap();
    retention(bench, all).round(199 * HOUR_MS).await.unwrap();
    assert_eq!(sorted(missing(bench).await), each(1));
}

#[tokio::test]
async fn what_expires_goes_with_its_object_and_stays_accounted_for() {
    let bench = Bench::start().await;
    expires_with_its_objects_and_stays_accounted_for(&bench).await;
}

#[tokio::test]
async fn more_than_one_transaction_holds_expires_in_one_round() {
    let bench = Bench::start().await;
    let record = |seq| Record {
        device: "pi".parse().unwrap(),
        content: Content::Reading("env".parse().unwrap(), reading(boot(1), seq)),
    };
    let batch = Batch { received: 5, records: (0..1_700).map(record).collect(), ..Batch::default() };
    bench.bridge.catalog.commit(&batch).await.unwrap();
    let settings = RetentionSettings { readings: Some(HOUR), ..RetentionSettings::default() };
    retention(&bench, settings.clone()).round(HOUR_MS + 5).await.unwrap();
    assert_eq!(bench.bridge.catalog.latencies(Lane::Reading).await.unwrap().len(), 1_700, "not yet");
    retention(&bench, settings).round(HOUR_MS + 6).await.unwrap();
    assert_eq!(bench.bridge.catalog.latencies(Lane::Reading).await.unwrap().len(), 0);
    assert_eq!(missing(&bench).await, [("reading".to_owned(), 0)]);
}

/// In whichever catalog the bench has.
pub async fn alerts_go_again(bench: &Bench) {
    let catalog = &bench.bridge.catalog;
    for seq in 0..4 {
        commit(bench, seq, 1_000 * i64::try_from(seq).unwrap()).await;
    }
    // One that was received before anybody was to be told.
    let record = Record {
        device: "pi".parse().unwrap(),
        content: Content::Alert("env".parse().unwrap(), alert(boot(1), 4)),
    };
    let batch = Batch { received: 4_000, records: vec![record], ..Batch::default() };
    catalog.commit(&batch).await.unwrap();
    let outbox = Outbox::new(catalog.clone(), forward::AWS, watch::channel(()).1);
    let first = outbox.take(9).await.unwrap();
    let numbers: Vec<_> = first.iter().map(|row| row.number).collect();
    outbox.done(&numbers[..3], 9_000).await.unwrap();
    outbox.set_aside(numbers[3], "too long", 9_000).await.unwrap();
    let failed = catalog.outbox_entries(OutboxState::Failed, 9).await.unwrap();
    assert_eq!(
        failed.iter().map(|row| (row.number, row.last_error.as_deref())).collect::<Vec<_>>(),
        [(numbers[3], Some("too long"))]
    );
    assert_eq!(catalog.outbox_retry(Some(&numbers[..1])).await.unwrap(), 0, "it is no failed one");
    assert_eq!(catalog.outbox_retry(Some(&numbers[3..])).await.unwrap(), 1);
    assert_eq!(catalog.outbox_retry(None).await.unwrap(), 0, "none is left");
    assert_eq!(
        outbox.take(9).await.unwrap(),
        [first[3].clone()].map(|row| edgeveil_bridge::catalog::OutboxRow {
            last_error: Some("too long".to_owned()),
            ..row
        })
    );
    outbox.done(&numbers[3..], 9_000).await.unwrap();

    assert_eq!(catalog.outbox_replay(forward::AWS, 2_000, 4_001).await.unwrap(), 3);
    let again = outbox.take(9).await.unwrap();
    assert_eq!(again.iter().take(2).map(|row| row.number).collect::<Vec<_>>(), numbers[2..]);
    let json = |row: &edgeveil_bridge::catalog::OutboxRow| {
        serde_json::from_str::<serde_json::Value>(&row.payload).unwrap()
    };
    let (old, new) = (json(&first[3]), json(&again[2]));
    assert_eq!(new["seq"], 4);
    // Made of the catalog's columns, with all that the others have.
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&old), keys(&new));
    for key in [
        "device",
        "source",
        "boot",
        "sensor1",
        "sensor2",
        "contributions",
        "score",
        "threshold",
        "severity",
        "anomaly",
        "clock",
    ] {
        assert_eq!(old[key], new[key], "{key}");
    }
}

#[tokio::test]
async fn what_was_set_aside_or_sent_goes_again_when_somebody_says_so() {
    alerts_go_again(&Bench::start().await).await;
}
