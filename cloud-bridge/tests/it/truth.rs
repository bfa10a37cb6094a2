//! What pages say while the broker is down, the database locked, or a device away for a day: what is so, and since when.

use crate::{
    api,
    harness::{Bench, Device, alert, boot, device_files, reading, status, until},
    mosquitto,
    postgres::Server,
};
use edgeveil_bridge::{
    catalog::{Batch, Content, Health, Presence, Record},
    certs::{self, Replace},
};
use edgeveil_wire::{DeviceName, Lane, Status};
use jiff::{SignedDuration, Timestamp};
use sqlx::{Connection, SqliteConnection};
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Mutex,
};

async fn text(bench: &Bench, path: &str) -> String {
    String::from_utf8(bench.get(path).await.1).unwrap()
}

/// The moment behind these words on a page.
fn moment(page: &str, words: &str) -> Timestamp {
    let (_, rest) = page.split_once(words).unwrap_or_else(|| panic!("no `{words}` in {page}"));
    let (_, rest) = rest.split_once("datetime=\"").expect("a moment");
    rest.split('"').next().unwrap().parse().unwrap()
}

/// Pages have whole seconds in some places.
fn second(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap()
}

#[tokio::test]
async fn a_broker_that_is_away_is_told_by_its_name_and_since_when_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    certs::init(dir.path(), Replace::Refuse).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(broker) = mosquitto::start(dir.path(), port) else { return };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let there = async || TcpStream::connect(address).is_ok();
    until("mosquitto", there).await;
    let bench = Bench::start_with(&external(dir.path(), port)).await;
    until("subscribed", async || bench.get("/readyz").await.0.starts_with("HTTP/1.1 200")).await;
    let files = device_files(dir.path(), "pi");
    let mut pi = Device::connect(address, &files, "pi").await.unwrap();
    pi.listen().await;
    pi.retain("edgeveil/pi/status", status("online")).await;
    pi.say("reading/env", reading(boot(1), 0).to_json()).await;
    assert_eq!(pi.ack().await, [reading(boot(1), 0).stamp.id]);
    assert!(!text(&bench, "/").await.contains("<strong>source"));

    let before = Timestamp::now();
    drop(broker);
    let words = format!("<strong>source</strong>: broker localhost:{port}: ");
    until("a problem", async || text(&bench, "/").await.contains(&words)).await;
    let page = text(&bench, "/").await;
    let since = moment(&page, &words);
    assert!((before..=Timestamp::now()).contains(&since), "{before} {since}");
    assert!(page.contains("as they were last heard of"), "{page}");
    until("another try", async || text(&bench, "/").await.contains("refused")).await;
    let page = text(&bench, "/devices/pi").await;
    assert_eq!(moment(&page, &words), since, "it is away since then, whatever the reason is by now");
    let ready = text(&bench, "/readyz").await;
    assert!(
        ready.contains(&format!("source: broker localhost:{port}: ")) && ready.contains(" (since 20"),
        "{ready}"
    );

    let Some(_broker) = mosquitto::start(dir.path(), port) else { return };
    until("mosquitto", there).await;
    until("no problem", async || !text(&bench, "/").await.contains("<strong>source")).await;
    assert!(bench.get("/readyz").await.0.starts_with("HTTP/1.1 200"));
    let mut pi = Device::connect(address, &files, "pi").await.unwrap();
    pi.listen().await;
    pi.say("reading/env", reading(boot(1), 1).to_json()).await;
    assert_eq!(pi.ack().await, [reading(boot(1), 1).stamp.id]);
}

fn external(dir: &Path, port: u16) -> String {
    let bridge = device_files(dir, "bridge");
    format!(
        "[mqtt]\nhost = \"localhost\"\nport = {port}\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
        bridge.ca, bridge.cert, bridge.key
    )
}

