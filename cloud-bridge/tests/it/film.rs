//! Films of a camera's images: the right frames, the same ones after an interruption, and players that take them.

use crate::{
    harness::{Bench, boot, jpeg_of, until},
    postgres::Server,
};
use edgeveil_bridge::{
    catalog::FilmRow,
    film::{FilmError, Made, Wanted, make},
    verify,
};
use edgeveil_wire::{ClockState, Lane, Stamp};
use std::{fs, path::Path, process::Command, time::Duration};

const IMAGES: u64 = 600;

/// A bridge with that many images of `desk`.
async fn bench() -> Bench {
    bench_with("").await
}

async fn bench_with(extra: &str) -> Bench {
    let bench = Bench::start_with(extra).await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    for first in (0..IMAGES).step_by(20) {
        let mut ids = Vec::new();
        for seq in first..first + 20 {
            // One in each second.
            let at = jiff::Timestamp::from_second(1_700_000_000 + seq as i64).unwrap();
            let stamp = Stamp::new(boot(1), Lane::Image, seq, at, ClockState::Synced, seq);
            let (meta, picture) = jpeg_of(stamp, "pi", "desk");
            pi.say("image/desk", picture).await;
            ids.push(meta.stamp.id);
        }
        pi.acks(ids).await;
    }
    bench
}

fn wanted(file: &Path) -> Wanted {
    Wanted {
        device: "pi".parse().unwrap(),
        camera: "desk".parse().unwrap(),
        from: 0,
        to: i64::MAX / 2,
        every: Duration::from_millis(1),
        fps: 25,
        dark: 0,
        blurred: 0.0,
        distinct: false,
        stamp: Some(jiff::tz::TimeZone::UTC),
        side: 1920,
        most: u64::MAX,
        file: file.to_owned(),
    }
}

async fn film(bench: &Bench, wanted: &Wanted) -> Result<Made, FilmError> {
    make(&bench.bridge.catalog, &bench.bridge.objects, wanted, |_, _| {}).await
}

