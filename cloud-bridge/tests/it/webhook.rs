//! Alerts reach a URL at least once and in order, whatever is answered there.

use crate::harness::{Bench, alert, boot, until};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use edgeveil_bridge::catalog::{Outbox, OutboxState};
use ring::hmac;
use std::{
    fs,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::watch};

const SECRET: [u8; 32] = [7; 32];

/// What a request is answered with.
type Says = Box<dyn Fn(u64, usize) -> Response + Send + Sync>;

/// Somebody's web server.
#[derive(Default)]
struct Hook {
    /// Sequence numbers in the order they came, and whether each was taken.
    heard: Mutex<Vec<(u64, bool)>>,
    says: Mutex<Option<Says>>,
}

impl Hook {
    fn says(&self, says: impl Fn(u64, usize) -> Response + Send + Sync + 'static) {
        *self.says.lock().unwrap() = Some(Box::new(says));
    }

    fn heard(&self) -> Vec<(u64, bool)> {
        self.heard.lock().unwrap().clone()
    }

    fn taken(&self) -> Vec<u64> {
        self.heard().into_iter().filter(|(_, taken)| *taken).map(|(seq, _)| seq).collect()
    }
}

async fn hear(State(hook): State<Arc<Hook>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(json["id"], header("webhook-id"));
    let at: i64 = header("webhook-timestamp").parse().unwrap();
    assert!((jiff::Timestamp::now().as_second() - at).abs() < 300);
    let signed = [header("webhook-id").as_bytes(), b".", at.to_string().as_bytes(), b".", &body].concat();
    let given = header("webhook-signature");
    let given = BASE64_STANDARD.decode(given.strip_prefix("v1,").unwrap()).unwrap();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), &signed, &given).unwrap();
    let seq = json["seq"].as_u64().unwrap();
    let times = hook.heard().iter().filter(|(known, _)| *known == seq).count();
    let answer = match &*hook.says.lock().unwrap() {
        Some(says) => says(seq, times),
        None => StatusCode::NO_CONTENT.into_response(),
    };
    hook.heard.lock().unwrap().push((seq, answer.status().is_success()));
    answer
}

async fn listen(hook: &Arc<Hook>, listener: TcpListener) {
    let app = Router::new().route("/hook", post(hear)).with_state(hook.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
}

/// A bridge that posts to a port, on which nobody answers yet.
async fn bench() -> (Bench, TcpListener, Outbox, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, format!("whsec_{}\n", BASE64_STANDARD.encode(SECRET))).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let bench = Bench::start_with(&format!(
        "[forward.webhook]\nurl = \"http://127.0.0.1:{port}/hook\"\nallow_http = true\nsecret_file = {secret:?}\nrate = 1000\n"
    ))
    .await;
    let outbox = Outbox::new(bench.bridge.catalog.clone(), "webhook", watch::channel(()).1);
    (bench, listener, outbox, dir)
}

async fn send(bench: &Bench, alerts: u64) {
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    for seq in 0..alerts {
        pi.say("alert/env", alert(boot(1), seq).to_json()).await;
    }
    pi.acks((0..alerts).map(|seq| alert(boot(1), seq).stamp.id).collect()).await;
}

#[tokio::test]
async fn alerts_wait_for_a_server_that_is_busy_and_come_in_order() {
    const ALERTS: u64 = 40;
    let (bench, listener, outbox, _dir) = bench().await;
    let hook = Arc::<Hook>::default();
    // Every seventh is asked to come again, once; so is the first one, before anything else.
    hook.says(|seq, times| match (seq % 7, times) {
        (0, 0) => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], "busy").into_response(),
        _ => StatusCode::OK.into_response(),
    });
    listen(&hook, listener).await;
    send(&bench, ALERTS).await;
    until("all of them", async || outbox.counts().await.unwrap() == (0, ALERTS.cast_signed())).await;
    assert_eq!(hook.taken(), (0..ALERTS).collect::<Vec<_>>());
    assert_eq!(hook.heard().len() as u64, ALERTS + ALERTS.div_ceil(7));
}

#[tokio::test]
async fn an_alert_that_is_refused_for_ever_is_set_aside_and_can_be_tried_again() {
    const ALERTS: u64 = 5;
    const BAD: u64 = 2;
    let (bench, listener, outbox, _dir) = bench().await;
    let hook = Arc::<Hook>::default();
    hook.says(|seq, _| match seq {
        BAD => (StatusCode::UNPROCESSABLE_ENTITY, "no such\nsensor").into_response(),
        _ => StatusCode::OK.into_response(),
    });
    listen(&hook, listener).await;
    send(&bench, ALERTS).await;
    until("its first refusal", async || {
        outbox.open(0, 1).await.unwrap().first().is_some_and(|row| row.refusals > 0)
    })
    .await;
    // The wait after a refusal grows to minutes: as if it had been refused all the while.
    let row = outbox.open(0, 1).await.unwrap().remove(0);
    for _ in row.refusals..5 {
        outbox.failed(row.number, "again", edgeveil_bridge::catalog::Blame::Row).await.unwrap();
    }
    until("the others", async || outbox.counts().await.unwrap() == (0, ALERTS.cast_signed() - 1)).await;
    let count = outbox.count().await.unwrap();
    assert_eq!((count.open, count.done, count.failed), (0, ALERTS.cast_signed() - 1, 1));
    let entries = bench.bridge.catalog.outbox_entries(OutboxState::Failed, 10).await.unwrap();
    let entry = serde_json::to_value(&entries[0]).unwrap();
    assert!(entry.to_string().contains("422 Unprocessable Entity; it says: no such sensor"), "{entry}");
    assert_eq!(hook.taken(), [0, 1, 3, 4]);
}

#[tokio::test]
async fn what_is_wrong_with_all_of_them_loses_none() {
    let (bench, listener, outbox, _dir) = bench().await;
    let hook = Arc::<Hook>::default();
    hook.says(|_, times| match times {
        0 => StatusCode::FORBIDDEN.into_response(),
        1 => (StatusCode::FOUND, [("location", "/elsewhere")]).into_response(),
        _ => StatusCode::OK.into_response(),
    });
    listen(&hook, listener).await;
    send(&bench, 2).await;
    until("all of them", async || outbox.counts().await.unwrap() == (0, 2)).await;
    assert_eq!(outbox.count().await.unwrap().failed, 0);
    assert_eq!(hook.taken(), [0, 1]);
}
