//! tract as the engine: on processors that our own executor has no instructions for.

use std::collections::VecDeque;
use std::sync::Arc;

use tract_onnx::prelude::*;

use super::network::Channel;
use super::{centerface, yunet};
use crate::ModelKind;
use crate::geometry::Detection;

/// A plan belongs to one input shape and takes tens of megabytes. A camera needs one; two cover a turned one, the
/// others are for stills of all shapes.
const PLANS: usize = 2;

type Plan = Arc<TypedRunnableModel>;

pub(super) struct Tract {
    model: InferenceModel,
    /// The latest used one first.
    plans: VecDeque<((u32, u32), Plan)>,
}

impl Tract {
    pub fn open(bytes: &[u8]) -> Result<Tract, String> {
        let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        let model = onnx.model_for_read(&mut &bytes[..]).map_err(|e| format!("{e:#}"))?;
        Ok(Tract { model, plans: VecDeque::new() })
    }

    pub fn look(
        &mut self,
        kind: ModelKind,
        rgb: &[u8],
        (width, height): (u32, u32),
        least: f32,
    ) -> Result<Vec<Detection>, String> {
        let plan = self.plan((width, height)).map_err(|e| format!("{e:#}"))?;
        let input = planes(rgb, (width, height), kind == ModelKind::YuNet);
        let outputs = plan.run(tvec!(input.into())).map_err(|e| format!("{e:#}"))?;
        let output = |i: usize| -> Result<&[f32], String> {
            let output: &TValue = outputs.get(i).ok_or_else(|| format!("output {i} is missing"))?;
            let view = output.as_plain_ram().ok_or_else(|| format!("output {i} is in no plain memory"))?;
            view.as_slice::<f32>().map_err(|e| format!("{e:#}"))
        };
        match kind {
            ModelKind::CenterFace => {
                let (w, h) = (width as usize / 4, height as usize / 4);
                let plane = |i: usize, c: usize| {
                    Channel::new(output(i)?.get(c * w * h..).unwrap_or_default(), 1, w * h)
                };
                let outputs = centerface::Outputs {
                    heat: plane(0, 0)?,
                    size: [plane(1, 0)?, plane(1, 1)?],
                    offset: [plane(2, 0)?, plane(2, 1)?],
                };
                centerface::decode(&outputs, (w, h), least)
            }
            ModelKind::YuNet => {
                let mut found = Vec::new();
                for (level, stride) in yunet::STRIDES.into_iter().enumerate() {
                    let (w, h) = ((width / stride) as usize, (height / stride) as usize);
                    let one = |i: usize, c: usize, step: usize| {
                        Channel::new(output(i)?.get(c..).unwrap_or_default(), step, w * h)
                    };
                    let boxes = [0, 1, 2, 3].map(|c| one(6 + level, c, 4));
                    let [x, y, bw, bh] = boxes;
                    let level = yunet::Level {
                        class: one(level, 0, 1)?,
                        object: one(3 + level, 0, 1)?,
                        boxes: [x?, y?, bw?, bh?],
                    };
                    yunet::decode(&level, stride, (w, h), least, &mut found)?;
                }
                Ok(found)
            }
        }
    }

    fn plan(&mut self, (width, height): (u32, u32)) -> TractResult<Plan> {
        if let Some(at) = self.plans.iter().position(|(size, _)| *size == (width, height))
            && let Some(used) = self.plans.remove(at)
        {
            self.plans.push_front(used);
        } else {
            self.plans.truncate(PLANS - 1);
            let fact = f32::fact([1, 3, height as usize, width as usize]);
            let model = self.model.clone().with_input_fact(0, fact.into())?;
            self.plans.push_front(((width, height), model.into_optimized()?.into_runnable()?));
        }
        Ok(self.plans[0].1.clone())
    }
}

/// Planes of 0-255, red first unless `blue_first`.
fn planes(rgb: &[u8], (width, height): (u32, u32), blue_first: bool) -> Tensor {
    let input =
        tract_ndarray::Array4::from_shape_fn((1, 3, height as usize, width as usize), |(_, colour, y, x)| {
            let colour = if blue_first { 2 - colour } else { colour };
            f32::from(rgb[3 * (y * width as usize + x) + colour])
        });
    input.into()
}
