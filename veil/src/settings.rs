use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{ModelKind, VeilError, models_dir};

/// How a face is covered. In each case nothing of the original pixels stays inside of the covered region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cover {
    /// At most 3x3 averages of the region (12 numbers under 72 pixels, 3 under 48), slightly randomised, enlarged smoothly, with a soft rim outside of it.
    #[default]
    DeepBlur,
    /// One fixed colour: nothing of the face survives but its place.
    Solid,
    /// At most 2x2 such averages as hard-edged blocks.
    Mosaic,
}

impl FromStr for Cover {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "deep-blur" => Ok(Cover::DeepBlur),
            "solid" => Ok(Cover::Solid),
            "mosaic" => Ok(Cover::Mosaic),
            _ => Err(format!("unknown cover {s:?}: use deep-blur, solid or mosaic")),
        }
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cover::DeepBlur => "deep-blur",
            Cover::Solid => "solid",
            Cover::Mosaic => "mosaic",
        })
    }
}

/// What a [`Veil`](crate::Veil) is opened with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The ONNX file, one of the two that `veil/fetch-models` puts into a folder.
    pub model: PathBuf,
    /// Which of the two it is.
    pub kind: ModelKind,
    /// Long side of the detector's input in pixels, a multiple of 32 from 64 to 4096. A frame is scaled to it, smaller
    /// ones are enlarged. Time and memory grow with its square; faces under about 10 pixels *of this input* are missed.
    pub long_side: u32,
    /// Score from which on a box counts as a face, over 0 and under 1. Lower covers more: more faces, more that are none.
    /// For CenterFace 0.23 is a good value (0.2 for 0.4 more false veils an image), for YuNet 0.3.
    pub threshold: f32,
    /// The covering.
    pub cover: Cover,
    /// Width and height of the covered ellipse over those of the detected box, 1 to 4. From 1.42 on the ellipse holds
    /// the whole box; smaller values are raised to that. To this come eight pixels of the detector's input on every side.
    pub margin: f32,
    /// For how many frames a face that is no longer found stays covered (stream mode), at most 1000.
    pub hold_frames: u32,
}

impl Default for Settings {
    /// CenterFace from [`models_dir`] at 640 pixels, deep blur over 1.6 times the box, held for 6 frames.
    fn default() -> Self {
        Settings {
            model: models_dir().join(ModelKind::CenterFace.file_name()),
            kind: ModelKind::CenterFace,
            long_side: 640,
            threshold: 0.23,
            cover: Cover::DeepBlur,
            margin: 1.6,
            hold_frames: 6,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), VeilError> {
        let refuse = |key, value: String, want| Err(VeilError::Setting { key, value, want });
        if !self.long_side.is_multiple_of(32) || !(64..=4096).contains(&self.long_side) {
            return refuse("long_side", self.long_side.to_string(), "a multiple of 32 from 64 to 4096");
        }
        if !(self.threshold > 0.0 && self.threshold < 1.0) {
            return refuse("threshold", self.threshold.to_string(), "over 0 and under 1");
        }
        if !(1.0..=4.0).contains(&self.margin) {
            return refuse("margin", self.margin.to_string(), "from 1 to 4");
        }
        if self.hold_frames > 1000 {
            return refuse("hold_frames", self.hold_frames.to_string(), "at most 1000");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for cover in [Cover::DeepBlur, Cover::Solid, Cover::Mosaic] {
            assert_eq!(cover.to_string().parse(), Ok(cover));
        }
        assert!("blur".parse::<Cover>().is_err());
    }

    #[test]
    fn values_out_of_range_are_named() {
        assert!(Settings::default().check().is_ok());
        let broken = [
            Settings { long_side: 650, ..Settings::default() },
            Settings { long_side: 0, ..Settings::default() },
            Settings { threshold: 0.0, ..Settings::default() },
            Settings { threshold: f32::NAN, ..Settings::default() },
            Settings { margin: 0.5, ..Settings::default() },
            Settings { margin: f32::NAN, ..Settings::default() },
            Settings { hold_frames: 5000, ..Settings::default() },
        ];
        for settings in broken {
            assert!(matches!(settings.check(), Err(VeilError::Setting { .. })), "{settings:?}");
        }
    }
}
