//! Makes the films that people ask for on the pages, one at a time.
//!
//! A film in the making lies below the data folder, so a bridge that was stopped goes on with it; one that another replica had begun
//! is begun anew. The whole film goes to the object store, and is removed when it is one of too many or when the first of its
//! images expires: it keeps nothing for longer than `retention.images` says.

use super::{FilmError, Made, Wanted, ffmpeg, make};
use crate::{
    catalog::{Catalog, CatalogError, FilmRow, Finished},
    objects::{ObjectError, Objects},
};
use edgeveil_wire::{DeviceName, Name};
use jiff::tz::TimeZone;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

/// A bridge that was not heard of for so long has lost its film, in milliseconds.
const SILENT: i64 = 60_000;
/// How often a film's progress is noted.
const NOTE: Duration = Duration::from_secs(2);
/// How often to look for one that another replica was asked for.
const LOOK: Duration = Duration::from_secs(5);
/// Between two tries when the catalog or the store fails.
const AGAIN: Duration = Duration::from_secs(10);
/// Images that one film may look at.
pub const MAX_IMAGES: i64 = 50_000;
/// Attempts at one film: more do not help, and each costs a bridge its time, or its life.
const ATTEMPTS: i64 = 3;
/// The larger side of a frame.
const SIDE: u32 = 1920;
/// Below this mean brightness it is night.
const DARK: u8 = 24;
/// Below this mean difference between neighbours a frame shows nothing.
const BLURRED: f64 = 1.0;

/// What is wanted, but for device and camera.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// From this moment on: milliseconds since 1970, by the device's clock.
    pub from: i64,
    /// Before that one.
    pub to: i64,
    /// Of so many seconds one image.
    pub every: u64,
    /// Frames a second.
    pub fps: u32,
    /// Whether dark frames, blurred ones and those like the one before are left out.
    pub lean: bool,
    /// The zone of the time in the frames.
    pub zone: String,
}

impl Order {
    /// Why there is no such film, if so. `there` are the images of that time, of which more than [`MAX_IMAGES`] need not be counted.
    pub fn problem(&self, there: i64) -> Option<String> {
        if self.from >= self.to {
            return Some("a film begins before it ends".to_owned());
        }
        if !(1..=120).contains(&self.fps) {
            return Some("a film has 1 to 120 frames a second".to_owned());
        }
        if there == 0 {
            return Some("there is no image of that camera and time".to_owned());
        }
        let parts = (self.to - self.from) / 1000 / i64::try_from(self.every.max(1)).unwrap_or(i64::MAX);
        (there.min(parts) > MAX_IMAGES).then(|| {
            format!("that is more than {MAX_IMAGES} images: take fewer days, or one image of a longer time")
        })
    }
}

/// Where films are made.
pub struct Studio {
    catalog: Catalog,
    objects: Objects,
    folder: PathBuf,
    /// This bridge, as the catalog knows it.
    holder: String,
    _lock: Option<fs::File>,
    /// Someone has asked.
    asked: watch::Receiver<()>,
    /// How long images are kept.
    kept: Option<Duration>,
    /// Bytes of a film at the most.
    most: u64,
}

/// What keeps a film from being made now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: std::io::Error },
}

impl Studio {
    /// `data` is the bridge's data folder.
    pub fn new(
        catalog: Catalog,
        objects: Objects,
        data: &Path,
        asked: watch::Receiver<()>,
        kept: Option<Duration>,
        most: u64,
    ) -> Self {
        let folder = data.join("films");
        let (holder, lock) = holder(&folder);
        Self { catalog, objects, folder, holder, _lock: lock, asked, kept, most }
    }

