//! Videos, by ffmpeg: one of it decodes into a pipe, one encodes out of another. No frame touches a disk in between, and the
//! copy only gets its name when it is whole.

use super::LIMITS;
use anyhow::{Context, bail};
use edgeveil_veil::{Frame, Veil, VeiledImage};
use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

/// Veils every frame or fails. Sound and metadata stay behind. `seen` is told of each frame.
pub fn veil(
    veil: &mut Veil,
    path: &Path,
    out: &Path,
    mut seen: impl FnMut(u64, &VeiledImage) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let rate = rate(path)?;
    let mut decoder = Running::start(
        ffmpeg().arg("-i").arg(of_file(path)).args(["-map", "0:v:0", "-r", &rate]).args([
            "-f",
            "image2pipe",
            "-c:v",
            "ppm",
            "-",
        ]),
        Stdio::null(),
        Stdio::piped(),
    )?;
    let mut frames = BufReader::with_capacity(1 << 20, decoder.0.stdout.take().context("no pipe")?);
    let part = Part::beside(out)?;
    let mut encoder: Option<(Running, BufWriter<ChildStdin>)> = None;
    let mut count = 0;
    while let Some(frame) = next(&mut frames)? {
        let image = veil.veil(frame).with_context(|| format!("frame {count}"))?;
        if encoder.is_none() {
            let mut running = Running::start(
                ffmpeg()
                    .args(["-f", "image2pipe", "-c:v", "ppm", "-framerate", &rate, "-i", "-"])
                    .args(["-an", "-map_metadata", "-1", "-pix_fmt", "yuv420p", "-q:v", "3"])
                    // 4:2:0 wants even sides.
                    .args(["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-y"])
                    .arg(of_file(&part.0)),
                Stdio::piped(),
                Stdio::null(),
            )?;
            let pipe = running.0.stdin.take().context("no pipe")?;
            encoder = Some((running, BufWriter::with_capacity(1 << 20, pipe)));
        }
        let (_, pipe) = encoder.as_mut().context("no encoder")?;
        write!(pipe, "P6\n{} {}\n255\n", image.width(), image.height())
            .and_then(|()| pipe.write_all(image.pixels()))
            .context("ffmpeg took no more frames (see above)")?;
        seen(count, &image)?;
        count += 1;
    }
    decoder.end("read it")?;
    let Some((mut encoder, mut pipe)) = encoder else { bail!("it has no frames") };
    pipe.flush().context("ffmpeg took no more frames (see above)")?;
    drop(pipe);
    encoder.end("write the copy")?;
    fs::rename(&part.0, out).with_context(|| format!("cannot write {}", out.display()))
}

fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    // What is damaged is an error: what a decoder fills in is not what the camera saw.
    command.args(["-nostdin", "-hide_banner", "-v", "error", "-xerror"]);
    command
}

/// A name that ffmpeg takes for a file, whatever it looks like.
fn of_file(path: &Path) -> OsString {
    let mut name = OsString::from("file:");
    name.push(path);
    name
}

/// The copy under another name, which goes when it is not renamed in time.
struct Part(PathBuf);

impl Part {
    fn beside(out: &Path) -> anyhow::Result<Self> {
        let mut name = OsString::from(format!(".part{}-", std::process::id()));
        name.push(out.file_name().unwrap_or(OsStr::new("video")));
        Ok(Self(out.with_file_name(name)))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already when all went well.
        let _ = fs::remove_file(&self.0);
    }
}

