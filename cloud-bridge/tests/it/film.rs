//! Films of a camera's images: the right frames, the same ones after an interruption, and players that take them.

use crate::harness::{Bench, boot, jpeg_of};
use edgeveil_bridge::film::{FilmError, Made, Wanted, make};
use edgeveil_wire::{ClockState, Lane, Stamp};
use std::{fs, path::Path, process::Command, time::Duration};

const IMAGES: u64 = 600;

/// A bridge with that many images of `desk`.
async fn bench() -> Bench {
    let bench = Bench::start().await;
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
        distinct: false,
        stamp: Some(jiff::tz::TimeZone::UTC),
        side: 1920,
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
