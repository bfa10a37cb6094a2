//! `edgeveil-agent veil`

mod video;

use super::Failure;
use anyhow::{Context, anyhow, bail};
use edgeveil_veil::{Cover, Frame, Limits, ModelKind, Profile, Settings, Veil, VeiledImage};
use serde::Serialize;
use std::{
    collections::HashSet,
    fs,
    io::{BufWriter, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// JPEG or PNG pictures, videos (when ffmpeg is installed), or folders with such (not what lies in folders below them)
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Folder for the veiled copies, which keep their names; it is made when it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// File for a JSON line an image: file, width, height, faces (and frame, from 0, in videos)
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Folder with the models, or the file of the one that is to be used alone [default: the models' folder]
    #[arg(long, value_name = "PATH", env = "EDGEVEIL_MODEL")]
    model: Option<PathBuf>,
    /// thorough, balanced or fast: how much effort goes into finding faces
    #[arg(long)]
    profile: Option<Profile>,
    /// centerface or yunet: use this model alone
    #[arg(long)]
    kind: Option<ModelKind>,
    /// deep-blur, solid or mosaic
    #[arg(long)]
    cover: Option<Cover>,
    /// Least score of a face, 0 to 1 (with one model)
    #[arg(long)]
    threshold: Option<f32>,
    /// Longer side of the detector's input in pixels, a multiple of 32 (with one model)
    #[arg(long)]
    long_side: Option<u32>,
    /// Longer side at which pictures are searched at most, for wide views with small faces (with both models)
    #[arg(long)]
    max_side: Option<u32>,
    /// The pictures are the frames of one camera in this order: faces are held over frames in which they are missed, and
    /// a frame without any change is not searched again
    #[arg(long)]
    sequence: bool,
    /// How far beyond the detected face is covered: 1.6 is 60 % larger in all
    #[arg(long)]
    margin: Option<f32>,
    /// JPEG quality, 1 to 100
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
}

const LIMITS: Limits = Limits { max_bytes: 64 << 20, max_pixels: 100_000_000 };

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<u64>,
    width: u32,
    height: u32,
    faces: Vec<Face>,
}

#[derive(Serialize)]
struct Face {
    #[serde(rename = "box")]
    bounds: [f32; 4],
    score: f32,
}

/// Goes on after a picture that cannot be veiled (nothing is written of it), and fails at the end.
pub fn veil(arguments: &Arguments) -> Result<(), Failure> {
    let mut veil = Veil::open(&settings(arguments))?;
    fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make folder {}", arguments.out.display()))?;
    let mut report = Report::open(arguments.report.as_deref())?;
    let (files, mut failed) = files(&arguments.images);
    let total = files.len() + failed;
    let mut progress = Progress::new(files.len());
    let mut names = HashSet::new();
    for path in &files {
        progress.next();
        // A second picture of the same name would take the first one's place.
        let fresh = path.file_name().is_none_or(|name| names.insert(name.to_owned()));
        let done = if !fresh {
            Err(anyhow!("a picture of this name came before"))
        } else if has_extension(path, VIDEOS) {
            target(path, arguments).and_then(|out| {
                let mut stream = veil.another();
                video::veil(&mut stream, path, &out, |frame, image| {
                    progress.frame(frame);
                    report.add(path, Some(frame), image)
                })
            })
        } else {
            one(&mut veil, path, arguments).and_then(|image| report.add(path, None, &image))
        };
        if let Err(error) = done {
            // A report that cannot be written ends it: what is reported is what was done.
            if error.is::<NoReport>() {
                return Err(error.into());
            }
            failed += 1;
            progress.clear();
            eprintln!("edgeveil-agent: {}: {error:#}; no copy was written", path.display());
        }
    }
    progress.clear();
    report.close()?;
    if failed > 0 {
        return Err(anyhow!("{failed} of {total} pictures could not be veiled").into());
    }
    Ok(())
}

const PICTURES: &[&str] = &["jpg", "jpeg", "png"];
const VIDEOS: &[&str] = &["mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts"];

fn has_extension(path: &Path, known: &[&str]) -> bool {
    path.extension().is_some_and(|extension| known.iter().any(|k| extension.eq_ignore_ascii_case(k)))
}

/// A JSON line an image.
struct Report(Option<BufWriter<fs::File>>);

#[derive(Debug, thiserror::Error)]
#[error("cannot write the report: {0}")]
struct NoReport(std::io::Error);

impl Report {
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let create = |path: &Path| {
            fs::File::create(path)
                .with_context(|| format!("cannot write {}", path.display()))
                .map(BufWriter::new)
        };
        Ok(Self(path.map(create).transpose()?))
    }

    fn add(&mut self, path: &Path, frame: Option<u64>, image: &VeiledImage) -> anyhow::Result<()> {
        let Some(report) = &mut self.0 else { return Ok(()) };
        let face = |face: &edgeveil_veil::Face| Face {
            bounds: [face.x, face.y, face.width, face.height],
            score: face.score,
        };
        let faces = image.faces().iter().map(face).collect();
        let line = Line {
            file: &path.to_string_lossy(),
            frame,
            width: image.width(),
            height: image.height(),
            faces,
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok(report.write_all(&text).map_err(NoReport)?)
    }

    fn close(self) -> anyhow::Result<()> {
        self.0.map_or(Ok(()), |mut report| Ok(report.flush().map_err(NoReport)?))
    }
}

/// The pictures and videos that are named and those in the folders that are named, in order, and how many of the folders
/// could not be read.
fn files(named: &[PathBuf]) -> (Vec<PathBuf>, usize) {
    let mut found = Vec::new();
    let mut failed = 0;
    for path in named {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let is_wanted =
            |path: &Path| (has_extension(path, PICTURES) || has_extension(path, VIDEOS)) && path.is_file();
        match fs::read_dir(path).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect()) {
            Ok(entries) => {
                let mut entries: Vec<PathBuf> = entries;
                entries.retain(|entry| is_wanted(entry));
                entries.sort();
                found.append(&mut entries);
            }
            Err(error) => {
                failed += 1;
                eprintln!("edgeveil-agent: folder {} cannot be read: {error}", path.display());
            }
        }
    }
    (found, failed)
}

