//! What can be said of a picture before it is decoded: that it is of a kind that a worker can read, and of a size that it may
//! have. What only decoding shows is the worker's to find.

use std::io::Cursor;
use zune_jpeg::{
    JpegDecoder,
    zune_core::{colorspace::ColorSpace, options::DecoderOptions},
};

/// Why a picture is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Of another kind.
    #[error("neither a JPEG nor a PNG")]
    Kind,
    /// Its header is not one.
    #[error("damaged: {0}")]
    Damaged(String),
    /// More pixels than it may have.
    #[error("{width} x {height} pixels are more than the {most} that are taken, or than 65535 a side")]
    Pixels {
        /// As declared.
        width: u32,
        /// As declared.
        height: u32,
        /// Width times height.
        most: u64,
    },
}

const PNG: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Whether it may go to a worker.
pub fn inspect(bytes: &[u8], max_pixels: u64) -> Result<(), Refusal> {
    let (width, height) = match bytes {
        [0xff, 0xd8, 0xff, ..] => jpeg_size(bytes)?,
        _ if bytes.starts_with(&PNG) => png_size(bytes)?,
        _ => return Err(Refusal::Kind),
    };
    if width == 0 || height == 0 {
        return Err(Refusal::Damaged(format!("{width} x {height} pixels")));
    }
    if u64::from(width) * u64::from(height) > max_pixels || width > 65_535 || height > 65_535 {
        return Err(Refusal::Pixels { width, height, most: max_pixels });
    }
    Ok(())
}

fn jpeg_size(bytes: &[u8]) -> Result<(u32, u32), Refusal> {
    let options = DecoderOptions::default()
        .set_max_width(65_535)
        .set_max_height(65_535)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| Refusal::Damaged(error.to_string()))?;
    let info = decoder.info().ok_or_else(|| Refusal::Damaged("no size".to_owned()))?;
    Ok((u32::from(info.width), u32::from(info.height)))
}

/// The first chunk has to be IHDR (PNG 3, 11.2.1): its length, its name, and the sizes as big-endian numbers.
fn png_size(bytes: &[u8]) -> Result<(u32, u32), Refusal> {
    let number =
        |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
    match (bytes.get(8..16), number(16), number(20)) {
        (Some(b"\0\0\0\x0dIHDR"), Some(width), Some(height)) if bytes.len() >= 33 => Ok((width, height)),
        _ => Err(Refusal::Damaged("no header (IHDR)".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut png = [PNG.as_slice(), b"\0\0\0\x0dIHDR"].concat();
        png.extend(width.to_be_bytes());
        png.extend(height.to_be_bytes());
        png.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
        png
    }

    fn jpeg(width: u16, height: u16) -> Vec<u8> {
        let mut jpeg = Vec::new();
        let pixels = vec![9; usize::from(width) * usize::from(height) * 3];
        let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 50);
        encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
        jpeg
    }

    #[test]
    fn sizes_are_read_from_headers_alone() {
        assert_eq!(inspect(&png(40, 25), 1000), Ok(()));
        assert_eq!(inspect(&jpeg(40, 25), 1000), Ok(()));
        let many = |result| assert!(matches!(result, Err(Refusal::Pixels { .. })), "{result:?}");
        many(inspect(&png(1001, 1), 1000));
        many(inspect(&jpeg(41, 25), 1000));
        // No overflow, and no side that a JPEG could not have.
        many(inspect(&png(u32::MAX, u32::MAX), 24_000_000));
        many(inspect(&png(65_536, 1), 24_000_000));
    }

    #[test]
    fn other_kinds_and_stumps_are_refused() {
        for other in [&b""[..], b"GIF89a", b"RIFF\0\0\0\0WEBP", b"\xff\xd8", b"II*\0", b"<svg/>"] {
            assert_eq!(inspect(other, 1000), Err(Refusal::Kind), "{other:?}");
        }
        let (png, jpeg) = (png(4, 4), jpeg(4, 4));
        for stump in [&png[..8], &png[..20], &png[..32], &jpeg[..4], &jpeg[..40]] {
            assert!(matches!(inspect(stump, 1000), Err(Refusal::Damaged(_))), "{stump:?}");
        }
        assert!(matches!(inspect(&self::png(0, 4), 1000), Err(Refusal::Damaged(_))));
    }
}
