//! Cameras of the Linux kernel, through nokhwa.

use super::{CaptureError, LIMITS, Shot, Source};
use crate::settings::Size;
use edgeveil_veil::Frame;
use nokhwa::{
    Camera,
    pixel_format::RgbFormat,
    utils::{CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType, Resolution},
};
use std::path::{Path, PathBuf};

/// An open V4L2 device that streams.
pub struct V4l2 {
    device: PathBuf,
    camera: Camera,
}

impl V4l2 {
    /// Asks for exactly this size, as YUYV and else as MJPEG. Left to itself nokhwa takes the smallest format or the
    /// largest, at one frame a second.
    pub fn open(device: &Path, size: Size, fps: f64) -> Result<Self, CaptureError> {
        let error = |what: String| CaptureError::Device { device: device.to_owned(), what };
        let index =
            index(device).ok_or_else(|| error("is no V4L2 device file such as /dev/video0".to_owned()))?;
        let resolution = Resolution::new(size.width, size.height);
        let mut refused = Vec::new();
        for format in [FrameFormat::YUYV, FrameFormat::MJPEG] {
            for rate in rates(fps) {
                let wanted = CameraFormat::new(resolution, format, rate);
                let wanted = RequestedFormat::new::<RgbFormat>(RequestedFormatType::Exact(wanted));
                let opened = Camera::new(CameraIndex::Index(index), wanted).and_then(|mut camera| {
                    camera.open_stream()?;
                    Ok(camera)
                });
                match opened {
                    Ok(camera) => return Ok(Self { device: device.to_owned(), camera }),
                    Err(e) => refused.push(format!("{format} at {rate} fps: {e}")),
                }
            }
        }
        Err(error(format!("gives no {}x{} stream ({})", size.width, size.height, refused.join("; "))))
    }
}

/// `/dev/video7` is number 7. A link such as `/dev/v4l/by-id/..` is followed.
fn index(device: &Path) -> Option<u32> {
    let device = device.canonicalize().ok()?;
    device.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()
}

/// Cameras offer a few fixed rates; the first at least as fast as asked is tried first.
fn rates(fps: f64) -> Vec<u32> {
    let mut rates = vec![5, 10, 15, 20, 25, 30, 50, 60];
    rates.sort_by_key(|rate| (f64::from(*rate) < fps, *rate));
    rates
}

impl Source for V4l2 {
    fn next(&mut self) -> Result<Option<Shot>, CaptureError> {
        let error = |what: String| CaptureError::Device { device: self.device.clone(), what };
        let buffer = self.camera.frame().map_err(|e| error(format!("gives no frame: {e}")))?;
        let (size, bytes) = (buffer.resolution(), buffer.buffer());
        let frame = match buffer.source_frame_format() {
            FrameFormat::YUYV => Frame::from_yuyv(size.width(), size.height(), bytes),
            FrameFormat::MJPEG => Frame::decode(bytes, &LIMITS),
            other => return Err(error(format!("gives frames of format {other}, which was not asked for"))),
        };
        let frame = frame.map(|frame| Some(frame.into()));
        frame.map_err(|source| CaptureError::Decode { what: self.device.display().to_string(), source })
    }
}
