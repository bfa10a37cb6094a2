//! What people and Prometheus see.

use crate::harness::{Bench, alert, boot, jpeg, reading, until};

#[tokio::test]
async fn an_empty_bridge_tells_how_to_begin() {
    let bench = Bench::start().await;
    let (head, body) = bench.get("/").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("content-security-policy: default-src 'self'"),
        "{head}"
    );
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("edgeveil-bridge certs device"), "{body}");
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/style.css",
        "/app.js",
        "/icon.svg",
        "/gallery",
        "/alerts",
        "/outbox",
        "/about",
    ] {
        assert!(bench.get(path).await.0.starts_with("HTTP/1.1 200"), "{path}");
    }
    for path in [
        "/images/pi/../../etc/passwd",
        "/images/pi/..%2f..%2fetc%2fpasswd",
        "/images/pi/0",
        "/thumbs/pi/..%2f..%2fcatalog.sqlite",
        "/thumbs/../catalog.sqlite/0",
        "/view/%2e%2e/00000000000000000000000000000000",
        "/devices/..%2f",
        "/devices/nobody",
        "/alerts/pi/00000000000000000000000000000000",
        "/nowhere",
    ] {
        assert!(bench.get(path).await.0.starts_with("HTTP/1.1 404"), "{path}");
    }
}

#[tokio::test]
async fn the_page_shows_what_came_and_escapes_it() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let (meta, picture) = jpeg("pi", "desk", boot(1), 0);
    pi.say("image/desk", picture.clone()).await;
    pi.say("alert/env", alert(boot(1), 0).to_json()).await;
    pi.acks(vec![meta.stamp.id, alert(boot(1), 0).stamp.id]).await;
    let status = format!(
        r#"{{"schema":"edgeveil.status/1","state":"online","version":"<script>alert(1)</script>","boot":"{}","clock":"unsynced","problems":["<b>lens</b>"]}}"#,
        boot(1)
    );
    pi.say("status", status).await;
    let page = async || String::from_utf8(bench.get("/").await.1).unwrap();
    until("the status", async || page().await.contains("&lt;b&gt;lens")).await;
    let page = page().await;
    assert!(!page.contains("<script>"), "{page}");
    assert!(page.contains("its clock is not set") && page.contains("75 percent"), "{page}");
    let device = String::from_utf8(bench.get("/devices/pi").await.1).unwrap();
    assert!(device.contains("&lt;script&gt;") && !device.contains("<script>"), "{device}");

    let (address, id) = (format!("/images/pi/{}", meta.stamp.id), meta.stamp.id);
    assert!(page.contains(&format!("/view/pi/{id}")) && page.contains(&format!("/thumbs/pi/{id}")));
    let view = String::from_utf8(bench.get(&format!("/view/pi/{id}")).await.1).unwrap();
    assert!(view.contains(&address), "{view}");
    let (head, body) = bench.get(&address).await;
    assert!(head.contains("content-type: image/jpeg") && head.contains("immutable"), "{head}");
    assert_eq!(body, picture);
    let (head, small) = bench.get(&format!("/thumbs/pi/{id}")).await;
    assert!(head.contains("content-type: image/jpeg") && small != picture, "{head}");
    assert_eq!(bench.get(&format!("/thumbs/pi/{id}")).await.1, small, "the one that was kept");
    let objects = bench.bridge.objects.list().await.unwrap();
    assert_eq!(objects.len(), 2, "{objects:?}");
    let found = edgeveil_bridge::verify::verify(&bench.bridge.catalog, &bench.bridge.objects).await.unwrap();
    assert!(!found.iter().any(edgeveil_bridge::verify::Finding::is_wrong), "{found:?}");
    let metrics = String::from_utf8(bench.get("/metrics").await.1).unwrap();
    assert!(metrics.contains("edgeveil_bridge_committed_total{lane=\"image\"} 1"), "{metrics}");
}

#[tokio::test]
async fn the_gallery_goes_on_where_it_ended_and_by_camera_and_day() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let mut ids = Vec::new();
    for n in 0..30 {
        let (meta, picture) = jpeg("pi", if n % 2 == 0 { "desk" } else { "door" }, boot(1), n);
        pi.say(&format!("image/{}", if n % 2 == 0 { "desk" } else { "door" }), picture).await;
        pi.acks(vec![meta.stamp.id]).await;
        ids.push(meta.stamp.id.to_string());
    }
    let text = async |path: &str| String::from_utf8(bench.get(path).await.1).unwrap();
    let shown = |page: &str| ids.iter().filter(|id| page.contains(&format!("/thumbs/pi/{id}"))).count();
    let first = text("/gallery").await;
    assert_eq!(shown(&first), 24);
    let next =
        first.split("rel=\"next\" href=\"").nth(1).unwrap().split('"').next().unwrap().replace("&amp;", "&");
    let second = text(&next).await;
    assert_eq!(shown(&second), 6, "{next}");
    assert!(!second.contains("rel=\"next\""));
    assert_eq!(shown(&text("/gallery?device=pi&camera=door").await), 15);
    assert_eq!(shown(&text("/gallery?device=nobody").await), 0);
    assert_eq!(shown(&text("/gallery?day=2001-01-01").await), 0);
    // From one to the next, and no further than the end.
    let mut path = format!("/view/pi/{}?device=pi&camera=desk", ids[0]);
    for _ in 0..14 {
        let page = text(&path).await;
        path = page
            .split("rel=\"prev\" href=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .replace("&amp;", "&");
    }
    assert!(path.starts_with(&format!("/view/pi/{}", ids[28])), "{path}");
    assert!(!text(&path).await.contains("rel=\"prev\""));
}

