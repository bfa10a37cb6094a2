//! Pictures as a camera encoded them: where one ends and the next begins in a stream, and nothing of what they show.

use super::{CaptureError, LIMITS};
use edgeveil_veil::Frame;
use std::fmt;

/// One raw JPEG in memory. It can be decoded into a [`Frame`], or dropped; like a frame it has no `Clone`, and it shows
/// its length only.
pub struct Encoded(Vec<u8>);

impl Encoded {
    /// A picture that is whole by itself: the body of a response.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The frame, which only the veil can look into.
    pub fn decode(self, what: &str) -> Result<Frame, CaptureError> {
        Frame::decode(&self.0, &LIMITS)
            .map_err(|source| CaptureError::Decode { what: what.to_owned(), source })
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes)", self.0.len())
    }
}

/// What was found in a stream.
#[derive(Debug)]
pub enum Piece {
    /// A picture from its first marker to its last.
    Picture(Encoded),
    /// A picture that is none; the stream goes on behind it.
    Bad(&'static str),
}

/// Without the beginning of a picture in so many bytes, something else than MJPEG is coming.
const MAX_NOISE: usize = 1 << 20;

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const TEM: u8 = 0x01;
const RST: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;

/// Cuts a stream into JPEGs by their markers (ITU-T T.81, annex B). The lengths of segments are followed, so that the
/// thumbnail within a picture's EXIF block ends nothing. What stands between pictures, as the part headers of
/// `multipart/x-mixed-replace`, is skipped.
///
/// It holds one picture at most, of at most `max` bytes.
pub struct Splitter {
    max: usize,
    picture: Vec<u8>,
    place: Place,
    /// Bytes since the last picture.
    noise: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between pictures, after so many bytes of FF D8 FF.
    Between(u8),
    /// Where a marker has to begin.
    Marker,
    /// After the FF of a marker.
    Code,
    /// In the two bytes of a segment's length.
    Length { scan: bool, first: Option<u8> },
    /// In a segment with so many bytes to go.
    Segment { scan: bool, left: usize },
    /// In entropy-coded data.
    Scan,
    /// After an FF in there.
    ScanCode,
}

impl Splitter {
    /// For pictures of up to `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, picture: Vec::new(), place: Place::Between(0), noise: 0 }
    }

