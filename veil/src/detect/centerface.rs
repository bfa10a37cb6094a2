//! CenterFace's outputs: a heat map of face centres at a quarter of the input's size, and size and offset at each spot.

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::bail;

use super::numbers;
use crate::geometry::{Detection, Rect};

const STRIDE: f32 = 4.0;

/// Boxes in pixels of the input.
pub(super) fn decode(
    outputs: &[TValue],
    (width, height): (u32, u32),
    least: f32,
) -> TractResult<Vec<Detection>> {
    let (w, h) = (width as usize / 4, height as usize / 4);
    let heat = numbers(outputs, 0, w * h)?;
    // Height before width, and y before x; both in units of the map, sizes as logarithms.
    let (log_h, log_w) = numbers(outputs, 1, 2 * w * h)?.split_at(w * h);
    let (off_y, off_x) = numbers(outputs, 2, 2 * w * h)?.split_at(w * h);
    let mut found = Vec::new();
    for (i, &score) in heat.iter().enumerate().filter(|(_, score)| **score >= least) {
        let (bw, bh) = (log_w[i].exp() * STRIDE, log_h[i].exp() * STRIDE);
        let cx = ((i % w) as f32 + off_x[i] + 0.5) * STRIDE;
        let cy = ((i / w) as f32 + off_y[i] + 0.5) * STRIDE;
        let rect = Rect { x: cx - bw / 2.0, y: cy - bh / 2.0, w: bw, h: bh };
        if !rect.is_finite() {
            bail!("a box that is no number");
        }
        found.push(Detection { rect, score });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(shape: (usize, usize, usize, usize), set: &[([usize; 4], f32)]) -> TValue {
        let mut all = tract_ndarray::Array4::<f32>::zeros(shape);
        for (at, v) in set {
            all[*at] = *v;
        }
        Tensor::from(all).into()
    }

    #[test]
    fn a_hot_spot_is_a_box() {
        let outputs = |log_w: f32| {
            vec![
                output((1, 1, 16, 24), &[([0, 0, 5, 7], 0.8), ([0, 0, 6, 7], 0.1)]),
                output((1, 2, 16, 24), &[([0, 0, 5, 7], 6f32.ln()), ([0, 1, 5, 7], log_w)]),
                output((1, 2, 16, 24), &[([0, 0, 5, 7], 0.25), ([0, 1, 5, 7], -0.25)]),
            ]
        };
        let found = decode(&outputs(4f32.ln()), (96, 64), 0.3).unwrap();
        assert_eq!(found.len(), 1);
        let Rect { x, y, w, h } = found[0].rect;
        let near = |a: f32, b: f32| (a - b).abs() < 1e-3;
        assert!(near(w, 16.0) && near(h, 24.0) && near(x, 29.0 - 8.0) && near(y, 23.0 - 12.0), "{found:?}");
        assert!(decode(&outputs(1e6), (96, 64), 0.3).is_err(), "an infinite box passed");
        assert!(decode(&outputs(0.0), (128, 64), 0.3).is_err(), "outputs of another size passed");
    }
}
