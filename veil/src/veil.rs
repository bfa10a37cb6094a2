use std::sync::Arc;

use crate::cover::{Canvas, Growth, Noise, cover, cover_polygon};
use crate::detect::{Detector, Found};
use crate::gate::Gate;
use crate::geometry::Rect;
use crate::hold::{Held, Hold, RENEWAL};
use crate::settings::check_masks;
use crate::worker::Worker;
use crate::{Face, Frame, Mask, Settings, VeilError, VeiledImage};

/// What a detected box may be off by on every side, in pixels of the detector's input: three steps of the map in which
/// CenterFace finds centres. For small faces this counts: of the faces in the photos that this was chosen on, a box
/// without it leaves twice as many unhidden, with as many false veils.
const SLACK: f32 = 12.0;

/// Detects, holds and covers. One for each camera: it remembers the faces of the frames before.
pub struct Veil {
    settings: Settings,
    detector: Arc<Worker>,
    hold: Hold,
    gate: Gate,
    /// What the last searched frame was covered with, and its scale.
    last: (Vec<Held>, f32),
    noise: Noise,
    counters: Counters,
}

/// What a veil has done in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames that were veiled.
    pub frames: u64,
    /// Those of them that were searched for faces; the others had not changed.
    pub searched: u64,
}

impl Veil {
    /// Checks the settings, reads the models and makes sure that they are the known ones.
    pub fn open(settings: &Settings) -> Result<Veil, VeilError> {
        settings.check()?;
        let detector = Arc::new(Worker::start(Detector::open(settings)?)?);
        Ok(Veil::with(detector, settings.clone()))
    }

    /// A veil for another camera, with the same settings. It shares the models and their working memory (and so waits while
    /// the other one is at work), but remembers its own faces.
    pub fn another(&self) -> Veil {
        Veil::with(self.detector.clone(), self.settings.clone())
    }

    /// What is covered in every frame of this camera, in place of the masks of the settings.
    pub fn set_masks(&mut self, masks: Vec<Mask>) -> Result<(), VeilError> {
        check_masks(&masks)?;
        self.settings.masks = masks;
        Ok(())
    }

    fn with(detector: Arc<Worker>, settings: Settings) -> Veil {
        Veil {
            detector,
            hold: Hold::new(settings.hold_frames),
            gate: Gate::default(),
            last: (Vec::new(), 1.0),
            noise: Noise::new(),
            counters: Counters::default(),
            settings,
        }
    }

    /// Veils the next frame of a stream. Faces of earlier frames that are missed in this one are covered for
    /// [`Settings::hold_frames`] searched frames; a frame that has not changed since the last searched one is covered like
    /// that one. After an error the frame is gone, the memory stays, and the next frame is searched.
    pub fn veil(&mut self, mut frame: Frame) -> Result<VeiledImage, VeilError> {
        let (width, height) = (frame.width(), frame.height());
        if self.gate.opens(&frame, self.settings.search_every) {
            let hints = self.hold.expected(width, height);
            let searched = self.detector.detect(frame, hints, RENEWAL, self.settings.timeout);
            let (back, Found { faces, scale }) = searched.inspect_err(|_| self.gate.forget())?;
            frame = back;
            self.last = (self.hold.step(faces, width, height), scale);
            self.gate.searched((width, height));
            self.counters.searched += 1;
        }
        self.counters.frames += 1;
        let (faces, scale) = std::mem::take(&mut self.last);
        let image = self.cover(frame, &faces, scale);
        self.last = (faces, scale);
        Ok(image)
    }

    /// What it has done so far in its stream.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Veils an image that stands alone, without memory and without touching that of the stream.
    pub fn veil_still(&mut self, frame: Frame) -> Result<VeiledImage, VeilError> {
        let searched = self.detector.detect(frame, Vec::new(), 1.0, self.settings.timeout)?;
        let (frame, Found { faces, scale }) = searched;
        let faces: Vec<Held> =
            faces.into_iter().map(|d| Held { rect: d.rect, score: d.score, held: false }).collect();
        Ok(self.cover(frame, &faces, scale))
    }

    /// Forgets the faces of earlier frames, for instance when the camera was moved.
    pub fn forget(&mut self) {
        self.hold.forget();
        self.gate.forget();
    }

    /// What it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn cover(&mut self, frame: Frame, faces: &[Held], scale: f32) -> VeiledImage {
        let (width, height) = (frame.width(), frame.height());
        let mut pixels = frame.into_pixels();
        let boxes: Vec<Rect> = faces.iter().map(|f| f.rect).collect();
        let mut canvas = Canvas { width: width as usize, height: height as usize, pixels: &mut pixels };
        let growth = Growth { margin: self.settings.margin, slack: SLACK * scale };
        cover(&mut canvas, &boxes, self.settings.cover, growth, &mut self.noise);
        for mask in &self.settings.masks {
            cover_polygon(&mut canvas, &mask.corners);
        }
        let report = |f: &Held| {
            let Rect { x, y, w, h } = f.rect.clipped(width, height);
            Face { x, y, width: w, height: h, score: f.score, held: f.held }
        };
        VeiledImage::from_covered(width, height, pixels, faces.iter().map(report).collect())
    }
}

impl std::fmt::Debug for Veil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Veil").field("settings", &self.settings).finish_non_exhaustive()
    }
}
