//! An image is published as the JPEG file it is. What is known of it stands in its EXIF block: in the standard tags
//! for every viewer, and whole, as JSON, in `UserComment` for Edgeveil's own readers.

use crate::{BootId, DeviceName, Lane, MAX_IMAGE_BYTES, Name, PayloadError, RecordId, Schema, Stamp, schema};
use exif::{Field, In, Tag, Value, experimental::Writer};
use serde::{Deserialize, Serialize};
use std::io::Cursor;

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMeta {
    /// Identity and time.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// The device.
    pub device: DeviceName,
    /// Its camera.
    pub camera: Name,
    /// Faces covered in it.
    pub faces: u32,
    /// How they were covered: `deep-blur`, `solid`, `mosaic`, or `all` for a wholly covered frame.
    pub cover: String,
    /// What made it, with its version.
    pub software: String,
}

/// Why a JPEG was refused.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No JPEG at all.
    #[error("payload does not start as a JPEG does")]
    NotJpeg,
    /// Longer than [`MAX_IMAGE_BYTES`].
    #[error("image of {0} bytes is over the bound of {MAX_IMAGE_BYTES}")]
    TooLong(usize),
    /// No EXIF block, or one that cannot be read.
    #[error("EXIF: {0}")]
    Exif(#[from] exif::Error),
    /// An EXIF block without Edgeveil's UserComment.
    #[error("EXIF has no UserComment with Edgeveil's JSON")]
    NoComment,
    /// The JSON in it was refused.
    #[error("EXIF UserComment: {0}")]
    Payload(#[from] PayloadError),
}

/// EXIF 2.32, 4.6.5: the eight bytes that name the character code of a UserComment.
const ASCII: &[u8; 8] = b"ASCII\0\0\0";

impl ImageMeta {
    /// The TIFF block of an EXIF segment, without the `Exif\0\0` in front.
    pub fn to_exif(&self) -> Vec<u8> {
        let time = self.stamp.timestamp.to_zoned(jiff::tz::TimeZone::UTC);
        let date_time = time.strftime("%Y:%m:%d %H:%M:%S").to_string();
        let faces = if self.faces == 1 {
            "1 face covered".to_owned()
        } else {
            format!("{} faces covered", self.faces)
        };
        let mut comment = ASCII.to_vec();
        comment.extend(schema::write(Schema::Image, self));
        let text = |tag, text: String| field(tag, Value::Ascii(vec![text.into_bytes()]));
        let fields = [
            text(Tag::ImageDescription, faces),
            text(Tag::Make, "Edgeveil".to_owned()),
            text(Tag::Model, self.camera.to_string()),
            text(Tag::Software, self.software.clone()),
            text(Tag::DateTime, date_time.clone()),
            text(Tag::DateTimeOriginal, date_time),
            text(Tag::OffsetTimeOriginal, "+00:00".to_owned()),
            text(
                Tag::SubSecTimeOriginal,
                format!("{:03}", self.stamp.timestamp.as_millisecond().rem_euclid(1000)),
            ),
            field(Tag::UserComment, Value::Undefined(comment, 0)),
            text(Tag::ImageUniqueID, self.stamp.id.to_string()),
            text(Tag::BodySerialNumber, self.device.to_string()),
        ];
        let mut writer = Writer::new();
        fields.iter().for_each(|field| writer.push_field(field));
        let mut block = Cursor::new(Vec::new());
        writer.write(&mut block, false).expect("writing to memory, of types that TIFF knows");
        block.into_inner()
    }

    /// Reads the metadata of a JPEG that an agent made. The picture itself is not decoded.
    pub fn from_jpeg(jpeg: &[u8]) -> Result<Self, ImageError> {
        if jpeg.len() > MAX_IMAGE_BYTES {
            return Err(ImageError::TooLong(jpeg.len()));
        }
        if !jpeg.starts_with(&[0xff, 0xd8, 0xff]) {
            return Err(ImageError::NotJpeg);
        }
        let json = comment(jpeg)?;
        let meta: Self = schema::parse(Schema::Image, &json)?;
        meta.stamp.check(Lane::Image).map_err(PayloadError::from)?;
        Ok(meta)
    }

    /// The id of a JPEG whatever else is wrong with it, its schema's version included: by it alone a receiver that
    /// refuses the image can say which one it means.
    pub fn id_in_jpeg(jpeg: &[u8]) -> Option<RecordId> {
        #[derive(Deserialize)]
        struct OnlyId {
            id: RecordId,
            boot: BootId,
        }
        let only: OnlyId = serde_json::from_slice(&comment(jpeg).ok()?).ok()?;
        (only.id.boot() == only.boot).then_some(only.id)
    }
}

/// The JSON in an image's UserComment.
fn comment(jpeg: &[u8]) -> Result<Vec<u8>, ImageError> {
    let exif = exif::Reader::new().read_from_container(&mut Cursor::new(jpeg))?;
    let comment = exif.get_field(Tag::UserComment, In::PRIMARY).ok_or(ImageError::NoComment)?;
    let Value::Undefined(bytes, _) = &comment.value else { return Err(ImageError::NoComment) };
    bytes.strip_prefix(ASCII).map(<[u8]>::to_vec).ok_or(ImageError::NoComment)
}

fn field(tag: Tag, value: Value) -> Field {
    Field { tag, ifd_num: In::PRIMARY, value }
}
