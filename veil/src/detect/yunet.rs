//! YuNet's outputs: for each of three strides a class score, an objectness and a box at every spot (and five landmarks,
//! which are not needed here).

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::bail;

use super::numbers;
use crate::geometry::{Detection, Rect};

const STRIDES: [u32; 3] = [8, 16, 32];

/// Boxes in pixels of the input. The outputs come as cls, obj, bbox and kps, each for the three strides.
pub(super) fn decode(
    outputs: &[TValue],
    (width, height): (u32, u32),
    least: f32,
) -> TractResult<Vec<Detection>> {
    let mut found = Vec::new();
    for (level, stride) in STRIDES.into_iter().enumerate() {
        let (columns, rows) = ((width / stride) as usize, (height / stride) as usize);
        let spots = columns * rows;
        let class = numbers(outputs, level, spots)?;
        let object = numbers(outputs, 3 + level, spots)?;
        let boxes = numbers(outputs, 6 + level, 4 * spots)?;
        let stride = stride as f32;
        for (i, (c, o)) in class.iter().zip(object).enumerate() {
            let score = (c.clamp(0.0, 1.0) * o.clamp(0.0, 1.0)).sqrt();
            if score < least {
                continue;
            }
            let b = &boxes[4 * i..4 * i + 4];
            let cx = ((i % columns) as f32 + b[0]) * stride;
            let cy = ((i / columns) as f32 + b[1]) * stride;
            let (w, h) = (b[2].exp() * stride, b[3].exp() * stride);
            let rect = Rect { x: cx - w / 2.0, y: cy - h / 2.0, w, h };
            if !rect.is_finite() {
                bail!("a box that is no number");
            }
            found.push(Detection { rect, score });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spots_of_all_strides_are_boxes() {
        let mut outputs: Vec<TValue> = Vec::new();
        for channels in [1, 1, 4] {
            for stride in STRIDES {
                let spots = (64 / stride * 96 / stride) as usize;
                let mut all = tract_ndarray::Array3::<f32>::zeros((1, spots, channels));
                if stride == 16 {
                    // Column 2, row 1 of 6 columns.
                    for (c, v) in [0.81, 0.25, 2f32.ln(), 3f32.ln()].into_iter().enumerate().take(channels) {
                        all[[0, 8, c]] = v;
                    }
                }
                outputs.push(Tensor::from(all).into());
            }
        }
        let found = decode(&outputs, (96, 64), 0.5).unwrap();
        assert_eq!(found.len(), 1);
        let Detection { rect, score } = found[0];
        assert!((score - 0.81).abs() < 1e-6);
        let (cx, cy) = rect.centre();
        assert!((cx - 2.81 * 16.0).abs() < 1e-3 && (cy - 1.25 * 16.0).abs() < 1e-3);
        assert!((rect.w - 32.0).abs() < 1e-3 && (rect.h - 48.0).abs() < 1e-3);
        assert!(decode(&outputs[..5], (96, 64), 0.5).is_err());
    }
}
