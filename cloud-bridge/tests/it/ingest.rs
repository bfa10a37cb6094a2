//! What is acknowledged is durable, once, and whatever cannot be is refused without stopping the rest.

use crate::harness::{Bench, alert, boot, jpeg, reading, stamp, status, until};
use edgeveil_bridge::verify::{Finding, verify};
use edgeveil_wire::{Event, EventKind, Lane, RecordId};

#[tokio::test]
async fn an_acknowledged_record_is_in_the_catalog() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let event = Event {
        stamp: stamp(boot(1), Lane::Status, 0),
        event: EventKind::Started,
        subject: None,
        detail: "runs".to_owned(),
    };
    let (image, picture) = jpeg("pi", "desk", boot(1), 0);
    let messages = [
        ("event", event.to_json(), event.stamp.id, Lane::Status),
        (
            "reading/env",
            reading(boot(1), 0).to_json(),
            RecordId::new(boot(1), Lane::Reading, 0),
            Lane::Reading,
        ),
        ("alert/env", alert(boot(1), 0).to_json(), RecordId::new(boot(1), Lane::Alert, 0), Lane::Alert),
        ("image/desk", picture.clone(), image.stamp.id, Lane::Image),
    ];
    for (topic, payload, id, lane) in messages {
        pi.say(topic, payload).await;
        assert_eq!(pi.ack().await, [id]);
        assert_eq!(bench.count(lane).await, 1);
    }
    let key =
        bench.bridge.catalog.image_object(&"pi".parse().unwrap(), image.stamp.id).await.unwrap().unwrap();
    assert!(key.starts_with("pi/desk/20") && key.ends_with(&format!("Z-{}.jpg", image.stamp.id)), "{key}");
    assert_eq!(std::fs::read(bench.path().join("objects").join(key)).unwrap(), picture);
    assert_eq!(wrong(&bench).await, Vec::<String>::new());
}

async fn wrong(bench: &Bench) -> Vec<String> {
    let findings = verify(&bench.bridge.catalog, &bench.bridge.objects).await.unwrap();
    findings.iter().filter(|finding| finding.is_wrong()).map(|finding| format!("{finding:?}")).collect()
}

#[tokio::test]
async fn what_comes_twice_is_kept_once_and_acknowledged_twice() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let record = reading(boot(1), 0);
    for _ in 0..3 {
        pi.say("reading/env", record.to_json()).await;
        assert_eq!(pi.ack().await, [record.stamp.id]);
    }
    // All at once too, in one batch or in several.
    let ids: Vec<_> = (1..200).map(|seq| reading(boot(1), seq).stamp.id).collect();
    for seq in 1..200 {
        for _ in 0..2 {
            pi.say("reading/env", reading(boot(1), seq).to_json()).await;
        }
    }
    pi.acks(ids).await;
    let gaps = bench.bridge.catalog.gaps().await.unwrap();
    assert_eq!((gaps.len(), gaps[0].count, gaps[0].min_seq, gaps[0].max_seq), (1, 200, 0, 199));
    assert_eq!(gaps, bench.bridge.catalog.sequences().await.unwrap().counted);
}