/// Acknowledges an alert as a page's form does.
async fn acknowledge(bench: &Bench, path: &str) -> (String, String) {
    let (head, page) = bench.get(path).await;
    let cookie =
        head.split("set-cookie: ").nth(1).and_then(|rest| rest.split(';').next()).unwrap().to_owned();
    let page = String::from_utf8(page).unwrap();
    let token = page.split("name=\"token\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let form = format!("token={token}&note=seen");
    let (head, page) = bench.ask("POST", &format!("{path}/acknowledge"), &[("cookie", &cookie)], &form).await;
    (head, String::from_utf8(page).unwrap())
}

#[tokio::test]
async fn while_sqlite_is_locked_pages_read_on_and_say_that_nothing_is_written_since_when() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let sent = alert(boot(1), 0);
    pi.say("alert/env", sent.to_json()).await;
    assert_eq!(pi.ack().await, [sent.stamp.id]);
    let path = format!("/alerts/pi/{}", sent.stamp.id);

    let file = format!("sqlite://{}", bench.path().join("catalog.sqlite").display());
    let mut other = SqliteConnection::connect(&file).await.unwrap();
    let before = Timestamp::now();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let first = reading(boot(1), 0);
    pi.say("reading/env", first.to_json()).await;
    let words = "<strong>database</strong>: ";
    until("a problem", async || text(&bench, "/").await.contains(words)).await;
    let page = text(&bench, "/").await;
    assert!(page.contains("another process holds it; stop that one"), "{page}");
    assert!(page.contains("devices keep what they have to tell"), "{page}");
    let since = moment(&page, words);
    assert!((before..=Timestamp::now()).contains(&since), "{before} {since}");
    assert_eq!(moment(&text(&bench, "/devices/pi").await, words), since);
    assert!(text(&bench, "/readyz").await.contains("database: "));
    // Readers do not wait for whoever writes.
    for path in ["/", "/devices/pi", "/alerts", &path, "/gallery", "/v1/devices/pi", "/v1/alerts"] {
        assert!(bench.get(path).await.0.starts_with("HTTP/1.1 200"), "{path}");
    }
    let (head, page) = acknowledge(&bench, &path).await;
    assert!(
        head.starts_with("HTTP/1.1 503") && head.contains("text/html") && head.contains("retry-after: "),
        "{head}"
    );
    assert!(page.contains("<h1>The database does not answer</h1>"), "{page}");
    assert!(moment(&page, ", since ") >= second(before), "{page}");
    assert_eq!(bench.count(Lane::Reading).await, 0, "nothing is written");

    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(pi.ack().await, [first.stamp.id], "it was not lost");
    assert!(!text(&bench, "/").await.contains(words));
    assert!(bench.get("/readyz").await.0.starts_with("HTTP/1.1 200"));
    assert!(acknowledge(&bench, &path).await.0.starts_with("HTTP/1.1 303"));
    assert_eq!(bench.bridge.catalog.gaps().await.unwrap().iter().map(|gap| gap.missing()).sum::<i64>(), 0);
}

