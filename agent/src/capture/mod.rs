//! Cameras: each gives [`Frame`]s, whose pixels nobody but the veil can read.

mod replay;
mod thread;
#[cfg(feature = "v4l2")]
mod v4l2;

pub use thread::{Camera, Pulse, watch, watch_silence};

use crate::settings::{self, CameraSource};
use edgeveil_veil::{Frame, FrameError, Limits};
use std::path::PathBuf;

/// Gives frames, one at a time; each call blocks until there is one. It stays on the thread that opened it.
pub trait Source {
    /// The next frame.
    fn next(&mut self) -> Result<Frame, CaptureError>;
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
    #[error("cannot read {}: {source}", path.display())]
    Picture {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder without pictures.
    #[error("{} holds no .jpg, .jpeg or .png file", .0.display())]
    Empty(PathBuf),
    /// One picture cannot be decoded; the next one may.
    #[error("cannot decode {what}: {source}")]
    Decode {
        /// Which picture.
        what: String,
        /// Why not.
        source: FrameError,
    },
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
        matches!(self, Self::Decode { .. } | Self::Picture { .. })
    }
}

/// Larger pictures are refused before they are decoded: 32 MiB or 50 megapixels.
const LIMITS: Limits = Limits { max_bytes: 32 << 20, max_pixels: 50_000_000 };

/// Opens a camera's source.
pub fn open(camera: &settings::Camera) -> Result<Box<dyn Source>, CaptureError> {
    match &camera.source {
        CameraSource::Replay(path) => Ok(Box::new(replay::Replay::open(path)?)),
        #[cfg(feature = "v4l2")]
        CameraSource::V4l2 { device, size } => Ok(Box::new(v4l2::V4l2::open(device, *size, camera.fps)?)),
        #[cfg(not(feature = "v4l2"))]
        CameraSource::V4l2 { device, .. } => Err(CaptureError::NoV4l2(device.clone())),
    }
}
