//! MJPEG from a program's standard output: how cameras come in that have no V4L2 device of their own (`rpicam-vid`,
//! `gst-launch-1.0 nvarguscamerasrc`, `ffmpeg -i rtsp://..`).

use super::{
    CaptureError, Shot, Source,
    stream::{Feed, Stream},
};
use crate::{pause::Pause, program::Program};
use std::{io::Read, process::ChildStdout, thread, time::Duration};

/// A running program. It and all that it has started end when this is dropped.
pub struct Command {
    program: Program,
    stream: Stream,
}

impl Command {
    /// Starts it.
    pub fn open(command: &[String], silence: Duration, pause: &Pause) -> Result<Self, CaptureError> {
        let name = command.first().map_or("", String::as_str);
        let start = |source| CaptureError::Start { program: name.to_owned(), source };
        let (program, out) = Program::start(command).map_err(start)?;
        let (stream, feed) = Stream::new(name, silence, pause);
        thread::Builder::new().name("stdout".to_owned()).spawn(move || read(out, feed)).map_err(start)?;
        Ok(Self { program, stream })
    }
}

/// Reads until the program and all that have its output are gone.
fn read(mut out: ChildStdout, mut feed: Feed) {
    let mut bytes = vec![0; 64 << 10];
    let how = loop {
        match out.read(&mut bytes) {
            Ok(0) => break String::new(),
            Ok(length) => feed.take(&bytes[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break error.to_string(),
        }
    };
    feed.end(how);
}

impl Source for Command {
    fn next(&mut self) -> Result<Option<Shot>, CaptureError> {
        match self.stream.next() {
            Ok(frame) => Ok(Some(frame.into())),
            Err(CaptureError::Ended { what, .. }) => {
                Err(CaptureError::Ended { what, how: self.program.last_words() })
            }
            Err(CaptureError::Silent { what, seconds, bytes }) => {
                let what = match self.program.said().as_str() {
                    "" => what,
                    said => format!("{what} (its last words: {said})"),
                };
                Err(CaptureError::Silent { what, seconds, bytes })
            }
            Err(error) => Err(error),
        }
    }
}
