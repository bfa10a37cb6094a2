//! What people and Prometheus see.

use crate::harness::{Bench, alert, boot, jpeg, until};

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
    for path in ["/healthz", "/readyz", "/metrics", "/style.css"] {
        assert!(bench.get(path).await.0.starts_with("HTTP/1.1 200"), "{path}");
    }
    for path in ["/images/pi/../../etc/passwd", "/images/pi/0", "/nowhere"] {
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

    let address = format!("/images/pi/{}", meta.stamp.id);
    assert!(page.contains(&address));
    let (head, body) = bench.get(&address).await;
    assert!(head.contains("content-type: image/jpeg") && head.contains("immutable"), "{head}");
    assert_eq!(body, picture);
    let metrics = String::from_utf8(bench.get("/metrics").await.1).unwrap();
    assert!(metrics.contains("edgeveil_bridge_committed_total{lane=\"image\"} 1"), "{metrics}");
}
