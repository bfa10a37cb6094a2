//! A film of one camera's images: `edgeveil-bridge timelapse`.
//!
//! The film is made in parts of [`PART`] frames. After each of them what was done is noted beside it, so that a film that was
//! interrupted goes on there and has the same frames in the end. Memory: one frame, and some 150 bytes for each image.

mod avi;
mod ffmpeg;
pub(crate) mod frame;
mod stamp;
mod studio;

pub use studio::{MAX_IMAGES, Order, RemoveError, Studio, remove};

use crate::{
    catalog::{Catalog, CatalogError, ImageRow, ImagesOf, Place},
    objects::{ObjectError, Objects},
};
use edgeveil_wire::{DeviceName, Name};
use frame::{Frame, Look};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Frames in a part.
const PART: usize = 250;
/// Bytes that a film leaves free on its disk.
const SPARE: u64 = 64 << 20;
/// Images that are asked for at once.
const AT_ONCE: u32 = 500;

/// What is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Of this device.
    pub device: DeviceName,
    /// Of this camera.
    pub camera: Name,
    /// From this moment on: milliseconds since 1970, by the device's clock.
    pub from: i64,
    /// Before that one.
    pub to: i64,
    /// Of so much time one image.
    pub every: Duration,
    /// Frames a second of the film.
    pub fps: u32,
    /// Images whose mean brightness is below this are left out: 0 to 255.
    pub dark: u8,
    /// Images in which neighbours differ by less on average are left out: 0 to 255.
    pub blurred: f64,
    /// Whether images that look like the one before are left out.
    pub distinct: bool,
    /// The zone in which the time is written into the frames; none: it is not.
    pub stamp: Option<jiff::tz::TimeZone>,
    /// The larger side of a frame at the most.
    pub side: u32,
    /// Bytes of the film at the most.
    pub most: u64,
    /// `FILE.mp4`: H.264, by ffmpeg. `FILE.avi`: Motion JPEG, without.
    pub file: PathBuf,
}

/// What was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Frames of the film.
    pub frames: u64,
    /// Images that were looked at.
    pub images: u64,
    /// Left out as too dark.
    pub dark: u64,
    /// Left out as blurred.
    #[serde(default)]
    pub blurred: u64,
    /// Left out as the one before.
    pub same: u64,
    /// Left out since they could not be read.
    pub unreadable: u64,
}

/// Why there is no film.
#[derive(Debug, thiserror::Error)]
pub enum FilmError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The object store failed.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// There is nothing to show.
    #[error("there is no such image; see the gallery for devices, cameras and days")]
    Empty,
    /// All were left out.
    #[error("all {0} images were left out; lower --dark and --blurred, or try without --distinct")]
    AllLeftOut(u64),
    /// It would fill the disk.
    #[error("it is larger than {} MiB: take fewer days, or one image of a longer time", .0 >> 20)]
    TooLarge(u64),
    /// The disk is nearly full.
    #[error("{path}: no room for it; free some", path = .0.display())]
    NoRoom(PathBuf),
    /// A film of that kind cannot be made.
    #[error("{0}: wants FILE.mp4 (H.264, by ffmpeg) or FILE.avi (Motion JPEG)")]
    Kind(PathBuf),
    /// ffmpeg is not there, or failed.
    #[error("{0}")]
    Ffmpeg(String),
    /// Another film is half made there.
    #[error("{0} is of a film with other settings; finish that one, or remove the folder")]
    Other(PathBuf),
    /// A file cannot be written.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FilmError + '_ {
    |error| FilmError::File { path: path.to_owned(), error }
}

/// One image of the plan.
struct Planned {
    timestamp: i64,
    object: String,
}

/// How far a film is. It stands in its folder.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// Of what; another film does not go on with it.
    of: String,
    /// Parts that are whole.
    parts: usize,
    /// Their length.
    #[serde(default)]
    bytes: u64,
    /// Images of the plan that were looked at.
    next: usize,
    made: Made,
    /// Width and height of the frames.
    size: Option<(usize, usize)>,
    /// Of the last frame.
    look: Option<Look>,
}