#[tokio::test]
async fn a_page_that_the_database_does_not_answer_says_so_and_since_when_and_the_log_does_once() {
    let Some(server) = Server::start().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let written = Mutex::new(fs::File::create(&log).unwrap());
    // All of the bridge runs on this test's thread.
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(written).finish();
    let _lines = tracing::subscriber::set_default(lines);
    let bench = Bench::start_with(&server.settings()).await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    pi.say("reading/env", reading(boot(1), 0).to_json()).await;
    assert_eq!(pi.ack().await, [reading(boot(1), 0).stamp.id]);

    let mut other = server.connect("edgeveil").await.unwrap();
    let before = Timestamp::now();
    let mut lock = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE device IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    pi.say("reading/env", reading(boot(1), 1).to_json()).await;
    let (first, second_time, program, ready) = tokio::join!(
        bench.get("/"),
        bench.get("/devices/pi"),
        bench.get("/v1/devices"),
        bench.get("/readyz")
    );
    let mut told = Vec::new();
    for (head, page) in [first, second_time] {
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("content-type: text/html"), "{head}");
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains("<h1>The database does not answer</h1>"), "{page}");
        assert!(
            page.contains("no answer within 5 s; see whether it runs, and who holds its tables"),
            "{page}"
        );
        told.push(moment(&page, ", since "));
    }
    assert!(told[0] == told[1] && told[0] >= second(before), "{told:?}");
    assert!(program.0.starts_with("HTTP/1.1 503") && program.0.contains("application/json"), "{}", program.0);
    let why: serde_json::Value = serde_json::from_slice(&program.1).unwrap();
    assert!(why["error"].as_str().unwrap().contains("no answer within 5 s"), "{why}");
    let why = String::from_utf8(ready.1).unwrap();
    assert!(
        ready.0.starts_with("HTTP/1.1 503") && why.starts_with("database: ") && why.contains("(since 20"),
        "{why}"
    );
    assert!(bench.get("/").await.0.starts_with("HTTP/1.1 503"), "still");

    lock.rollback().await.unwrap();
    assert_eq!(pi.ack().await, [reading(boot(1), 1).stamp.id], "it was not lost");
    for path in ["/", "/devices/pi", "/v1/devices", "/readyz"] {
        assert!(bench.get(path).await.0.starts_with("HTTP/1.1 200"), "{path}");
    }
    let log = fs::read_to_string(&log).unwrap();
    let count = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(count("the database does not answer pages"), 1, "{log}");
    assert_eq!(count("the database answers pages again"), 1, "{log}");
    assert_eq!(count(" ERROR "), 1, "{log}");
}

/// What a device said a day ago, and the broker of it.
async fn a_day_ago(bench: &Bench, name: &DeviceName) -> Timestamp {
    let then = Timestamp::now() - SignedDuration::from_hours(24);
    let presence =
        |state: &str| Presence { device: name.clone(), status: Status::from_json(&status(state)).unwrap() };
    let mut last = reading(boot(1), 0);
    last.stamp.timestamp = then;
    let record = Record { device: name.clone(), content: Content::Reading("env".parse().unwrap(), last) };
    let batch = Batch {
        received: then.as_millisecond(),
        records: vec![record],
        presence: vec![presence("online")],
        health: vec![Health { device: name.clone(), json: api::health() }],
        ..Batch::default()
    };
    bench.bridge.catalog.commit(&batch).await.unwrap();
    let will =
        Batch { received: then.as_millisecond(), presence: vec![presence("offline")], ..Batch::default() };
    bench.bridge.catalog.commit(&will).await.unwrap();
    Timestamp::from_millisecond(then.as_millisecond()).unwrap()
}

