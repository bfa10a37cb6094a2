use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

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

/// How much effort goes into finding faces. `docs/privacy.md` has the measured coverage of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Both networks look at the whole frame, at up to 1280 pixels, and CenterFace once more where it is not sure.
    Thorough,
    /// YuNet looks at the whole frame at up to 960 pixels, CenterFace at whatever is doubtful, and once more where it is not
    /// sure.
    #[default]
    Balanced,
    /// The same at 512 pixels, and less is doubtful.
    Fast,
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "thorough" => Ok(Profile::Thorough),
            "balanced" => Ok(Profile::Balanced),
            "fast" => Ok(Profile::Fast),
            _ => Err(format!("unknown profile {s:?}: use thorough, balanced or fast")),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Thorough => "thorough",
            Profile::Balanced => "balanced",
            Profile::Fast => "fast",
        })
    }
}

/// What computes the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// Our own executor on x86-64 and aarch64, tract elsewhere.
    #[default]
    Auto,
    /// Our own executor.
    Own,
    /// tract.
    Tract,
}

impl Engine {
    pub(crate) fn resolved(self) -> Engine {
        match self {
            Engine::Auto if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) => Engine::Own,
            Engine::Auto => Engine::Tract,
            chosen => chosen,
        }
    }
}

/// Settings put into what the detector does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Plan {
    One { kind: ModelKind, long_side: u32, threshold: f32 },
    Cascade(Cascade),
}

/// YuNet proposes, CenterFace decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cascade {
    /// The frame's longer side as the networks see it lies between these.
    sides: (u32, u32),
    /// YuNet's score from which on a box is looked at again, and from which on that is not needed.
    pub doubtful: f32,
    pub sure: f32,
    /// CenterFace's score that a box of 24 pixels needs.
    pub needed: f32,
    /// CenterFace looks at the whole frame.
    pub whole: bool,
}

impl Cascade {
    fn of(profile: Profile) -> Cascade {
        let balanced = Cascade { sides: (640, 960), doubtful: 0.15, sure: 0.85, needed: 0.245, whole: false };
        match profile {
            Profile::Thorough => Cascade { sides: (640, 1280), whole: true, needed: 0.19, ..balanced },
            Profile::Balanced => balanced,
            Profile::Fast => {
                Cascade { sides: (512, 512), doubtful: 0.2, sure: 0.7, needed: 0.257, ..balanced }
            }
        }
    }

    pub fn long_side(&self, width: u32, height: u32) -> u32 {
        width.max(height).clamp(self.sides.0, self.sides.1).next_multiple_of(32)
    }

    /// CenterFace's score that a box of this height (in pixels of the input) needs: small ones more, since most boxes that
    /// are no faces are small; large ones less, since nearly none of them are.
    pub fn needed(&self, height: f32) -> f32 {
        self.needed * (24.0 / height.max(1.0)).sqrt().clamp(0.5, 1.5)
    }
}

/// A polygon in shares of the frame's width and height, covered in every frame: a neighbour's window, a street.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mask {
    /// Corners (x, y), each from 0 to 1, in order; the last is joined to the first. At least three.
    pub corners: Vec<(f32, f32)>,
}

/// What a [`Veil`](crate::Veil) is opened with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The folder that `veil/fetch-models` filled; then `profile` says how faces are found. Or the file of one of the
    /// models; then that one alone looks for them, and `kind`, `long_side` and `threshold` say how.
    pub model: PathBuf,
    /// Effort (with a folder of models).
    pub profile: Profile,
    /// Which model the file is (with one model).
    pub kind: ModelKind,
    /// Long side of the detector's input in pixels (with one model), a multiple of 32 from 64 to 4096. A frame is scaled to
    /// it, smaller ones are enlarged. Time and memory grow with its square; faces under about 10 pixels *of this input* are
    /// missed.
    pub long_side: u32,
    /// Score from which on a box counts as a face (with one model), over 0 and under 1. Lower covers more: more faces, more
    /// that are none. For CenterFace 0.23 is a good value, for YuNet 0.3.
    pub threshold: f32,
    /// Longer side at which frames are searched at most, in place of the profile's (with a folder of models), from 320 to 8192.
    /// Larger frames are scaled to it. Beyond 1280 a frame is looked at in tiles, for wide views with small faces: time
    /// grows with its square, memory does not.
    pub max_side: Option<u32>,
    /// What computes the networks.
    pub engine: Engine,
    /// The covering.
    pub cover: Cover,
    /// Width and height of the covered ellipse over those of the detected box, 1 to 4. From 1.42 on the ellipse holds
    /// the whole box; smaller values are raised to that. To this come eight pixels of the detector's input on every side.
    pub margin: f32,
    /// For how many frames a face that is no longer found stays covered (stream mode), at most 1000.
    pub hold_frames: u32,
    /// In a stream, a frame in which nothing has changed since the last one that was searched for faces is covered like that
    /// one, but at least every so many frames one is searched, from 1 (each) to 100.
    pub search_every: u32,
    /// Threads that share a search (with our own executor), from 1 to 16. One core for each is what they want.
    pub threads: u32,
    /// Covered in every frame, at most [`Mask::MOST`].
    pub masks: Vec<Mask>,
    /// How long the search of a frame may take (with waiting for other cameras that share the detector) before the frame is
    /// given up, from 1 ms to 10 minutes.
    pub timeout: Duration,
}

