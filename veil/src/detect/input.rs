//! The detector's input: the whole frame, its long side scaled to the set length and its short side to the multiple of 32
//! next above what would keep the aspect. The distortion is a few per cent; a black border in its place makes for more
//! boxes that are no faces (1.53 an image instead of 1.42, with as many faces covered).

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use tract_onnx::prelude::*;

use crate::Frame;
use crate::geometry::Rect;

/// How a frame lies in the detector's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    /// Width and height of the input, multiples of 32.
    pub input: (u32, u32),
    /// Pixels of the frame per pixel of the input.
    scale: (f32, f32),
}

impl Fit {
    pub fn new(width: u32, height: u32, long_side: u32) -> Fit {
        let scale = f64::from(long_side) / f64::from(width.max(height));
        let side = |n: u32| ((f64::from(n) * scale).round() as u32).clamp(1, long_side).next_multiple_of(32);
        let input = (side(width), side(height));
        Fit { input, scale: (width as f32 / input.0 as f32, height as f32 / input.1 as f32) }
    }

    /// From the input's pixels to the frame's.
    pub fn back(&self, r: &Rect) -> Rect {
        let (sx, sy) = self.scale;
        Rect { x: r.x * sx, y: r.y * sy, w: r.w * sx, h: r.h * sy }
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

    /// Planes of 0-255, red first unless `blue_first`.
    pub fn tensor(&mut self, frame: &Frame, fit: &Fit, blue_first: bool) -> TractResult<Tensor> {
        let (width, height) = fit.input;
        let area = width as usize * height as usize;
        let pixels = if (frame.width(), frame.height()) == fit.input {
            frame.pixels()
        } else {
            // A convolution: shrinking averages over all pixels, so that no face falls between samples.
            let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
            self.buffer.resize(3 * area, 0);
            let from = ImageRef::new(frame.width(), frame.height(), frame.pixels(), PixelType::U8x3)?;
            let mut to = Image::from_slice_u8(width, height, &mut self.buffer, PixelType::U8x3)?;
            self.resizer.resize(&from, &mut to, &options)?;
            &self.buffer[..]
        };
        let mut planes = vec![0f32; 3 * area];
        let (first, rest) = planes.split_at_mut(area);
        let (green, third) = rest.split_at_mut(area);
        let (red, blue) = if blue_first { (third, first) } else { (first, third) };
        let outs = red.iter_mut().zip(green).zip(blue);
        for (pixel, ((r, g), b)) in pixels.chunks_exact(3).zip(outs) {
            (*r, *g, *b) = (f32::from(pixel[0]), f32::from(pixel[1]), f32::from(pixel[2]));
        }
        Ok(tract_ndarray::Array4::from_shape_vec((1, 3, height as usize, width as usize), planes)?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_multiples_of_32_near_the_aspect() {
        let fit = Fit::new(1920, 1080, 640);
        assert_eq!(fit.input, (640, 384));
        let back = fit.back(&Rect { x: 320.0, y: 192.0, w: 64.0, h: 32.0 });
        assert_eq!(back, Rect { x: 960.0, y: 540.0, w: 192.0, h: 90.0 });
        assert_eq!(Fit::new(480, 640, 640).input, (480, 640));
        assert_eq!(Fit::new(100, 100, 320).input, (320, 320));
        assert_eq!(Fit::new(60_000, 1, 640).input, (640, 32));
        assert_eq!(Fit::new(1, 1, 64).input, (64, 64));
    }

    #[test]
    fn channels_go_where_the_model_wants_them() {
        let frame = || Frame::from_rgb8(64, 64, [1, 2, 3].repeat(64 * 64)).unwrap();
        let fit = Fit::new(64, 64, 64);
        for (blue_first, want) in [(false, [1.0, 2.0, 3.0]), (true, [3.0, 2.0, 1.0])] {
            let tensor = Scaler::new().tensor(&frame(), &fit, blue_first).unwrap();
            let view = tensor.as_plain_ram().unwrap();
            let all = view.as_slice::<f32>().unwrap();
            assert_eq!([all[0], all[64 * 64], all[2 * 64 * 64]], want);
        }
    }
}