#[tokio::test]
async fn poison_becomes_a_dead_letter_and_the_stream_goes_on() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let id = RecordId::new(boot(1), Lane::Reading, 7);
    pi.say("reading/env", "\u{0}\u{1} no JSON").await;
    pi.say("reading/env", format!(r#"{{"id":"{id}","schema":"edgeveil.reading/1"}}"#)).await;
    assert_eq!(pi.ack().await, [id], "the device would send it for ever");
    let (meta, refused) = jpeg("pi2", "desk", boot(1), 0);
    for _ in 0..2 {
        pi.say("image/desk", refused.clone()).await;
        assert_eq!(pi.ack().await, [meta.stamp.id]);
    }
    pi.say("nonsense/x", "1").await;
    pi.say("cmd/ping/result", "1").await;
    let record = reading(boot(1), 0);
    pi.say("reading/env", record.to_json()).await;
    assert_eq!(pi.ack().await, [record.stamp.id]);

    let letters = bench.bridge.catalog.dead_letters(10).await.unwrap();
    let topics: Vec<_> = letters.iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(
        topics,
        [
            "edgeveil/pi/nonsense/x",
            "edgeveil/pi/image/desk",
            "edgeveil/pi/reading/env",
            "edgeveil/pi/reading/env"
        ]
    );
    assert!(letters[1].1.contains("`pi2`"), "{letters:?}");
    let kept = bench.path().join(format!("objects/dead/pi/{}.jpg", meta.stamp.id));
    assert_eq!(std::fs::read(&kept).unwrap(), refused, "the device has forgotten it");
    assert_eq!(wrong(&bench).await, Vec::<String>::new());
    std::fs::remove_file(kept).unwrap();
    assert_eq!(wrong(&bench).await.len(), 1);
    assert_eq!((bench.count(Lane::Reading).await, bench.count(Lane::Image).await), (1, 0));
}

#[tokio::test]
async fn what_only_a_later_bridge_can_read_stays_with_its_device() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let later = |payload: Vec<u8>, kind: &str| {
        let (ours, theirs) = (format!("edgeveil.{kind}/1"), format!("edgeveil.{kind}/2"));
        let at = payload.windows(ours.len()).position(|bytes| bytes == ours.as_bytes()).unwrap();
        [&payload[..at], theirs.as_bytes(), &payload[at + ours.len()..]].concat()
    };
    for _ in 0..3 {
        pi.say("reading/env", later(reading(boot(1), 0).to_json(), "reading")).await;
        pi.say("image/desk", later(jpeg("pi", "desk", boot(1), 0).1, "image")).await;
    }
    let next = reading(boot(1), 1);
    pi.say("reading/env", next.to_json()).await;
    assert_eq!(pi.ack().await, [next.stamp.id], "nothing before it was acknowledged");
    assert!(pi.hears_nothing().await);
    assert_eq!(bench.bridge.catalog.dead_letters(10).await.unwrap(), []);
    assert_eq!((bench.count(Lane::Reading).await, bench.count(Lane::Image).await), (1, 0));

    let text = async |path: &str| String::from_utf8(bench.get(path).await.1).unwrap();
    let metrics = text("/metrics").await;
    assert!(metrics.contains("edgeveil_bridge_not_accepted_total{lane=\"reading\"} 3"), "{metrics}");
    assert!(metrics.contains("edgeveil_bridge_not_accepted_total{lane=\"image\"} 3"), "{metrics}");
    let ready = text("/readyz").await;
    assert!(ready.starts_with("ready\ndegraded: device pi: it sends edgeveil.image/2"), "{ready}");
    for page in [ready, text("/").await] {
        assert!(page.contains("upgrade the bridge"), "{page}");
    }
}

#[tokio::test]
async fn what_is_too_long_is_kept_whole_before_it_is_acknowledged() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let id = RecordId::new(boot(1), Lane::Reading, 7);
    let long = format!(r#"{{"schema":"edgeveil.reading/1","id":"{id}","x":"{}"}}"#, "x".repeat(70_000));
    pi.say("reading/env", long.clone()).await;
    assert_eq!(pi.ack().await, [id]);
    let kept = bench.path().join(format!("objects/dead/pi/{id}.json"));
    assert_eq!(std::fs::read(kept).unwrap(), long.as_bytes());
}

#[tokio::test]
async fn old_letters_go_with_their_objects() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    for seq in 0..4 {
        let (meta, picture) = jpeg("pi2", "desk", boot(1), seq);
        pi.say("image/desk", picture).await;
        assert_eq!(pi.ack().await, [meta.stamp.id]);
    }
    let catalog = &bench.bridge.catalog;
    assert_eq!(catalog.too_many_letters(4).await.unwrap(), None);
    let (last, objects) = catalog.too_many_letters(3).await.unwrap().unwrap();
    assert_eq!(objects, [format!("dead/pi/{}.jpg", RecordId::new(boot(1), Lane::Image, 0))]);
    bench.bridge.objects.delete(&objects[0]).await.unwrap();
    bench.bridge.objects.delete(&objects[0]).await.unwrap();
    catalog.forget_letters(last).await.unwrap();
    assert_eq!((catalog.dead_letters(10).await.unwrap().len(), wrong(&bench).await.len()), (3, 0));
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    pi.say("status", status("online")).await;
    let ids: Vec<_> = (0..50).map(|seq| reading(boot(1), seq).stamp.id).collect();
    for seq in 0..50 {
        pi.say("reading/env", reading(boot(1), seq).to_json()).await;
    }
    pi.acks(ids).await;
    let before = bench.bridge.catalog.gaps().await.unwrap();
    drop(pi);
    let bench = bench.restart().await;
    assert_eq!(bench.bridge.catalog.gaps().await.unwrap(), before);
    // Whoever was connected to the old broker is not connected to the new one.
    assert_eq!(bench.bridge.catalog.devices().await.unwrap()[0].state.as_deref(), Some("offline"));

    let mut pi = bench.device("pi").await;
    pi.listen().await;
    for seq in [49, 50] {
        pi.say("reading/env", reading(boot(1), seq).to_json()).await;
    }
    pi.acks(vec![reading(boot(1), 50).stamp.id]).await;
    let after = bench.bridge.catalog.gaps().await.unwrap();
    assert_eq!((after[0].count, after[0].missing()), (51, 0));
}

