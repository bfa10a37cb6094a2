//! Cameras: each gives [`Frame`]s, whose pixels nobody but the veil can read.

mod command;
mod encoded;
mod folder;
mod http;
mod replay;
mod stream;
mod thread;
#[cfg(feature = "v4l2")]
mod v4l2;

pub use thread::{Camera, Pulse, watch, watch_silence};

use crate::{
    pause::Pause,
    record::Receipt,
    settings::{self, CameraSource},
};
use edgeveil_veil::{Frame, FrameError, Limits};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Gives frames, one at a time; each call blocks until there is one. It stays on the thread that opened it.
pub trait Source {
    /// The next frame; none when all is well and there is nothing yet.
    fn next(&mut self) -> Result<Option<Shot>, CaptureError>;
}

/// A frame, and what its source knows of it.
#[derive(Debug)]
pub struct Shot {
    /// What the camera saw.
    pub frame: Frame,
    /// How long ago.
    pub age: Duration,
    /// For a source that waits until the image is durable.
    pub receipt: Option<Receipt>,
}

impl From<Frame> for Shot {
    fn from(frame: Frame) -> Self {
        Self { frame, age: Duration::ZERO, receipt: None }
    }
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}; check that it exists and that the agent's user may read it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// One picture of a folder cannot be read; the next one may.
    #[error("cannot read {}: {source}; let the agent's user read what is put there", path.display())]
    Picture {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder without pictures.
    #[error("{} holds no .jpg, .jpeg or .png file; put one there, or name another in camera.source", .0.display())]
    Empty(PathBuf),
    /// One picture cannot be decoded; the next one may.
    #[error("cannot decode {what}: {source}; it is left out. Is it whole, and JPEG or PNG?")]
    Decode {
        /// Which picture.
        what: String,
        /// Why not.
        source: FrameError,
    },
    /// A program cannot be started.
    #[error("cannot start `{program}`: {source}; install it, or name it with its whole path")]
    Start {
        /// Its name.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A stream is over that should not be.
    #[error("{what}: {how}; docs/cameras.md has a recipe to hold it against")]
    Ended {
        /// The program or address.
        what: String,
        /// How, and the last that was said.
        how: String,
    },
    /// A stream gives no pictures any more.
    #[error(
        "{what} has given no picture for {seconds} s ({bytes} bytes in all); is it MJPEG? where that is too short, raise camera.silence"
    )]
    Silent {
        /// The program or address.
        what: String,
        /// For how long.
        seconds: f64,
        /// What came in all.
        bytes: u64,
    },
    /// One picture of a stream is none; the next one may be.
    #[error(
        "{what}: {why}; the picture is left out. Where it happens often, look at the cable or the network"
    )]
    Garbled {
        /// The program or address.
        what: String,
        /// What is wrong.
        why: &'static str,
    },
    /// None of many in a row was a picture.
    #[error("{what} gives no picture that can be read: {why}; does it write MJPEG?")]
    NoPictures {
        /// The program or address.
        what: String,
        /// What was wrong with the last one.
        why: String,
    },
    /// A camera does not answer as it should.
    #[error("{url} {what}")]
    Http {
        /// Its address without what stands behind the `?`.
        url: String,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// The file with user and password.
    #[error("camera.source.login {}: {why}; it wants one line, `user:password`, that the agent's user may read", path.display())]
    Login {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificates that a camera's is held against.
    #[error("certificates {}: {why}; set camera.source.ca to a PEM file with the camera's certificate or its CA", path.display())]
    Authorities {
        /// Which.
        path: PathBuf,
        /// What is wrong with them.
        why: String,
    },
    /// An upload cannot be deleted.
    #[error("cannot delete below {}: {source}; let the agent's user write to the folder (run by systemd, name it in ReadWritePaths= as well), or set `then = \"keep\"`", path.display())]
    Delete {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was taken of a folder cannot be remembered.
    #[error("cannot write {}: {source}; without it every upload would be sent again after a restart; make room, and let the agent's user write there", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder with too many files.
    #[error("the folder holds more than {0} pictures; tidy it up, or set `then = \"delete\"`")]
    TooMany(usize),
    /// The agent stops.
    #[error("the agent stops")]
    Stopped,
    /// The camera's driver said no.
    #[cfg(feature = "v4l2")]
    #[error("{}: {what}; `v4l2-ctl --list-formats-ext -d {}` shows what it offers", device.display(), device.display())]
    Device {
        /// The device file.
        device: PathBuf,
        /// What it said.
        what: String,
    },
    /// The program was built without V4L2.
    #[cfg(not(feature = "v4l2"))]
    #[error("{}: this agent was built without V4L2; build it with `--features v4l2`", .0.display())]
    NoV4l2(PathBuf),
}

impl CaptureError {
    /// Whether only this one picture is bad, so that the source need not be opened anew.
    pub fn is_one_frame_only(&self) -> bool {
        matches!(self, Self::Decode { .. } | Self::Picture { .. } | Self::Garbled { .. })
    }
}

/// Larger pictures are refused before they are decoded: 32 MiB or 50 megapixels.
const LIMITS: Limits = Limits { max_bytes: 32 << 20, max_pixels: 50_000_000 };

/// So many pictures in a row that cannot be decoded count as a lost camera.
const BAD_IN_A_ROW: u32 = 10;

/// Opens a camera's source. What it has to remember stands below `data_dir`.
pub fn open(
    camera: &settings::Camera,
    data_dir: &Path,
    pause: &Pause,
) -> Result<Box<dyn Source>, CaptureError> {
    let silence = camera.silence;
    Ok(match &camera.source {
        CameraSource::Replay(path) => Box::new(replay::Replay::open(path)?),
        #[cfg(feature = "v4l2")]
        CameraSource::V4l2 { device, size } => Box::new(v4l2::V4l2::open(device, *size, camera.fps)?),
        #[cfg(not(feature = "v4l2"))]
        CameraSource::V4l2 { device, .. } => return Err(CaptureError::NoV4l2(device.clone())),
        CameraSource::Command(command) => Box::new(command::Command::open(command, silence, pause)?),
        CameraSource::Http(camera) => Box::new(http::HttpStream::open(camera, silence, pause)?),
        CameraSource::Snapshot(camera) => Box::new(http::Snapshot::open(camera, silence, pause)?),
        CameraSource::Folder { path, then } => {
            let memory = data_dir.join("cameras").join(format!("{}.seen", camera.name));
            Box::new(folder::Folder::open(path, *then, &memory)?)
        }
    })
}