    /// Takes the stream's next bytes, and tells each piece that ends in them.
    pub fn take(&mut self, bytes: &[u8], mut found: impl FnMut(Piece)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.step(rest, &mut found)..];
        }
    }

    /// Takes at least one of the bytes, and says how many.
    fn step(&mut self, bytes: &[u8], found: &mut impl FnMut(Piece)) -> usize {
        match self.place {
            Place::Between(seen) => self.between(bytes, seen, found),
            Place::Segment { scan, left } => {
                let taken = left.min(self.room(bytes));
                self.keep(&bytes[..taken]);
                self.place = match left - taken {
                    0 if scan => Place::Scan,
                    0 => Place::Marker,
                    left => Place::Segment { scan, left },
                };
                self.bound(found);
                taken
            }
            Place::Scan => {
                let bytes = &bytes[..self.room(bytes)];
                let taken = bytes.iter().position(|byte| *byte == 0xff).map_or(bytes.len(), |at| at + 1);
                self.keep(&bytes[..taken]);
                if bytes[taken - 1] == 0xff {
                    self.place = Place::ScanCode;
                }
                self.bound(found);
                taken
            }
            _ => {
                self.keep(&bytes[..1]);
                self.marker(bytes[0], found);
                // Fill bytes and markers without content may follow each other without end.
                self.bound(found);
                1
            }
        }
    }

    fn between(&mut self, bytes: &[u8], seen: u8, found: &mut impl FnMut(Piece)) -> usize {
        if seen == 0 {
            let taken = bytes.iter().position(|byte| *byte == 0xff).map_or(bytes.len(), |at| at + 1);
            self.noise += taken;
            if bytes[taken - 1] == 0xff {
                self.place = Place::Between(1);
            }
            if self.noise > MAX_NOISE {
                self.noise = 0;
                found(Piece::Bad("no JPEG in a mebibyte of data: it has to be MJPEG"));
            }
            return taken;
        }
        self.noise += 1;
        self.place = match (seen, bytes[0]) {
            (1, SOI) => Place::Between(2),
            (1, 0xff) => Place::Between(1),
            (2, 0xff) => {
                self.begin();
                self.keep(&[0xff]);
                Place::Code
            }
            _ => Place::Between(0),
        };
        1
    }

    fn begin(&mut self) {
        self.picture.clear();
        self.picture.extend([0xff, SOI]);
        self.noise = 0;
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.picture.extend_from_slice(bytes);
    }

    /// How many of the bytes are looked at: those up to the first that is too many.
    fn room(&self, bytes: &[u8]) -> usize {
        bytes.len().min((self.max + 1).saturating_sub(self.picture.len()).max(1))
    }

    fn bound(&mut self, found: &mut impl FnMut(Piece)) {
        if self.picture.len() > self.max {
            self.give_up("a picture is larger than 32 MiB", found);
        }
    }

    fn give_up(&mut self, why: &'static str, found: &mut impl FnMut(Piece)) {
        // The next picture may begin with the last byte.
        self.place = Place::Between(u8::from(self.picture.last() == Some(&0xff)));
        // What was kept is not needed any more, and may be large.
        self.picture = Vec::new();
        found(Piece::Bad(why));
    }

    /// One byte of a marker or of a length.
    fn marker(&mut self, byte: u8, found: &mut impl FnMut(Piece)) {
        self.place = match (self.place, byte) {
            (Place::Marker, 0xff) | (Place::Code, 0xff) => Place::Code,
            (Place::Code, TEM) => Place::Marker,
            (Place::ScanCode, 0xff) => Place::ScanCode,
            // A zero is stuffed behind an FF that is data.
            (Place::ScanCode, 0) => Place::Scan,
            (Place::ScanCode, byte) if RST.contains(&byte) => Place::Scan,
            (Place::ScanCode, EOI) => {
                self.place = Place::Between(0);
                return found(Piece::Picture(Encoded(std::mem::take(&mut self.picture))));
            }
            (Place::Code | Place::ScanCode, SOI) => {
                self.begin();
                self.place = Place::Marker;
                return found(Piece::Bad("a picture ends before its time"));
            }
            // Without any scan it is no picture.
            (Place::Code, 0 | EOI) => return self.give_up("a picture has no data", found),
            (Place::Code, byte) if RST.contains(&byte) => {
                return self.give_up("a picture is out of order", found);
            }
            (Place::Code | Place::ScanCode, byte) => Place::Length { scan: byte == SOS, first: None },
            (Place::Length { scan, first: None }, byte) => Place::Length { scan, first: Some(byte) },
            (Place::Length { scan, first: Some(first) }, byte) => {
                match usize::from(u16::from_be_bytes([first, byte])) {
                    // The length counts itself.
                    0 | 1 => return self.give_up("a picture is out of order", found),
                    2 if scan => Place::Scan,
                    2 => Place::Marker,
                    length => Place::Segment { scan, left: length - 2 },
                }
            }
            _ => return self.give_up("a picture is out of order", found),
        };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};

    /// A JPEG with something to see in it.
    pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
        let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i.wrapping_mul(i) / 31) as u8).collect();
        let mut file = Vec::new();
        JpegEncoder::new(&mut file).write_image(&pixels, width, height, ExtendedColorType::Rgb8).unwrap();
        file
    }

    /// The same with an EXIF block that holds a whole JPEG, as cameras' thumbnails are.
    fn with_thumbnail(width: u32) -> Vec<u8> {
        let (whole, small) = (jpeg(width, 16), jpeg(16, 16));
        let length = (2 + 6 + small.len() as u16).to_be_bytes();
        [&whole[..2], &[0xff, 0xe1], &length, b"Exif\0\0", &small, &whole[2..]].concat()
    }

    /// Cuts a stream that comes in chunks of this size.
    fn cut(stream: &[u8], chunk: usize, max: usize) -> Vec<Result<u32, &'static str>> {
        let mut splitter = Splitter::new(max);
        let mut pieces = Vec::new();
        for chunk in stream.chunks(chunk) {
            splitter.take(chunk, |piece| {
                pieces.push(match piece {
                    Piece::Picture(picture) => Ok(picture.decode("test").map_or(0, |frame| frame.width())),
                    Piece::Bad(why) => Err(why),
                });
            });
        }
        pieces
    }

    #[test]
    fn pictures_come_out_whole_however_the_stream_is_cut() {
        let head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 77\r\n\r\n".as_slice();
        let stream = [head, &jpeg(48, 32), b"\r\n", head, &with_thumbnail(64), b"\r\n\xff", &jpeg(80, 16)];
        for chunk in [1, 2, 3, 7, 64, 1000, 1 << 20] {
            assert_eq!(cut(&stream.concat(), chunk, 1 << 20), [Ok(48), Ok(64), Ok(80)], "{chunk}");
        }
    }

    #[test]
    fn a_truncated_picture_costs_only_itself() {
        let (first, second) = (jpeg(320, 240), jpeg(48, 32));
        let scan = first.windows(2).position(|window| window == [0xff, SOS]).unwrap();
        for share in [60, 90] {
            let end = scan + 14 + (first.len() - scan - 14) * share / 100;
            // A cut behind an FF would make another marker of the next picture's first byte.
            let end = (end..).find(|end| first[end - 1] != 0xff).unwrap();
            let found = cut(&[&first[..end], &second, &second].concat(), 100, 1 << 20);
            assert_eq!(found, [Err("a picture ends before its time"), Ok(48), Ok(48)]);
        }
        // Cut within a segment, the next picture is taken for the segment's rest: it is lost, and no more than it.
        let thumbnail = with_thumbnail(64);
        let found = cut(&[&thumbnail[..100], &second, &second, &second].concat(), 100, 1 << 20);
        assert!(found.ends_with(&[Ok(48), Ok(48)]), "{found:?}");
    }

    #[test]
    fn noise_and_giants_are_told_and_not_kept() {
        let noise: Vec<u8> = (0..3 << 20).map(|i| (i * 7 % 251) as u8).collect();
        let found = cut(&[&noise[..], &jpeg(48, 32)].concat(), 4096, 1 << 20);
        assert!(found.len() >= 3 && found[0].is_err() && found.last() == Some(&Ok(48)), "{found:?}");
        let giant =
            [&jpeg(48, 32)[..], &[0xff, SOI, 0xff, 0xe0, 0, 2, 0xff, SOS, 0, 2], &vec![7; 9000]].concat();
        let found = cut(&[&giant[..], &jpeg(64, 32)].concat(), 4096, 8192);
        assert_eq!(found, [Ok(48), Err("a picture is larger than 32 MiB"), Ok(64)]);
        // Bytes that may stand between markers, and never end.
        for (start, endless) in [
            (&[0xff, SOI, 0xff][..], &[0xff][..]),
            (&[0xff, SOI, 0xff], &[TEM, 0xff]),
            (&[0xff, SOI, 0xff, SOS, 0, 2], &[0xff]),
        ] {
            let giant = [start, &endless.repeat(9000 / endless.len())].concat();
            let found = cut(&[&giant[..], &[0; 2], &jpeg(64, 32)].concat(), 4096, 8192);
            assert_eq!(found, [Err("a picture is larger than 32 MiB"), Ok(64)], "{endless:?}");
        }
    }

    /// `EDGEVEIL_FUZZ_CASES` sets how many inputs are tried.
    #[test]
    fn any_damage_leaves_the_stream_usable() {
        use crate::sense::fuzz_cases;
        use rand_xoshiro::{
            Xoshiro256PlusPlus,
            rand_core::{RngCore, SeedableRng},
        };
        let mut draws = Xoshiro256PlusPlus::seed_from_u64(6);
        let mut below = |n: usize| (draws.next_u64() % n as u64) as usize;
        let good = with_thumbnail(64);
        for _ in 0..fuzz_cases() {
            let mut damaged = good.clone();
            for _ in 0..=below(4) {
                let at = below(damaged.len());
                match below(3) {
                    0 => damaged[at] = below(256) as u8,
                    1 => damaged.truncate(at.max(1)),
                    _ => _ = damaged.drain(at..(at + below(40)).min(damaged.len())),
                }
                if damaged.is_empty() {
                    damaged.push(0);
                }
            }
            // Behind the longest segment that damage may have announced.
            let after: Vec<u8> =
                std::iter::repeat_n(&good[..], 2 + (64 << 10) / good.len()).flatten().copied().collect();
            let found = cut(&[&damaged[..], &after, &jpeg(80, 16)].concat(), 1 + below(5000), 1 << 20);
            assert_eq!(found.last(), Some(&Ok(80)));
        }
    }

    #[test]
    fn debug_shows_no_byte() {
        assert_eq!(format!("{:?}", Encoded::new(vec![201, 202])), "Encoded(2 bytes)");
    }
}
