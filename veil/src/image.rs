//! What comes out: covered pixels.

use std::fmt;

use crate::Frame;
use crate::cover::FILL;

/// A face that was covered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// Left edge of the box around the face as detected (the covered region is larger), in pixels of the image.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
    /// The detector's score, from 0 to 1; of the last detection if `held`.
    pub score: f32,
    /// Not found in this frame, covered because it was found shortly before.
    pub held: bool,
}

/// An image in which every face that was found is covered. Only this crate makes one.
#[derive(Clone, PartialEq)]
pub struct VeiledImage {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    faces: Vec<Face>,
}

impl VeiledImage {
    /// The caller has covered the pixels.
    pub(crate) fn from_covered(width: u32, height: u32, pixels: Vec<u8>, faces: Vec<Face>) -> VeiledImage {
        VeiledImage { width, height, pixels, faces }
    }

    /// An image of this size that shows nothing: what to send in place of a frame that was lost to an error. Sides are
    /// limited to 65,535.
    pub fn blank(width: u32, height: u32) -> VeiledImage {
        let (width, height) = (width.clamp(1, 65_535), height.clamp(1, 65_535));
        let pixels = FILL.repeat(width as usize * height as usize);
        VeiledImage { width, height, pixels, faces: Vec::new() }
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The faces that were covered, those with the best score first, held ones last.
    pub fn faces(&self) -> &[Face] {
        &self.faces
    }

    /// Packed RGB, rows from the top.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Packed RGB, without a copy.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

impl fmt::Debug for VeiledImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VeiledImage({}x{}, {} faces)", self.width, self.height, self.faces.len())
    }
}

/// Covers the whole frame with one colour: for settings that want an image even when no detector has looked at it.
pub fn cover_all(frame: Frame) -> VeiledImage {
    VeiledImage::blank(frame.width(), frame.height())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fully_covered_image_has_one_colour() {
        let frame = Frame::from_rgb8(5, 4, (0..60).collect()).unwrap();
        let image = cover_all(frame);
        assert_eq!((image.width(), image.height(), image.faces().len()), (5, 4, 0));
        assert!(image.pixels().chunks_exact(3).all(|p| p == FILL) && image.pixels().len() == 60);
    }
}
