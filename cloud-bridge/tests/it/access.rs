//! Who is let in, who may act, and what comes of attempts to get round that.

use crate::harness::{Bench, alert, boot};
use edgeveil_bridge::web::access::{Role, users::Users};
use edgeveil_wire::Alert;
use std::path::Path;

const PASSWORD: &str = "correct+horse";

/// A bridge with a viewer and an operator.
async fn bench() -> (Bench, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let users = Users::default().with("ann", Role::Operator, "correct horse").unwrap();
    users.with("bob", Role::Viewer, "correct horse").unwrap().write(&dir.path().join("users")).unwrap();
    std::fs::write(dir.path().join("tokens"), "0123456789abcdef0123\n").unwrap();
    let extra = format!(
        "[access]\nusers = {:?}\ntokens = {:?}\n",
        dir.path().join("users"),
        dir.path().join("tokens")
    );
    (Bench::start_with(&extra).await, dir)
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn set_cookie(head: &str, name: &str) -> Option<String> {
    let start = format!("set-cookie: {name}=");
    let line = head.lines().find_map(|line| line.strip_prefix(&start))?;
    Some(format!("{name}={}", line.split(';').next()?))
}

/// What a form of this page brings.
fn token(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let (_, rest) = body.split_once("name=\"token\" value=\"").expect("a form");
    rest.split('"').next().unwrap().to_owned()
}

async fn try_login(bench: &Bench, name: &str, password: &str) -> String {
    let (head, body) = bench.get("/login").await;
    let visitor = set_cookie(&head, "edgeveil_visitor").unwrap();
    let form = format!("name={name}&password={password}&token={}&to=/alerts", token(&body));
    bench.ask("POST", "/login", &[("cookie", &visitor)], &form).await.0
}

/// The session's cookie.
async fn login(bench: &Bench, name: &str) -> String {
    let head = try_login(bench, name, PASSWORD).await;
    assert!(status(&head) == 303 && head.contains("location: /alerts"), "{head}");
    assert!(head.contains("HttpOnly; SameSite=Lax"), "{head}");
    set_cookie(&head, "edgeveil_session").unwrap()
}

async fn an_alert(bench: &Bench) -> (Alert, String) {
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let sent = alert(boot(1), 0);
    pi.say("alert/env", sent.to_json()).await;
    pi.acks(vec![sent.stamp.id]).await;
    let path = format!("/alerts/pi/{}", sent.stamp.id);
    (sent, path)
}

#[tokio::test]
async fn nobody_sees_anything_without_a_login() {
    let (bench, _dir) = bench().await;
    let (_, path) = an_alert(&bench).await;
    for page in [
        "/",
        "/gallery",
        "/alerts",
        &path,
        "/outbox",
        "/about",
        "/live",
        "/devices/pi",
        "/images/pi/0",
        "/thumbs/pi/0",
    ] {
        let (head, body) = bench.get(page).await;
        assert_eq!(status(&head), 303, "{page}: {head}");
        assert!(head.contains("location: /login?to="), "{head}");
        assert!(!String::from_utf8_lossy(&body).contains("pi"), "{page}");
    }
    let (head, body) = bench.get("/v1/alerts").await;
    assert!(status(&head) == 401 && !String::from_utf8_lossy(&body).contains("pi"), "{head}");
    for open in ["/healthz", "/readyz", "/metrics", "/style.css", "/app.js", "/login"] {
        assert_eq!(status(&bench.get(open).await.0), 200, "{open}");
    }
    let bearer =
        async |value: &str| status(&bench.ask("GET", "/v1/alerts", &[("authorization", value)], "").await.0);
    assert_eq!(bearer("Bearer 0123456789abcdef0123").await, 200);
    assert_eq!(bearer("Bearer 0123456789abcdef0124").await, 401);
    // A token is for the API alone.
    let (head, _) =
        bench.ask("GET", "/alerts", &[("authorization", "Bearer 0123456789abcdef0123")], "").await;
    assert_eq!(status(&head), 303);
}

#[tokio::test]
async fn an_operator_acknowledges_once_and_a_viewer_does_not() {
    let (bench, _dir) = bench().await;
    let (_, path) = an_alert(&bench).await;
    let (ann, bob) = (login(&bench, "ann").await, login(&bench, "bob").await);
    let page = async |who: &str| bench.ask("GET", &path, &[("cookie", who)], "").await.1;
    let (anns, bobs) = (token(&page(&ann).await), token(&page(&bob).await));
    assert!(!String::from_utf8_lossy(&page(&bob).await).contains("<textarea"));
    let post = async |who: &str, token: &str, note: &str| {
        let form = format!("token={token}&note={note}");
        status(&bench.ask("POST", &format!("{path}/acknowledge"), &[("cookie", who)], &form).await.0)
    };
    assert_eq!(post(&bob, &bobs, "mine").await, 403, "a viewer");
    assert_eq!(post(&ann, "", "x").await, 403, "no token");
    assert_eq!(post(&ann, &bobs, "x").await, 403, "another session's token");
    assert_eq!(post("", &anns, "x").await, 303, "no session: to the login");
    let form = format!("token={anns}&note=x");
    let to = format!("{path}/acknowledge");
    for elsewhere in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.lan")] {
        let (head, _) = bench.ask("POST", &to, &[("cookie", &ann), elsewhere], &form).await;
        assert_eq!(status(&head), 403, "{elsewhere:?}");
    }
    assert!(!String::from_utf8_lossy(&page(&ann).await).contains("<blockquote"));
    assert_eq!(post(&ann, &anns, "%3Cscript%3Ealert(1)%3C/script%3E").await, 303);
    assert_eq!(post(&ann, &anns, "second").await, 303);
    let shown = String::from_utf8(page(&bob).await).unwrap();
    assert!(shown.contains("<blockquote>&lt;script&gt;alert(1)") && !shown.contains("<script>"), "{shown}");
    assert!(shown.contains("ann") && !shown.contains("second"));
    // A film takes an operator too.
    let film = "device=pi&camera=desk&from=2026-11-01&to=2026-11-02&every=60&fps=25";
    for (who, token, wanted) in [(&bob, &bobs, 403), (&ann, &bobs, 403), (&ann, &anns, 400)] {
        let form = format!("{film}&token={token}");
        let (head, _) = bench.ask("POST", "/films", &[("cookie", who)], &form).await;
        assert_eq!(status(&head), wanted, "{head}");
    }
    let outbox = async |who: &str| {
        String::from_utf8(bench.ask("GET", "/outbox", &[("cookie", who)], "").await.1).unwrap()
    };
    assert!(outbox(&ann).await.contains("acknowledge") && !outbox(&bob).await.contains("acknowledge"));
}

