//! Damaged pictures: whatever a camera or a stranger sends is an error or a picture within the limits, never a panic.
//!
//! `EDGEVEIL_FUZZ_CASES` sets the number of cases (20,000 unless told otherwise); a million take some minutes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_veil::{Engine, Frame, Limits, Mask, Settings, Veil, VeilError, cover_all};
use image::{ExtendedColorType, ImageEncoder};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() % n.max(1)
    }
}

/// Small files of all kinds that are read, so that most damage hits something that matters.
fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random(7);
    let pixels: Vec<u8> = (0..48 * 40 * 3).map(|i| (i / 9) as u8 ^ (random.below(16) as u8)).collect();
    let mut files = Vec::new();
    for (sampling, progressive) in
        [(SamplingFactor::F_1_1, false), (SamplingFactor::F_2_2, false), (SamplingFactor::F_2_1, true)]
    {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, 80);
        encoder.set_sampling_factor(sampling);
        encoder.set_progressive(progressive);
        encoder.encode(&pixels, 48, 40, ColorType::Rgb).unwrap();
        files.push(file);
    }
    let mut grey = Vec::new();
    Encoder::new(&mut grey, 60).encode(&pixels[..48 * 40], 48, 40, ColorType::Luma).unwrap();
    files.push(grey);
    for colour in [ExtendedColorType::Rgb8, ExtendedColorType::L8, ExtendedColorType::Rgba8] {
        let mut file = Vec::new();
        let bytes = 20 * 16 * usize::from(colour.channel_count());
        image::codecs::png::PngEncoder::new(&mut file).write_image(&pixels[..bytes], 20, 16, colour).unwrap();
        files.push(file);
    }
    // MJPEG as cameras send it: no Huffman tables.
    let mut bare = files[0].clone();
    while let Some(at) = bare.windows(2).position(|w| w == [0xff, 0xc4]) {
        let length = usize::from(u16::from_be_bytes([bare[at + 2], bare[at + 3]]));
        bare.drain(at..at + 2 + length);
    }
    files.push(bare);
    files
}

fn damage(file: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(file.len());
        match random.below(8) {
            0 => file.truncate(at),
            1 | 2 if !file.is_empty() => file[at] ^= 1 << random.below(8),
            3 if !file.is_empty() => file[at] = [0, 0xff, 0x7f, 0x80, 1][random.below(5)],
            4 => {
                let value = (random.next() as u16).to_be_bytes();
                file.splice(at..(at + 2).min(file.len()), value);
            }
            5 => {
                let end = (at + random.below(32)).min(file.len());
                file.drain(at..end);
            }
            6 => {
                let end = (at + random.below(32)).min(file.len());
                let copy = file[at..end].to_vec();
                let to = random.below(file.len());
                file.splice(to..to, copy);
            }
            _ => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len());
                file.truncate(at);
                file.extend_from_slice(&other[from..]);
            }
        }
    }
}

#[test]
fn damaged_pictures_are_errors_or_pictures_within_the_limits() {
    let cases = std::env::var("EDGEVEIL_FUZZ_CASES").map_or(20_000, |v| v.parse().unwrap());
    let limits = Limits { max_bytes: 16 << 10, max_pixels: 128 * 128 };
    let seeds = seeds();
    for (i, seed) in seeds.iter().enumerate() {
        let whole = Frame::decode(seed, &limits);
        assert!(whole.is_ok(), "seed {i}: {whole:?}");
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut read) = (0, 0);
    // A decoder's panic is caught within and would only fill the log.
    std::panic::set_hook(Box::new(|_| {}));
    for case in 0..cases {
        let mut file = seeds[case % seeds.len()].clone();
        damage(&mut file, &seeds, &mut random);
        match std::panic::catch_unwind(|| Frame::decode(&file, &limits)) {
            Ok(Ok(frame)) => {
                read += 1;
                let pixels = u64::from(frame.width()) * u64::from(frame.height());
                assert!(pixels <= limits.max_pixels && pixels > 0 && file.len() <= limits.max_bytes);
                if case % 64 == 0 {
                    assert!(cover_all(frame).to_jpeg(50, None).is_ok());
                }
            }
            Ok(Err(_)) => refused += 1,
            Err(_) => {
                let _ = std::panic::take_hook();
                panic!("case {case} panicked");
            }
        }
    }
    let _ = std::panic::take_hook();
    println!("{cases} cases: {refused} refused, {read} read");
    assert_eq!(refused + read, cases);
}

/// Settings of any kind are refused with the name of one that is out of range, or the model is what is missing.
#[test]
fn any_settings_are_refused_or_valid() {
    let cases = std::env::var("EDGEVEIL_FUZZ_CASES").map_or(20_000, |v| v.parse().unwrap());
    let mut random = Random(42);
    let odd = [f32::NAN, f32::INFINITY, -1.0, 0.0, 1e-9, 0.3, 0.5, 0.999, 1.0, 1.6, 4.0, 4.1, 1e30];
    let whole = [0, 1, 2, 16, 17, 64, 100, 101, 320, 640, 650, 1000, 1001, 4096, 8192, 8193, u32::MAX];
    let model = std::env::temp_dir().join("edgeveil-no-models-here");
    let (mut refused, mut valid) = (0, 0);
    for case in 0..cases {
        let mut settings = Settings { model: model.clone(), engine: Engine::Own, ..Settings::default() };
        for _ in 0..random.below(3) {
            match random.below(8) {
                0 => settings.threshold = odd[random.below(odd.len())],
                1 => settings.margin = odd[random.below(odd.len())],
                2 => settings.hold_frames = whole[random.below(whole.len())],
                3 => settings.search_every = whole[random.below(whole.len())],
                4 => settings.threads = whole[random.below(whole.len())],
                5 => settings.max_side = Some(whole[random.below(whole.len())]),
                6 => settings.long_side = whole[random.below(whole.len())],
                _ => {
                    let mut corner = || (odd[random.below(odd.len())], odd[random.below(odd.len())]);
                    let corners = (0..case % 5).map(|_| corner()).collect();
                    settings.masks.push(Mask { corners });
                }
            }
        }
        match Veil::open(&settings) {
            Err(VeilError::Setting { key, .. }) => {
                assert!(!key.is_empty());
                refused += 1;
            }
            Err(VeilError::ModelMissing { .. }) => valid += 1,
            other => panic!("{settings:?}: {other:?}"),
        }
    }
    println!("{cases} settings: {refused} refused, {valid} valid");
    assert!(refused > cases / 10 && valid > cases / 10);
}
