//! What crashes leave half done, and what has expired.

use super::{objects, pictures};
use crate::harness::Bench;
use bytes::Bytes;
use edgeveil_bridge::{
    anonymise::{JobId, Mender, Places},
    catalog::{Accepted, JobState, NewJob},
    settings::{AnonymiseSettings, Settings},
};
use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, SystemTime},
};

struct Lab {
    bench: Bench,
    mender: Mender,
}

impl Lab {
    async fn new(change: impl FnOnce(&mut AnonymiseSettings)) -> Self {
        let bench = Bench::start().await;
        let text = format!("data_dir = {:?}\n[anonymise]\n", bench.path());
        let mut settings = Settings::parse("t", &text, &|_| None).unwrap().anonymise.unwrap();
        change(&mut settings);
        let places = Places::open(&settings).await.unwrap();
        let mender = Mender { settings, catalog: bench.bridge.catalog.clone(), places };
        Self { bench, mender }
    }

    /// A job whose raw picture is there.
    async fn job(&self, made: SystemTime) -> JobId {
        let id = self.raw(made).await;
        let new = NewJob { id, bytes: 1, digest: String::new(), idempotency: None };
        assert!(matches!(self.mender.catalog.accept_job(&new, 99).await.unwrap(), Accepted::New(_)));
        id
    }

    /// A raw picture.
    async fn raw(&self, made: SystemTime) -> JobId {
        let id = JobId::new(made).unwrap();
        self.mender.places.input.put(&id.raw_key(), Bytes::from_static(b"raw")).await.unwrap();
        id
    }

    fn result(&self, id: JobId) {
        let file = self.bench.path().join("anonymise/output").join(id.result_key());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, pictures::small(1)).unwrap();
    }

    /// Claims the one that waits longest.
    async fn claim(&self) -> JobId {
        self.mender.catalog.claim_job("test", Duration::from_secs(60)).await.unwrap().unwrap().id
    }

    fn there(&self, place: &str) -> BTreeSet<String> {
        objects(&self.bench.path().join("anonymise").join(place))
    }
}

fn raw(ids: &[JobId]) -> BTreeSet<String> {
    ids.iter().map(|id| format!("{id}.raw")).collect()
}

#[tokio::test]
async fn what_a_crash_leaves_is_finished() {
    let lab = Lab::new(|_| {}).await;
    let now = SystemTime::now();
    let hour_ago = now - Duration::from_secs(3600);
    // Done and marked, and killed before the raw picture was removed.
    let done = lab.job(hour_ago).await;
    assert_eq!(lab.claim().await, done);
    lab.result(done);
    lab.mender.catalog.job_done(done, "test", Some(1)).await.unwrap().unwrap();
    // Put, and killed before the row; and one that may still get its row.
    let (orphan, young) = (lab.raw(hour_ago).await, lab.raw(now).await);
    // A row whose raw picture somebody has removed; one that a killed worker had come to the end with; one that just waits.
    let (lost, almost, waits) = (lab.job(hour_ago).await, lab.job(hour_ago).await, lab.job(now).await);
    for id in [lost, almost] {
        lab.mender.places.input.delete(&id.raw_key()).await.unwrap();
    }
    lab.result(almost);
    // And what is none of ours.
    lab.mender.places.input.put("2020/01/01/notes.txt", Bytes::from_static(b"x")).await.unwrap();

    // Left half written by a process that was killed; and one that somebody is writing now.
    let input = lab.bench.path().join("anonymise/input");
    let (half, under_way) = (input.join("half.raw#1"), input.join("under-way.raw#1"));
    for path in [&half, &under_way] {
        fs::write(path, "x").unwrap();
    }
    fs::File::options().write(true).open(&half).unwrap().set_modified(hour_ago).unwrap();

    let mended = lab.mender.round(now).await.unwrap();
    assert_eq!((mended.orphans, mended.raw, mended.without_raw, mended.expired), (1, 1, 1, 0));
    assert!(!half.exists() && under_way.exists());
    let mut left = raw(&[young, waits]);
    left.insert("notes.txt".to_owned());
    assert_eq!(lab.there("input"), left, "{orphan} is gone");
    let state = async |id| lab.mender.catalog.job(id).await.unwrap().unwrap();
    assert_eq!(state(lost).await.state, JobState::Failed);
    assert!(state(lost).await.reason.unwrap().contains("raw picture is gone"));
    for (id, wanted) in [(done, JobState::Done), (almost, JobState::Queued), (waits, JobState::Queued)] {
        assert_eq!(state(id).await.state, wanted);
    }
    let again = lab.mender.round(now).await.unwrap();
    assert_eq!(again, Default::default(), "nothing is left to be done");
    lab.bench.close().await;
}

#[tokio::test]
async fn failures_and_results_are_kept_for_their_time() {
    let lab = Lab::new(|_| {}).await;
    let now = SystemTime::now();
    let (fails, works) = (lab.job(now).await, lab.job(now).await);
    for _ in 0..2 {
        let id = lab.claim().await;
        if id == fails {
            lab.mender.catalog.job_failed(id, "test", "no light").await.unwrap().unwrap();
        } else {
            lab.result(id);
            lab.mender.catalog.job_done(id, "test", Some(0)).await.unwrap().unwrap();
        }
    }
    lab.mender.round(now).await.unwrap();
    assert_eq!(lab.there("input"), raw(&[fails]), "a failed one is there to be looked at");
    let Lab { bench, mut mender } = lab;
    tokio::time::sleep(Duration::from_millis(5)).await;
    (mender.settings.keep_failed, mender.settings.keep_results) = (Duration::ZERO, None);
    assert_eq!(mender.round(now).await.unwrap().expired, 1);
    assert!(mender.catalog.job(fails).await.unwrap().is_none());
    assert!(mender.catalog.job(works).await.unwrap().is_some());
    let lab = Lab { bench, mender };
    assert_eq!((lab.there("input").len(), lab.there("output").len()), (0, 1));
    let Lab { bench, mut mender } = lab;
    mender.settings.keep_results = Some(Duration::ZERO);
    assert_eq!(mender.round(now).await.unwrap().expired, 1);
    assert!(mender.catalog.job(works).await.unwrap().is_none());
    assert!(!mender.places.output.has(&works.result_key()).await.unwrap());
    bench.close().await;
}

#[tokio::test]
async fn raw_pictures_are_kept_where_that_is_wanted() {
    let lab = Lab::new(|settings| settings.keep_raw = true).await;
    let id = lab.job(SystemTime::now()).await;
    lab.claim().await;
    lab.result(id);
    lab.mender.catalog.job_done(id, "test", None).await.unwrap().unwrap();
    lab.mender.round(SystemTime::now()).await.unwrap();
    assert_eq!(lab.there("input"), raw(&[id]));
    lab.bench.close().await;
}
