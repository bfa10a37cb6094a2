//! Pictures from a file or a folder, over and over.

use super::{CaptureError, LIMITS, Shot, Source};
use edgeveil_veil::Frame;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// A file, or the pictures of a folder in the order of their names. The folder is listed anew on every round, so
/// pictures may come and go.
pub struct Replay {
    path: PathBuf,
    /// This round's pictures, the next one last.
    round: Vec<PathBuf>,
}

impl Replay {
    /// Lists the folder once, so that a wrong path is known at once.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let mut replay = Self { path: path.to_owned(), round: Vec::new() };
        replay.list()?;
        Ok(replay)
    }

    fn list(&mut self) -> Result<(), CaptureError> {
        let read = |source| CaptureError::Read { path: self.path.clone(), source };
        let mut pictures = if std::fs::metadata(&self.path).map_err(read)?.is_dir() {
            let mut pictures = Vec::new();
            for entry in std::fs::read_dir(&self.path).map_err(read)? {
                pictures.push(entry.map_err(read)?.path());
            }
            pictures.retain(|path| is_picture(path));
            pictures
        } else {
            vec![self.path.clone()]
        };
        if pictures.is_empty() {
            return Err(CaptureError::Empty(self.path.clone()));
        }
        pictures.sort_unstable_by(|a, b| b.cmp(a));
        self.round = pictures;
        Ok(())
    }
}

/// By the end of its name.
pub(super) fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

impl Source for Replay {
    fn next(&mut self) -> Result<Option<Shot>, CaptureError> {
        if self.round.is_empty() {
            self.list()?;
        }
        let Some(path) = self.round.pop() else { return Err(CaptureError::Empty(self.path.clone())) };
        let bytes = read(&path).map_err(|source| {
            let path = path.clone();
            // A folder goes on with its next picture.
            if path == self.path {
                CaptureError::Read { path, source }
            } else {
                CaptureError::Picture { path, source }
            }
        })?;
        Frame::decode(&bytes, &LIMITS)
            .map(|frame| Some(frame.into()))
            .map_err(|source| CaptureError::Decode { what: path.display().to_string(), source })
    }
}

/// Reads a file, but no more of it than a picture may have, and one byte that shows that it has more. What is no file
/// could keep us waiting.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMITS.max_bytes as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, RgbImage};

    fn picture(path: &Path, width: u32) {
        RgbImage::new(width, 16).save_with_format(path, ImageFormat::Png).unwrap();
    }

    fn width(replay: &mut Replay) -> u32 {
        replay.next().unwrap().unwrap().frame.width()
    }

    #[test]
    fn a_folder_is_replayed_in_the_order_of_names_and_listed_anew() {
        let dir = tempfile::tempdir().unwrap();
        picture(&dir.path().join("b.png"), 32);
        picture(&dir.path().join("a.PNG"), 16);
        std::fs::write(dir.path().join("notes.txt"), "no picture").unwrap();
        let mut replay = Replay::open(dir.path()).unwrap();
        let mut widths = |n: usize| (0..n).map(|_| width(&mut replay)).collect::<Vec<_>>();
        assert_eq!(widths(3), [16, 32, 16]);
        picture(&dir.path().join("c.png"), 48);
        assert_eq!(widths(4), [32, 16, 32, 48]);
    }

    #[test]
    fn a_bad_picture_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.jpg"), b"\xff\xd8\xff no picture").unwrap();
        picture(&dir.path().join("b.png"), 32);
        let mut replay = Replay::open(dir.path()).unwrap();
        assert!(replay.next().expect_err("a.jpg is broken").is_one_frame_only());
        assert_eq!(width(&mut replay), 32);
    }

    #[test]
    fn an_unreadable_picture_does_not_hide_those_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("a.png")).unwrap();
        picture(&dir.path().join("b.png"), 32);
        let mut replay = Replay::open(dir.path()).unwrap();
        assert!(replay.next().expect_err("a.png leads nowhere").is_one_frame_only());
        assert_eq!(width(&mut replay), 32);
    }

    #[test]
    fn more_than_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jpg");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let mut replay = Replay::open(&path).unwrap();
        assert!(matches!(replay.next(), Err(CaptureError::Decode { .. })));
    }

    #[test]
    fn a_wrong_path_and_an_empty_folder_are_known_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Replay::open(dir.path()), Err(CaptureError::Empty(_))));
        assert!(matches!(Replay::open(&dir.path().join("none")), Err(CaptureError::Read { .. })));
    }
}
