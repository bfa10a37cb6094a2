//! One frame: pixels of three bytes, red, green and blue.

use serde::{Deserialize, Serialize};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

/// Pictures beyond this are not taken, in pixels.
const MOST: usize = 40_000_000;
/// Cells along each side of a [`Look`].
const CELLS: usize = 16;
/// Two frames are alike when no cell's brightness differs by more, of 255.
const ALIKE: u8 = 3;

/// A frame.
pub struct Frame {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
}

/// What a frame looks like from afar: the brightness of its cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look(Vec<u8>);

impl Look {
    /// The mean, 0 to 255.
    pub fn brightness(&self) -> f64 {
        self.0.iter().map(|cell| f64::from(*cell)).sum::<f64>() / self.0.len().max(1) as f64
    }

    /// Whether nobody would see a difference.
    pub fn is_like(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a.abs_diff(*b) <= ALIKE)
    }
}

fn decoder(jpeg: &[u8]) -> Option<JpegDecoder<ZCursor<&[u8]>>> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    decoder.decode_headers().ok()?;
    Some(decoder)
}

impl Frame {
    /// Width and height of a JPEG.
    pub fn size(jpeg: &[u8]) -> Option<(usize, usize)> {
        decoder(jpeg)?.dimensions()
    }

    /// From a JPEG: of this size, with black beside it where it has another shape; or of its own, with even numbers that no
    /// side of is larger than `side`.
    pub fn read(jpeg: &[u8], size: Option<(usize, usize)>, side: usize) -> Option<Self> {
        let mut decoder = decoder(jpeg)?;
        let (width, height) = decoder.dimensions()?;
        if width * height > MOST || width * height == 0 {
            return None;
        }
        let whole = Self { width, height, pixels: decoder.decode().ok()? };
        let (w, h) = size.unwrap_or_else(|| {
            let larger = width.max(height);
            let even = |n: usize| (n * side.min(larger) / larger / 2 * 2).max(2);
            (even(width), even(height))
        });
        whole.fit(w, h)
    }

    fn fit(self, w: usize, h: usize) -> Option<Self> {
        if (self.width, self.height) == (w, h) {
            return Some(self);
        }
        let scale = (w as f64 / self.width as f64).min(h as f64 / self.height as f64);
        let (iw, ih) = (
            ((self.width as f64 * scale) as usize).clamp(1, w),
            ((self.height as f64 * scale) as usize).clamp(1, h),
        );
        let (left, top) = ((w - iw) / 2, (h - ih) / 2);
        let mut pixels = vec![0; w * h * 3];
        for y in 0..ih {
            let rows = span(y, ih, self.height);
            for x in 0..iw {
                let columns = span(x, iw, self.width);
                let (mut sum, mut count) = ([0_u32; 3], 0);
                for row in rows.clone() {
                    let start = (row * self.width + columns.start) * 3;
                    let end = (row * self.width + columns.end) * 3;
                    for pixel in self.pixels.get(start..end)?.chunks_exact(3) {
                        sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u32::from(*value));
                        count += 1;
                    }
                }
                let at = ((top + y) * w + left + x) * 3;
                pixels[at..at + 3].copy_from_slice(&sum.map(|sum| (sum / count.max(1)) as u8));
            }
        }
        Some(Self { width: w, height: h, pixels })
    }

    /// How much there is to see: by how much neighbours along a line differ on average, of 255, in green, which is most of
    /// what is seen.
    pub fn detail(&self) -> f64 {
        let (mut sum, mut count) = (0_u64, 0_u64);
        for row in self.pixels.chunks_exact(self.width * 3) {
            for pair in row.chunks_exact(3).zip(row.chunks_exact(3).skip(1)) {
                sum += u64::from(pair.0[1].abs_diff(pair.1[1]));
                count += 1;
            }
        }
        sum as f64 / count.max(1) as f64
    }

    /// From afar.
    pub fn look(&self) -> Look {
        let mut cells = vec![(0_u64, 0_u64); CELLS * CELLS];
        for (n, pixel) in self.pixels.chunks_exact(3).enumerate() {
            let (x, y) = (n % self.width, n / self.width);
            let cell = &mut cells[y * CELLS / self.height * CELLS + x * CELLS / self.width];
            let [r, g, b] = [0, 1, 2].map(|at| u64::from(pixel[at]));
            // Rec. 601 luma.
            cell.0 += (299 * r + 587 * g + 114 * b) / 1000;
            cell.1 += 1;
        }
        Look(cells.into_iter().map(|(sum, count)| (sum / count.max(1)) as u8).collect())
    }
}

/// The pixels of a whole that fall on the `n`-th of `of`.
fn span(n: usize, of: usize, whole: usize) -> std::ops::Range<usize> {
    let start = n * whole / of;
    start..((n + 1) * whole / of).max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg(width: u16, height: u16, value: u8) -> Vec<u8> {
        let mut out = Vec::new();
        let pixels = vec![value; usize::from(width) * usize::from(height) * 3];
        let encoder = jpeg_encoder::Encoder::new(&mut out, 90);
        encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
        out
    }

    #[test]
    fn frames_have_even_sides_and_one_size() {
        let size = |frame: Frame| (frame.width, frame.height, frame.pixels.len());
        assert_eq!(size(Frame::read(&jpeg(641, 481, 9), None, 1920).unwrap()), (640, 480, 640 * 480 * 3));
        assert_eq!(size(Frame::read(&jpeg(4000, 2000, 9), None, 1920).unwrap()), (1920, 960, 1920 * 960 * 3));
        let beside = Frame::read(&jpeg(100, 200, 200), Some((200, 200)), 1920).unwrap();
        assert_eq!((beside.width, beside.height), (200, 200));
        let at = |x: usize| beside.pixels[(100 * 200 + x) * 3];
        assert!(at(10) == 0 && at(190) == 0 && at(100) > 190, "black beside it");
        assert!(Frame::read(b"no picture", None, 1920).is_none());
    }

    #[test]
    fn a_blurred_picture_has_little_detail() {
        let frame = |pixel: fn(usize) -> u8| Frame {
            width: 64,
            height: 2,
            pixels: (0..64 * 2 * 3).map(|n| pixel(n / 3 % 64)).collect(),
        };
        assert!(frame(|x| if x % 8 < 4 { 90 } else { 110 }).detail() > 4.0);
        assert!(frame(|x| 100 + (x / 16) as u8).detail() < 0.1);
        assert_eq!(Frame { width: 1, height: 1, pixels: vec![0; 3] }.detail(), 0.0);
    }

    #[test]
    fn what_looks_the_same_is_known() {
        let look = |value| Frame::read(&jpeg(64, 64, value), None, 1920).unwrap().look();
        assert!(look(100).is_like(&look(101)) && !look(100).is_like(&look(120)));
        assert!(look(5).brightness() < 10.0 && (look(128).brightness() - 128.0).abs() < 3.0);
    }
}
