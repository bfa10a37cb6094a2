//! CenterFace's outputs: a heat map of face centres at a quarter of the input's size, and size and offset at each spot.

use super::network::Channel;
use crate::geometry::{Detection, Rect};

const STRIDE: f32 = 4.0;

pub(super) struct Outputs<'a> {
    pub heat: Channel<'a>,
    /// Logarithms of height and width, in units of the map.
    pub size: [Channel<'a>; 2],
    /// Down and right, in units of the map.
    pub offset: [Channel<'a>; 2],
}

/// Boxes in pixels of the input. A score or a box that is no number is an error.
pub(super) fn decode(
    outputs: &Outputs<'_>,
    (w, h): (usize, usize),
    least: f32,
) -> Result<Vec<Detection>, String> {
    let Outputs { heat, size, offset } = outputs;
    let mut found = Vec::new();
    for i in 0..w * h {
        let score = heat.at(i);
        if score < least {
            continue;
        }
        let (bh, bw) = (size[0].at(i).exp() * STRIDE, size[1].at(i).exp() * STRIDE);
        let cx = ((i % w) as f32 + offset[1].at(i) + 0.5) * STRIDE;
        let cy = ((i / w) as f32 + offset[0].at(i) + 0.5) * STRIDE;
        let rect = Rect { x: cx - bw / 2.0, y: cy - bh / 2.0, w: bw, h: bh };
        // A NaN is not under `least`, so that it comes here.
        if !rect.is_finite() || !score.is_finite() {
            return Err("a box that is no number".into());
        }
        found.push(Detection::new(rect, score));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_spot_is_a_box() {
        let (w, h) = (24, 16);
        let plane = |set: &[(usize, f32)]| {
            let mut all = vec![0.0; w * h];
            set.iter().for_each(|&(at, v)| all[at] = v);
            all
        };
        let spot = 5 * w + 7;
        let run = |score: f32, log_w: f32| {
            let planes = [
                plane(&[(spot, score), (spot + w, 0.1)]),
                plane(&[(spot, 6f32.ln())]),
                plane(&[(spot, log_w)]),
                plane(&[(spot, 0.25)]),
                plane(&[(spot, -0.25)]),
            ];
            let [heat, high, wide, down, right] =
                [0, 1, 2, 3, 4].map(|i| Channel::new(&planes[i], 1, w * h).unwrap());
            decode(&Outputs { heat, size: [high, wide], offset: [down, right] }, (w, h), 0.3)
        };
        let found = run(0.8, 4f32.ln()).unwrap();
        assert_eq!(found.len(), 1);
        let Rect { x, y, w, h } = found[0].rect;
        let near = |a: f32, b: f32| (a - b).abs() < 1e-3;
        assert!(near(w, 16.0) && near(h, 24.0) && near(x, 29.0 - 8.0) && near(y, 23.0 - 12.0), "{found:?}");
        assert!(run(0.8, 1e6).is_err(), "an infinite box passed");
        assert!(run(f32::NAN, 1.0).is_err(), "a score that is no number passed");
        assert!(Channel::new(&[0.0; 10], 4, 4).is_err(), "an output that is too short passed");
    }
}
