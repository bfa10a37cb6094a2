//! The veil on a thread of its own, as it blocks, and as nobody should have to wait for it at the end.

use crate::settings::{AnonymiseSettings, VeilSettings};
use anyhow::{Context, Result};
use bytes::Bytes;
use edgeveil_veil::{Frame, Limits, Settings, Veil, VeiledJpeg};
use tokio::sync::{mpsc, oneshot};

/// Raw pictures in, veiled ones out, one after the other.
#[derive(Debug, Clone)]
pub struct Veiler {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    raw: Bytes,
    answer: oneshot::Sender<Result<Veiled, Failure>>,
}

/// What came of it.
#[derive(Debug)]
pub struct Veiled {
    /// The result.
    pub picture: VeiledJpeg,
    /// That were covered.
    pub faces: usize,
}

/// Why nothing did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The picture itself: it would fail again.
    #[error("{0}")]
    Picture(String),
    /// The search for faces: it may work another time.
    #[error("{0}")]
    Search(String),
}

impl Veiler {
    /// Reads the models. An error names the file and the remedy.
    pub fn start(settings: &AnonymiseSettings) -> Result<Self> {
        let quality = settings.veil.quality;
        let limits = Limits {
            max_bytes: usize::try_from(settings.max_bytes.0).unwrap_or(usize::MAX),
            max_pixels: settings.max_pixels,
        };
        let mut veil = Veil::open(&veil_settings(&settings.veil)?).context("the veil (anonymise.veil)")?;
        // One at work, and nobody else waits: whoever hands one in waits for its result.
        let (jobs, mut queue) = mpsc::channel::<Job>(1);
        std::thread::Builder::new()
            .name("veiler".to_owned())
            .spawn(move || {
                while let Some(Job { raw, answer }) = queue.blocking_recv() {
                    let done = veiled(&mut veil, &raw, &limits, quality);
                    drop(raw);
                    // Nobody may be waiting any more.
                    let _ = answer.send(done);
                }
            })
            .context("no thread for the veil")?;
        Ok(Self { jobs })
    }

    /// Veils one.
    pub async fn veil(&self, raw: Bytes) -> Result<Veiled, Failure> {
        let ended = || Failure::Search("the veil's thread has ended".to_owned());
        let (answer, done) = oneshot::channel();
        self.jobs.send(Job { raw, answer }).await.map_err(|_| ended())?;
        done.await.map_err(|_| ended())?
    }
}

fn veiled(veil: &mut Veil, raw: &[u8], limits: &Limits, quality: u8) -> Result<Veiled, Failure> {
    let frame = Frame::decode(raw, limits).map_err(|error| Failure::Picture(error.to_string()))?;
    let image = veil.veil_still(frame).map_err(|error| Failure::Search(error.to_string()))?;
    let faces = image.faces().len();
    let picture = image.to_jpeg(quality, None).map_err(|error| Failure::Picture(error.to_string()))?;
    Ok(Veiled { picture, faces })
}

fn veil_settings(settings: &VeilSettings) -> Result<Settings> {
    let wrong = |key: &'static str| move |why: String| anyhow::anyhow!("anonymise.veil.{key}: {why}");
    let mut veil = Settings {
        profile: settings.profile.parse().map_err(wrong("profile"))?,
        cover: settings.cover.parse().map_err(wrong("cover"))?,
        threads: settings.threads,
        timeout: settings.timeout,
        ..Settings::default()
    };
    if let Some(model) = &settings.model {
        veil.model.clone_from(model);
    }
    Ok(veil)
}