#[tokio::test]
async fn programs_get_the_same_data() {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let (meta, picture) = jpeg("pi", "desk", boot(1), 0);
    pi.say("image/desk", picture).await;
    pi.say("alert/env", alert(boot(1), 0).to_json()).await;
    pi.say("reading/env", reading(boot(1), 0).to_json()).await;
    pi.acks(vec![meta.stamp.id, alert(boot(1), 0).stamp.id, reading(boot(1), 0).stamp.id]).await;
    let json = async |path: &str| {
        let (head, body) = bench.get(path).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()
    };
    assert_eq!(json("/v1/devices").await["items"][0]["name"], "pi");
    assert_eq!(json("/v1/devices/pi").await["name"], "pi");
    assert_eq!(json("/v1/devices/pi/images").await["items"][0]["id"], meta.stamp.id.to_string());
    let alerts = json("/v1/alerts?severity=critical&open=true").await;
    assert_eq!(
        alerts["items"].as_array().unwrap().len()
            + json("/v1/alerts?severity=warning").await["items"].as_array().unwrap().len(),
        1
    );
    let at = reading(boot(1), 0).stamp.timestamp;
    let range = format!(
        "from={}&to={}",
        at - jiff::SignedDuration::from_secs(60),
        at + jiff::SignedDuration::from_secs(60)
    );
    let readings = json(&format!("/v1/devices/pi/readings/env?{range}")).await;
    assert_eq!(readings["items"].as_array().unwrap().len(), 1, "{readings}");
    for (path, status) in [
        ("/v1/devices/nobody", 404),
        ("/v1/alerts?after=x", 400),
        ("/v1/alerts?severity=bad", 400),
        ("/v1/alerts?limit=-1", 400),
        ("/v1/devices/pi/images?camera=a%2Fb", 400),
        ("/v1/devices/pi/readings/env?from=yesterday", 400),
    ] {
        let (head, _) = bench.get(path).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {head}");
    }
}

#[tokio::test]
async fn an_open_page_hears_of_a_new_alert() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let bench = Bench::start().await;
    let mut stream = tokio::net::TcpStream::connect(bench.bridge.http).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut heard = String::new();
    let mut more = async |what: &str| {
        let mut bytes = [0; 4096];
        while !heard.contains(what) {
            let read =
                tokio::time::timeout(std::time::Duration::from_secs(30), stream.read(&mut bytes)).await;
            let n = read.expect("nothing was heard").unwrap();
            assert!(n > 0, "it ended: {heard}");
            heard += &String::from_utf8_lossy(&bytes[..n]);
        }
        heard.clone()
    };
    more("text/event-stream").await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let sent = alert(boot(1), 0);
    pi.say("alert/env", sent.to_json()).await;
    pi.acks(vec![sent.stamp.id]).await;
    let heard = more("event: alert").await;
    let id = sent.stamp.id.to_string();
    assert!(heard.contains(&id) || more(&id).await.contains(&id));

    // Whoever was away hears what came meanwhile, and who comes for the first time does not.
    let now = jiff::Timestamp::now().as_millisecond();
    for (last, hears) in [(format!("last-event-id: {now}\r\n"), true), (String::new(), false)] {
        let mut stream = tokio::net::TcpStream::connect(bench.bridge.http).await.unwrap();
        stream
            .write_all(format!("GET /live HTTP/1.1\r\nhost: localhost\r\n{last}\r\n").as_bytes())
            .await
            .unwrap();
        let (mut heard, mut bytes) = (String::new(), [0; 4096]);
        while !heard.contains("event: hello") || (hears && !heard.contains(&id)) {
            let read = tokio::time::timeout(std::time::Duration::from_secs(30), stream.read(&mut bytes));
            let n = read.await.expect("nothing was heard").unwrap();
            assert!(n > 0, "it ended: {heard}");
            heard += &String::from_utf8_lossy(&bytes[..n]);
        }
        assert!(hears || !heard.contains("event: alert"), "{heard}");
    }
}

#[tokio::test]
async fn an_open_page_hears_on_after_a_storm() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const STORM: u64 = 450;
    let bench = Bench::start().await;
    let mut stream = tokio::net::TcpStream::connect(bench.bridge.http).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let mut ids = Vec::new();
    for seq in 0..STORM {
        let alert = alert(boot(1), seq);
        pi.say("alert/env", alert.to_json()).await;
        ids.push(alert.stamp.id);
    }
    pi.acks(ids).await;
    let later = alert(boot(1), STORM);
    pi.say("alert/env", later.to_json()).await;
    pi.acks(vec![later.stamp.id]).await;
    let (id, mut heard, mut bytes) = (later.stamp.id.to_string(), String::new(), vec![0; 1 << 16]);
    while !heard.contains(&id) {
        let read = tokio::time::timeout(std::time::Duration::from_secs(60), stream.read(&mut bytes)).await;
        let n = read.expect("the last one was not heard").unwrap();
        assert!(n > 0, "it ended");
        heard += &String::from_utf8_lossy(&bytes[..n]);
    }
}