    /// Until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.work()).await;
    }

    async fn work(&mut self) {
        let mut said = false;
        loop {
            let wait = match self.round().await {
                Ok(true) => continue,
                Ok(false) => {
                    said = false;
                    LOOK
                }
                Err(trouble) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%trouble, "films wait");
                    }
                    AGAIN
                }
            };
            tokio::select! {
                Ok(()) = self.asked.changed() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Removes what has to go, and makes a film. Whether there was one.
    async fn round(&self) -> Result<bool, Trouble> {
        let expired = self.kept.map(|kept| now() - i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        for film in self.catalog.films_to_remove(expired).await? {
            remove(&self.catalog, &self.objects, &film).await?;
        }
        self.sweep().await?;
        let now = now();
        let Some(film) = self.catalog.take_film(&self.holder, now, now - SILENT).await? else {
            return Ok(false);
        };
        if let Some(object) = &film.object {
            // Of an attempt that was cut off: nobody may have it for longer than its images.
            self.objects.delete(object).await?;
        }
        if film.attempts >= ATTEMPTS {
            let why = format!("it was begun {ATTEMPTS} times and never finished: the bridge's log says why");
            self.catalog.film_failed(&film.id, &self.holder, now, &why).await?;
            return Ok(true);
        }
        self.film(&film).await?;
        Ok(true)
    }

    /// Files of films that nobody wants any more.
    async fn sweep(&self) -> Result<(), Trouble> {
        let Ok(there) = fs::read_dir(&self.folder) else { return Ok(()) };
        let there: Vec<_> = there.flatten().collect();
        if there.iter().all(|entry| entry.file_name() == "holder") {
            return Ok(());
        }
        let wanted: BTreeSet<String> = self
            .catalog
            .films()
            .await?
            .into_iter()
            .filter(|film| film.state == "working")
            .map(|film| film.id)
            .collect();
        for entry in there {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.split_once('.')).map_or("", |(id, _)| id);
            if name == "holder" || wanted.contains(id) {
                continue;
            }
            let path = entry.path();
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.map_err(|error| Trouble::File { path, error })?;
        }
        Ok(())
    }

    async fn film(&self, film: &FilmRow) -> Result<(), Trouble> {
        let Some(mut wanted) = wanted(film, self.most) else {
            let why = "it was asked for by another version of the bridge";
            return Ok(self.catalog.film_failed(&film.id, &self.holder, now(), why).await?);
        };
        let file = |error| Trouble::File { path: self.folder.clone(), error };
        fs::create_dir_all(&self.folder).map_err(file)?;
        let end = if ffmpeg::is_there().await.is_ok() { "mp4" } else { "avi" };
        wanted.file = self.folder.join(format!("{}.{end}", film.id));
        let (progress, seen) = watch::channel((0, 0));
        let told = |looked: usize, images: usize| _ = progress.send_replace((looked as i64, images as i64));
        let stop = CancellationToken::new();
        let work = async {
            let (made, oldest) = self.make(&wanted, told).await?;
            self.keep(film, &wanted.file, made, oldest, &stop).await
        };
        let done = tokio::select! {
            done = work => done,
            gone = self.note(&film.id, seen, &stop) => {
                gone?;
                tracing::info!(film = film.id, "a film is no longer wanted here");
                return Ok(());
            }
        };
        match done {
            Ok(()) => Ok(()),
            // It is tried again, and given up after some attempts.
            Err(FilmError::Catalog(error)) => Err(error.into()),
            Err(FilmError::Objects(error)) => Err(error.into()),
            Err(error) => {
                tracing::warn!(film = film.id, %error, "a film cannot be made");
                Ok(self.catalog.film_failed(&film.id, &self.holder, now(), &error.to_string()).await?)
            }
        }
    }

    /// With the moment at which the first of its images was received.
    async fn make(
        &self,
        wanted: &Wanted,
        mut told: impl FnMut(usize, usize),
    ) -> Result<(Made, i64), FilmError> {
        let oldest =
            self.catalog.oldest_image(&wanted.device, &wanted.camera, wanted.from, wanted.to).await?;
        let Some(oldest) = oldest else { return Err(FilmError::Empty) };
        let made = match make(&self.catalog, &self.objects, wanted, &mut told).await {
            // Some images came or went since it was begun.
            Err(FilmError::Other(folder)) => {
                fs::remove_dir_all(&folder).map_err(super::at(&folder))?;
                make(&self.catalog, &self.objects, wanted, &mut told).await
            }
            made => made,
        }?;
        Ok((made, oldest))
    }

    /// Notes how far it is, until nobody wants it from this bridge.
    async fn note(
        &self,
        id: &str,
        seen: watch::Receiver<(i64, i64)>,
        stop: &CancellationToken,
    ) -> Result<(), CatalogError> {
        loop {
            let progress = *seen.borrow();
            // A catalog that fails for a while is no reason to stop.
            if let Ok(false) = self.catalog.film_goes_on(id, &self.holder, now(), progress).await {
                // What is half written to the store is taken back there, which takes a moment.
                stop.cancel();
                sleep(NOTE).await;
                return Ok(());
            }
            sleep(NOTE).await;
        }
    }

    /// Each attempt has a name of its own in the store, which stands in the row before there is anything by it.
    async fn keep(
        &self,
        film: &FilmRow,
        file: &Path,
        made: Made,
        oldest: i64,
        stop: &CancellationToken,
    ) -> Result<(), FilmError> {
        let end = file.extension().and_then(|end| end.to_str()).unwrap_or("mp4");
        let object = format!("films/{}-{}.{end}", film.id, film.attempts + 1);
        if !self.catalog.film_goes_to(&film.id, &self.holder, &object).await? {
            return Ok(());
        }
        let bytes = self.objects.put_file(&object, file, stop).await?;
        let mut note: Vec<String> = Vec::new();
        if end == "avi" {
            note.push("Motion JPEG, since ffmpeg is not installed where the bridge runs".to_owned());
        }
        for (count, what) in [
            (made.dark, "too dark"),
            (made.blurred, "blurred"),
            (made.same, "like the one before"),
            (made.unreadable, "not readable"),
        ] {
            if count > 0 {
                note.push(format!("{count} images left out: {what}"));
            }
        }
        let finished = Finished {
            object: &object,
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            images: i64::try_from(made.images).unwrap_or(i64::MAX),
            frames: i64::try_from(made.frames).unwrap_or(i64::MAX),
            oldest,
            note: &note.join("; "),
        };
        if !self.catalog.film_is_done(&film.id, &self.holder, now(), finished).await? {
            self.objects.delete(&object).await?;
        }
        fs::remove_file(file).map_err(super::at(file))
    }
}