async fn shown_as_away_for_a_day(bench: &Bench) {
    let then = a_day_ago(bench, &"zed".parse().unwrap()).await;
    let abe = bench.device("abe").await;
    abe.say("status", status("online")).await;
    abe.say("health", api::health()).await;
    let overview = async || text(bench, "/").await;
    until("a healthy one", async || overview().await.contains("<td>51 °C</td>")).await;
    let page = overview().await;
    let row = |name: &str| {
        let start = page.find(&format!("href=\"/devices/{name}\"")).expect("a row");
        (start, page[start..].split("</tr>").next().unwrap())
    };
    let ((zeds, away), (abes, there)) = (row("zed"), row("abe"));
    assert!(zeds < abes, "whoever is away comes first: {page}");
    assert_eq!(moment(away, "offline</span> since "), then, "{away}");
    // Last seen, and beside each of the three values that it told then.
    assert_eq!(away.matches(">24 h ago<").count(), 4, "{away}");
    assert!(away.contains("<span class=\"dim\">51 °C, <time") && away.contains("1.0 GiB, <time"), "{away}");
    assert!(!there.contains("ago</time></span>") && there.contains(">online<"), "{there}");
    assert!(page.contains("1 offline"), "{page}");

    let page = text(bench, "/devices/zed").await;
    assert_eq!(moment(&page, "It is offline since "), then);
    assert!(page.contains("As told <time class=\"ago\"") && page.contains(">24 h ago<"), "{page}");
    assert_eq!(moment(&page, "The last reading was made ").as_second(), then.as_second());
    let (_, chart) = page.split_once("class=\"ends").expect("its chart");
    let mut ends = chart.split("<time datetime=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let (from, to): (Timestamp, Timestamp) =
        (ends.next().unwrap().parse().unwrap(), ends.next().unwrap().parse().unwrap());
    assert!(from < then && then < to && to < then + SignedDuration::from_mins(1), "{from} {to}");

    let told: serde_json::Value = serde_json::from_slice(&bench.get("/v1/devices/zed").await.1).unwrap();
    assert_eq!(told["state"], "offline", "{told}");
    for key in ["state_at", "last_seen", "health_at"] {
        assert_eq!(told[key].as_str().unwrap().parse::<Timestamp>().unwrap(), then, "{key}: {told}");
    }
}

#[tokio::test]
async fn a_device_that_is_away_for_a_day_is_shown_as_it_was_and_first() {
    shown_as_away_for_a_day(&Bench::start().await).await;
}

#[tokio::test]
async fn a_device_that_is_away_is_the_same_in_postgres() {
    let Some(server) = Server::start().await else { return };
    shown_as_away_for_a_day(&Bench::start_with(&server.settings()).await).await;
}

#[tokio::test]
async fn what_the_broker_repeats_of_a_device_is_no_news_of_it() {
    let dir = tempfile::tempdir().unwrap();
    certs::init(dir.path(), Replace::Refuse).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(_broker) = mosquitto::start(dir.path(), port) else { return };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("mosquitto", async || TcpStream::connect(address).is_ok()).await;
    let mut other = Device::connect(address, &device_files(dir.path(), "other"), "other").await.unwrap();
    other.listen().await;
    let mut states = Vec::new();
    for name in ["gone", "asleep"] {
        let device = Device::connect(address, &device_files(dir.path(), name), name).await.unwrap();
        states.push((name, device));
    }
    let bench = Bench::start_with(&external(dir.path(), port)).await;
    until("subscribed", async || bench.get("/readyz").await.0.starts_with("HTTP/1.1 200")).await;
    let row = async |name: &str| bench.bridge.catalog.device(&name.parse().unwrap()).await.unwrap().unwrap();
    let mut then = Vec::new();
    for ((name, device), state) in states.iter_mut().zip(["offline", "stopped"]) {
        let at = a_day_ago(&bench, &name.parse().unwrap()).await.as_millisecond();
        let said =
            Presence { device: name.parse().unwrap(), status: Status::from_json(&status(state)).unwrap() };
        let batch = Batch { received: at, presence: vec![said], ..Batch::default() };
        bench.bridge.catalog.commit(&batch).await.unwrap();
        then.push((*name, at));
        device.retain(&format!("edgeveil/{name}/status"), status(state)).await;
        device.puback().await;
    }
    // Behind both.
    other.say("reading/env", reading(boot(2), 0).to_json()).await;
    assert_eq!(other.ack().await, [reading(boot(2), 0).stamp.id]);
    for (name, at) in then {
        let row = row(name).await;
        assert_eq!((row.state_at, row.last_seen), (Some(at), at), "{name}: {row:?}");
    }
    // Another start of the agent is news, whatever it says.
    let (_, device) = &mut states[1];
    let other_boot =
        String::from_utf8(status("stopped")).unwrap().replace(&boot(1).to_string(), &boot(3).to_string());
    device.retain("edgeveil/asleep/status", other_boot).await;
    let before = Timestamp::now().as_millisecond() - 3_600_000;
    until("the news", async || row("asleep").await.last_seen > before).await;
    assert!(row("asleep").await.state_at.unwrap() > before);
}
