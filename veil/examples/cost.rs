//! What the veil costs on this machine, as a program: time by step, and memory that must not grow.
//!
//! ```sh
//! cargo run --release -p edgeveil-veil --example cost -- stills PHOTO...
//! cargo run --release -p edgeveil-veil --example cost -- stream fast 1920x1080 10000 [PHOTO]
//! cargo run --release -p edgeveil-veil --example cost -- yuyv 640x480
//! ```
//!
//! `stills` prints milliseconds for each profile and step, over all photos. `stream` makes a camera's frames from a photo
//! (the test photo unless told) that moves, stands still and comes in with noise, and prints the resident memory as the
//! frames pass. `yuyv` takes the way from a camera's YUYV to a JPEG apart.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use edgeveil_veil::{Frame, Limits, Profile, Settings, Veil, models_dir};

type Problem = Box<dyn std::error::Error>;

fn main() -> Result<(), Problem> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["stills", _, ..] => stills(&words[1..]),
        ["stream", profile, size, frames, ref photo @ ..] if photo.len() < 2 => {
            let (width, height) = size.split_once('x').ok_or("a size is written 1920x1080")?;
            let photo = photo.first().map_or_else(|| models_dir().join("astronaut.png"), PathBuf::from);
            let photo = image::ImageReader::open(&photo)?.decode()?.into_rgb8();
            stream(profile.parse()?, width.parse()?, height.parse()?, frames.parse()?, &photo)
        }
        ["yuyv", size] => {
            let (width, height) = size.split_once('x').ok_or("a size is written 1920x1080")?;
            yuyv(width.parse()?, height.parse()?)
        }
        _ => Err(
            "usage: cost stills PHOTO... | stream PROFILE WIDTHxHEIGHT FRAMES [PHOTO] | yuyv WIDTHxHEIGHT"
                .into(),
        ),
    }
}

/// Medians over moving frames of the test photo, every one of which is searched.
fn yuyv(width: u32, height: u32) -> Result<(), Problem> {
    let photo = image::ImageReader::open(models_dir().join("astronaut.png"))?.decode()?.into_rgb8();
    for profile in [Profile::Fast, Profile::Balanced, Profile::Thorough] {
        let mut veil = Veil::open(&Settings { profile, ..Settings::default() })?;
        let mut noise = 1;
        let mut times = [const { Vec::new() }; 3];
        for i in 0..101 {
            let rgb = view(&photo, (width, height), (i * 7 % 100, i * 3 % 50), &mut noise);
            let raw: Vec<u8> = rgb.as_chunks::<6>().0.iter().flat_map(to_yuyv).collect();
            let start = Instant::now();
            let frame = Frame::from_yuyv(width, height, &raw)?;
            let converted = Instant::now();
            let image = veil.veil(frame)?;
            let covered = Instant::now();
            std::hint::black_box(image.to_jpeg(85, None)?);
            let done = Instant::now();
            for (all, step) in times.iter_mut().zip([converted - start, covered - converted, done - covered])
            {
                all.push(step.as_secs_f64() * 1e3);
            }
        }
        let [convert, cover, encode] = times.map(|mut all| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        });
        println!(
            "{profile} {width}x{height}: YUYV to RGB {convert:.2} ms, find and cover {cover:.2}, encode {encode:.2}"
        );
    }
    Ok(())
}

/// Two pixels in BT.601's limited range.
fn to_yuyv(&[r, g, b, r2, g2, b2]: &[u8; 6]) -> [u8; 4] {
    let luma = |[r, g, b]: [f32; 3]| 16.0 + 0.257 * r + 0.504 * g + 0.098 * b;
    let (first, second) = ([r, g, b].map(f32::from), [r2, g2, b2].map(f32::from));
    let [r, g, b] = std::array::from_fn(|i| (first[i] + second[i]) / 2.0);
    let u = 128.0 - 0.148 * r - 0.291 * g + 0.439 * b;
    let v = 128.0 + 0.439 * r - 0.368 * g - 0.071 * b;
    [luma(first), u, luma(second), v].map(|n| n.round() as u8)
}

