use crate::cover::{Canvas, Growth, Noise, cover};
use crate::detect::Detector;
use crate::geometry::Rect;
use crate::hold::{Held, Hold, RENEWAL};
use crate::{Face, Frame, Settings, VeilError, VeiledImage};

/// What a detected box may be off by on every side, in pixels of the detector's input: two steps of the map in which
/// CenterFace finds centres. For small faces this counts: of the faces in the photos that this was chosen on it left
/// 1.5 % unhidden instead of 3.5 %, with as many false veils.
const SLACK: f32 = 8.0;

/// Detects, holds and covers. One for each camera: it remembers the faces of the frames before.
pub struct Veil {
    settings: Settings,
    detector: Detector,
    hold: Hold,
    noise: Noise,
}

impl Veil {
    /// Checks the settings, reads the model and makes sure that it is the known one.
    pub fn open(settings: &Settings) -> Result<Veil, VeilError> {
        settings.check()?;
        Ok(Veil {
            detector: Detector::open(settings)?,
            hold: Hold::new(settings.hold_frames, settings.threshold),
            noise: Noise::new(),
            settings: settings.clone(),
        })
    }

    /// Veils the next frame of a stream. Faces of earlier frames that are missed in this one are covered for
    /// [`Settings::hold_frames`] frames. After an error the frame is gone and the memory stays.
    pub fn veil(&mut self, frame: Frame) -> Result<VeiledImage, VeilError> {
        let found = self.detector.detect(&frame, self.settings.threshold * RENEWAL)?;
        let faces = self.hold.step(found, frame.width(), frame.height());
        Ok(self.cover(frame, &faces))
    }

    /// Veils an image that stands alone, without memory and without touching that of the stream.
    pub fn veil_still(&mut self, frame: Frame) -> Result<VeiledImage, VeilError> {
        let found = self.detector.detect(&frame, self.settings.threshold)?;
        let faces: Vec<Held> =
            found.into_iter().map(|d| Held { rect: d.rect, score: d.score, held: false }).collect();
        Ok(self.cover(frame, &faces))
    }

    /// Forgets the faces of earlier frames, for instance when the camera was moved.
    pub fn forget(&mut self) {
        self.hold.forget();
    }

    /// What it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn cover(&mut self, frame: Frame, faces: &[Held]) -> VeiledImage {
        let (width, height) = (frame.width(), frame.height());
        let mut pixels = frame.into_pixels();
        let boxes: Vec<Rect> = faces.iter().map(|f| f.rect).collect();
        let mut canvas = Canvas { width: width as usize, height: height as usize, pixels: &mut pixels };
        let slack = SLACK * width.max(height) as f32 / self.settings.long_side as f32;
        let growth = Growth { margin: self.settings.margin, slack };
        cover(&mut canvas, &boxes, self.settings.cover, growth, &mut self.noise);
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
