//! Where are the faces? A frame is scaled into the detector's input, the network runs, its outputs become boxes.

mod centerface;
mod input;
mod yunet;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::bail;

use crate::geometry::{Detection, suppress};
use crate::{Frame, ModelKind, Settings, VeilError, model};
use input::{Fit, Scaler};

/// A plan belongs to one input shape and takes tens of megabytes. A camera needs one; two cover a turned one, the
/// others are for stills of all shapes.
const PLANS: usize = 2;

/// Boxes that overlap by more than this are one face (the value of the CenterFace authors and the OpenCV zoo).
const OVERLAP: f32 = 0.3;

type Plan = Arc<TypedRunnableModel>;

pub(crate) struct Detector {
    kind: ModelKind,
    long_side: u32,
    model: InferenceModel,
    /// The latest used one first.
    plans: VecDeque<((u32, u32), Plan)>,
    scaler: Scaler,
}

impl Detector {
    pub fn open(settings: &Settings) -> Result<Detector, VeilError> {
        let (kind, long_side) = (settings.kind, settings.long_side);
        let bytes = model::read(&settings.model, kind)?;
        let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        let model = guarded(|| onnx.model_for_read(&mut &bytes[..])).map_err(|reason| {
            VeilError::ModelRefused { kind, width: long_side, height: long_side, reason }
        })?;
        Ok(Detector { kind, long_side, model, plans: VecDeque::new(), scaler: Scaler::new() })
    }

    /// Boxes with at least this score in pixels of the frame, the best first.
    pub fn detect(&mut self, frame: &Frame, least: f32) -> Result<Vec<Detection>, VeilError> {
        let fit = Fit::new(frame.width(), frame.height(), self.long_side);
        let plan = self.plan(fit.input)?;
        let (kind, scaler) = (self.kind, &mut self.scaler);
        let found = guarded(|| {
            let input = scaler.tensor(frame, &fit, kind == ModelKind::YuNet)?;
            let outputs = plan.run(tvec!(input.into()))?;
            match kind {
                ModelKind::CenterFace => centerface::decode(&outputs, fit.input, least),
                ModelKind::YuNet => yunet::decode(&outputs, fit.input, least),
            }
        });
        let found = found.map_err(|reason| {
            self.plans.clear(); // Nobody knows in what state a panic left them.
            VeilError::Detection(reason)
        })?;
        let back = found.into_iter().map(|d| Detection { rect: fit.back(&d.rect), ..d }).collect();
        Ok(suppress(back, OVERLAP))
    }

    fn plan(&mut self, (width, height): (u32, u32)) -> Result<Plan, VeilError> {
        if let Some(at) = self.plans.iter().position(|(size, _)| *size == (width, height))
            && let Some(used) = self.plans.remove(at)
        {
            self.plans.push_front(used);
        } else {
            self.plans.truncate(PLANS - 1);
            let model = &self.model;
            let plan = guarded(|| {
                let fact = f32::fact([1, 3, height as usize, width as usize]);
                model.clone().with_input_fact(0, fact.into())?.into_optimized()?.into_runnable()
            });
            let kind = self.kind;
            let plan = plan.map_err(|reason| VeilError::ModelRefused { kind, width, height, reason })?;
            self.plans.push_front(((width, height), plan));
        }
        Ok(self.plans[0].1.clone())
    }
}

/// Runs the inference engine so that its panics are errors too.
fn guarded<T>(run: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(format!("{e:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(format!("panic: {}", text.unwrap_or("of unknown kind")))
        }
    }
}

/// One output's numbers, if it is as large as it must be and all of them are finite.
fn numbers(outputs: &[TValue], index: usize, len: usize) -> TractResult<&[f32]> {
    let Some(output) = outputs.get(index) else { bail!("output {index} is missing") };
    let Some(view) = output.as_plain_ram() else { bail!("output {index} is in no plain memory") };
    let all = view.as_slice::<f32>()?;
    if all.len() != len {
        bail!("output {index} has {} numbers instead of {len}", all.len());
    }
    // A sum of finite numbers of this kind is finite; one NaN or infinity makes it none.
    if !all.iter().sum::<f32>().is_finite() {
        bail!("output {index} holds something that is no number");
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_errors() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let caught = guarded(|| -> TractResult<()> { panic!("no such kernel") });
        std::panic::set_hook(hook);
        assert_eq!(caught, Err("panic: no such kernel".into()));
    }

    #[test]
    fn outputs_that_are_no_numbers_are_errors() {
        let tensor =
            |values: &[f32]| -> TVec<TValue> { tvec!(Tensor::from(tract_ndarray::arr1(values)).into()) };
        assert!(numbers(&tensor(&[1.0, 2.0]), 0, 2).is_ok());
        assert!(numbers(&tensor(&[1.0, f32::NAN]), 0, 2).is_err());
        assert!(numbers(&tensor(&[f32::INFINITY, 1.0]), 0, 2).is_err());
        assert!(numbers(&tensor(&[1.0]), 0, 2).is_err());
        assert!(numbers(&tensor(&[1.0]), 1, 1).is_err());
    }

    #[test]
    fn can_move_to_the_inference_thread() {
        fn send<T: Send>() {}
        send::<Detector>();
        send::<crate::Veil>();
    }
}
