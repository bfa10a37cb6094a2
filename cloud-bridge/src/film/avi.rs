//! Motion JPEG in an AVI file: large, and needs nothing to be made. The form is that of Microsoft's "AVI RIFF File Reference".

use super::frame::Frame;
use jpeg_encoder::{ColorType, Encoder};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

const QUALITY: u8 = 85;
/// Lengths in the file have 32 bits; a film that would be longer is refused.
const MOST: u64 = 4_000_000_000;

/// A part: JPEGs, each behind its length.
pub struct Part {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Part {
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: BufWriter::new(File::create(path)?) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn push(&mut self, jpeg: &[u8]) -> io::Result<()> {
        self.file.write_all(&(jpeg.len() as u32).to_le_bytes())?;
        self.file.write_all(jpeg)
    }

    pub fn close(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

/// A frame as JPEG.
pub fn encode(frame: &Frame) -> io::Result<Vec<u8>> {
    let mut jpeg = Vec::new();
    let (width, height) = (frame.width as u16, frame.height as u16);
    let done = Encoder::new(&mut jpeg, QUALITY).encode(&frame.pixels, width, height, ColorType::Rgb);
    done.map(|()| jpeg).map_err(io::Error::other)
}

/// Puts parts into one film.
pub fn join(
    folder: &Path,
    parts: &[String],
    whole: &Path,
    (width, height): (usize, usize),
    fps: u32,
) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(whole)?);
    // Lengths and numbers of frames come in the end.
    out.write_all(&head(width, height, fps, 0, 0, 0))?;
    let mut index = Vec::new();
    let (mut at, mut largest) = (4_u64, 0);
    for part in parts {
        let mut part = BufReader::new(File::open(folder.join(part))?);
        let mut length = [0; 4];
        while part.read_exact(&mut length).is_ok() {
            let length = u32::from_le_bytes(length);
            let mut jpeg = vec![0; length as usize];
            part.read_exact(&mut jpeg)?;
            out.write_all(b"00dc")?;
            out.write_all(&length.to_le_bytes())?;
            out.write_all(&jpeg)?;
            if length % 2 == 1 {
                out.write_all(&[0])?;
            }
            index.push((at as u32, length));
            at += 8 + u64::from(length) + u64::from(length % 2);
            largest = largest.max(length);
            if at > MOST {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "an AVI file has at most 4 GB: take a shorter time, a longer --every or a smaller --side, or an .mp4",
                ));
            }
        }
    }
    out.write_all(b"idx1")?;
    out.write_all(&(16 * index.len() as u32).to_le_bytes())?;
    const KEY_FRAME: u32 = 0x10;
    for (place, length) in &index {
        out.write_all(b"00dc")?;
        for number in [KEY_FRAME, *place, *length] {
            out.write_all(&number.to_le_bytes())?;
        }
    }
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&head(width, height, fps, index.len() as u32, at as u32, largest))?;
    file.sync_all()
}

/// Everything before the first frame. `movi`: bytes of the list of frames, its name among them.
fn head(width: usize, height: usize, fps: u32, frames: u32, movi: u32, largest: u32) -> Vec<u8> {
    let (width, height) = (width as u32, height as u32);
    let fields =
        |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let chunk = |name: &[u8; 4], body: &[u8]| [name, &(body.len() as u32).to_le_bytes()[..], body].concat();
    const HAS_INDEX: u32 = 0x10;
    let main = fields(&[
        1_000_000 / fps.max(1),
        largest.saturating_mul(fps),
        0,
        HAS_INDEX,
        frames,
        0,
        1,
        largest,
        width,
        height,
        0,
        0,
        0,
        0,
    ]);
    let mut stream = b"vidsMJPG".to_vec();
    stream.extend(fields(&[0, 0, 0, 1, fps, 0, frames, largest, u32::MAX, 0, 0, width | height << 16]));
    let mut format = fields(&[40, width, height]);
    format.extend([1, 0, 24, 0]);
    format.extend(b"MJPG");
    format.extend(fields(&[width * height * 3, 0, 0, 0, 0]));
    let stream = [&b"strl"[..], &chunk(b"strh", &stream), &chunk(b"strf", &format)].concat();
    let list = [&b"hdrl"[..], &chunk(b"avih", &main), &chunk(b"LIST", &stream)].concat();
    let headers = chunk(b"LIST", &list);
    let index = if frames > 0 { 8 + 16 * frames } else { 0 };
    let riff = 4 + headers.len() as u32 + 8 + movi + index;
    [&b"RIFF"[..], &riff.to_le_bytes(), b"AVI ", &headers, b"LIST", &movi.to_le_bytes(), b"movi"].concat()
}