fn stills(photos: &[&str]) -> Result<(), Problem> {
    let files = photos.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    let limits = Limits { max_bytes: 64 << 20, max_pixels: 100_000_000 };
    for profile in [Profile::Fast, Profile::Balanced, Profile::Thorough] {
        let mut veil = Veil::open(&Settings { profile, ..Settings::default() })?;
        let [mut decode, mut cover, mut encode] = [Duration::ZERO; 3];
        let mut faces = 0;
        for round in 0..2 {
            for file in &files {
                let start = Instant::now();
                let frame = Frame::decode(file, &limits)?;
                let decoded = Instant::now();
                let image = veil.veil_still(frame)?;
                let covered = Instant::now();
                let jpeg = image.to_jpeg(85, None)?;
                let done = Instant::now();
                // The first round fills buffers.
                if round == 1 {
                    decode += decoded - start;
                    cover += covered - decoded;
                    encode += done - covered;
                    faces += image.faces().len();
                }
                drop(jpeg);
            }
        }
        let each = |sum: Duration| sum.as_secs_f64() * 1e3 / files.len() as f64;
        println!(
            "{profile}: an image takes {:.2} ms (decode {:.2}, find and cover {:.2}, encode {:.2}); {} images, {faces} faces",
            each(decode + cover + encode),
            each(decode),
            each(cover),
            each(encode),
            files.len()
        );
    }
    Ok(())
}

/// A frame's worth of the photo, enlarged so that it is a third wider than the frame, from `(x, y)` on, with noise.
fn view(
    photo: &image::RgbImage,
    (width, height): (u32, u32),
    (x, y): (u32, u32),
    noise: &mut u32,
) -> Vec<u8> {
    let scale = 0.75 * f64::from(photo.width()) / f64::from(width.max(height));
    let columns: Vec<u32> =
        (0..width).map(|i| ((f64::from(i + x) * scale) as u32).min(photo.width() - 1)).collect();
    let mut pixels = Vec::with_capacity(3 * (width * height) as usize);
    for row in 0..height {
        let from = ((f64::from(row + y) * scale) as u32).min(photo.height() - 1);
        for &column in &columns {
            *noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let light = (*noise >> 29) as u8;
            pixels.extend(photo.get_pixel(column, from).0.map(|v| v.saturating_add(light)));
        }
    }
    pixels
}

fn stream(
    profile: Profile,
    width: u32,
    height: u32,
    frames: u64,
    photo: &image::RgbImage,
) -> Result<(), Problem> {
    let mut veil = Veil::open(&Settings { profile, ..Settings::default() })?;
    let mut noise = 1;
    let (mut busy, mut bytes, mut covered) = (Duration::ZERO, 0, 0u64);
    let step = (frames / 10).max(1);
    for i in 0..frames {
        // Moves for 40 frames, then stands still for 60.
        let moved = (i / 100 * 40 + (i % 100).min(40)) as u32;
        let at = ((moved * 7) % (width / 4).max(1), (moved * 3) % (height / 8).max(1));
        let pixels = view(photo, (width, height), at, &mut noise);
        let frame = Frame::from_rgb8(width, height, pixels)?;
        let start = Instant::now();
        let image = veil.veil(frame)?;
        let jpeg = image.to_jpeg(85, None)?;
        busy += start.elapsed();
        bytes += jpeg.as_bytes().len();
        covered += u64::from(!image.faces().is_empty());
        if (i + 1) % step == 0 || i == 0 {
            let (now, peak) = resident()?;
            println!(
                "{profile} {width}x{height}, frame {:>6}: {now:.1} MB resident, {peak:.1} MB at most",
                i + 1
            );
        }
    }
    let counters = veil.counters();
    println!(
        "{profile} {width}x{height}: {:.2} ms a frame (cover and encode), {} of {} frames searched, {covered} with a face, {} bytes a JPEG",
        busy.as_secs_f64() * 1e3 / frames as f64,
        counters.searched,
        counters.frames,
        bytes as u64 / frames.max(1)
    );
    Ok(())
}

/// Resident memory in MB (10^6 bytes), now and at most.
fn resident() -> Result<(f64, f64), Problem> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| -> Result<f64, Problem> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0 / 1e6)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}
