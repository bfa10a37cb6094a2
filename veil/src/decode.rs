//! JPEG and PNG to [`Frame`]: bounded before decoding, strict while decoding.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ImageDecoder, codecs::png::PngDecoder};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::{Frame, FrameError, Limits, mjpeg, tiff};

pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<Frame, FrameError> {
    limits.check_bytes(bytes.len())?;
    let decoder = match bytes {
        [0xff, 0xd8, 0xff, ..] => jpeg,
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => png,
        _ => return Err(FrameError::UnknownFormat),
    };
    // Pictures come from strangers' cameras: a decoder's panic is one corrupt picture, not the end of the process.
    catch_unwind(AssertUnwindSafe(|| decoder(bytes, limits)))
        .unwrap_or_else(|_| Err(FrameError::Corrupt("the decoder panicked".into())))
}

fn corrupt(e: impl std::fmt::Display) -> FrameError {
    FrameError::Corrupt(e.to_string())
}

fn jpeg(bytes: &[u8], limits: &Limits) -> Result<Frame, FrameError> {
    let with_tables = mjpeg::with_tables(bytes);
    let bytes = with_tables.as_deref().unwrap_or(bytes);
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(65_535)
        .set_max_height(65_535)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    decoder.decode_headers().map_err(corrupt)?;
    let info = decoder.info().ok_or_else(|| corrupt("no size"))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    limits.check_size(width, height)?;
    let pixels = decoder.decode().map_err(corrupt)?;
    let orientation = decoder.exif().map_or(1, |block| tiff::orientation(block));
    let (width, height, pixels) = upright(width, height, pixels, orientation);
    Frame::from_rgb8(width, height, pixels)
}

fn png(bytes: &[u8], limits: &Limits) -> Result<Frame, FrameError> {
    let mut decoder_limits = image::Limits::no_limits();
    // 16-bit RGBA, the widest pixel, and room for a row or two and the inflater.
    decoder_limits.max_alloc = Some(limits.max_pixels.saturating_mul(8).saturating_add(1 << 20));
    let mut decoder = PngDecoder::with_limits(Cursor::new(bytes), decoder_limits).map_err(corrupt)?;
    let (width, height) = decoder.dimensions();
    limits.check_size(width, height)?;
    let orientation = decoder.exif_metadata().ok().flatten().map_or(1, |block| tiff::orientation(&block));
    let pixels = DynamicImage::from_decoder(decoder).map_err(corrupt)?.into_rgb8().into_raw();
    let (width, height, pixels) = upright(width, height, pixels, orientation);
    Frame::from_rgb8(width, height, pixels)
}

