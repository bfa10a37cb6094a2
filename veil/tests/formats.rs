//! Whatever a picture comes as, its face is found and covered: turned by its metadata, progressive, grey, CMYK, with alpha,
//! with 16 bits a channel, of odd size. What cannot be read is an error.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::PathBuf;

use edgeveil_veil::{Frame, FrameError, Limits, Settings, Veil, VeilError};
use image::{ExtendedColorType, ImageEncoder, RgbImage, imageops};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// The face in the test photo: x0, y0, x1, y1.
const FACE: [u32; 4] = [176, 72, 274, 188];

fn models() -> Option<PathBuf> {
    let dir = std::env::var_os("EDGEVEIL_MODELS").filter(|v| !v.is_empty());
    if dir.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "EDGEVEIL_MODELS is not set: run veil/fetch-models and export it"
        );
        let _ =
            writeln!(std::io::stderr(), "skipped: EDGEVEIL_MODELS is not set (run veil/fetch-models DIR)");
    }
    dir.map(PathBuf::from)
}

fn photo(dir: &std::path::Path) -> RgbImage {
    image::ImageReader::open(dir.join("astronaut.png")).unwrap().decode().unwrap().into_rgb8()
}

/// A TIFF block that has an orientation.
fn orientation(o: u16) -> Vec<u8> {
    let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    block.extend(o.to_le_bytes());
    block.extend([0; 6]);
    block
}

/// How a camera that was held so stores the picture that is upright as `photo`.
fn stored(photo: &RgbImage, orientation: u16) -> RgbImage {
    match orientation {
        2 => imageops::flip_horizontal(photo),
        3 => imageops::rotate180(photo),
        4 => imageops::flip_vertical(photo),
        5 => imageops::flip_horizontal(&imageops::rotate90(photo)),
        6 => imageops::rotate270(photo),
        7 => imageops::flip_horizontal(&imageops::rotate270(photo)),
        8 => imageops::rotate90(photo),
        _ => photo.clone(),
    }
}

fn jpeg(photo: &RgbImage, colour: ColorType, set: impl Fn(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 90);
    set(&mut encoder);
    let pixels: Vec<u8> = match colour {
        ColorType::Luma => image::DynamicImage::from(photo.clone()).into_luma8().into_raw(),
        ColorType::Cmyk => photo.pixels().flat_map(|p| [255 - p[0], 255 - p[1], 255 - p[2], 0]).collect(),
        _ => photo.as_raw().clone(),
    };
    encoder.encode(&pixels, photo.width() as u16, photo.height() as u16, colour).unwrap();
    file
}

fn png(photo: &RgbImage, colour: ExtendedColorType) -> Vec<u8> {
    let mut file = Vec::new();
    let picture = image::DynamicImage::from(photo.clone());
    let pixels = match colour {
        ExtendedColorType::L8 => picture.into_luma8().into_raw(),
        // Wholly transparent: what hides under it must not come out.
        ExtendedColorType::Rgba8 => photo.pixels().flat_map(|p| [p[0], p[1], p[2], 0]).collect(),
        ExtendedColorType::La8 => picture.into_luma8().iter().flat_map(|&v| [v, 9]).collect(),
        ExtendedColorType::Rgb16 => photo.iter().flat_map(|&v| (u16::from(v) * 257).to_ne_bytes()).collect(),
        ExtendedColorType::L16 => {
            picture.into_luma8().iter().flat_map(|&v| (u16::from(v) * 257).to_ne_bytes()).collect()
        }
        _ => photo.as_raw().clone(),
    };
    image::codecs::png::PngEncoder::new(&mut file)
        .write_image(&pixels, photo.width(), photo.height(), colour)
        .unwrap();
    file
}

/// With a chunk behind the header.
fn with_chunk(png: &[u8], kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body: Vec<u8> = kind.iter().chain(data).copied().collect();
    let crc = !body.iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
    });
    let mut file = png[..33].to_vec();
    file.extend((data.len() as u32).to_be_bytes());
    file.extend(body);
    file.extend(crc.to_be_bytes());
    file.extend(&png[33..]);
    file
}

