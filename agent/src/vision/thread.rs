//! The thread that veils.

use super::Slots;
use crate::{
    clock::{Clock, Moment},
    pause::Pause,
    record::{ImageNumbers, Receipt, Records},
    settings::{self, OnFailure},
    state::State,
    watchdog::{Part, Progress},
};
use edgeveil_veil::{Frame, Mask, Veil, VeilError, VeiledImage};
use edgeveil_wire::{DeviceName, EventKind, ImageMeta, MAX_IMAGE_BYTES, Name};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What the veil needs to know of a camera.
pub struct CameraView {
    /// Its name.
    pub name: Name,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
    /// Covered in each of its frames.
    pub masks: Vec<Mask>,
}

/// A frame that waits for the veil.
pub struct Waiting {
    /// What the camera saw.
    pub frame: Frame,
    /// When.
    pub moment: Moment,
    /// For a source that waits until the image is durable.
    pub receipt: Option<Receipt>,
}

/// What the thread needs.
pub struct Vision {
    /// How faces are covered.
    pub veil: settings::Veil,
    /// The cameras, in the order of their places.
    pub cameras: Vec<CameraView>,
    /// The device, for the images' metadata.
    pub device: DeviceName,
    /// Where the frames wait.
    pub slots: Arc<Slots<Waiting>>,
    /// Numbers the images.
    pub numbers: ImageNumbers,
    /// Where the images go.
    pub records: Records,
    /// Where they are counted and problems are shown.
    pub state: Arc<State>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Ends the thread.
    pub pause: Pause,
    /// Told that it goes on.
    pub progress: Arc<Progress>,
}

/// A model that could not be opened is tried again: it may have been installed in the meantime.
const REOPEN: Duration = Duration::from_secs(60);
/// How often a waiting thread looks whether it should stop.
const LOOK_UP: Duration = Duration::from_millis(250);

/// Veils until it is told to stop.
pub fn watch(mut vision: Vision) {
    let mut veil = Covers::Closed { since: None };
    while !vision.pause.is_over() {
        vision.progress.beat(Part::Vision);
        veil.open_if_due(&vision);
        let Some((camera, Waiting { frame, moment, receipt })) = vision.slots.take(LOOK_UP) else { continue };
        let (width, height) = (frame.width(), frame.height());
        // A frame that could not be veiled is dropped or wholly covered, as the settings say; it never goes on as it is.
        match veil.apply(camera, frame) {
            Ok(image) => {
                let cover = vision.veil.settings.cover.to_string();
                vision.keep(camera, &image, cover, moment, receipt);
            }
            Err(failure) => {
                vision.failed(camera, &failure);
                if vision.veil.on_failure == OnFailure::CoverAll {
                    let image = VeiledImage::blank(width, height);
                    let receipt = receipt.map(Receipt::of_a_cover);
                    vision.keep(camera, &image, "all".to_owned(), moment, receipt);
                }
            }
        }
    }
}

/// The veil of each camera (each holds the faces of its own stream), or none when the model is not to be had.
enum Covers {
    Open(Vec<Veil>),
    Closed { since: Option<Instant> },
}

impl Covers {
    fn open_if_due(&mut self, vision: &Vision) {
        let Self::Closed { since } = self else { return };
        if since.is_some_and(|since| since.elapsed() < REOPEN) {
            return;
        }
        let first = since.is_none();
        let settings = &vision.veil.settings;
        let of_each = |veil: Veil| {
            let of = |camera: &CameraView| {
                let mut veil = veil.another();
                veil.set_masks(camera.masks.clone()).map(|()| veil)
            };
            vision.cameras.iter().map(of).collect::<Result<Vec<Veil>, VeilError>>()
        };
        match Veil::open(settings).and_then(of_each) {
            Ok(veils) => {
                vision.state.solved("veil");
                if !first {
                    vision.records.event(EventKind::VeilBack, None, "faces are covered again".to_owned());
                }
                tracing::info!(model = %settings.model.display(), "veil ready");
                *self = Self::Open(veils);
            }
            Err(error) => {
                if first {
                    tracing::error!(%error, "no veil: no image is kept");
                    vision.records.event(EventKind::VeilFailed, None, error.to_string());
                }
                vision.state.problem("veil", &error.to_string());
                *self = Self::Closed { since: Some(Instant::now()) };
            }
        }
    }

    fn apply(&mut self, camera: usize, frame: Frame) -> Result<VeiledImage, Failure> {
        match self {
            Self::Open(veils) => veils[camera].veil(frame).map_err(Failure::Veil),
            Self::Closed { .. } => Err(Failure::NoModel),
        }
    }
}

/// Why nothing of a frame was kept.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the model is not loaded")]
    NoModel,
    #[error(transparent)]
    Veil(VeilError),
    /// No bridge takes it, so it would be sent for ever and hold up what comes after it.
    #[error("the JPEG has {0} bytes, more than {MAX_IMAGE_BYTES}; lower camera.quality or the camera's size")]
    TooLong(usize),
}

impl Vision {
    fn keep(
        &mut self,
        camera: usize,
        image: &VeiledImage,
        cover: String,
        moment: Moment,
        receipt: Option<Receipt>,
    ) {
        let CameraView { name, quality, .. } = &self.cameras[camera];
        let faces = image.faces().len() as u32;
        let meta = ImageMeta {
            stamp: self.numbers.stamp(moment),
            device: self.device.clone(),
            camera: name.clone(),
            faces,
            cover,
            software: concat!("edgeveil-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        match image.to_jpeg(*quality, Some(&meta.to_exif())) {
            Ok(jpeg) if jpeg.as_bytes().len() > MAX_IMAGE_BYTES => {
                self.failed(camera, &Failure::TooLong(jpeg.as_bytes().len()));
            }
            Ok(jpeg) => {
                self.numbers.advance();
                self.records.image(name.clone(), meta.stamp, jpeg, receipt);
                self.state.camera(name, |health| {
                    health.images += 1;
                    health.faces += u64::from(faces);
                });
                if meta.cover != "all" {
                    self.state.solved(&format!("veil of {name}"));
                }
            }
            Err(error) => self.failed(camera, &Failure::Veil(error)),
        }
    }

    fn failed(&self, camera: usize, failure: &Failure) {
        let name = &self.cameras[camera].name;
        self.state.camera(name, |health| health.failed += 1);
        // Without a model all cameras have one problem, which is shown as the veil's.
        if matches!(failure, Failure::NoModel) {
            return;
        }
        if self.state.problem(&format!("veil of {name}"), &failure.to_string()) {
            tracing::error!(camera = %name, error = %failure, "frame not veiled, so it is not kept");
        }
    }
}
