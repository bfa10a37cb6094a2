//! Veiled pixels to JPEG bytes.

use std::fmt;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::{VeilError, VeiledImage, tiff};

/// A JPEG file of a [`VeiledImage`]; only this crate can make one. It has no thumbnail and no metadata but the EXIF
/// block that [`VeiledImage::to_jpeg`] was given.
#[derive(Clone, PartialEq, Eq)]
pub struct VeiledJpeg {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

impl VeiledImage {
    /// Encodes as a baseline JPEG with 4:2:0 chroma.
    ///
    /// `quality` goes from 1 to 100. `exif` is a TIFF block (from its byte-order mark on) of up to 8 KiB; one that could
    /// carry a picture, such as a camera's own block with its thumbnail, is refused.
    pub fn to_jpeg(&self, quality: u8, exif: Option<&[u8]>) -> Result<VeiledJpeg, VeilError> {
        let failed = |e: jpeg_encoder::EncodingError| VeilError::Encode(e.to_string());
        let side = |n: u32| u16::try_from(n).map_err(|_| VeilError::Encode(format!("a side of {n} pixels")));
        let (width, height) = (side(self.width())?, side(self.height())?);
        let mut bytes = Vec::with_capacity(self.pixels().len() / 8);
        let mut encoder = Encoder::new(&mut bytes, quality.clamp(1, 100));
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
        if let Some(block) = exif {
            tiff::refuse_pictures(block).map_err(VeilError::Exif)?;
            encoder.add_exif_metadata(block).map_err(failed)?;
        }
        encoder.encode(self.pixels(), width, height, ColorType::Rgb).map_err(failed)?;
        Ok(VeiledJpeg { width: self.width(), height: self.height(), bytes })
    }
}

impl VeiledJpeg {
    /// The file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }
}

impl fmt::Debug for VeiledJpeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VeiledJpeg({}x{}, {} bytes)", self.width, self.height, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, Limits};

    #[test]
    fn carries_the_given_exif_and_nothing_else() {
        let block = tiff::tests::block(1, 0);
        let jpeg = VeiledImage::blank(64, 48).to_jpeg(80, Some(&block)).unwrap();
        let bytes = jpeg.as_bytes();
        let mut markers = Vec::new();
        let mut at = 2;
        while bytes[at + 1] != 0xda {
            markers.push(bytes[at + 1]);
            if bytes[at + 1] == 0xe1 {
                assert_eq!(&bytes[at + 4..at + 10], b"Exif\0\0");
                assert_eq!(&bytes[at + 10..at + 10 + block.len()], &block[..]);
            }
            at += 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        }
        assert_eq!(
            markers.iter().filter(|&&m| (0xe1..=0xef).contains(&m) || m == 0xfe).count(),
            1,
            "{markers:x?}"
        );
        let frame = Frame::decode(bytes, &Limits::default()).unwrap();
        assert_eq!((frame.width(), frame.height()), (64, 48));
        assert_eq!(format!("{jpeg:?}"), format!("VeiledJpeg(64x48, {} bytes)", bytes.len()));
    }

    #[test]
    fn a_thumbnail_does_not_ride_along() {
        let camera_block = tiff::tests::block(1, 26);
        let refused = VeiledImage::blank(8, 8).to_jpeg(80, Some(&camera_block));
        assert!(matches!(refused, Err(VeilError::Exif(_))));
    }
}