/// A line on the terminal, if standard error is one.
struct Progress {
    done: usize,
    total: usize,
    shown: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { done: 0, total, shown: total > 1 && std::io::stderr().is_terminal() }
    }

    fn next(&mut self) {
        self.done += 1;
        if self.shown {
            let bar = "#".repeat(30 * self.done / self.total);
            eprint!("\r[{bar:<30}] {} of {}", self.done, self.total);
        }
    }

    fn frame(&self, frame: u64) {
        // Not each of them: a terminal may be slow.
        if std::io::stderr().is_terminal() && frame % 25 == 24 {
            eprint!("\r\x1b[K{} of {}, frame {}", self.done, self.total, frame + 1);
        }
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

fn settings(arguments: &Arguments) -> Settings {
    let mut settings = Settings::default();
    settings.profile = arguments.profile.unwrap_or(settings.profile);
    settings.kind = arguments.kind.unwrap_or(settings.kind);
    settings.model = match (&arguments.model, arguments.kind) {
        (Some(path), Some(kind)) if path.is_dir() => path.join(kind.file_name()),
        (Some(path), _) => path.clone(),
        (None, Some(kind)) => edgeveil_veil::models_dir().join(kind.file_name()),
        (None, None) => settings.model,
    };
    settings.cover = arguments.cover.unwrap_or(settings.cover);
    settings.threshold = arguments.threshold.unwrap_or(settings.threshold);
    settings.long_side = arguments.long_side.unwrap_or(settings.long_side);
    // Nobody waits for a frame here, and a busy machine is no reason to leave a picture out.
    settings.timeout = Duration::from_secs(600);
    settings.max_side = arguments.max_side;
    settings.margin = arguments.margin.unwrap_or(settings.margin);
    settings
}

/// Where the copy of a file goes: under the same name, and never onto the file itself.
fn target(path: &Path, arguments: &Arguments) -> anyhow::Result<PathBuf> {
    let out = arguments.out.join(path.file_name().context("is no file")?);
    if out.canonicalize().is_ok_and(|out| path.canonicalize().is_ok_and(|path| path == out)) {
        bail!("--out is the folder it lies in; choose another one");
    }
    Ok(out)
}

fn one(veil: &mut Veil, path: &Path, arguments: &Arguments) -> anyhow::Result<VeiledImage> {
    let out = target(path, arguments)?;
    let frame = Frame::decode(&read(path)?, &LIMITS)?;
    let image = if arguments.sequence { veil.veil(frame)? } else { veil.veil_still(frame)? };
    if has_extension(path, &["png"]) {
        image::save_buffer(
            &out,
            image.pixels(),
            image.width(),
            image.height(),
            image::ExtendedColorType::Rgb8,
        )
        .with_context(|| format!("cannot write {}", out.display()))?;
    } else {
        let jpeg = image.to_jpeg(arguments.quality, None)?;
        fs::write(&out, jpeg.as_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(image)
}

/// No more of a file than a picture may have, and a byte that shows that it has more.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).context("cannot be read")?;
    file.take(LIMITS.max_bytes as u64 + 1).read_to_end(&mut bytes).context("cannot be read")?;
    Ok(bytes)
}