/// Removes a film: its object first, so that what is left after an interruption still names it.
pub async fn remove(catalog: &Catalog, objects: &Objects, film: &FilmRow) -> Result<(), RemoveError> {
    if let Some(object) = &film.object {
        objects.delete(object).await?;
    }
    Ok(catalog.forget_film(&film.id).await?)
}

/// Why a film could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The object store failed.
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

impl From<RemoveError> for Trouble {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::Catalog(error) => Self::Catalog(error),
            RemoveError::Objects(error) => Self::Objects(error),
        }
    }
}

/// A name for this bridge: the same after a restart, so that its film goes on at once, unless another one has the folder too.
fn holder(folder: &Path) -> (String, Option<fs::File>) {
    let mut random = [0; 8];
    // Without random numbers two that begin at once could take each other for themselves, and make a film twice.
    let _ = getrandom::fill(&mut random);
    let new = format!("{:016x}", u64::from_be_bytes(random));
    let path = folder.join("holder");
    let open = || {
        fs::create_dir_all(folder).ok()?;
        let file = fs::OpenOptions::new().create(true).append(true).open(&path).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(file)
    };
    let Some(lock) = open() else { return (new, None) };
    match fs::read_to_string(&path) {
        Ok(known) if known.len() == 16 => (known, Some(lock)),
        _ => {
            // Where it cannot be written, the film is begun anew after a restart.
            let _ = fs::write(&path, &new);
            (new, Some(lock))
        }
    }
}

fn wanted(film: &FilmRow, most: u64) -> Option<Wanted> {
    let order: Order = serde_json::from_str(&film.wanted).ok()?;
    Some(Wanted {
        device: film.device.parse::<DeviceName>().ok()?,
        camera: film.camera.parse::<Name>().ok()?,
        from: order.from,
        to: order.to,
        every: Duration::from_secs(order.every.max(1)),
        fps: order.fps,
        dark: if order.lean { DARK } else { 0 },
        blurred: if order.lean { BLURRED } else { 0.0 },
        distinct: order.lean,
        stamp: Some(TimeZone::get(&order.zone).unwrap_or(TimeZone::UTC)),
        side: SIDE,
        most,
        file: PathBuf::new(),
    })
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_film_is_not_endless() {
        let order = |to: i64, every: u64, fps: u32| Order {
            from: 0,
            to,
            every,
            fps,
            lean: false,
            zone: "UTC".to_owned(),
        };
        let week = 7 * 86_400_000;
        assert_eq!(order(week, 1, 25).problem(MAX_IMAGES), None);
        assert_eq!(order(week, 60, 25).problem(MAX_IMAGES + 1), None);
        for (order, there, why) in [
            (order(week, 1, 25), MAX_IMAGES + 1, "more than 50000"),
            (order(week, 0, 25), MAX_IMAGES + 1, "more than 50000"),
            (order(0, 1, 25), 1, "before it ends"),
            (order(week, 1, 0), 1, "frames a second"),
            (order(week, 1, 25), 0, "no image"),
        ] {
            assert!(order.problem(there).is_some_and(|text| text.contains(why)), "{order:?}");
        }
    }
}
