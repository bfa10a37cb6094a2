//! People are told of alerts: once, of many by one message, and not in quiet hours.

use crate::{
    harness::{Bench, alert, boot, until},
    postgres::Server,
};
use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
};
use edgeveil_bridge::catalog::{Outbox, OutboxRow};
use edgeveil_wire::Severity;
use serde_json::Value;
use std::{
    fs,
    process::Command,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::watch};

/// What was sent to a service.
#[derive(Debug, Clone)]
struct Heard {
    method: String,
    path: String,
    token: Option<String>,
    body: Value,
}

/// Whether a message is taken.
type Takes = Box<dyn Fn(&Value) -> bool + Send + Sync>;

/// Somebody's service.
#[derive(Default)]
struct Phone {
    heard: Mutex<Vec<Heard>>,
    takes: Mutex<Option<Takes>>,
}

impl Phone {
    async fn start() -> (Arc<Self>, String) {
        let phone = Arc::<Self>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(hear).with_state(phone.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (phone, url)
    }

    fn takes(&self, takes: impl Fn(&Value) -> bool + Send + Sync + 'static) {
        *self.takes.lock().unwrap() = Some(Box::new(takes));
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

async fn hear(State(phone): State<Arc<Phone>>, request: Request) -> StatusCode {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    if phone.takes.lock().unwrap().as_ref().is_some_and(|takes| !takes(&body)) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let token = head.headers.get(header::AUTHORIZATION).map(|token| token.to_str().unwrap().to_owned());
    let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
    phone.heard.lock().unwrap().push(Heard { method, path, token, body });
    StatusCode::OK
}

fn ntfy(url: &str, more: &str) -> String {
    format!("[forward.notify]\nservice = \"ntfy\"\nurl = \"{url}/greenhouse\"\nallow_http = true\n{more}\n")
}

fn outbox(bench: &Bench) -> Outbox {
    Outbox::new(bench.bridge.catalog.clone(), "notify", watch::channel(()).1)
}

async fn send(bench: &Bench, device: &str, alerts: std::ops::Range<u64>, severity: Severity) {
    let mut pi = bench.device(device).await;
    pi.listen().await;
    let mut ids = Vec::new();
    for seq in alerts {
        let alert = edgeveil_wire::Alert { severity, ..alert(boot(1), seq) };
        pi.say("alert/env", alert.to_json()).await;
        ids.push(alert.stamp.id);
    }
    pi.acks(ids).await;
}

/// Until the bridge has looked at all that waits for people.
async fn looked(bench: &Bench, waiting: u64) {
    until("a look", async || {
        let text = String::from_utf8(bench.get("/metrics").await.1).unwrap();
        text.contains(&format!("edgeveil_bridge_outbox_depth{{target=\"notify\"}} {waiting}\n"))
    })
    .await;
}

#[tokio::test]
async fn a_storm_is_one_message() {
    let (phone, url) = Phone::start().await;
    // The service is away until all of them are there.
    phone.takes(|body| body["title"] == "450 alerts of 3 devices, critical");
    let more = "group_wait = \"0 s\"\npages = \"https://bridge.lan\"";
    let bench = Bench::start_with(&ntfy(&url, more)).await;
    for device in ["pi-1", "pi-2", "pi-3"] {
        send(&bench, device, 0..150, Severity::Critical).await;
    }
    let outbox = outbox(&bench);
    until("one message", async || outbox.counts().await.unwrap() == (0, 450)).await;
    let heard = phone.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    let Heard { method, path, token, body } = &heard[0];
    assert_eq!((method.as_str(), path.as_str(), token), ("POST", "/", &None));
    assert_eq!((&body["topic"], &body["priority"]), (&"greenhouse".into(), &5.into()));
    assert_eq!(body["click"], "https://bridge.lan/alerts");
    let lines = body["message"].as_str().unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(lines.contains("pi-2/env: 150 alerts") && lines.contains("mostly sensor2 (2.5)"), "{lines}");
}

#[tokio::test]
async fn quiet_hours_hold_back_all_but_the_worst() {
    let (phone, url) = Phone::start().await;
    let now = jiff::Timestamp::now();
    let hour = |hours| (now + jiff::SignedDuration::from_hours(hours)).strftime("%H:%M").to_string();
    let more = format!("group_wait = \"0 s\"\nquiet_hours = \"{}-{}\"", hour(-2), hour(3));
    let bench = Bench::start_with(&ntfy(&url, &more)).await;
    send(&bench, "pi", 0..1, Severity::Warning).await;
    looked(&bench, 1).await;
    send(&bench, "pi", 1..2, Severity::Warning).await;
    looked(&bench, 2).await;
    assert!(phone.heard().is_empty(), "{:?}", phone.heard());
    send(&bench, "pi", 2..3, Severity::Critical).await;
    let outbox = outbox(&bench);
    until("all of them", async || outbox.counts().await.unwrap() == (0, 3)).await;
    let heard = phone.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0].body["title"], "3 alerts of 1 device, critical");
}

#[tokio::test]
async fn the_time_between_messages_outlives_a_restart_and_less_severe_alerts_are_not_told() {
    let (phone, url) = Phone::start().await;
    let more = "group_wait = \"0 s\"\ngroup_interval = \"1 d\"\nseverity = \"critical\"";
    let bench = Bench::start_with(&ntfy(&url, more)).await;
    send(&bench, "pi", 0..1, Severity::Critical).await;
    until("the first message", async || outbox(&bench).counts().await.unwrap() == (0, 1)).await;
    let bench = bench.restart().await;
    send(&bench, "pi", 1..3, Severity::Warning).await;
    until("those that nobody wants", async || outbox(&bench).counts().await.unwrap() == (0, 3)).await;
    for seq in 3..5 {
        send(&bench, "pi", seq..seq + 1, Severity::Critical).await;
        looked(&bench, seq - 2).await;
    }
    assert_eq!(phone.heard().len(), 1);
    assert_eq!(phone.heard()[0].body["title"], "Critical: pi/env");
    assert_eq!(outbox(&bench).counts().await.unwrap(), (2, 3));
}

#[tokio::test]
async fn of_two_replicas_one_tells_and_the_other_takes_over() {
    let Some(server) = Server::start().await else { return };
    let (phone, url) = Phone::start().await;
    phone.takes(|body| body["title"] == "80 alerts of 2 devices, critical");
    let more = ntfy(&url, "group_wait = \"0 s\"\ngroup_interval = \"0 s\"");
    let settings = format!("{}\n{more}", server.settings());
    let (one, two) = (Bench::start_with(&settings).await, Bench::start_with(&settings).await);
    send(&one, "pi-1", 0..40, Severity::Critical).await;
    send(&two, "pi-2", 0..40, Severity::Critical).await;
    let outbox_of = outbox(&two);
    until("one message", async || outbox_of.counts().await.unwrap() == (0, 80)).await;
    assert_eq!(phone.heard().len(), 1, "{:?}", phone.heard());
    phone.takes(|_| true);
    // Whichever of them it was: the first one goes, and the other one tells.
    one.close().await;
    send(&two, "pi-2", 40..41, Severity::Critical).await;
    until("another message", async || outbox_of.counts().await.unwrap() == (0, 81)).await;
    assert_eq!(phone.heard().len(), 2, "{:?}", phone.heard());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_tried_and_says_what_is_wrong() {
    let (phone, url) = Phone::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (token, template) = (dir.path().join("token"), dir.path().join("template"));
    fs::write(&token, "syt_secret\n").unwrap();
    let run = async |command: &str, more: &str| {
        let file = dir.path().join("bridge.toml");
        let text = format!(
            "data_dir = {:?}\n[forward.notify]\nservice = \"matrix\"\nurl = \"{url}\"\nroom = \"!a:b.lan\"\nallow_http = true\ntoken_file = {token:?}\n{more}",
            dir.path().join("data")
        );
        fs::write(&file, text).unwrap();
        let command = command.to_owned();
        let run = move || {
            Command::new(env!("CARGO_BIN_EXE_edgeveil-bridge"))
                .arg(command)
                .arg("--config")
                .arg(file)
                .output()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run("notify", "").await;
    assert_eq!(code, Some(0), "{text}");
    let heard = phone.heard().remove(0);
    assert_eq!(heard.method, "PUT");
    assert!(
        heard.path.starts_with("/_matrix/client/v3/rooms/!a:b.lan/send/m.room.message/"),
        "{}",
        heard.path
    );
    assert_eq!(heard.token.as_deref(), Some("Bearer syt_secret"));
    assert!(heard.body["body"].as_str().unwrap().starts_with("Warning: example/env\n"), "{}", heard.body);

    phone.takes(|_| false);
    let (code, text) = run("notify", "").await;
    assert_eq!(code, Some(1));
    assert!(text.contains("127.0.0.1: 503 Service Unavailable"), "{text}");
    fs::write(&template, "{{ cuont }} alerts").unwrap();
    let (code, text) = run("check", &format!("template = {template:?}\n")).await;
    assert_eq!(code, Some(1));
    assert!(
        text.contains("forward.notify.template") && text.contains("line 1") | text.contains(":1"),
        "{text}"
    );
    assert!(!text.contains("syt_secret"), "{text}");
    fs::write(&token, "").unwrap();
    let (_, text) = run("check", "").await;
    assert!(text.contains("forward.notify.token_file") && text.contains("is empty"), "{text}");
}

#[tokio::test]
async fn rows_that_wait_are_not_taken_from_others() {
    let (_, url) = Phone::start().await;
    let more = "group_wait = \"1 d\"";
    let bench = Bench::start_with(&ntfy(&url, more)).await;
    send(&bench, "pi", 0..2, Severity::Warning).await;
    looked(&bench, 2).await;
    // They are in the outbox for whoever looks, and the next bridge finds them.
    let rows: Vec<OutboxRow> = outbox(&bench).open(0, 10).await.unwrap();
    assert_eq!(rows.len(), 2);
    let bench = bench.restart().await;
    looked(&bench, 2).await;
}