/// Mean difference of neighbours within the face: its fine detail.
fn detail(pixels: &[u8], width: u32) -> f64 {
    let [x0, y0, x1, y1] = FACE;
    let green = |x: u32, y: u32| f64::from(pixels[(3 * (y * width + x) + 1) as usize]);
    let spots = || (y0..y1).flat_map(|y| (x0..x1).map(move |x| (x, y)));
    spots().map(|(x, y)| (green(x, y) - green(x + 1, y)).abs()).sum::<f64>() / spots().count() as f64
}

#[test]
fn the_face_is_covered_in_every_format() {
    let Some(dir) = models() else { return };
    let photo = photo(&dir);
    let before = detail(photo.as_raw(), 512);
    let mut veil = Veil::open(&Settings { model: dir, ..Settings::default() }).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for o in 1..=8 {
        let turned = stored(&photo, o);
        let tagged = jpeg(&turned, ColorType::Rgb, |e| e.add_exif_metadata(&orientation(o)).unwrap());
        files.push((format!("JPEG, orientation {o}"), tagged));
        let tagged = with_chunk(&png(&turned, ExtendedColorType::Rgb8), b"eXIf", &orientation(o));
        files.push((format!("PNG, orientation {o}"), tagged));
    }
    for sampling in
        [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_1_2, SamplingFactor::F_4_1]
    {
        for progressive in [false, true] {
            let file = jpeg(&photo, ColorType::Rgb, |e| {
                e.set_sampling_factor(sampling);
                e.set_progressive(progressive);
            });
            files.push((format!("JPEG, {sampling:?}, progressive {progressive}"), file));
        }
    }
    files.push(("JPEG, restarts".into(), jpeg(&photo, ColorType::Rgb, |e| e.set_restart_interval(7))));
    files.push(("JPEG, grey".into(), jpeg(&photo, ColorType::Luma, |_| ())));
    files.push(("JPEG, CMYK".into(), jpeg(&photo, ColorType::Cmyk, |_| ())));
    for colour in [
        ExtendedColorType::Rgb8,
        ExtendedColorType::L8,
        ExtendedColorType::Rgba8,
        ExtendedColorType::La8,
        ExtendedColorType::Rgb16,
        ExtendedColorType::L16,
    ] {
        files.push((format!("PNG, {colour:?}"), png(&photo, colour)));
    }
    for (name, file) in files {
        let frame = match Frame::decode(&file, &Limits::default()) {
            Ok(frame) => frame,
            // A kind of picture that no camera makes may be refused; it must not come out otherwise.
            Err(e) if name.contains("CMYK") => {
                println!("{name}: {e}");
                continue;
            }
            Err(e) => panic!("{name}: {e}"),
        };
        assert_eq!((frame.width(), frame.height()), (512, 512), "{name}");
        let image = veil.veil_still(frame).unwrap();
        let after = detail(image.pixels(), 512);
        assert!(after < before / 5.0, "{name}: {after:.2} of {before:.2}, {:?}", image.faces());
        let jpeg = image.to_jpeg(85, None).unwrap();
        assert!(
            !jpeg.as_bytes().windows(4).any(|w| w == b"Exif"),
            "{name}: the camera's metadata rode along"
        );
    }
}

#[test]
fn the_face_is_covered_at_every_size() {
    let Some(dir) = models() else { return };
    let photo = photo(&dir);
    let mut veil = Veil::open(&Settings { model: dir, ..Settings::default() }).unwrap();
    for (width, height) in [(511, 509), (301, 299), (97, 101), (1023, 767), (2049, 2047)] {
        let scaled = imageops::resize(&photo, width, height, imageops::FilterType::Triangle);
        let image = veil.veil_still(Frame::from_rgb8(width, height, scaled.into_raw()).unwrap()).unwrap();
        let share = |at: u32, of: u32| at as f32 / 512.0 * of as f32;
        let (cx, cy) = (share(225, width), share(130, height));
        let hit =
            image.faces().iter().any(|f| cx > f.x && cx < f.x + f.width && cy > f.y && cy < f.y + f.height);
        assert!(hit, "{width}x{height}: {:?}", image.faces());
    }
}