/// Makes it. `told` hears how many images of how many were looked at.
pub async fn make(
    catalog: &Catalog,
    objects: &Objects,
    wanted: &Wanted,
    mut told: impl FnMut(usize, usize),
) -> Result<Made, FilmError> {
    let kind = Kind::of(&wanted.file)?;
    if kind == Kind::Mp4 {
        ffmpeg::is_there().await?;
    }
    let plan = plan(catalog, wanted).await?;
    if plan.is_empty() {
        return Err(FilmError::Empty);
    }
    let folder = with_end(&wanted.file, ".parts");
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let mut progress = Progress::find(&folder, &wanted.digest(&plan))?;
    while progress.next < plan.len() {
        let part = folder.join(format!("{:06}.{}", progress.parts, kind.part()));
        let unfinished = with_end(&part, ".unfinished");
        let mut writer: Option<Writer> = None;
        let mut frames = 0;
        while frames < PART && progress.next < plan.len() {
            told(progress.next, plan.len());
            let image = &plan[progress.next];
            progress.next += 1;
            let Some(frame) = progress.frame(objects, wanted, image).await? else { continue };
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(Writer::open(kind, &unfinished, &frame, wanted.fps)?),
            };
            writer.write(frame).await?;
            frames += 1;
        }
        if let Some(writer) = writer {
            writer.close().await?;
            fs::rename(&unfinished, &part).map_err(at(&part))?;
            progress.parts += 1;
            progress.bytes += fs::metadata(&part).map_err(at(&part))?.len();
            let problem = if progress.bytes > wanted.most {
                Some(FilmError::TooLarge(wanted.most))
            } else {
                // The whole is put beside its parts.
                (room(&folder) < progress.bytes + SPARE).then(|| FilmError::NoRoom(folder.clone()))
            };
            if let Some(problem) = problem {
                fs::remove_dir_all(&folder).map_err(at(&folder))?;
                return Err(problem);
            }
        }
        progress.note(&folder)?;
    }
    told(plan.len(), plan.len());
    let Some(size) = progress.size.filter(|_| progress.parts > 0) else {
        fs::remove_dir_all(&folder).map_err(at(&folder))?;
        return Err(FilmError::AllLeftOut(progress.made.images));
    };
    let whole = with_end(&wanted.file, ".unfinished");
    let parts: Vec<_> = (0..progress.parts).map(|n| format!("{n:06}.{}", kind.part())).collect();
    match kind {
        Kind::Mp4 => ffmpeg::join(&folder, &parts, &whole).await?,
        Kind::Avi => {
            let (folder, to, fps) = (folder.clone(), whole.clone(), wanted.fps);
            blocking(move || avi::join(&folder, &parts, &to, size, fps)).await.map_err(at(&whole))?;
        }
    }
    fs::rename(&whole, &wanted.file).map_err(at(&wanted.file))?;
    fs::remove_dir_all(&folder).map_err(at(&folder))?;
    Ok(progress.made)
}

