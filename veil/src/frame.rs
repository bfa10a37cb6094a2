//! Raw pixels, readable inside this crate only.

use std::fmt;

use crate::FrameError;

/// Raw RGB pixels, possibly with faces. Nothing outside of this crate can read them, and there is no `Clone`: a
/// frame goes into [`Veil::veil`](crate::Veil::veil) or [`cover_all`](crate::cover_all), or it is dropped.
pub struct Frame {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

/// What [`Frame::decode`] accepts, checked on the declared sizes before anything is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest encoded picture in bytes.
    pub max_bytes: usize,
    /// Largest width x height. A pixel needs 3 bytes once decoded, 9 for a moment in progressive JPEGs.
    pub max_pixels: u64,
}

impl Default for Limits {
    /// 16 MiB and 24 megapixels (72 MB decoded).
    fn default() -> Self {
        Limits { max_bytes: 16 << 20, max_pixels: 24_000_000 }
    }
}

impl Limits {
    pub(crate) fn check_bytes(&self, bytes: usize) -> Result<(), FrameError> {
        if bytes > self.max_bytes {
            return Err(FrameError::TooManyBytes { bytes, limit: self.max_bytes });
        }
        Ok(())
    }

    pub(crate) fn check_size(&self, width: u32, height: u32) -> Result<(), FrameError> {
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(FrameError::TooManyPixels { width, height, limit: self.max_pixels });
        }
        check_sides(width, height)
    }
}

/// JPEG, which every frame ends up as, has 16 bits for a side.
fn check_sides(width: u32, height: u32) -> Result<(), FrameError> {
    if width == 0 || height == 0 {
        return Err(FrameError::Empty { width, height });
    }
    if width > 65_535 || height > 65_535 {
        return Err(FrameError::TooManyPixels { width, height, limit: 65_535 * 65_535 });
    }
    Ok(())
}

fn check_length(width: u32, height: u32, bytes_per_pixel: u64, got: usize) -> Result<(), FrameError> {
    check_sides(width, height)?;
    let expected = u64::from(width) * u64::from(height) * bytes_per_pixel;
    if expected != got as u64 {
        return Err(FrameError::WrongLength { width, height, expected, got });
    }
    Ok(())
}

impl Frame {
    /// Takes packed RGB, 8 bits a channel, rows from the top without padding.
    pub fn from_rgb8(width: u32, height: u32, pixels: Vec<u8>) -> Result<Frame, FrameError> {
        check_length(width, height, 3, pixels.len())?;
        Ok(Frame { width, height, pixels })
    }

    /// Converts packed YUYV (YUY2) as UVC cameras send it: BT.601, limited range, 2 bytes a pixel.
    pub fn from_yuyv(width: u32, height: u32, yuyv: &[u8]) -> Result<Frame, FrameError> {
        if !width.is_multiple_of(2) {
            return Err(FrameError::OddWidth { width });
        }
        check_length(width, height, 2, yuyv.len())?;
        Ok(Frame { width, height, pixels: crate::yuyv::to_rgb(yuyv) })
    }

    /// Decodes a JPEG (also a camera's MJPEG frame without Huffman tables) or a PNG, told apart by their first bytes.
    ///
    /// The limits are checked against the declared size before decoding. The orientation in a JPEG's EXIF is applied.
    /// A truncated or damaged file is an error: what a decoder fills in is not what the camera saw.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Frame, FrameError> {
        crate::decode::decode(bytes, limits)
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    pub(crate) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    pub(crate) fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}x{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_buffer_of_the_wrong_size() {
        assert!(matches!(
            Frame::from_rgb8(4, 4, vec![0; 47]),
            Err(FrameError::WrongLength { expected: 48, got: 47, .. })
        ));
        assert!(matches!(
            Frame::from_yuyv(4, 4, &[0; 48]),
            Err(FrameError::WrongLength { expected: 32, .. })
        ));
        assert!(matches!(Frame::from_yuyv(3, 2, &[0; 12]), Err(FrameError::OddWidth { width: 3 })));
        assert!(matches!(Frame::from_rgb8(0, 4, vec![]), Err(FrameError::Empty { .. })));
        assert!(matches!(
            Frame::from_rgb8(70_000, 1, vec![0; 210_000]),
            Err(FrameError::TooManyPixels { .. })
        ));
        // No overflow on the way to the comparison.
        assert!(Frame::from_rgb8(u32::MAX, u32::MAX, vec![0; 3]).is_err());
    }

    #[test]
    fn debug_shows_the_size_and_no_pixel() {
        let frame = Frame::from_rgb8(2, 1, vec![201, 202, 203, 204, 205, 206]).unwrap();
        assert_eq!(format!("{frame:?}"), "Frame(2x1)");
    }

    #[test]
    fn yuyv_colours() {
        // White, black, then BT.601's pure red twice.
        let frame = Frame::from_yuyv(4, 1, &[235, 128, 16, 128, 81, 90, 81, 240]).unwrap();
        assert_eq!(frame.pixels()[..6], [255, 255, 255, 0, 0, 0]);
        let red = &frame.pixels()[6..9];
        assert!(red[0] >= 253 && red[1] <= 2 && red[2] <= 2, "{red:?}");
    }
}
