//! Many pictures by several clients, workers killed at random: each has one result, and no raw picture is left.
//!
//! `EDGEVEIL_LONG=1` takes 200 photos; without it there are 20.

use super::{Described, PATIENCE, Worker, form, objects, pictures, section, worker_settings};
use crate::{harness::Bench, postgres::Server};
use edgeveil_bridge::anonymise::JobId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::sleep;

const CLIENTS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_sqlite() {
    killed("SQLite", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_postgres() {
    let Some(server) = Server::start().await else { return };
    killed("PostgreSQL", &server.settings()).await;
}

async fn killed(name: &str, catalog: &str) {
    let long = std::env::var_os("EDGEVEIL_LONG").is_some();
    let (photos, kills) = if long { (200, 60) } else { (20, 6) };
    let settings = format!("{}{catalog}", section("[anonymise]\nattempts = 100\nlease = \"2 s\"\n"));
    let bench = Bench::start_with(&settings).await;
    let described = Arc::new(Described::of(bench.bridge.http, None).await);
    let (dir, of_worker) = (bench.path(), worker_settings(&bench, &settings));
    let start = || Worker::start(&dir, &of_worker);
    let mut workers = vec![start(), start()];

    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let described = described.clone();
            tokio::spawn(async move {
                let mut posted = BTreeMap::new();
                for number in (client..photos).step_by(CLIENTS) {
                    let photo = pictures::jpeg(&pictures::photo(u8::try_from(number).unwrap()));
                    let (kind, body) = form(&[("image", &photo)]);
                    let key = format!("photo-{number}");
                    let headers = [("content-type", kind.as_str()), ("idempotency-key", key.as_str())];
                    let id = described.post(&headers, &body).await.id();
                    // A client that has not heard the answer sends again.
                    if number % 7 == 0 {
                        assert_eq!(described.post(&headers, &body).await.id(), id);
                    }
                    posted.insert(id, number);
                }
                posted
            })
        })
        .collect();

    let mut random = [0; 1];
    for kill in 0..kills {
        getrandom::fill(&mut random).unwrap();
        sleep(Duration::from_millis(300 + 10 * u64::from(random[0]))).await;
        workers.remove(kill % 2).kill();
        workers.insert(kill % 2, start());
    }
    let mut posted: BTreeMap<JobId, usize> = BTreeMap::new();
    for client in clients {
        posted.extend(client.await.unwrap());
    }
    assert_eq!(posted.len(), photos, "each photo has one id");

    let catalog = &bench.bridge.catalog;
    let patience = Instant::now() + if long { 6 * PATIENCE } else { PATIENCE };
    while catalog.open_jobs().await.unwrap() != (0, 0) {
        assert!(Instant::now() < patience, "{:?} never came to an end", catalog.open_jobs().await);
        sleep(Duration::from_millis(200)).await;
    }
    workers.drain(..).for_each(Worker::stop);
    // Whoever was killed between a result and the removal of its raw picture: the next one at its start.
    let worker = start();
    let input = dir.join("anonymise/input");
    while !objects(&input).is_empty() {
        assert!(Instant::now() < patience, "raw pictures are left: {:?}", objects(&input));
        sleep(Duration::from_millis(50)).await;
    }
    worker.stop();

    let results: BTreeSet<_> = posted.keys().map(|id| format!("{id}.jpg")).collect();
    assert_eq!(objects(&dir.join("anonymise/output")), results, "one result for each picture");
    let (mut took, mut attempts) = (Vec::new(), 0);
    for (id, number) in &posted {
        let job = catalog.job(*id).await.unwrap().unwrap();
        let result = described.get(&format!("/v1/images/{id}/result")).await;
        pictures::assert_veiled(&pictures::photo(u8::try_from(*number).unwrap()), &result.body);
        took.push(job.changed - job.received);
        attempts += job.attempts;
    }
    took.sort_unstable();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
    println!(
        "{name}: {photos} photos by {CLIENTS} clients, {kills} workers killed, {attempts} attempts, {} results, 0 raw left; from 202 to done p50 {} ms, p95 {} ms",
        results.len(),
        at(50),
        at(95)
    );
    bench.close().await;
}
