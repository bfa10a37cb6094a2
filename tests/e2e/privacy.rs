//! The face of the test photo is nowhere on the disks of the device and the bridge: every picture that can be found there
//! is decoded and compared with the original.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, files_below, free_port, models, wait_for};
use image::{GrayImage, imageops};
use std::path::Path;

/// The face in NASA's portrait of Eileen Collins (scikit-image's `astronaut.png`): x, y, width, height.
const FACE: [u32; 4] = [176, 72, 98, 116];
const SIDE: u32 = 24;

/// What of the face is no smooth shade: the box in 24x24 grey levels less its own 4x4 low-pass.
fn detail(picture: &GrayImage) -> Vec<f64> {
    let [x, y, width, height] = FACE;
    let face = imageops::crop_imm(picture, x, y, width, height).to_image();
    let small = imageops::resize(&face, SIDE, SIDE, imageops::FilterType::Triangle);
    let coarse = imageops::resize(&small, 4, 4, imageops::FilterType::Triangle);
    let smooth = imageops::resize(&coarse, SIDE, SIDE, imageops::FilterType::CatmullRom);
    small.iter().zip(smooth.iter()).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect()
}

/// The share of the original's detail that another picture shows: 1 when it is the same, 0 when nothing is left.
fn leak(original: &[f64], other: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(original, other) / dot(original, original)
}

/// Every JPEG or PNG in a file, whatever the file is.
fn pictures(bytes: &[u8]) -> Vec<GrayImage> {
    let starts =
        bytes.windows(4).enumerate().filter(|(_, w)| w.starts_with(&[0xff, 0xd8, 0xff]) || *w == b"\x89PNG");
    starts.filter_map(|(at, _)| image::load_from_memory(&bytes[at..]).ok()).map(|p| p.to_luma8()).collect()
}

/// Raw pixels would show as a long run of the original's bytes.
fn holds_raw_pixels(bytes: &[u8], original: &image::RgbImage) -> bool {
    let [x, y, width, height] = FACE;
    (y..y + height).step_by(8).any(|row| {
        let start = 3 * (row * original.width() + x) as usize;
        let run = &original.as_raw()[start..start + 3 * width as usize];
        bytes.windows(run.len()).any(|window| window == run)
    })
}

fn search(dir: &Path, original: &image::RgbImage) -> usize {
    let before = detail(&image::DynamicImage::from(original.clone()).to_luma8());
    assert!((leak(&before, &before) - 1.0).abs() < 1e-9);
    let mut found = 0;
    for file in files_below(dir) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!holds_raw_pixels(&bytes, original), "raw pixels of the face in {}", file.display());
        for picture in pictures(&bytes) {
            found += 1;
            assert_eq!(picture.dimensions(), original.dimensions());
            let leak = leak(&before, &detail(&picture));
            assert!(picture.get_pixel(256, 500).0[0] < 60, "{}: the camera's mask is open", file.display());
            assert!(leak < 0.15, "{}: the face shows {leak:.2} of its detail", file.display());
        }
    }
    found
}

#[test]
fn no_picture_on_a_disk_shows_the_face() {
    let original = image::open(models().join("astronaut.png")).unwrap().to_rgb8();
    for cover in ["deep-blur", "solid", "mosaic"] {
        let lab = Lab::new(&["edge-001"]);
        // Nobody listens there yet, so everything stays on the device.
        let port = free_port();
        let more = format!(
            "[spool]\ncommit_interval = \"100 ms\"\nmin_free = \"0 B\"\n\
             [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 5\n\
             masks = [[[0, 0.95], [1, 0.95], [1, 1], [0, 1]]]\n\
             [veil]\nmodel = \"{0}\"\ncover = \"{cover}\"\n",
            models().display()
        );
        let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &more));
        let data = lab.path("agent-edge-001");
        wait_for("three images in the spool", || {
            agent.assert_running();
            let jpegs = files_below(&data)
                .iter()
                .filter(|f| !pictures(&std::fs::read(f).unwrap_or_default()).is_empty())
                .count();
            (jpegs >= 3).then_some(())
        });
        assert!(agent.stop().success());
        assert!(search(&data, &original) >= 3, "{cover}");

        let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
        lab.drain("edge-001", port);
        assert!(bridge.stop().success());
        let stored = lab.path("bridge");
        assert!(search(&stored, &original) >= 3, "{cover}");
        search(&data, &original);
        // The rest of the picture is as it was: the search would have found a face that is there.
        let unveiled =
            lab.write("unveiled/astronaut.png", std::fs::read(models().join("astronaut.png")).unwrap());
        let bytes = std::fs::read(unveiled).unwrap();
        assert!(leak(&detail(&pictures(&bytes)[0]), &detail(&pictures(&bytes)[0])) > 0.99);
    }
}

#[test]
fn without_a_model_no_image_is_kept_and_the_sensors_go_on() {
    let lab = Lab::new(&["edge-001"]);
    let more = format!(
        "[spool]\ncommit_interval = \"100 ms\"\nmin_free = \"0 B\"\n\
         [[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 50\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{}/astronaut.png\" }}\nfps = 20\n\
         [veil]\nmodel = \"/nonexistent/models\"\n",
        models().display()
    );
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", free_port(), &more));
    wait_for("the remedy in the log", || {
        agent.assert_running();
        agent.log().contains("fetch-models").then_some(())
    });
    let data = lab.path("agent-edge-001");
    wait_for("readings in the spool", || {
        agent.assert_running();
        files_below(&data)
            .iter()
            .any(|f| String::from_utf8_lossy(&std::fs::read(f).unwrap_or_default()).contains("sensor1"))
            .then_some(())
    });
    assert!(agent.stop().success());
    let kept: usize =
        files_below(&data).iter().map(|f| pictures(&std::fs::read(f).unwrap_or_default()).len()).sum();
    assert_eq!(kept, 0);
}
