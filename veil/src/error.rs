use std::path::PathBuf;

use crate::ModelKind;

/// Why a picture did not become a [`Frame`](crate::Frame).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Neither the first bytes of a JPEG nor those of a PNG.
    #[error("neither a JPEG nor a PNG")]
    UnknownFormat,
    /// The encoded picture is larger than [`Limits::max_bytes`](crate::Limits::max_bytes).
    #[error("picture of {bytes} bytes is over the limit of {limit}")]
    TooManyBytes {
        /// Size of the encoded picture.
        bytes: usize,
        /// The limit it broke.
        limit: usize,
    },
    /// The picture declares more pixels than [`Limits::max_pixels`](crate::Limits::max_pixels), or a side over 65,535.
    #[error("picture of {width}x{height} is over the limit of {limit} pixels or 65535 a side")]
    TooManyPixels {
        /// Declared width.
        width: u32,
        /// Declared height.
        height: u32,
        /// The limit it broke.
        limit: u64,
    },
    /// A side of length zero.
    #[error("picture of {width}x{height} has no pixels")]
    Empty {
        /// Declared width.
        width: u32,
        /// Declared height.
        height: u32,
    },
    /// Raw pixels whose number does not fit the declared size.
    #[error("{width}x{height} needs {expected} bytes of pixels, got {got}")]
    WrongLength {
        /// Declared width.
        width: u32,
        /// Declared height.
        height: u32,
        /// Bytes that the size calls for.
        expected: u64,
        /// Bytes that came.
        got: usize,
    },
    /// YUYV stores pixels in pairs.
    #[error("YUYV needs an even width, got {width}")]
    OddWidth {
        /// Declared width.
        width: u32,
    },
    /// Truncated or damaged.
    #[error("corrupt picture: {0}")]
    Corrupt(String),
}

/// Why the veil could not be opened or an image not be veiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VeilError {
    /// There is no file where the settings say that the model is.
    #[error("model file {path} not found: run `veil/fetch-models {dir}`", dir = crate::model::folder_of(.path))]
    ModelMissing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// The model is there and cannot be read.
    #[error("model file {path} cannot be read: {source}")]
    ModelUnreadable {
        /// The file that was looked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not the model that the settings name.
    #[error(
        "model file {path} is not the known {kind} model (sha256 {sha256}): {hint}",
        hint = crate::model::mismatch_hint(.path, .sha256)
    )]
    ModelUnknown {
        /// The file that was read.
        path: PathBuf,
        /// The model that the settings ask for.
        kind: ModelKind,
        /// What the file hashes to.
        sha256: String,
    },
    /// The file is the known one, but the inference engine refuses it.
    #[error("{kind} model cannot be loaded: {reason}")]
    ModelRefused {
        /// The model.
        kind: ModelKind,
        /// What the engine said.
        reason: String,
    },
    /// A setting out of its range.
    #[error("{key} = {value} is out of range: {want}")]
    Setting {
        /// The field of [`Settings`](crate::Settings).
        key: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        want: &'static str,
    },
    /// The detector failed, panicked or gave something that is no number. The frame was dropped.
    #[error("face detection failed, the frame was dropped: {0}")]
    Detection(String),
    /// The detector did not answer in time ([`Settings::timeout`](crate::Settings::timeout)). The frame was dropped.
    #[error(
        "face detection took longer than {} s, the frame was dropped; take a quicker profile or a longer time-out",
        .limit.as_secs_f32()
    )]
    TimedOut {
        /// How long it had.
        limit: std::time::Duration,
    },
    /// The EXIF block cannot go into the file.
    #[error("EXIF block refused: {0}")]
    Exif(&'static str),
    /// The JPEG encoder failed.
    #[error("JPEG encoding failed: {0}")]
    Encode(String),
}