/// Frames and seconds, as ffprobe counts them.
fn probe(file: &Path) -> (u64, f64) {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-count_frames",
            "-select_streams",
            "v:0",
            "-show_entries",
            "stream=nb_read_frames,duration",
            "-of",
            "csv=p=0",
        ])
        .arg(file)
        .output()
        .expect("ffmpeg is not installed: run the tests by tests/run");
    let said = String::from_utf8(output.stdout).unwrap();
    let (seconds, frames) =
        said.trim().split_once(',').unwrap_or_else(|| panic!("{said} {:?}", output.stderr));
    (frames.parse().unwrap(), seconds.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_has_its_frames_and_the_same_ones_after_an_interruption() {
    let bench = bench().await;
    let dir = tempfile::tempdir().unwrap();
    for end in ["avi", "mp4"] {
        let whole = wanted(&dir.path().join(format!("whole.{end}")));
        assert_eq!(
            film(&bench, &whole).await.unwrap(),
            Made { frames: IMAGES, images: IMAGES, ..Made::default() }
        );
        let (frames, seconds) = probe(&whole.file);
        assert!(frames == IMAGES && (seconds - 24.0).abs() < 0.1, "{end}: {frames} frames, {seconds} s");

        // It ends somewhere in the second part, as by a kill: nothing after it is run.
        let again = wanted(&dir.path().join(format!("again.{end}")));
        let (reached, stop) = tokio::sync::oneshot::channel();
        let mut reached = Some(reached);
        let told = |done: usize, _: usize| {
            if done == 400 {
                let _ = reached.take().map(|reached| reached.send(()));
            }
        };
        tokio::select! {
            biased;
            _ = stop => {}
            made = make(&bench.bridge.catalog, &bench.bridge.objects, &again, told) => panic!("{made:?}"),
        }
        let parts = dir.path().join(format!("again.{end}.parts"));
        assert!(!again.file.exists() && fs::read_dir(&parts).unwrap().count() >= 2);
        // Another film does not take it for its own.
        let other = Wanted { fps: 10, ..again.clone() };
        assert!(matches!(film(&bench, &other).await, Err(FilmError::Other(_))));
        let made = film(&bench, &again).await.unwrap();
        assert_eq!((made.frames, made.images), (IMAGES, IMAGES), "each image once");
        assert_eq!(fs::read(&again.file).unwrap().len(), fs::read(&whole.file).unwrap().len());
        assert!(probe(&again.file).0 == IMAGES && !parts.exists());
        if end == "avi" {
            assert!(fs::read(&again.file).unwrap() == fs::read(&whole.file).unwrap(), "the same frames");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_left_out_as_is_wanted_and_errors_name_the_remedy() {
    let bench = bench().await;
    let dir = tempfile::tempdir().unwrap();
    let base = wanted(&dir.path().join("film.avi"));
    let film = async |wanted: Wanted| film(&bench, &wanted).await;
    // The pictures are all alike.
    let made = film(Wanted { distinct: true, ..base.clone() }).await.unwrap();
    assert_eq!((made.frames, made.same), (1, IMAGES - 1));
    let night = film(Wanted { dark: 255, ..base.clone() }).await.unwrap_err().to_string();
    assert!(night.contains("--dark"), "{night}");
    let nothing =
        film(Wanted { camera: "door".parse().unwrap(), ..base.clone() }).await.unwrap_err().to_string();
    assert!(nothing.contains("gallery"), "{nothing}");
    let kind =
        film(Wanted { file: dir.path().join("film.webm"), ..base.clone() }).await.unwrap_err().to_string();
    assert!(kind.contains("FILE.avi"), "{kind}");
    assert!(fs::read_dir(dir.path()).unwrap().count() == 1, "the one film alone");
}

/// A browser without a login, on a bridge where anybody acts.
struct Browser {
    cookie: String,
    token: String,
}

impl Browser {
    async fn new(bench: &Bench) -> Self {
        let (head, body) = bench.get("/devices/pi").await;
        let (_, cookie) = head.split_once("set-cookie: ").unwrap();
        let body = String::from_utf8(body).unwrap();
        let (_, token) = body.split_once("name=\"token\" value=\"").expect("the form of a film");
        let first = |text: &str, end: char| text.split(end).next().unwrap().to_owned();
        Self { cookie: first(cookie, ';'), token: first(token, '"') }
    }

    async fn post(&self, bench: &Bench, path: &str, form: &str) -> (String, String) {
        let form = format!("{form}&token={}", self.token);
        let (head, body) = bench.ask("POST", path, &[("cookie", &self.cookie)], &form).await;
        (head, String::from_utf8(body).unwrap())
    }
}

const ORDER: &str = "device=pi&camera=desk&from=2023-11-14&to=2023-11-15&every=1&fps=25";

async fn done(bench: &Bench) -> FilmRow {
    until("a film", async || {
        bench
            .bridge
            .catalog
            .films()
            .await
            .unwrap()
            .iter()
            .any(|film| film.state == "done" || film.state == "failed")
    })
    .await;
    bench.bridge.catalog.films().await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_button_makes_a_film_that_players_can_have_in_parts() {
    let bench = bench().await;
    let browser = Browser::new(&bench).await;
    for (form, why) in [
        ("device=pi&camera=desk&from=2023-11-15&to=2023-11-14&every=1&fps=25", "before it ends"),
        ("device=pi&camera=desk&from=2020-11-14&to=2020-11-15&every=1&fps=25", "there is no image"),
        ("device=pi&camera=desk&from=x&to=2023-11-14&every=1&fps=25", "a day is written"),
        ("device=pi&camera=desk&from=2023-11-13&to=2023-11-14&every=1&fps=0", "frames a second"),
        ("device=..%2Fx&camera=desk&from=2023-11-13&to=2023-11-14&every=1&fps=5", "no such camera"),
    ] {
        let (head, body) = browser.post(&bench, "/films", form).await;
        assert!(head.starts_with("HTTP/1.1 400") && body.contains(why), "{form}: {head} {body}");
    }
    let (head, body) = browser.post(&bench, "/films", ORDER).await;
    assert!(head.starts_with("HTTP/1.1 303"), "{head} {body}");
    let film = done(&bench).await;
    assert_eq!(
        (film.state.as_str(), film.frames, film.asked_by.as_str()),
        ("done", IMAGES as i64, "anybody"),
        "{film:?}"
    );
    assert_eq!((film.looked, film.images), (IMAGES as i64, IMAGES as i64));

    let page = String::from_utf8(bench.get("/films").await.1).unwrap();
    let path = format!("/films/{}/pi-desk.mp4", film.id);
    assert!(page.contains(&path) && page.contains("600 frames"), "{page}");
    assert!(String::from_utf8(bench.get(&format!("/films/{}", film.id)).await.1).unwrap().contains("<video"));
    let (head, whole) = bench.get(&path).await;
    assert!(head.contains("content-type: video/mp4") && head.contains("accept-ranges: bytes"), "{head}");
    assert_eq!(whole.len() as i64, film.bytes);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("film.mp4"), &whole).unwrap();
    assert_eq!(probe(&dir.path().join("film.mp4")).0, IMAGES);
    let (head, part) = bench.ask("GET", &path, &[("range", "bytes=100-299")], "").await;
    assert!(
        head.starts_with("HTTP/1.1 206") && head.contains(&format!("bytes 100-299/{}", film.bytes)),
        "{head}"
    );
    assert_eq!(part, whole[100..300]);
    let (head, _) = bench.ask("GET", &path, &[("range", "bytes=999999999-")], "").await;
    assert!(head.starts_with("HTTP/1.1 416"), "{head}");

    // It is no object that nobody knows, and it goes when somebody says so.
    let clean = async || {
        let found = verify::verify(&bench.bridge.catalog, &bench.bridge.objects).await.unwrap();
        assert!(found.iter().all(|finding| !finding.is_wrong()), "{found:?}");
    };
    clean().await;
    assert!(bench.bridge.objects.has(film.object.as_ref().unwrap()).await.unwrap());
    let (head, _) = bench.ask("POST", &format!("/films/{}/remove", film.id), &[], "token=x").await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    browser.post(&bench, &format!("/films/{}/remove", film.id), "").await;
    assert!(!bench.bridge.objects.has(film.object.as_ref().unwrap()).await.unwrap());
    clean().await;
    assert!(bench.get(&path).await.0.starts_with("HTTP/1.1 404"));
    let actions: Vec<_> =
        bench.bridge.catalog.actions(10).await.unwrap().into_iter().map(|one| one.action).collect();
    assert_eq!(actions, ["remove-film", "timelapse"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_goes_on_after_a_restart_and_one_that_is_removed_ends() {
    let bench = bench().await;
    let browser = Browser::new(&bench).await;
    browser.post(&bench, "/films", ORDER).await;
    let films = async |bench: &Bench| bench.bridge.catalog.films().await.unwrap();
    let parts = |bench: &Bench, id: &str| bench.path().join(format!("films/{id}.mp4.parts"));
    let id = films(&bench).await[0].id.clone();
    until("its first part", async || parts(&bench, &id).join("progress.json").exists()).await;
    let bench = bench.restart().await;
    let film = done(&bench).await;
    assert_eq!((film.state.as_str(), film.frames), ("done", IMAGES as i64), "{film:?}");
    assert!(!parts(&bench, &id).exists());

    browser.post(&bench, "/films", ORDER).await;
    let id = films(&bench).await[0].id.clone();
    until("its work", async || parts(&bench, &id).exists()).await;
    browser.post(&bench, &format!("/films/{id}/remove"), "").await;
    until("its end", async || !parts(&bench, &id).exists()).await;
    assert_eq!(films(&bench).await.len(), 1);
    let objects: Vec<_> = bench.bridge.objects.list().await.unwrap();
    assert_eq!(objects.iter().filter(|(key, _)| key.starts_with("films/")).count(), 1, "the first one's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_is_kept_no_longer_than_its_images() {
    let server = match Server::start().await {
        Some(server) => server,
        None => return,
    };
    let bench = bench_with(&format!("{}\n[retention]\nimages = \"30 d\"\n", server.settings())).await;
    let browser = Browser::new(&bench).await;
    browser.post(&bench, "/films", ORDER).await;
    let film = done(&bench).await;
    assert_eq!(film.state, "done", "{film:?}");
    let catalog = &bench.bridge.catalog;
    let (oldest, none) = (film.oldest.unwrap(), Vec::<FilmRow>::new());
    assert_eq!(catalog.films_to_remove(Some(oldest)).await.unwrap(), none);
    let gone = catalog.films_to_remove(Some(oldest + 1)).await.unwrap();
    assert_eq!(gone, [film]);
    edgeveil_bridge::film::remove(catalog, &bench.bridge.objects, &gone[0]).await.unwrap();
    assert_eq!(catalog.films().await.unwrap(), none);
    // Of more that wait than are made soon, no more are taken.
    let order = |n: i64| FilmRow { id: format!("{n:032x}"), asked: n, ..gone[0].clone() };
    let mut taken = Vec::new();
    for n in 0..8 {
        taken.push(catalog.ask_for_film(&order(n)).await.unwrap());
    }
    assert!(taken[..5].iter().all(|taken| *taken) && !taken[7], "{taken:?}");
}

/// Bridges that end with a film half sent, again and again, leave nothing of it behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_is_given_up_leaves_no_object() {
    let bench = Bench::start().await;
    let (catalog, objects) = (&bench.bridge.catalog, &bench.bridge.objects);
    let now = jiff::Timestamp::now().as_millisecond();
    let film = FilmRow {
        id: "f".repeat(32),
        asked: now,
        asked_by: "ann".to_owned(),
        device: "pi".to_owned(),
        camera: "desk".to_owned(),
        wanted: r#"{"from":0,"to":1000,"every":1,"fps":25,"lean":false,"zone":"UTC"}"#.to_owned(),
        state: "waiting".to_owned(),
        changed: now,
        looked: 0,
        images: 0,
        frames: 0,
        oldest: None,
        object: None,
        bytes: 0,
        note: None,
        attempts: 0,
    };
    objects.put("films/half.mp4", "half".into()).await.unwrap();
    assert!(catalog.ask_for_film(&film).await.unwrap());
    for _ in 0..3 {
        assert!(catalog.take_film("another", now, 0).await.unwrap().is_some());
    }
    assert!(catalog.film_goes_to(&film.id, "another", "films/half.mp4").await.unwrap());
    // It is heard of no more.
    assert!(catalog.film_goes_on(&film.id, "another", now - 3_600_000, (0, 0)).await.unwrap());
    let given_up = done(&bench).await;
    assert_eq!((given_up.state.as_str(), given_up.attempts), ("failed", 4), "{given_up:?}");
    assert!(!objects.has("films/half.mp4").await.unwrap());
}
