//! H.264 by ffmpeg, a program of its own.

use super::{FilmError, frame::Frame};
use std::{
    path::Path,
    process::{ExitStatus, Stdio},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

/// Whatever else the machine does goes before it.
fn command() -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19", "ffmpeg"]);
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]).kill_on_drop(true);
    command
}

/// Whether it can be run.
pub async fn is_there() -> Result<(), FilmError> {
    let run =
        Command::new("ffmpeg").arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).status().await;
    match run {
        Ok(status) if status.success() => Ok(()),
        _ => Err(FilmError::Ffmpeg(
            "ffmpeg is missing, which makes H.264: install it (apt install ffmpeg), or name a FILE.avi, for which nothing is needed".to_owned(),
        )),
    }
}

/// Makes one part of a film.
pub struct Encoder {
    child: Child,
}

impl Encoder {
    pub fn start(path: &Path, (width, height): (usize, usize), fps: u32) -> Result<Self, FilmError> {
        let mut command = command();
        command
            .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", &format!("{width}x{height}")])
            .args(["-framerate", &fps.to_string(), "-i", "pipe:0"])
            .args([
                "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p", "-f", "mp4",
            ])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child =
            command.spawn().map_err(|error| FilmError::Ffmpeg(format!("ffmpeg cannot be run: {error}")))?;
        Ok(Self { child })
    }

    pub async fn write(&mut self, frame: &Frame) -> Result<(), FilmError> {
        let Some(input) = &mut self.child.stdin else { return Ok(()) };
        if input.write_all(&frame.pixels).await.is_err() {
            return Err(said(&mut self.child).await);
        }
        Ok(())
    }

    pub async fn close(mut self) -> Result<(), FilmError> {
        drop(self.child.stdin.take());
        let ended = self.child.wait().await;
        if ended.is_ok_and(|status| status.success()) { Ok(()) } else { Err(said(&mut self.child).await) }
    }
}

/// Puts parts into one film, without making them anew.
pub async fn join(folder: &Path, parts: &[String], whole: &Path) -> Result<(), FilmError> {
    let list = folder.join("parts.txt");
    let text: String = parts.iter().map(|part| format!("file '{part}'\n")).collect();
    std::fs::write(&list, text).map_err(super::at(&list))?;
    let mut command = command();
    command.args(["-f", "concat", "-safe", "0", "-i"]).arg(&list);
    command.args(["-c", "copy", "-movflags", "+faststart", "-f", "mp4"]).arg(whole);
    let run = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = run.map_err(|error| FilmError::Ffmpeg(format!("ffmpeg cannot be run: {error}")))?;
    let ended = child.wait().await;
    if ended.is_ok_and(|status: ExitStatus| status.success()) { Ok(()) } else { Err(said(&mut child).await) }
}

/// Why it has failed, in its own words.
async fn said(child: &mut Child) -> FilmError {
    let mut text = String::new();
    if let Some(errors) = child.stderr.take() {
        let _ = errors.take(4096).read_to_string(&mut text).await;
    }
    FilmError::Ffmpeg(format!("ffmpeg failed: {}", text.split_whitespace().collect::<Vec<_>>().join(" ")))
}