#[tokio::test]
async fn a_session_ends_with_a_logout_and_with_its_user() {
    let (bench, dir) = bench().await;
    let (ann, bob) = (login(&bench, "ann").await, login(&bench, "bob").await);
    let sees = async |who: &str| status(&bench.ask("GET", "/alerts", &[("cookie", who)], "").await.0) == 200;
    assert!(sees(&ann).await && sees(&bob).await);
    let guessed = format!("edgeveil_session={}", "0".repeat(64));
    assert!(!sees(&guessed).await && !sees("edgeveil_session=' OR 1=1").await);
    let (_, body) = bench.ask("GET", "/alerts", &[("cookie", &ann)], "").await;
    let forged = bench.ask("POST", "/logout", &[("cookie", &ann)], "token=x").await.0;
    assert!(status(&forged) == 403 && sees(&ann).await);
    let (head, _) =
        bench.ask("POST", "/logout", &[("cookie", &ann)], &format!("token={}", token(&body))).await;
    assert!(status(&head) == 303 && !sees(&ann).await, "{head}");
    let users = Users::read(&dir.path().join("users")).unwrap().without("bob").unwrap();
    users.write(&dir.path().join("users")).unwrap();
    assert!(!sees(&bob).await, "bob is no user any more");
}

#[tokio::test]
async fn whoever_guesses_has_to_wait() {
    let (bench, _dir) = bench().await;
    for n in 0..10 {
        assert_eq!(status(&try_login(&bench, "ann", &format!("guess-number-{n}")).await), 401);
    }
    let right = try_login(&bench, "ann", PASSWORD).await;
    assert!(status(&right) == 429 && set_cookie(&right, "edgeveil_session").is_none(), "{right}");
    login(&bench, "bob").await;
    // A login that another site sends is none.
    let (head, _) = bench.ask("POST", "/login", &[], &format!("name=bob&password={PASSWORD}&token=x")).await;
    assert_eq!(status(&head), 403);
}

#[tokio::test]
async fn only_the_proxy_says_who_somebody_is() {
    let from = async |network: &str| {
        let extra = format!(
            "[access.proxy]\nheader = \"X-Forwarded-User\"\nfrom = \"{network}\"\noperators = \"ann\"\n"
        );
        Bench::start_with(&extra).await
    };
    let bench = from("127.0.0.0/8").await;
    let (_, path) = an_alert(&bench).await;
    let as_user =
        async |bench: &Bench, name: &str| bench.ask("GET", &path, &[("x-forwarded-user", name)], "").await;
    let (head, body) = as_user(&bench, "ann").await;
    assert!(status(&head) == 200 && String::from_utf8_lossy(&body).contains("<textarea"), "{head}");
    let (head, body) = as_user(&bench, "eve").await;
    assert!(status(&head) == 200 && !String::from_utf8_lossy(&body).contains("<textarea"), "{head}");
    assert_eq!(status(&bench.get(&path).await.0), 401);
    let elsewhere = from("10.0.0.0/8").await;
    assert_eq!(status(&as_user(&elsewhere, "ann").await.0), 401);
}

#[tokio::test]
async fn another_sites_name_does_not_lead_to_pages_where_anybody_acts() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let answer = async |bench: &Bench, host: &str| {
        let mut stream = tokio::net::TcpStream::connect(bench.bridge.http).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer[9..12].to_owned()
    };
    let bench = Bench::start_with("[access]\nhosts = \"bridge.lan\"\n").await;
    for (host, status) in [
        ("localhost", "200"),
        ("127.0.0.1:8080", "200"),
        ("bridge.lan", "200"),
        ("evil.lan:8080", "421"),
        ("localhost.evil.lan", "421"),
    ] {
        assert_eq!(answer(&bench, host).await, status, "{host}");
    }
}

#[tokio::test]
async fn bad_files_are_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let start = async |extra: &str| {
        let text = format!(
            "data_dir = {:?}\nhttp.listen = \"127.0.0.1:0\"\nbroker.listen = \"127.0.0.1:0\"\n{extra}",
            dir.path()
        );
        let settings = edgeveil_bridge::settings::Settings::parse("b.toml", &text, &|_| None).unwrap();
        format!("{:#}", edgeveil_bridge::serve::Bridge::start(&settings).await.err().unwrap())
    };
    let missing = start("[access]\nusers = \"/nowhere/users\"\n").await;
    assert!(missing.contains("access.users /nowhere/users"), "{missing}");
    let bad: &Path = &dir.path().join("users");
    std::fs::write(bad, "ann:boss:x\n").unwrap();
    let found = start(&format!("[access]\nusers = {bad:?}\n")).await;
    assert!(found.contains("line 1: the role") && found.contains("edgeveil-bridge users add"), "{found}");
}
