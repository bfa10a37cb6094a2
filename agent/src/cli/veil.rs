//! `edgeveil-agent veil`

use super::Failure;
use anyhow::{Context, anyhow, bail};
use edgeveil_veil::{Cover, Frame, Limits, ModelKind, Profile, Settings, Veil, VeiledImage};
use serde::Serialize;
use std::{
    collections::HashSet,
    fs,
    io::{BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// JPEG or PNG pictures, or folders with such (not what lies in folders below them)
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Folder for the veiled copies, which keep their names; it is made when it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// File for a JSON line an image: file, width, height, faces
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
    let mut report = match &arguments.report {
        Some(path) => {
            let file = fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Some(BufWriter::new(file))
        }
        None => None,
    };
    let (images, mut failed) = pictures(&arguments.images);
    let total = images.len() + failed;
    let mut progress = Progress::new(images.len());
    let mut names = HashSet::new();
    for path in &images {
        progress.next();
        // A second picture of the same name would take the first one's place.
        let fresh = path.file_name().is_none_or(|name| names.insert(name.to_owned()));
        let image = if fresh {
            one(&mut veil, path, arguments)
        } else {
            Err(anyhow!("a picture of this name came before"))
        };
        match image {
            Ok(image) => {
                if let Some(report) = &mut report {
                    write_line(report, path, &image).context("cannot write the report")?;
                }
            }
            Err(error) => {
                failed += 1;
                progress.clear();
                eprintln!("edgeveil-agent: {}: {error:#}; no copy was written", path.display());
            }
        }
    }
    progress.clear();
    if let Some(mut report) = report {
        report.flush().context("cannot write the report")?;
    }
    if failed > 0 {
        return Err(anyhow!("{failed} of {total} pictures could not be veiled").into());
    }
    Ok(())
}

/// The pictures that are named and those in the folders that are named, in order, and how many of the folders could not
/// be read.
fn pictures(named: &[PathBuf]) -> (Vec<PathBuf>, usize) {
    let mut found = Vec::new();
    let mut failed = 0;
    for path in named {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let is_picture = |path: &Path| {
            let known =
                |e: &std::ffi::OsStr| ["jpg", "jpeg", "png"].iter().any(|k| e.eq_ignore_ascii_case(k));
            path.extension().is_some_and(known) && path.is_file()
        };
        match fs::read_dir(path).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect()) {
            Ok(entries) => {
                let mut entries: Vec<PathBuf> = entries;
                entries.retain(|entry| is_picture(entry));
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
    settings.margin = arguments.margin.unwrap_or(settings.margin);
    settings
}

fn one(veil: &mut Veil, path: &Path, arguments: &Arguments) -> anyhow::Result<VeiledImage> {
    let name = path.file_name().context("is no file")?;
    let out = arguments.out.join(name);
    if out.canonicalize().is_ok_and(|out| path.canonicalize().is_ok_and(|path| path == out)) {
        bail!("--out is the folder it lies in; choose another one");
    }
    let bytes = fs::read(path).context("cannot be read")?;
    let image = veil.veil_still(Frame::decode(&bytes, &LIMITS)?)?;
    let png = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
    if png {
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

fn write_line(report: &mut impl Write, path: &Path, image: &VeiledImage) -> anyhow::Result<()> {
    let file = path.to_string_lossy();
    let face = |face: &edgeveil_veil::Face| Face {
        bounds: [face.x, face.y, face.width, face.height],
        score: face.score,
    };
    let faces = image.faces().iter().map(face).collect();
    serde_json::to_writer(
        &mut *report,
        &Line { file: &file, width: image.width(), height: image.height(), faces },
    )?;
    report.write_all(b"\n")?;
    Ok(())
}