/// Sides that make a network's input odd: everything is covered or an error, nothing panics.
#[test]
fn frames_of_next_to_no_size_pass() {
    let Some(dir) = models() else { return };
    for max_side in [None, Some(2048)] {
        let mut veil = Veil::open(&Settings { model: dir.clone(), max_side, ..Settings::default() }).unwrap();
        for (width, height) in [(1, 1), (1, 3000), (5000, 1), (2, 7), (31, 33)] {
            let frame = Frame::from_rgb8(width, height, vec![77; (3 * width * height) as usize]).unwrap();
            let image = veil.veil(frame).unwrap();
            assert_eq!((image.width(), image.height()), (width, height));
            assert!(image.to_jpeg(80, None).is_ok());
        }
    }
}

#[test]
fn a_face_stays_covered_when_the_size_changes() {
    let Some(dir) = models() else { return };
    let photo = photo(&dir);
    let mut veil = Veil::open(&Settings { model: dir, ..Settings::default() }).unwrap();
    let frame = |side: u32| {
        let scaled = imageops::resize(&photo, side, side, imageops::FilterType::Triangle);
        Frame::from_rgb8(side, side, scaled.into_raw()).unwrap()
    };
    for side in [512, 512, 256, 1024, 1024, 300, 512] {
        let image = veil.veil(frame(side)).unwrap();
        let middle = side as f32 * 0.44;
        let hit = image.faces().iter().any(|f| {
            middle > f.x
                && middle < f.x + f.width
                && f.width > 0.1 * side as f32
                && f.width < 0.4 * side as f32
        });
        assert!(hit, "{side}: {:?}", image.faces());
    }
}

#[test]
fn a_search_that_takes_too_long_is_an_error_and_the_next_frame_is_searched() {
    let Some(dir) = models() else { return };
    let settings = Settings {
        model: dir,
        timeout: std::time::Duration::from_millis(1),
        profile: edgeveil_veil::Profile::Thorough,
        max_side: Some(4096),
        ..Settings::default()
    };
    let mut veil = Veil::open(&settings).unwrap();
    for _ in 0..3 {
        let frame = Frame::from_rgb8(2048, 2048, vec![90; 3 * 2048 * 2048]).unwrap();
        let e = veil.veil(frame).unwrap_err();
        assert!(matches!(e, VeilError::TimedOut { .. } | VeilError::Detection(_)), "{e}");
    }
    assert_eq!(veil.counters().frames, 0);
}

#[test]
fn what_a_decoder_cannot_read_whole_is_an_error() {
    let pixels: Vec<u8> = (0..64 * 64 * 3).map(|i| (i * 7 / 5) as u8).collect();
    let picture = RgbImage::from_raw(64, 64, pixels).unwrap();
    let progressive = jpeg(&picture, ColorType::Rgb, |e| e.set_progressive(true));
    let baseline = jpeg(&picture, ColorType::Rgb, |_| ());
    let png = png(&picture, ExtendedColorType::Rgb8);
    for file in [baseline, progressive, png] {
        for cut in 1..file.len() - 2 {
            // A progressive file that ends between two scans is a whole picture of less detail: some decoders take it.
            if let Ok(frame) = Frame::decode(&file[..cut], &Limits::default()) {
                assert!(cut > file.len() / 2, "{cut} of {} bytes passed as {frame:?}", file.len());
            }
        }
    }
    for bytes in [&b"GIF89a"[..], b"RIFF\0\0\0\0WEBP", b"BM", b"\0\0\0\x1cftypheic", b"<svg/>"] {
        assert!(matches!(Frame::decode(bytes, &Limits::default()), Err(FrameError::UnknownFormat)));
    }
}