/// Turns and mirrors packed RGB by an EXIF orientation (1-8).
fn upright(width: u32, height: u32, pixels: Vec<u8>, orientation: u16) -> (u32, u32, Vec<u8>) {
    if !(2..=8).contains(&orientation) {
        return (width, height, pixels);
    }
    let (w, h) = (width as usize, height as usize);
    let turned = orientation >= 5;
    let (out_w, out_h) = if turned { (h, w) } else { (w, h) };
    let mut out = Vec::with_capacity(pixels.len());
    for y in 0..out_h {
        for x in 0..out_w {
            let (sx, sy) = match orientation {
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (y, h - 1 - x),
                7 => (w - 1 - y, h - 1 - x),
                _ => (w - 1 - y, x),
            };
            let at = 3 * (sy * w + sx);
            out.extend_from_slice(&pixels[at..at + 3]);
        }
    }
    (out_w as u32, out_h as u32, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder};

    fn encode_jpeg(width: u16, height: u16, exif: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut out, 95);
        if let Some(block) = exif {
            encoder.add_exif_metadata(block).unwrap();
        }
        let pixels: Vec<u8> = (0..usize::from(width) * usize::from(height))
            .flat_map(
                |i| if i % usize::from(width) < usize::from(width) / 2 { [250, 5, 5] } else { [5, 5, 250] },
            )
            .collect();
        encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
        out
    }

    #[test]
    fn reads_jpeg_and_png() {
        let frame = Frame::decode(&encode_jpeg(64, 48, None), &Limits::default()).unwrap();
        assert_eq!((frame.width(), frame.height()), (64, 48));
        assert!(frame.pixels()[0] > 200 && frame.pixels()[63 * 3] < 50);
        let mut file = Vec::new();
        image::codecs::png::PngEncoder::new(&mut file)
            .write_image(&[9, 8, 7, 0, 1, 2, 3, 255], 2, 1, ExtendedColorType::Rgba8)
            .unwrap();
        let frame = Frame::decode(&file, &Limits::default()).unwrap();
        assert_eq!(frame.pixels(), [9, 8, 7, 1, 2, 3]);
    }

    #[test]
    fn stands_upright() {
        let tagged = encode_jpeg(64, 32, Some(&tiff::tests::block(6, 0)));
        let frame = Frame::decode(&tagged, &Limits::default()).unwrap();
        assert_eq!((frame.width(), frame.height()), (32, 64));
        // Turned by 90 degrees clockwise, what was left is on top.
        assert!(frame.pixels()[0] > 200 && frame.pixels()[63 * 32 * 3] < 50);
        let source: Vec<u8> = (0..6).flat_map(|i| [i, i, i]).collect(); // 0 1 2 / 3 4 5
        let red = |o| upright(3, 2, source.clone(), o).2.iter().step_by(3).copied().collect::<Vec<u8>>();
        assert_eq!(red(2), [2, 1, 0, 5, 4, 3]);
        assert_eq!(red(3), [5, 4, 3, 2, 1, 0]);
        assert_eq!(red(4), [3, 4, 5, 0, 1, 2]);
        assert_eq!(red(5), [0, 3, 1, 4, 2, 5]);
        assert_eq!(red(6), [3, 0, 4, 1, 5, 2]);
        assert_eq!(red(7), [5, 2, 4, 1, 3, 0]);
        assert_eq!(red(8), [2, 5, 1, 4, 0, 3]);
    }

    #[test]
    fn truncated_and_damaged_files_are_errors() {
        let file = encode_jpeg(320, 240, None);
        for share in [1, 10, 25, 50, 75, 90] {
            let cut = &file[..file.len() * share / 100];
            assert!(Frame::decode(cut, &Limits::default()).is_err(), "{share} % of a JPEG passed");
        }
        assert!(matches!(Frame::decode(b"GIF89a", &Limits::default()), Err(FrameError::UnknownFormat)));
        assert!(matches!(Frame::decode(b"", &Limits::default()), Err(FrameError::UnknownFormat)));
        assert!(Frame::decode(&[0xff, 0xd8, 0xff], &Limits::default()).is_err());
    }

    #[test]
    fn any_damage_is_an_error_or_a_picture_and_never_a_panic() {
        let file = encode_jpeg(48, 32, Some(&tiff::tests::block(6, 0)));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x5a;
            let _ = Frame::decode(&damaged, &Limits { max_bytes: 1 << 20, max_pixels: 1 << 20 });
        }
    }

    #[test]
    fn bombs_are_refused_before_decoding() {
        // A JPEG that declares 30000x30000 and has no data behind its header.
        let mut bomb = encode_jpeg(16, 16, None);
        let sof = bomb.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        bomb[sof + 5..sof + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
        let start = std::time::Instant::now();
        assert!(matches!(
            Frame::decode(&bomb, &Limits::default()),
            Err(FrameError::TooManyPixels { width: 30_000, height: 30_000, .. })
        ));
        // The same as a PNG: only the header chunk is there, with its right checksum.
        let mut png = Vec::new();
        image::codecs::png::PngEncoder::new(&mut png)
            .write_image(&[0; 3], 1, 1, ExtendedColorType::Rgb8)
            .unwrap();
        png[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]);
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(Frame::decode(&png, &Limits::default()), Err(FrameError::TooManyPixels { .. })));
        assert!(start.elapsed().as_millis() < 500);
        let small = Limits { max_bytes: 100, ..Limits::default() };
        assert!(matches!(Frame::decode(&bomb, &small), Err(FrameError::TooManyBytes { limit: 100, .. })));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &b| {
            (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
        })
    }
}
