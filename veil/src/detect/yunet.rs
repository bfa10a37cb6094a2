//! YuNet's outputs: for each of three strides a class score, an objectness and a box at every spot.

use super::network::Channel;
use crate::geometry::{Detection, Rect};

pub(super) const STRIDES: [u32; 3] = [8, 16, 32];

pub(super) struct Level<'a> {
    pub class: Channel<'a>,
    pub object: Channel<'a>,
    /// Offset right and down, logarithms of width and height, in units of the stride.
    pub boxes: [Channel<'a>; 4],
}

/// Adds the boxes of one level, in pixels of the input. A score or a box that is no number is an error.
pub(super) fn decode(
    level: &Level<'_>,
    stride: u32,
    (columns, rows): (usize, usize),
    least: f32,
    found: &mut Vec<Detection>,
) -> Result<(), String> {
    let stride = stride as f32;
    let [right, down, wide, high] = &level.boxes;
    for i in 0..columns * rows {
        let product = level.class.at(i) * level.object.at(i);
        // Compared without the root; a NaN is not under it.
        if product < least * least {
            continue;
        }
        let score = product.sqrt().min(1.0);
        let cx = ((i % columns) as f32 + right.at(i)) * stride;
        let cy = ((i / columns) as f32 + down.at(i)) * stride;
        let (w, h) = (wide.at(i).exp() * stride, high.at(i).exp() * stride);
        let rect = Rect { x: cx - w / 2.0, y: cy - h / 2.0, w, h };
        if !rect.is_finite() || !product.is_finite() {
            return Err("a box that is no number".into());
        }
        found.push(Detection::new(rect, score));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spot_is_a_box() {
        // Column 2, row 1 of 6 columns at stride 16.
        let spots = 6 * 4;
        let mut all = vec![[0.0f32; 6]; spots];
        all[8] = [0.81, 0.25, 2f32.ln(), 3f32.ln(), 0.81, 0.0];
        let run = |all: &[[f32; 6]]| {
            let flat = all.as_flattened();
            let at = |c: usize| Channel::new(&flat[c..], 6, spots).unwrap();
            // The offset right is 0.81 too.
            let level = Level { class: at(0), object: at(4), boxes: [at(0), at(1), at(2), at(3)] };
            let mut found = Vec::new();
            decode(&level, 16, (6, 4), 0.5, &mut found).map(|()| found)
        };
        let found = run(&all).unwrap();
        assert_eq!(found.len(), 1);
        let Detection { rect, score, .. } = found[0];
        assert!((score - 0.81).abs() < 1e-6);
        let (cx, cy) = rect.centre();
        assert!((cx - 2.81 * 16.0).abs() < 1e-3 && (cy - 1.25 * 16.0).abs() < 1e-3);
        assert!((rect.w - 32.0).abs() < 1e-3 && (rect.h - 48.0).abs() < 1e-3);
        all[9][4] = f32::NAN;
        assert!(run(&all).is_err(), "a score that is no number passed");
    }
}