/// A child that does not outlive us.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, input: Stdio, output: Stdio) -> anyhow::Result<Self> {
        match command.stdin(input).stdout(output).spawn() {
            Ok(child) => Ok(Self(child)),
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "{} is not installed, which videos need (Debian: apt-get install ffmpeg)",
                command.get_program().to_string_lossy()
            ),
            Err(error) => Err(error).with_context(|| format!("cannot run {:?}", command.get_program())),
        }
    }

    fn end(&mut self, to: &str) -> anyhow::Result<()> {
        let status = self.0.wait().context("ffmpeg is lost")?;
        if !status.success() {
            bail!("ffmpeg could not {to} (see above)");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Frames a second as ffprobe writes it: a fraction.
fn rate(path: &Path) -> anyhow::Result<String> {
    let mut probe = Command::new("ffprobe");
    probe
        .args([
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-show_entries",
            "stream=avg_frame_rate,r_frame_rate",
        ])
        .args(["-of", "default=noprint_wrappers=1:nokey=1"])
        .arg(of_file(path));
    let mut probe = Running::start(&mut probe, Stdio::null(), Stdio::piped())?;
    let mut text = String::new();
    let pipe = probe.0.stdout.take().context("no pipe")?;
    pipe.take(1 << 16).read_to_string(&mut text).context("ffprobe")?;
    probe.end("read it")?;
    // The real base rate comes first, then the average, which is what streams without a fixed rate are given.
    let rates: Vec<&str> = text.lines().map(str::trim).collect();
    let is_rate = |rate: &&str| {
        rate.split_once('/').is_some_and(|(n, d)| {
            let (n, d) = (n.parse().unwrap_or(0.0), d.parse().unwrap_or(0.0));
            n > 0.0 && d > 0.0 && (0.01..=240.0).contains(&(n / d))
        })
    };
    rates
        .into_iter()
        .rev()
        .find(is_rate)
        .map(str::to_owned)
        .context("it has no video, or its frame rate is not known")
}

/// The next frame of a stream of PPM pictures.
fn next(stream: &mut impl BufRead) -> anyhow::Result<Option<Frame>> {
    if stream.fill_buf().context("ffmpeg")?.is_empty() {
        return Ok(None);
    }
    let mut header = [0u32; 3];
    let mut magic = [0; 2];
    stream.read_exact(&mut magic).context("ffmpeg broke off")?;
    if &magic != b"P6" {
        bail!("ffmpeg gave no PPM picture");
    }
    for number in &mut header {
        *number = self::number(stream)?;
    }
    let [width, height, most] = header;
    let pixels = u64::from(width) * u64::from(height);
    if most != 255 || pixels > LIMITS.max_pixels {
        bail!("frames of {width}x{height} are over the limit of {} pixels", LIMITS.max_pixels);
    }
    let mut rgb = vec![0; 3 * pixels as usize];
    stream.read_exact(&mut rgb).context("ffmpeg broke off within a frame")?;
    Ok(Some(Frame::from_rgb8(width, height, rgb)?))
}

/// A number and the one blank behind it.
fn number(stream: &mut impl BufRead) -> anyhow::Result<u32> {
    let mut number: Option<u32> = None;
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("ffmpeg broke off")?;
        number = match (number, byte[0]) {
            (_, digit @ b'0'..=b'9') => number
                .unwrap_or(0)
                .checked_mul(10)
                .and_then(|n| n.checked_add(u32::from(digit - b'0')))
                .map(Some)
                .context("ffmpeg gave no PPM picture")?,
            (None, b' ' | b'\n') => None,
            (Some(number), b' ' | b'\n') => return Ok(number),
            _ => bail!("ffmpeg gave no PPM picture"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_follow_each_other_in_the_pipe() {
        let stream = b"P6\n2 1\n255\nabcdefP6\n1 1\n255\nxyz";
        let mut reader = &stream[..];
        let sizes: Vec<_> =
            std::iter::from_fn(|| next(&mut reader).unwrap()).map(|f| (f.width(), f.height())).collect();
        assert_eq!(sizes, [(2, 1), (1, 1)]);
        for broken in [
            &b"P6\n2 1\n255\nabcde"[..],
            b"P5\n1 1\n255\nx",
            b"P6\n99999999999 1\n255\n",
            b"P6\n60000 60000\n255\n",
            b"P6\n1",
            b"P6\n1 1\n65535\nabcdef",
            b"P6\n0 1\n255\n",
        ] {
            assert!(next(&mut &broken[..]).is_err(), "{:?}", String::from_utf8_lossy(broken));
        }
    }
}