/// Free bytes where a folder is; without an answer there are enough.
fn room(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// On a thread that may wait for a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

impl Progress {
    fn find(folder: &Path, of: &str) -> Result<Self, FilmError> {
        let noted = fs::read(folder.join("progress.json")).ok();
        let known = noted.and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        match known {
            Some(known) if known.of == of => Ok(known),
            Some(_) => Err(FilmError::Other(folder.to_owned())),
            None => Ok(Self { of: of.to_owned(), ..Self::default() }),
        }
    }

    fn note(&self, folder: &Path) -> Result<(), FilmError> {
        let (path, part) = (folder.join("progress.json"), folder.join("progress.unfinished"));
        let text = serde_json::to_vec(self).unwrap_or_default();
        fs::write(&part, text).and_then(|()| fs::rename(&part, &path)).map_err(at(&path))
    }

    /// The frame of an image; none when it is left out.
    async fn frame(
        &mut self,
        objects: &Objects,
        wanted: &Wanted,
        image: &Planned,
    ) -> Result<Option<Frame>, FilmError> {
        self.made.images += 1;
        let bytes = match objects.get(&image.object).await {
            Ok(bytes) => Some(bytes),
            Err(error) if error.missing => None,
            Err(error) => return Err(error.into()),
        };
        let (size, side) = (self.size, wanted.side as usize);
        let read = tokio::task::spawn_blocking(move || {
            let frame = Frame::read(&bytes?, size, side)?;
            let (look, detail) = (frame.look(), frame.detail());
            Some((frame, look, detail))
        });
        let Some((mut frame, look, detail)) = read.await.unwrap_or(None) else {
            self.made.unreadable += 1;
            return Ok(None);
        };
        if look.brightness() < f64::from(wanted.dark) {
            self.made.dark += 1;
            return Ok(None);
        }
        if detail < wanted.blurred {
            self.made.blurred += 1;
            return Ok(None);
        }
        if wanted.distinct && self.look.as_ref().is_some_and(|last| last.is_like(&look)) {
            self.made.same += 1;
            return Ok(None);
        }
        if let Some(zone) = &wanted.stamp {
            stamp::stamp(&mut frame, image.timestamp, zone);
        }
        (self.size, self.look) = (Some((frame.width, frame.height)), Some(look));
        self.made.frames += 1;
        Ok(Some(frame))
    }
}

/// The first image of each part of the time, in their order.
async fn plan(catalog: &Catalog, wanted: &Wanted) -> Result<Vec<Planned>, FilmError> {
    let mut of = ImagesOf {
        device: Some(wanted.device.clone()),
        camera: Some(wanted.camera.clone()),
        from: Some(wanted.from),
        to: Some(wanted.to),
        after: None,
    };
    let every = i64::try_from(wanted.every.as_millis()).unwrap_or(i64::MAX).max(1);
    let slot = |timestamp: i64| (timestamp - wanted.from) / every;
    let mut plan: Vec<Planned> = Vec::new();
    loop {
        // The newest first: of each part of the time the last that comes is kept.
        let rows = catalog.images(&of, AT_ONCE).await?;
        let full = rows.len() == AT_ONCE as usize;
        of.after = rows.last().map(|row| Place {
            at: row.timestamp,
            device: row.device.clone(),
            id: row.id.clone(),
        });
        for ImageRow { timestamp, object, .. } in rows {
            match plan.last_mut() {
                Some(last) if slot(last.timestamp) == slot(timestamp) => {
                    *last = Planned { timestamp, object }
                }
                _ => plan.push(Planned { timestamp, object }),
            }
        }
        if !full {
            break;
        }
    }
    plan.reverse();
    Ok(plan)
}

impl Wanted {
    /// Of all that decides which frames there are.
    fn digest(&self, plan: &[Planned]) -> String {
        use sha2::{Digest, Sha256};
        let stamp = self.stamp.as_ref().map(|zone| zone.iana_name().unwrap_or("fixed").to_owned());
        let mut hash = Sha256::new();
        hash.update(format!(
            "{} {} {} {} {} {:?} {}\n",
            self.fps,
            self.dark,
            self.blurred,
            self.distinct,
            self.side,
            stamp,
            self.file.display()
        ));
        for image in plan {
            hash.update(format!("{} {}\n", image.timestamp, image.object));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mp4,
    Avi,
}

impl Kind {
    fn of(file: &Path) -> Result<Self, FilmError> {
        match file.extension().and_then(|end| end.to_str()) {
            Some("mp4") => Ok(Self::Mp4),
            Some("avi") => Ok(Self::Avi),
            _ => Err(FilmError::Kind(file.to_owned())),
        }
    }

    const fn part(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Avi => "jpegs",
        }
    }
}

enum Writer {
    Mp4(ffmpeg::Encoder),
    Avi(avi::Part),
}

impl Writer {
    fn open(kind: Kind, path: &Path, frame: &Frame, fps: u32) -> Result<Self, FilmError> {
        match kind {
            Kind::Mp4 => ffmpeg::Encoder::start(path, (frame.width, frame.height), fps).map(Self::Mp4),
            Kind::Avi => avi::Part::create(path).map(Self::Avi).map_err(at(path)),
        }
    }

    async fn write(&mut self, frame: Frame) -> Result<(), FilmError> {
        match self {
            Self::Mp4(encoder) => encoder.write(&frame).await,
            Self::Avi(part) => {
                let jpeg = blocking(move || avi::encode(&frame)).await;
                let path = part.path().to_owned();
                jpeg.and_then(|jpeg| part.push(&jpeg)).map_err(at(&path))
            }
        }
    }

    async fn close(self) -> Result<(), FilmError> {
        match self {
            Self::Mp4(encoder) => encoder.close().await,
            Self::Avi(part) => {
                let path = part.path().to_owned();
                blocking(move || part.close()).await.map_err(at(&path))
            }
        }
    }
}

/// `FILE` and something behind it.
fn with_end(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}
