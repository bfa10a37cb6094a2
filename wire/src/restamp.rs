//! Changes the time of a record that was made before the device's clock was set.

use crate::{Alert, Event, ImageMeta, Reading, Stamp, Topic};

/// JPEG's marker of an APP1 segment, and what begins the one with EXIF.
const APP1: [u8; 2] = [0xff, 0xe1];
const EXIF: &[u8; 6] = b"Exif\0\0";

/// The record with another stamp, or none when the payload is no record of that topic. `change` gets the stamp; it
/// must leave the identity as it is.
pub fn restamp(topic: &Topic, payload: &[u8], change: impl FnOnce(&mut Stamp)) -> Option<Vec<u8>> {
    match topic {
        Topic::Reading(_) => {
            let mut reading = Reading::from_json(payload).ok()?;
            change(&mut reading.stamp);
            Some(reading.to_json())
        }
        Topic::Alert(_) => {
            let mut alert = Alert::from_json(payload).ok()?;
            change(&mut alert.stamp);
            Some(alert.to_json())
        }
        Topic::Event => {
            let mut event = Event::from_json(payload).ok()?;
            change(&mut event.stamp);
            Some(event.to_json())
        }
        Topic::Image(_) => {
            let mut meta = ImageMeta::from_jpeg(payload).ok()?;
            change(&mut meta.stamp);
            replace_exif(payload, &meta.to_exif())
        }
        Topic::Status | Topic::Health | Topic::Ack | Topic::Desired | Topic::Reported => None,
    }
}

/// A JPEG whose EXIF block is another one. The picture is not touched.
fn replace_exif(jpeg: &[u8], block: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(2 + EXIF.len() + block.len()).ok()?;
    let mut at = 2;
    // Segments before the image data: marker, length with itself, content.
    while let Some(&[first, second, high, low]) = jpeg.get(at..at + 4) {
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        if [first, second] == APP1 && jpeg.get(at + 4..end)?.starts_with(EXIF) {
            let head = [&jpeg[..at], &APP1, &length.to_be_bytes(), EXIF, block];
            return Some([&head.concat(), &jpeg[end..]].concat());
        }
        // Start of scan: there is no EXIF.
        if first != 0xff || second == 0xda {
            return None;
        }
        at = end;
    }
    None
}
