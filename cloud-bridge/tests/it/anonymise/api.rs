//! The endpoint: what it takes, what it refuses, and by which code.

use super::{Described, ask, ended, form, objects, patiently, pictures, section};
use crate::harness::Bench;
use std::{collections::BTreeSet, fs, time::Duration};

const TOKEN: &str = "a-token-of-32-characters-or-more";

fn with_token(bench_dir: &tempfile::TempDir, more: &str) -> String {
    let file = bench_dir.path().join("tokens");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    section(&format!("[anonymise]\ntoken_file = {file:?}\n{more}"))
}

#[tokio::test]
async fn a_picture_is_taken_in_every_form_and_veiled() {
    let bench = Bench::start_with(&section("[anonymise]\nworker = true\nroot = true\n")).await;
    let described = Described::of(bench.bridge.http, None).await;
    let photo = pictures::photo(1);
    let (png, jpeg) = (pictures::png(&photo), pictures::jpeg(&photo));
    let (kind, body) = form(&[("note", b"front door"), ("image", &png)]);
    let mut posted = vec![
        described.post(&[("content-type", "image/jpeg")], &jpeg).await,
        described.post(&[("content-type", "image/png")], &png).await,
        described.post(&[("content-type", kind.as_str())], &body).await,
    ];
    // The same address that the replaced web service had.
    posted.push(ask(bench.bridge.http, "POST", "/", &[("content-type", kind.as_str())], &body).await);
    let mut ids = BTreeSet::new();
    for answer in &posted {
        let id = answer.id();
        assert_eq!(answer.header("location"), Some(format!("/v1/images/{id}").as_str()));
        let job = ended(&described, id).await;
        assert_eq!((&job["state"], &job["attempts"]), (&"done".into(), &1.into()), "{job}");
        assert!(job["faces"].as_u64().unwrap() >= 1, "{job}");
        let result = described.get(job["result"].as_str().unwrap()).await;
        pictures::assert_veiled(&photo, &result.body);
        ids.insert(id);
    }
    assert_eq!(ids.len(), 4);
    let results: BTreeSet<_> = ids.iter().map(|id| format!("{id}.jpg")).collect();
    assert_eq!(objects(&bench.path().join("anonymise/output")), results);
    patiently("no raw picture", async || objects(&bench.path().join("anonymise/input")).is_empty()).await;
    // The pages are still there, and metrics count.
    assert!(bench.get("/").await.0.starts_with("HTTP/1.1 200"));
    let metrics = String::from_utf8(bench.get("/metrics").await.1).unwrap();
    for line in ["accepted_total 4", "done_total 4", "failed_total 0", "queued 0", "seconds_count 4"] {
        assert!(metrics.contains(&format!("edgeveil_bridge_anonymise_{line}\n")), "{line} in {metrics}");
    }
    bench.close().await;
}

