//! `edgeveil-agent veil`

use super::Failure;
use anyhow::{Context, anyhow, bail};
use edgeveil_veil::{Cover, Frame, Limits, ModelKind, Settings, Veil, VeiledImage};
use serde::Serialize;
use std::{
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// JPEG or PNG pictures
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Folder for the veiled copies, which keep their names; it is made when it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// File for a JSON line an image: file, width, height, faces
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Model file [default: the model of the chosen kind in the models' folder]
    #[arg(long, value_name = "FILE", env = "EDGEVEIL_MODEL")]
    model: Option<PathBuf>,
    /// centerface or yunet
    #[arg(long)]
    kind: Option<ModelKind>,
    /// deep-blur, solid or mosaic
    #[arg(long)]
    cover: Option<Cover>,
    /// Least score of a face, 0 to 1
    #[arg(long)]
    threshold: Option<f32>,
    /// Longer side of the detector's input in pixels, a multiple of 32
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
    let mut failed = 0;
    for path in &arguments.images {
        match one(&mut veil, path, arguments) {
            Ok(image) => {
                if let Some(report) = &mut report {
                    write_line(report, path, &image).context("cannot write the report")?;
                }
            }
            Err(error) => {
                failed += 1;
                eprintln!("edgeveil-agent: {}: {error:#}; no copy was written", path.display());
            }
        }
    }
    if let Some(mut report) = report {
        report.flush().context("cannot write the report")?;
    }
    if failed > 0 {
        return Err(anyhow!("{failed} of {} pictures could not be veiled", arguments.images.len()).into());
    }
    Ok(())
}

fn settings(arguments: &Arguments) -> Settings {
    let mut settings = Settings::default();
    settings.kind = arguments.kind.unwrap_or(settings.kind);
    settings.model = arguments
        .model
        .clone()
        .unwrap_or_else(|| edgeveil_veil::models_dir().join(settings.kind.file_name()));
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