impl Default for Settings {
    /// Both models from [`models_dir`], [`Profile::Balanced`], deep blur over 1.6 times the box, held for 6 frames.
    fn default() -> Self {
        Settings {
            model: models_dir(),
            profile: Profile::Balanced,
            max_side: None,
            engine: Engine::Auto,
            masks: Vec::new(),
            kind: ModelKind::CenterFace,
            long_side: 640,
            threshold: 0.23,
            cover: Cover::DeepBlur,
            margin: 1.6,
            hold_frames: 6,
            search_every: 8,
            threads: 1,
            timeout: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// A path that ends in `.onnx` is one model's file.
    pub(crate) fn plan(&self) -> Plan {
        if self.model.extension().is_some_and(|e| e == "onnx") {
            return Plan::One { kind: self.kind, long_side: self.long_side, threshold: self.threshold };
        }
        let mut cascade = Cascade::of(self.profile);
        if let Some(side) = self.max_side {
            cascade.sides = (cascade.sides.0.min(side), side);
        }
        Plan::Cascade(cascade)
    }

    pub(crate) fn check(&self) -> Result<(), VeilError> {
        let refuse = |key, value: String, want| Err(VeilError::Setting { key, value, want });
        if !self.long_side.is_multiple_of(32) || !(64..=4096).contains(&self.long_side) {
            return refuse("long_side", self.long_side.to_string(), "a multiple of 32 from 64 to 4096");
        }
        if let Some(side) = self.max_side.filter(|side| !(320..=8192).contains(side)) {
            return refuse("max_side", side.to_string(), "from 320 to 8192");
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
        if !(1..=100).contains(&self.search_every) {
            return refuse("search_every", self.search_every.to_string(), "from 1 to 100");
        }
        if !(1..=16).contains(&self.threads) {
            return refuse("threads", self.threads.to_string(), "from 1 to 16");
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(600)).contains(&self.timeout) {
            return refuse("timeout", format!("{:?}", self.timeout), "from 1 ms to 10 minutes");
        }
        check_masks(&self.masks)
    }
}

impl Mask {
    /// Most masks of a camera.
    pub const MOST: usize = 64;
    /// Most corners of a mask.
    pub const MOST_CORNERS: usize = 256;
}

pub(crate) fn check_masks(masks: &[Mask]) -> Result<(), VeilError> {
    let refuse = |value: String, want| Err(VeilError::Setting { key: "masks", value, want });
    if masks.len() > Mask::MOST {
        return refuse(masks.len().to_string(), "at most 64 masks");
    }
    let inside = |v: &f32| (0.0..=1.0).contains(v);
    for Mask { corners } in masks {
        if !(3..=Mask::MOST_CORNERS).contains(&corners.len())
            || !corners.iter().all(|(x, y)| inside(x) && inside(y))
        {
            return refuse(format!("{corners:?}"), "3 to 256 corners, each from 0 to 1");
        }
    }
    Ok(())
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
            Settings { threads: 0, ..Settings::default() },
            Settings { threads: 17, ..Settings::default() },
            Settings { max_side: Some(100), ..Settings::default() },
            Settings { timeout: Duration::ZERO, ..Settings::default() },
            Settings { masks: vec![Mask::default(); 65], ..Settings::default() },
            Settings { search_every: 0, ..Settings::default() },
            Settings { masks: vec![Mask { corners: vec![(0.0, 0.0), (1.0, 1.0)] }], ..Settings::default() },
            Settings {
                masks: vec![Mask { corners: vec![(0.0, 0.0), (1.0, 1.0), (2.0, 0.5)] }],
                ..Settings::default()
            },
        ];
        for settings in broken {
            assert!(matches!(settings.check(), Err(VeilError::Setting { .. })), "{settings:?}");
        }
    }
}
