//! A network's input: a part of the frame, scaled so that both sides are multiples of 32. For the whole frame the short
//! side becomes the multiple next above what would keep the aspect. The distortion is a few per cent; a black border in
//! its place makes for more boxes that are no faces (1.53 an image instead of 1.42, with as many faces covered).

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::Frame;
use crate::geometry::Rect;

/// How a part of a frame lies in a network's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    /// Width and height of the input, multiples of 32.
    pub input: (u32, u32),
    /// The part, in pixels of the frame.
    pub part: Rect,
}

impl Fit {
    /// The whole frame.
    pub fn whole(width: u32, height: u32, long_side: u32) -> Fit {
        let scale = f64::from(long_side) / f64::from(width.max(height));
        let side = |n: u32| ((f64::from(n) * scale).round() as u32).clamp(1, long_side).next_multiple_of(32);
        let part = Rect { x: 0.0, y: 0.0, w: width as f32, h: height as f32 };
        Fit { input: (side(width), side(height)), part }
    }

    /// From the input's pixels to the frame's.
    pub fn back(&self, r: &Rect) -> Rect {
        let (sx, sy) = (self.part.w / self.input.0 as f32, self.part.h / self.input.1 as f32);
        Rect { x: self.part.x + r.x * sx, y: self.part.y + r.y * sy, w: r.w * sx, h: r.h * sy }
    }
}

pub(super) struct Scaler {
    resizer: Resizer,
    /// The scaled pixels, kept for the next frame.
    buffer: Vec<u8>,
}

impl Scaler {
    pub fn new() -> Scaler {
        Scaler { resizer: Resizer::new(), buffer: Vec::new() }
    }

    /// Packed RGB of the input's size.
    pub fn scale<'a>(&'a mut self, frame: &'a Frame, fit: &Fit) -> Result<&'a [u8], String> {
        let (width, height) = fit.input;
        let whole = (fit.part.x, fit.part.y) == (0.0, 0.0)
            && (fit.part.w, fit.part.h) == (frame.width() as f32, frame.height() as f32);
        if whole && (frame.width(), frame.height()) == fit.input {
            return Ok(frame.pixels());
        }
        let bytes = 3 * width as usize * height as usize;
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        // A convolution: shrinking averages over all pixels, so that no face falls between samples.
        let mut options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        if !whole {
            // Rounding must not carry it over the edge.
            let (fw, fh) = (f64::from(frame.width()), f64::from(frame.height()));
            let (x, y) = (f64::from(fit.part.x).clamp(0.0, fw), f64::from(fit.part.y).clamp(0.0, fh));
            let (w, h) = (f64::from(fit.part.w).min(fw - x), f64::from(fit.part.h).min(fh - y));
            options = options.crop(x, y, w, h);
        }
        let failed = |e: &dyn std::fmt::Display| format!("scaling to {width}x{height}: {e}");
        // With the type known here, what the program holds is code for this one and not for fourteen others.
        let from = TypedImageRef::<U8x3>::from_buffer(frame.width(), frame.height(), frame.pixels());
        let to = TypedImage::<U8x3>::from_buffer(width, height, &mut self.buffer[..bytes]);
        let (from, mut to) = (from.map_err(|e| failed(&e))?, to.map_err(|e| failed(&e))?);
        self.resizer.resize_typed(&from, &mut to, &options).map_err(|e| failed(&e))?;
        Ok(&self.buffer[..bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_multiples_of_32_near_the_aspect() {
        let fit = Fit::whole(1920, 1080, 640);
        assert_eq!(fit.input, (640, 384));
        let back = fit.back(&Rect { x: 320.0, y: 192.0, w: 64.0, h: 32.0 });
        assert_eq!(back, Rect { x: 960.0, y: 540.0, w: 192.0, h: 90.0 });
        assert_eq!(Fit::whole(480, 640, 640).input, (480, 640));
        assert_eq!(Fit::whole(100, 100, 320).input, (320, 320));
        assert_eq!(Fit::whole(60_000, 1, 640).input, (640, 32));
        assert_eq!(Fit::whole(1, 1, 64).input, (64, 64));
    }

    #[test]
    fn a_part_is_what_lies_there() {
        // Red grows to the right, green downwards.
        let pixels = (0..64 * 64).flat_map(|i| [(i % 64) as u8 * 2, (i / 64) as u8 * 2, 7]).collect();
        let frame = Frame::from_rgb8(64, 64, pixels).unwrap();
        let part = Rect { x: 16.0, y: 32.0, w: 32.0, h: 32.0 };
        let mut scaler = Scaler::new();
        let scaled = scaler.scale(&frame, &Fit { input: (32, 32), part }).unwrap();
        assert_eq!(scaled.len(), 3 * 32 * 32);
        assert_eq!(scaled[..3], [32, 64, 7]);
        assert_eq!(scaled[3 * (31 * 32 + 31)..], [94, 126, 7]);
    }
}
