//! Workers as processes of their own: what they cannot veil, what they do without a store, and how they end.

use super::{Described, Worker, ended, form, objects, patiently, pictures, section, worker_settings};
use crate::{command, harness::Bench};
use edgeveil_bridge::catalog::JobState;
use std::{fs, time::Duration};

#[tokio::test]
async fn what_cannot_be_veiled_fails_with_its_reason_and_bombs_do_no_harm() {
    let settings = section("[anonymise]\n");
    let bench = Bench::start_with(&settings).await;
    let worker = Worker::start(&bench.path(), &worker_settings(&bench, &settings));
    let described = Described::of(bench.bridge.http, None).await;
    let (jpeg, png) = ([("content-type", "image/jpeg")], [("content-type", "image/png")]);
    let whole = pictures::jpeg(&pictures::photo(3));
    let cut = described.post(&jpeg, &whole[..whole.len() / 2]).await.id();
    // 72 MB of pixels in less than a hundredth of that: as many as may be.
    let flat = pictures::png(&image::RgbImage::new(6000, 4000));
    assert!(flat.len() < 720_000, "{}", flat.len());
    let most = described.post(&png, &flat).await.id();
    // The same stream behind a header that tells of few.
    let lies = described.post(&png, &pictures::resized_header(&flat, 40, 30)).await.id();
    // One that tells of more than there is.
    let short = pictures::resized_header(&pictures::png(&pictures::photo(0)), 3000, 3000);
    let short = described.post(&png, &short).await.id();
    let good = described.post(&jpeg, &pictures::small(7)).await.id();
    for (id, wanted) in [(cut, "failed"), (most, "done"), (short, "failed"), (good, "done")] {
        let job = ended(&described, id).await;
        assert_eq!(job["state"], wanted, "{job}");
        if wanted == "failed" {
            assert!(job["reason"].as_str().unwrap().contains("corrupt picture"), "{job}");
            assert_eq!(job["attempts"], 1, "no second attempt for what would fail again");
        }
    }
    let lies = ended(&described, lies).await;
    if lies["state"] == "done" {
        let result = described.get(lies["result"].as_str().unwrap()).await;
        assert_eq!(image::load_from_memory(&result.body).unwrap().to_rgb8().dimensions(), (40, 30));
    }
    // The raw pictures of failures stay for a time.
    let raw = objects(&bench.path().join("anonymise/input"));
    assert!(raw.contains(&format!("{cut}.raw")) && raw.contains(&format!("{short}.raw")), "{raw:?}");
    worker.stop();
    bench.close().await;
}

#[tokio::test]
async fn a_store_that_is_away_costs_no_attempt() {
    let settings = section("[anonymise]\nattempts = 1\n");
    let bench = Bench::start_with(&settings).await;
    let output = bench.path().join("anonymise/output");
    let worker = Worker::start(&bench.path(), &worker_settings(&bench, &settings));
    let described = Described::of(bench.bridge.http, None).await;
    let jpeg = [("content-type", "image/jpeg")];
    ended(&described, described.post(&jpeg, &pictures::small(1)).await.id()).await;
    fs::remove_dir_all(&output).unwrap();
    fs::write(&output, "in the way").unwrap();
    let id = described.post(&jpeg, &pictures::small(2)).await.id();
    patiently("a line about it", async || worker.log().contains("does not answer; trying again")).await;
    let job = described.get(&format!("/v1/images/{id}")).await.json();
    assert_ne!(job["state"], "failed", "{job}");
    fs::remove_file(&output).unwrap();
    let job = ended(&described, id).await;
    assert_eq!((&job["state"], &job["attempts"]), (&"done".into(), &1.into()), "{job}");
    assert_eq!(worker.log().matches("does not answer").count(), 1, "{}", worker.log());
    worker.stop();
    bench.close().await;
}

#[tokio::test]
async fn a_worker_that_is_asked_to_end_gives_back_what_it_has() {
    let settings = section("[anonymise]\nlease = \"1 h\"\nroot = true\n");
    let bench = Bench::start_with(&settings).await;
    let described = Described::of(bench.bridge.http, None).await;
    let mut ids = Vec::new();
    for number in 0..8 {
        let (kind, body) = form(&[("image", &pictures::jpeg(&pictures::photo(number)))]);
        ids.push(described.post(&[("content-type", kind.as_str())], &body).await.id());
    }
    let catalog = bench.bridge.catalog.clone();
    for _ in 0..2 {
        let worker = Worker::start(&bench.path(), &worker_settings(&bench, &settings));
        patiently("a job at work", async || catalog.open_jobs().await.unwrap().1 > 0).await;
        worker.stop();
        // With a lease of an hour nobody could take up what it had not given back.
        assert_eq!(catalog.open_jobs().await.unwrap().1, 0);
    }
    let worker = Worker::start(&bench.path(), &worker_settings(&bench, &settings));
    for id in ids {
        let job = ended(&described, id).await;
        assert_eq!((&job["state"], &job["attempts"]), (&"done".into(), &1.into()), "{job}");
    }
    worker.stop();
    bench.close().await;
}

#[tokio::test]
async fn a_picture_that_ends_its_workers_is_given_up() {
    let settings = section("[anonymise]\nattempts = 2\nlease = \"2 s\"\n");
    let bench = Bench::start_with(&settings).await;
    let described = Described::of(bench.bridge.http, None).await;
    let id = described.post(&[("content-type", "image/jpeg")], &pictures::small(1)).await.id();
    let catalog = &bench.bridge.catalog;
    for name in ["first", "second"] {
        let claimed = catalog.claim_job(name, Duration::ZERO).await.unwrap().unwrap();
        assert_eq!(claimed.id, id);
    }
    // Whoever was taken over changes nothing any more.
    assert_eq!(catalog.job_done(id, "first", None).await.unwrap(), None);
    assert!(!catalog.renew_job(id, "first", Duration::from_secs(1)).await.unwrap());
    let worker = Worker::start(&bench.path(), &worker_settings(&bench, &settings));
    let job = ended(&described, id).await;
    assert_eq!(job["state"], "failed");
    assert!(job["reason"].as_str().unwrap().starts_with("given up after 2 attempts"), "{job}");
    assert_eq!(catalog.job(id).await.unwrap().unwrap().state, JobState::Failed);
    worker.stop();
    bench.close().await;
}

#[test]
fn mistakes_are_named_with_their_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let work = |settings: &str| {
        fs::write(dir.path().join("w.toml"), settings).unwrap();
        command::run(dir.path(), &["worker", "--config", "w.toml"])
    };
    let (code, text) = work("");
    assert!(code == Some(1) && text.contains("no section [anonymise]"), "{text}");
    let (code, text) = work("[anonymise.veil]\nmodel = \"nowhere\"\n");
    assert!(code == Some(1) && text.contains("fetch-models"), "{text}");
    let (code, text) = work("[http]\nlisten = \"0.0.0.0:0\"\n[anonymise]\n");
    assert!(code == Some(64) && text.contains("`anonymise.token_file`: is missing"), "{text}");
    fs::write(dir.path().join("t"), "short\n").unwrap();
    fs::write(
        dir.path().join("s.toml"),
        "http.listen = \"127.0.0.1:0\"\nbroker.listen = \"127.0.0.1:0\"\n[anonymise]\ntoken_file = \"t\"\n",
    )
    .unwrap();
    let (code, text) = command::run(dir.path(), &["serve", "--config", "s.toml"]);
    assert!(code == Some(1) && text.contains("token_file t: wants a token of 16"), "{text}");
}