#[tokio::test]
async fn while_objects_cannot_be_written_nothing_is_acknowledged_and_nothing_is_lost() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let (objects, aside) = (bench.path().join("objects"), bench.path().join("aside"));
    std::fs::rename(&objects, &aside).unwrap();
    std::fs::write(&objects, "in the way").unwrap();
    let (meta, picture) = jpeg("pi", "desk", boot(1), 0);
    pi.say("image/desk", picture).await;
    until("not ready", async || {
        let (head, body) = bench.get("/readyz").await;
        head.starts_with("HTTP/1.1 503") && String::from_utf8_lossy(&body).contains("objects: object folder")
    })
    .await;
    assert_eq!(bench.count(Lane::Image).await, 0);
    std::fs::remove_file(&objects).unwrap();
    std::fs::rename(&aside, &objects).unwrap();
    assert_eq!(pi.ack().await, [meta.stamp.id]);
    assert!(bench.get("/readyz").await.0.starts_with("HTTP/1.1 200"));
    assert_eq!(wrong(&bench).await, Vec::<String>::new());
}

#[tokio::test]
async fn verification_finds_what_is_missing() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    for seq in [0, 2] {
        let (meta, picture) = jpeg("pi", "desk", boot(1), seq);
        pi.say("image/desk", picture).await;
        assert_eq!(pi.ack().await, [meta.stamp.id]);
    }
    let rows = bench.bridge.catalog.image_objects().await.unwrap();
    let first = rows.keys().next().unwrap();
    let objects = bench.path().join("objects");
    std::fs::rename(objects.join(first), objects.join("stray.jpg")).unwrap();
    let findings = verify(&bench.bridge.catalog, &bench.bridge.objects).await.unwrap();
    assert!(findings.iter().any(|f| matches!(f, Finding::Sequence { missing: 1, .. }) && f.is_gap()));
    assert!(findings.iter().any(|f| matches!(f, Finding::NoObject { object } if object == first)));
    assert!(findings.iter().any(|f| matches!(f, Finding::NoRow { object } if object == "stray.jpg")));
}

/// A broker repeats what it retains with each subscription.
#[tokio::test]
async fn settings_that_are_told_again_are_no_news() {
    let bench = Bench::start().await;
    let catalog = &bench.bridge.catalog;
    let device: edgeveil_wire::DeviceName = "pi".parse().unwrap();
    let told = || edgeveil_bridge::catalog::Told {
        device: "pi".parse().unwrap(),
        json: "{}".to_owned(),
        answered: None,
    };
    let batch = |received, told| edgeveil_bridge::catalog::Batch { received, told, ..Default::default() };
    catalog.commit(&batch(1000, vec![told()])).await.unwrap();
    catalog.commit(&batch(2000, vec![told()])).await.unwrap();
    assert_eq!(catalog.settings_of(&device).await.unwrap().reported_at, Some(1000));
    assert_eq!(catalog.device(&device).await.unwrap().unwrap().last_seen, 1000);
    let other = edgeveil_bridge::catalog::Told { json: "{\"a\":1}".to_owned(), ..told() };
    catalog.commit(&batch(3000, vec![other])).await.unwrap();
    assert_eq!(catalog.settings_of(&device).await.unwrap().reported_at, Some(3000));
}
