//! Where are the faces? YuNet, which is quick, looks at the whole frame and proposes; of what it proposes, the sure ones
//! count, and CenterFace, which is better and five times as costly, looks at the parts of the frame around the doubtful
//! ones and has the last word there; where its own score is neither high nor low it looks once more, at half as many pixels
//! again, and the mean of both decides. A frame without anything like a face costs no more than YuNet alone.

mod centerface;
mod input;
mod network;
mod regions;
mod second_look;
#[cfg(any(feature = "tract", not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod tract;
#[cfg(not(any(feature = "tract", not(any(target_arch = "x86_64", target_arch = "aarch64")))))]
#[path = "no_tract.rs"]
mod tract;
mod yunet;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::geometry::{Detection, Rect, suppress};
use crate::settings::Plan;
use crate::{Frame, ModelKind, Settings, VeilError, model};
use input::{Fit, Scaler};
use network::Network;

/// Boxes that overlap by more than this are one face (the value of the CenterFace authors and the OpenCV zoo).
const OVERLAP: f32 = 0.3;

/// A doubtful box and a confirming one that overlap by more than this are joined.
const SAME: f32 = 0.4;

/// More proposals than this are cut off, the weakest first: a frame of noise must not cost more than one of faces.
const MOST: usize = 300;

pub(crate) struct Detector {
    plan: Plan,
    networks: Networks,
    scaler: Scaler,
}

enum Networks {
    One(Network),
    Both { yunet: Network, centerface: Network },
}

/// What was found in a frame, and at which scale.
pub(crate) struct Found {
    /// The strongest first, in pixels of the frame.
    pub faces: Vec<Detection>,
    /// Pixels of the frame per pixel of the network's input at the finest scale.
    pub scale: f32,
}

impl Detector {
    pub fn open(settings: &Settings) -> Result<Detector, VeilError> {
        let open = |path: &std::path::Path, kind: ModelKind| {
            let bytes = model::read(path, kind)?;
            guarded(|| Network::open(&bytes, kind, settings.engine, settings.threads as usize))
                .map_err(|reason| VeilError::ModelRefused { kind, reason })
        };
        let plan = settings.plan();
        let networks = match plan {
            Plan::One { kind, .. } => Networks::One(open(&settings.model, kind)?),
            Plan::Cascade(_) => {
                let path = |kind: ModelKind| settings.model.join(kind.file_name());
                Networks::Both {
                    yunet: open(&path(ModelKind::YuNet), ModelKind::YuNet)?,
                    centerface: open(&path(ModelKind::CenterFace), ModelKind::CenterFace)?,
                }
            }
        };
        Ok(Detector { plan, networks, scaler: Scaler::new() })
    }

    /// Boxes of at least this strength (1 is what a face needs). `hints` are places where a face is likely. When the
    /// deadline has passed, the search ends with the next network that would have to run.
    pub fn detect(
        &mut self,
        frame: &Frame,
        hints: &[Rect],
        least: f32,
        deadline: Instant,
    ) -> Result<Found, VeilError> {
        guarded(|| self.look(frame, hints, least, deadline)).map_err(VeilError::Detection)
    }

    fn look(
        &mut self,
        frame: &Frame,
        hints: &[Rect],
        least: f32,
        deadline: Instant,
    ) -> Result<Found, String> {
        let (width, height) = (frame.width(), frame.height());
        let Detector { plan, networks, scaler } = self;
        let mut see = |network: &mut Network, fit: &Fit, least: f32| -> Result<Vec<Detection>, String> {
            if Instant::now() > deadline {
                return Err("it took too long".into());
            }
            let mut found = network.look(scaler.scale(frame, fit)?, fit.input, least)?;
            found.iter_mut().for_each(|d| d.rect = fit.back(&d.rect));
            Ok(suppress(found, OVERLAP))
        };
        match (networks, *plan) {
            (Networks::One(network), Plan::One { long_side, threshold, .. }) => {
                let fit = Fit::whole(width, height, long_side);
                let mut faces = see(network, &fit, threshold * least)?;
                faces.iter_mut().for_each(|d| d.strength = d.score / threshold);
                Ok(Found { faces, scale: width.max(height) as f32 / long_side as f32 })
            }
            (Networks::Both { yunet, centerface }, Plan::Cascade(cascade)) => {
                let long_side = cascade.long_side(width, height);
                let scale = width.max(height) as f32 / long_side as f32;
                let views = regions::views(width, height, long_side);
                let mut proposed = Vec::new();
                for view in &views {
                    proposed.extend(see(yunet, view, cascade.doubtful)?.into_iter().take(MOST));
                }
                if views.len() > 1 {
                    proposed = suppress(proposed, OVERLAP);
                }
                let (sure, doubtful): (Vec<_>, Vec<_>) =
                    proposed.into_iter().partition(|d| d.score >= cascade.sure);
                let boxes = doubtful.iter().map(|d| d.rect).chain(hints.iter().copied());
                let parts = if cascade.whole {
                    views
                } else {
                    regions::regions(width, height, boxes, long_side, &regions::FIRST)
                };
                let mut faces = sure;
                faces.iter_mut().for_each(|d| d.strength = SURE + d.score);
                let mut confirm = |parts: Vec<Fit>| -> Result<Vec<Detection>, String> {
                    let mut seen = Vec::new();
                    for part in parts {
                        seen.extend(see(centerface, &part, cascade.needed * 0.5 * least)?);
                    }
                    for d in &mut seen {
                        d.strength = d.score / cascade.needed(d.rect.h / scale);
                    }
                    // A face that lies in several parts is one.
                    Ok(suppress(seen, OVERLAP))
                };
                let mut seen = confirm(parts)?;
                let unsure = second_look::unsure(&seen, &doubtful);
                let boxes = seen.iter().zip(&unsure).filter(|(_, unsure)| **unsure).map(|(d, _)| d.rect);
                let parts = regions::regions(width, height, boxes, long_side, &second_look::LOOK);
                if !parts.is_empty() {
                    seen = second_look::mean(seen, &unsure, confirm(parts)?);
                }
                for mut d in seen.into_iter().filter(|d| d.strength >= least) {
                    // Both networks saw it, each a little differently: what either saw is covered.
                    let same = doubtful.iter().find(|p| p.rect.iou(&d.rect) >= SAME);
                    d.rect = same.map_or(d.rect, |p| p.rect.hull(&d.rect));
                    faces.push(d);
                }
                Ok(Found { faces: suppress(faces, OVERLAP), scale })
            }
            // `open` pairs them.
            _ => Err("the plan does not fit the networks".into()),
        }
    }
}

/// The strength of a proposal that needs no second look: over all that CenterFace may say, which sees a sure face only in
/// parts that were meant for others, and so perhaps half of it.
const SURE: f32 = 10.0;

/// Runs inference so that its panics are errors too.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(format!("panic: {}", text.unwrap_or("of unknown kind")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_errors() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let e = guarded::<()>(|| panic!("no such layer {}", 3));
        std::panic::set_hook(hook);
        assert_eq!(e, Err("panic: no such layer 3".into()));
        assert_eq!(guarded(|| Ok(1)), Ok(1));
    }
}