#[tokio::test]
async fn every_answer_is_described_and_everything_described_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let settings = with_token(&dir, "queue = 3\nmax_bytes = \"64 KiB\"\nmax_pixels = 100000\n");
    let bench = Bench::start_with(&settings).await;
    let (http, input) = (bench.bridge.http, bench.path().join("anonymise/input"));
    let described = Described::of(http, Some(TOKEN)).await;
    let jpeg = [("content-type", "image/jpeg")];
    let post = async |body: &[u8]| described.post(&jpeg, body).await.status;

    // Who may not.
    for bad in ["", "Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz", &format!("Bearer {TOKEN}x")] {
        let headers = [jpeg[0], ("authorization", bad)];
        assert_eq!(described.post(&headers, &pictures::small(0)).await.status, 401, "{bad}");
        let nobody = format!("/v1/images/{}", "0".repeat(36));
        for path in [nobody.clone(), nobody + "/result"] {
            assert_eq!(described.ask("GET", &path, &[("authorization", bad)], b"").await.status, 401);
        }
    }

    // Wrong kinds, by header and by content.
    for kind in
        ["image/gif", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain", "", "x"]
    {
        assert_eq!(
            described.post(&[("content-type", kind)], &pictures::small(0)).await.status,
            415,
            "{kind}"
        );
    }
    for other in
        [&b""[..], b"GIF89a\0\0", b"RIFF\0\0\0\0WEBPVP8 ", b"<svg xmlns='x'/>", b"\0\0\0\x1cftypheic"]
    {
        assert_eq!(post(other).await, 415, "{other:?}");
    }

    // Damaged ones, and too many pixels.
    let huge = pictures::resized_header(&pictures::png(&pictures::photo(0)), 60_000, 60_000);
    for (name, body) in [
        ("a stump", pictures::small(0)[..20].to_vec()),
        ("a bomb by its header", huge[..4096].to_vec()),
        ("no pixels", pictures::resized_header(&huge, 0, 9)[..4096].to_vec()),
        ("sides over what a JPEG has", pictures::resized_header(&huge, 70_000, 1)[..4096].to_vec()),
        ("all ones", pictures::resized_header(&huge, u32::MAX, u32::MAX)[..4096].to_vec()),
    ] {
        assert_eq!(post(&body).await, 422, "{name}");
    }

    // Oversize: declared, only found on the way, and within a form.
    let large = vec![0xff; 80 << 10];
    let declared = [jpeg[0], ("content-length", "99999999999")];
    assert_eq!(described.post(&declared, &large).await.status, 413);
    assert_eq!(post(&large).await, 413);
    let mut chunked = format!("{:x}\r\n", large.len()).into_bytes();
    chunked.extend_from_slice(&large);
    let headers = [jpeg[0], ("transfer-encoding", "chunked")];
    assert_eq!(described.post(&headers, &chunked).await.status, 413);
    let (kind, body) = form(&[("image", &large)]);
    assert_eq!(described.post(&[("content-type", kind.as_str())], &body).await.status, 413);
    let (kind, body) = form(&[("note", &large.repeat(2)), ("image", &pictures::small(0))]);
    assert_eq!(described.post(&[("content-type", kind.as_str())], &body).await.status, 413);

    // Forms.
    let small = pictures::small(0);
    for (fields, status) in [
        (vec![("photo", small.as_slice())], 422),
        (vec![], 422),
        (vec![("image", small.as_slice()), ("image", small.as_slice())], 422),
        (vec![("note", b"x".as_slice()); 40], 422),
        (vec![("image", b"no picture".as_slice())], 415),
    ] {
        let (kind, body) = form(&fields);
        let answer = described.post(&[("content-type", kind.as_str())], &body).await;
        assert_eq!(answer.status, status, "{} fields", fields.len());
    }
    let (kind, body) = form(&[("image", &small)]);
    assert_eq!(described.post(&[("content-type", kind.as_str())], &body[..60]).await.status, 400);
    assert_eq!(described.post(&[("content-type", "multipart/form-data")], &body).await.status, 400);

    // Nothing of all this has been kept.
    assert_eq!(objects(&input), BTreeSet::new());
    assert_eq!(bench.bridge.catalog.open_jobs().await.unwrap(), (0, 0));

    // An Idempotency-Key names one picture, also once no more are taken.
    let keyed = [jpeg[0], ("idempotency-key", "door-17")];
    let first = described.post(&keyed, &pictures::small(1)).await.id();
    assert_eq!(described.post(&keyed, &pictures::small(1)).await.id(), first);
    assert_eq!(described.post(&keyed, &pictures::small(2)).await.status, 422);
    assert_eq!(described.post(&[jpeg[0], ("idempotency-key", "")], &small).await.status, 400);
    let long = "k".repeat(256);
    assert_eq!(described.post(&[jpeg[0], ("idempotency-key", long.as_str())], &small).await.status, 400);
    for number in 2..4 {
        described.post(&jpeg, &pictures::small(number)).await.id();
    }
    assert_eq!(post(&pictures::small(9)).await, 429);
    assert_eq!(described.post(&keyed, &pictures::small(1)).await.id(), first);
    assert_eq!(described.post(&keyed, &pictures::small(2)).await.status, 422);
    assert_eq!(objects(&input).len(), 3, "what is refused, or known, leaves no raw picture");

    // States.
    let job = described.get(&format!("/v1/images/{first}")).await;
    assert_eq!(job.json()["state"], "queued");
    assert_eq!(described.get(&format!("/v1/images/{first}/result")).await.status, 409);
    for id in ["0", "%ff%fe", "..", "00000000-0000-7000-8000-000000000000"] {
        for more in ["", "/result"] {
            let answer = described.get(&format!("/v1/images/{id}{more}")).await;
            assert_eq!(answer.status, 404, "{id}{more}");
        }
    }
    let catalog = &bench.bridge.catalog;
    let claim = async || catalog.claim_job("test", Duration::from_secs(60)).await.unwrap().unwrap().id;
    let claimed = claim().await;
    catalog.job_failed(claimed, "test", "no light").await.unwrap().unwrap();
    let failed = described.get(&format!("/v1/images/{claimed}")).await.json();
    assert_eq!((&failed["state"], &failed["reason"]), (&"failed".into(), &"no light".into()));
    assert_eq!(described.get(&format!("/v1/images/{claimed}/result")).await.status, 410);
    let done = claim().await;
    catalog.job_done(done, "test", Some(2)).await.unwrap().unwrap();
    assert_eq!(
        described.get(&format!("/v1/images/{done}/result")).await.status,
        410,
        "its object is not there"
    );
    let place = bench.path().join("anonymise/output").join(done.result_key());
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, pictures::small(5)).unwrap();
    let result = described.get(&format!("/v1/images/{done}/result")).await;
    assert_eq!((result.status, result.body), (200, pictures::small(5)));

    // Other methods and addresses answer in the same form.
    for (method, path, status) in [
        ("GET", "/v1/images", 405),
        ("DELETE", "/v1/images/x", 405),
        ("POST", "/v1/openapi.json", 405),
        ("GET", "/v1/nothing", 404),
        ("POST", "/", 405),
    ] {
        let answer = ask(http, method, path, &[], b"").await;
        assert_eq!(answer.status, status, "{method} {path}");
        if path.starts_with("/v1") {
            let kind =
                if path.ends_with("openapi.json") { "application/json" } else { "application/problem+json" };
            assert_eq!(answer.header("content-type"), Some(kind), "{method} {path}");
        }
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {path}");
    }

    // A store that is away is no fault of the sender's.
    fs::remove_dir_all(&input).unwrap();
    fs::write(&input, "in the way").unwrap();
    let away = described.post(&jpeg, &pictures::small(6)).await;
    assert_eq!(away.status, 503);
    // 408 takes a minute, and GETs meet no store that is away here.
    let unseen = described.unseen("/v1/images", &[408, 503]);
    assert!(unseen.is_empty(), "described and never answered: {unseen:?}");
    bench.close().await;
}

#[tokio::test]
async fn tokens_can_be_changed_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::start_with(&with_token(&dir, "")).await;
    let described = Described::of(bench.bridge.http, Some(TOKEN)).await;
    let jpeg = [("content-type", "image/jpeg")];
    described.post(&jpeg, &pictures::small(1)).await.id();
    fs::write(dir.path().join("tokens"), "another-token-of-16-or-more\n").unwrap();
    assert_eq!(described.post(&jpeg, &pictures::small(2)).await.status, 401);
    fs::remove_file(dir.path().join("tokens")).unwrap();
    assert_eq!(described.post(&jpeg, &pictures::small(2)).await.status, 503, "nobody, rather than anybody");
    bench.close().await;
}
