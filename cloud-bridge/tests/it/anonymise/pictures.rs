//! Pictures to post, and what to look at in results.

use image::{ExtendedColorType, ImageEncoder, RgbImage, codecs::png::PngEncoder, imageops};
use std::sync::LazyLock;

/// Beside the models: a photo of a face (NASA, public domain), 512 by 512.
static PHOTO: LazyLock<RgbImage> = LazyLock::new(|| {
    let file = edgeveil_veil::models_dir().join("astronaut.png");
    image::open(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).to_rgb8()
});

/// Where the face is in it: left, top, width, height.
const FACE: (u32, u32, u32, u32) = (185, 75, 80, 100);

/// The photo, a little different for each number.
pub fn photo(number: u8) -> RgbImage {
    imageops::colorops::brighten(&*PHOTO, i32::from(number % 40) - 20)
}

pub fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut file = Vec::new();
    let (width, height) = (picture.width().try_into().unwrap(), picture.height().try_into().unwrap());
    let encoder = jpeg_encoder::Encoder::new(&mut file, 90);
    encoder.encode(picture.as_raw(), width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    file
}

pub fn png(picture: &RgbImage) -> Vec<u8> {
    let mut file = Vec::new();
    let (width, height) = picture.dimensions();
    PngEncoder::new(&mut file).write_image(picture, width, height, ExtendedColorType::Rgb8).unwrap();
    file
}

/// A small one without a face, of which a worker has little to do.
pub fn small(number: u8) -> Vec<u8> {
    jpeg(&RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8, y as u8, number])))
}

/// Differences between neighbours in the middle of the face: what makes it one.
fn detail(picture: &RgbImage) -> u64 {
    let (left, top, width, height) = FACE;
    let mut sum = 0;
    for y in top + height / 4..top + height * 3 / 4 {
        for x in left + width / 4..left + width * 3 / 4 {
            let (here, right) = (picture.get_pixel(x, y), picture.get_pixel(x + 1, y));
            sum += here.0.iter().zip(right.0).map(|(a, b)| u64::from(a.abs_diff(b))).sum::<u64>();
        }
    }
    sum
}

/// The face is covered, and the rest is the same picture.
pub fn assert_veiled(raw: &RgbImage, result: &[u8]) {
    assert_eq!(result[..3], [0xff, 0xd8, 0xff], "a result is a JPEG");
    let veiled = image::load_from_memory(result).unwrap().to_rgb8();
    assert_eq!(veiled.dimensions(), raw.dimensions());
    let (before, after) = (detail(raw), detail(&veiled));
    assert!(after * 5 < before, "the face has {after} of its {before} left");
    let far = |picture: &RgbImage| -> i64 {
        (380..500).map(|x| picture.get_pixel(x, 400).0.iter().map(|c| i64::from(*c)).sum::<i64>()).sum()
    };
    let (before, after) = (far(raw), far(&veiled));
    assert!((before - after).abs() * 20 < before.max(1), "{before} became {after} far from the face");
}

/// CRC-32 of PNG's chunks (PNG 3, annex D).
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, step)
}

/// The same file with another size in its header, and the checksum of that.
pub fn resized_header(png: &[u8], width: u32, height: u32) -> Vec<u8> {
    let mut png = png.to_vec();
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    png
}
