//! The same data for programs: all of it is described, and lists go on to their end.

use crate::{
    described::{Described, ask},
    harness::{Bench, alert, boot, jpeg, reading, until},
};
use serde_json::Value;
use std::{collections::BTreeSet, fs};

const TOKEN: &str = "0123456789abcdef0123";

/// A bridge that asks who somebody is, with rows of everything of two devices.
async fn filled() -> (Bench, tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, format!("{TOKEN}\n")).unwrap();
    let bench = Bench::start_with(&format!("[access]\ntokens = {tokens:?}\n")).await;
    let mut id = String::new();
    for name in ["pi", "pi-2"] {
        let mut device = bench.device(name).await;
        device.listen().await;
        let status = format!(
            r#"{{"schema":"edgeveil.status/1","state":"online","version":"1","boot":"{}","clock":"synced","problems":["lens"]}}"#,
            boot(1)
        );
        device.say("status", status).await;
        device.say("health", health()).await;
        for seq in 0..3 {
            let (meta, picture) = jpeg(name, "desk", boot(1), seq);
            id = meta.stamp.id.to_string();
            device.say("image/desk", picture).await;
            device.say("alert/env", alert(boot(1), seq).to_json()).await;
            device.say("reading/env", reading(boot(1), seq).to_json()).await;
            let ids = [meta.stamp.id, alert(boot(1), seq).stamp.id, reading(boot(1), seq).stamp.id];
            device.acks(ids.to_vec()).await;
        }
        let row = async || bench.bridge.catalog.device(&name.parse().unwrap()).await.unwrap().unwrap();
        until("its health", async || row().await.health.is_some()).await;
    }
    (bench, dir, id)
}

pub fn health() -> String {
    format!(
        r#"{{"schema":"edgeveil.health/1","boot":"{}","timestamp":"2026-11-26T10:00:00Z","clock":"synced","uptime_ms":60000,"version":"1","spool":{{"reading":{{"records":3,"bytes":300,"accepted":9,"delivered":6}}}},"link":{{"connections":1,"published":9,"repeated":0,"refused":0}},"board":{{"temperature_c":51.0,"disk_free_bytes":1073741824}}}}"#,
        boot(1)
    )
}

#[tokio::test]
async fn every_answer_is_described_and_everything_described_is_answered() {
    let (bench, _dir, id) = filled().await;
    let described = Described::of(bench.bridge.http, Some(TOKEN)).await;
    let get = async |path: &str| described.get(path).await;
    let (now, hour) = (jiff::Timestamp::now(), jiff::SignedDuration::from_hours(1));
    let image = format!("/v1/devices/pi-2/images/{id}");
    let paths = [
        "/v1/devices".to_owned(),
        "/v1/devices/pi".to_owned(),
        "/v1/devices/pi/images".to_owned(),
        image.clone(),
        format!("{image}/thumbnail"),
        format!("/v1/devices/pi/readings/env?from={}&to={}&parts=2000", now - hour, now + hour),
        "/v1/alerts".to_owned(),
    ];
    for path in &paths {
        let answer = get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        if answer.header("content-type") == Some("application/json") && path != "/v1/devices/pi" {
            assert!(!answer.json()["items"].as_array().unwrap().is_empty(), "{path}");
        }
        // Nobody sees anything without a token, and what does nothing there is refused by its name.
        for nobody in ["Bearer wrong", ""] {
            assert_eq!(described.ask("GET", path, &[("authorization", nobody)], b"").await.status, 401);
        }
        let answer = get(&format!("{path}{}colour=red", if path.contains('?') { '&' } else { '?' })).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.json()["error"].as_str().unwrap().contains("colour"), "{}", answer.json());
    }
    // The addresses in an answer are of the API too.
    let listed = get("/v1/devices/pi-2/images").await.json();
    for address in ["image", "thumbnail"] {
        let answer = get(listed["items"][0][address].as_str().unwrap()).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/jpeg")));
    }
    for (path, name) in [
        ("/v1/devices?limit=0", "limit"),
        ("/v1/devices?limit=501", "limit"),
        ("/v1/devices?limit=1&limit=2", "limit"),
        ("/v1/devices?skip=1", "skip"),
        ("/v1/devices?after=a%2Fb", "after"),
        ("/v1/devices/%ff", ""),
        ("/v1/devices/pi/images?camera=a%2Fb", "camera"),
        ("/v1/devices/pi/images?from=yesterday", "from"),
        ("/v1/devices/pi/images?after=1.2.3", "after"),
        ("/v1/devices/pi/images?device=pi", "device"),
        ("/v1/devices/pi/readings/env?parts=2001", "parts"),
        ("/v1/devices/pi/readings/env?limit=1", "limit"),
        ("/v1/devices/pi/readings/env?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("/v1/alerts?severity=bad", "severity"),
        ("/v1/alerts?open=1", "open"),
        ("/v1/alerts?limit=x", "limit"),
    ] {
        let answer = get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        let why = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(why.contains(name) && !why.contains('{'), "{path}: {why}");
    }
    for path in [
        "/v1/devices/nobody",
        "/v1/devices/a%2Fb",
        "/v1/devices/nobody/images",
        "/v1/devices/nobody/readings/env",
        "/v1/devices/pi/readings/a%2Fb",
        "/v1/devices/pi/images/x",
        "/v1/devices/pi/images/00000000000000000000000000000000/thumbnail",
    ] {
        assert_eq!(get(path).await.status, 404, "{path}");
    }
    assert_eq!(get("/v1/devices/pi/readings/none").await.json()["items"], Value::Array(Vec::new()));
    // What is not there at all is told in the same form.
    for (method, path, status) in
        [("GET", "/v1/images/x", 404), ("POST", "/v1/devices", 405), ("PUT", "/v1/openapi.json", 405)]
    {
        let bearer = format!("Bearer {TOKEN}");
        let answer = ask(bench.bridge.http, method, path, &[("authorization", &bearer)], b"").await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, Some("application/json")),
            "{path}"
        );
        let why = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(why.contains("address") && !why.contains('{'), "{path}: {why}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{path}");
    }

    let objects = bench.path().join("objects");
    for object in bench.bridge.catalog.image_objects().await.unwrap().keys() {
        fs::remove_file(objects.join(object)).unwrap();
        let _ = fs::remove_file(objects.join(format!("{object}.thumb.jpg")));
    }
    for path in [image.clone(), format!("{image}/thumbnail")] {
        assert_eq!(get(&path).await.status, 410, "{path}");
    }
    bench.bridge.catalog.close().await;
    for path in &paths {
        assert_eq!(get(path).await.status, 503, "{path}");
    }
    // No bucket here to be sent to.
    let unseen = described.unseen("/v1/", &[307]);
    assert!(unseen.is_empty(), "described and never answered: {unseen:?}");
}

#[tokio::test]
async fn a_list_goes_on_to_its_end_and_has_everything_once() {
    let (bench, _dir, _) = filled().await;
    let described = Described::of(bench.bridge.http, Some(TOKEN)).await;
    for (path, key, count) in [
        ("/v1/devices", "name", 2),
        ("/v1/devices/pi/images", "id", 3),
        ("/v1/alerts", "timestamp", 6),
        ("/v1/alerts?device=pi", "id", 3),
    ] {
        let start = format!("{path}{}limit=1", if path.contains('?') { '&' } else { '?' });
        let (mut seen, mut next) = (BTreeSet::new(), start.clone());
        for n in 1..=count {
            let answer = described.get(&next).await.json();
            let items = answer["items"].as_array().unwrap();
            assert_eq!(items.len(), 1, "{next}");
            assert!(seen.insert(items[0][key].to_string()), "{next}: twice");
            assert_eq!(answer["next"].is_null(), n == count, "{next}: {answer}");
            next = format!("{start}&after={}", answer["next"].as_str().unwrap_or_default());
        }
    }
    let named = described.get("/v1/devices?name=-2").await.json();
    assert_eq!(named["items"].as_array().unwrap().len(), 1, "{named}");
    let open = described.get("/v1/alerts?open=true&severity=critical&limit=500").await.json();
    assert_eq!((open["items"].as_array().unwrap().len(), &open["next"]), (6, &Value::Null));
}

#[tokio::test]
async fn a_short_time_has_no_more_parts_than_were_asked_for() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let from = jiff::Timestamp::now();
    let mut ids = Vec::new();
    for n in 0..20 {
        let mut record = reading(boot(1), n);
        record.stamp.timestamp = from + jiff::SignedDuration::from_millis(n.cast_signed());
        ids.push(record.stamp.id);
        pi.say("reading/env", record.to_json()).await;
    }
    pi.acks(ids).await;
    let described = Described::of(bench.bridge.http, None).await;
    let to = from + jiff::SignedDuration::from_millis(19);
    for (parts, items) in [(2000, 19), (10, 10), (1, 1)] {
        let path = format!("/v1/devices/pi/readings/env?from={from:.3}&to={to:.3}&parts={parts}");
        let answer = described.get(&path).await.json();
        assert_eq!(answer["items"].as_array().unwrap().len(), items, "{path}: {answer}");
    }
}
