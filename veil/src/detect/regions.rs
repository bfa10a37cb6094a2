//! Where the thorough network looks after the quick one has proposed: parts of the frame around the doubtful boxes, each at
//! the scale at which the face in it would have the size that CenterFace knows best.

use super::input::Fit;
use crate::geometry::Rect;

/// A face larger than this in pixels of the input (longer side) is looked at in half the scale.
const LARGEST: f32 = 64.0;

/// How a box is looked at.
pub(super) struct Look {
    /// How much larger than at the scale that suits it.
    pub zoom: f32,
    /// What is added around it: so much of its longer side, and so many pixels of the input.
    pub around: (f32, f32),
}

/// As CenterFace first sees what YuNet proposes.
pub(super) const FIRST: Look = Look { zoom: 1.0, around: (0.6, 12.0) };

/// The frame at one scale: a power of two below the first.
struct Level {
    /// Pixels of the input per pixel of the frame.
    scale: f32,
    parts: Vec<Rect>,
}

/// The longest side of what a network is given at once: memory grows with its square.
const MOST_AT_ONCE: u32 = 1280;
/// Sides of a tile at most, and how far neighbours overlap at least: a face that is cut by one tile's edge lies whole in
/// the next one, or is so large that it is found in the whole frame.
const TILE: f32 = 960.0;
const OVERLAP: f32 = 128.0;

/// What is looked at in any case: the whole frame, and tiles of it where that is larger than a network is given at once.
pub(super) fn views(width: u32, height: u32, long_side: u32) -> Vec<Fit> {
    let mut views = vec![Fit::whole(width, height, long_side.min(MOST_AT_ONCE))];
    if long_side > MOST_AT_ONCE {
        let scale = long_side as f32 / width.max(height) as f32;
        let (w, h) = (width as f32 * scale, height as f32 * scale);
        let along = |length: f32| -> Vec<(f32, f32)> {
            let tiles = ((length - OVERLAP) / (TILE - OVERLAP)).ceil().max(1.0);
            let tile = ((length + (tiles - 1.0) * OVERLAP) / tiles).min(length);
            let step = if tiles > 1.0 { (length - tile) / (tiles - 1.0) } else { 0.0 };
            (0..tiles as u32).map(|i| (i as f32 * step, tile)).collect()
        };
        for (y, th) in along(h) {
            views.extend(along(w).iter().map(|&(x, tw)| fit(&Rect { x, y, w: tw, h: th }, w, h, scale)));
        }
    }
    views
}

/// Parts of a frame that hold these boxes; `long_side` is the frame's at the finest scale.
pub(super) fn regions(
    width: u32,
    height: u32,
    boxes: impl Iterator<Item = Rect>,
    long_side: u32,
    look: &Look,
) -> Vec<Fit> {
    let finest = long_side as f32 / width.max(height) as f32;
    let mut levels: Vec<Level> = Vec::new();
    for r in boxes {
        let mut depth = 0;
        let mut scale = finest;
        while r.w.max(r.h) * scale > LARGEST && depth < 10 {
            scale /= 2.0;
            depth += 1;
        }
        while levels.len() <= depth {
            levels.push(Level { scale: look.zoom * finest / (1 << levels.len()) as f32, parts: Vec::new() });
        }
        scale *= look.zoom;
        let more = r.w.max(r.h) * scale * look.around.0 + look.around.1;
        let (w, h) = (width as f32 * scale, height as f32 * scale);
        let x = (r.x * scale - more).clamp(0.0, w);
        let y = (r.y * scale - more).clamp(0.0, h);
        let part = Rect {
            x,
            y,
            w: ((r.x + r.w) * scale + more).clamp(x, w) - x,
            h: ((r.y + r.h) * scale + more).clamp(y, h) - y,
        };
        // A box beyond the frame's edge shows nothing.
        if part.w >= 1.0 && part.h >= 1.0 {
            levels[depth].parts.push(part);
        }
    }
    let mut fits = Vec::new();
    for Level { scale, mut parts } in levels {
        join(&mut parts);
        let (w, h) = (width as f32 * scale, height as f32 * scale);
        fits.extend(parts.iter().map(|part| fit(part, w, h, scale)));
    }
    fits
}

fn side(length: f32) -> f32 {
    (length / 32.0).ceil().max(1.0) * 32.0
}

fn cost(r: &Rect) -> f32 {
    side(r.w) * side(r.h)
}

/// Joins parts as long as that makes for less to look at.
fn join(parts: &mut Vec<Rect>) {
    /// What a part costs besides its pixels, in pixels.
    const EACH: f32 = 1024.0;
    let mut again = true;
    while again {
        again = false;
        'pairs: for i in 0..parts.len() {
            for j in i + 1..parts.len() {
                let both = parts[i].hull(&parts[j]);
                let bounded = both.w.max(both.h) <= MOST_AT_ONCE as f32;
                if bounded && cost(&both) <= cost(&parts[i]) + cost(&parts[j]) + EACH {
                    parts[i] = both;
                    parts.swap_remove(j);
                    again = true;
                    break 'pairs;
                }
            }
        }
    }
}

/// Rounds a part up to multiples of 32 with what lies around it; where the frame has no more, it is stretched.
fn fit(part: &Rect, width: f32, height: f32, scale: f32) -> Fit {
    let along = |from: f32, length: f32, limit: f32| {
        let input = side(length);
        if input >= limit {
            return (0.0, limit, input);
        }
        ((from + length / 2.0 - input / 2.0).clamp(0.0, limit - input), input, input)
    };
    let (x, w, input_w) = along(part.x, part.w, width);
    let (y, h, input_h) = along(part.y, part.h, height);
    let part = Rect { x: x / scale, y: y / scale, w: w / scale, h: h / scale };
    Fit { input: (input_w as u32, input_h as u32), part }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: f32, y: f32, w: f32, h: f32) -> Rect {
        Rect { x, y, w, h }
    }

    #[test]
    fn each_box_lies_in_a_part_at_a_scale_that_suits_it() {
        let boxes = [
            rect(10.0, 10.0, 30.0, 40.0),
            rect(900.0, 500.0, 400.0, 500.0),
            rect(1900.0, 1060.0, 40.0, 40.0),
            rect(-20.0, 300.0, 60.0, 60.0),
        ];
        for one in boxes {
            let fits = regions(1920, 1080, [one].into_iter(), 960, &FIRST);
            assert_eq!(fits.len(), 1);
            let Fit { input: (w, h), part } = fits[0];
            assert!(w.is_multiple_of(32) && h.is_multiple_of(32));
            let seen = one.clipped(1920, 1080);
            assert!(part.x <= seen.x && part.y <= seen.y, "{part:?}");
            assert!(part.x + part.w >= seen.x + seen.w - 0.1 && part.y + part.h >= seen.y + seen.h - 0.1);
            assert!(part.x >= 0.0 && part.x + part.w <= 1920.1 && part.y + part.h <= 1080.1, "{part:?}");
            let scaled = one.w.max(one.h) * w as f32 / part.w;
            assert!(scaled <= 64.5, "{scaled}");
        }
        // The same box looked at in more pixels.
        let [once, more] = [&FIRST, &Look { zoom: 1.5, ..FIRST }]
            .map(|look| regions(640, 480, [boxes[0]].into_iter(), 640, look)[0]);
        let scale = |fit: &Fit| fit.input.0 as f32 / fit.part.w;
        assert!((scale(&more) / scale(&once) - 1.5).abs() < 0.01, "{once:?} {more:?}");
        assert!(regions(640, 480, [rect(700.0, 0.0, 20.0, 20.0)].into_iter(), 640, &FIRST).is_empty());
    }

    #[test]
    fn tiles_hold_all_of_a_large_frame_and_stay_small() {
        assert_eq!(views(1920, 1080, 960), [Fit::whole(1920, 1080, 960)]);
        for (width, height, long_side) in
            [(3840, 2160, 3840), (4000, 3000, 2016), (9000, 40, 8192), (40, 5000, 4992)]
        {
            let tiles = &views(width, height, long_side)[1..];
            assert!(!tiles.is_empty());
            for Fit { input: (w, h), part } in tiles {
                assert!(w.is_multiple_of(32) && h.is_multiple_of(32) && *w <= 1280 && *h <= 1280);
                assert!(part.x >= 0.0 && part.x + part.w <= width as f32 + 0.5, "{part:?}");
                assert!(part.y >= 0.0 && part.y + part.h <= height as f32 + 0.5, "{part:?}");
            }
            // A face of 100 pixels of the input, wherever it is, lies whole in one of them.
            let face = 100.0 * width.max(height) as f32 / long_side as f32;
            let steps =
                |length: u32| (0..=40).map(move |i| i as f32 / 40.0 * (length as f32 - face).max(0.0));
            for x in steps(width) {
                for y in steps(height) {
                    let (right, bottom) = ((x + face).min(width as f32), (y + face).min(height as f32));
                    let holds = |Fit { part, .. }: &Fit| {
                        part.x <= x + 0.5
                            && part.y <= y + 0.5
                            && part.x + part.w >= right - 0.5
                            && part.y + part.h >= bottom - 0.5
                    };
                    assert!(tiles.iter().any(holds), "{width}x{height}: {x},{y}");
                }
            }
        }
    }

    #[test]
    fn neighbours_share_a_part() {
        let boxes = [rect(100.0, 100.0, 30.0, 30.0), rect(140.0, 100.0, 30.0, 30.0)];
        assert_eq!(regions(640, 480, boxes.into_iter(), 640, &FIRST).len(), 1);
        let boxes = [rect(10.0, 10.0, 30.0, 30.0), rect(580.0, 430.0, 30.0, 30.0)];
        assert_eq!(regions(640, 480, boxes.into_iter(), 640, &FIRST).len(), 2);
        // However many there are, no more is looked at than the frame has.
        let many = (0..400).map(|i| rect((i % 20) as f32 * 32.0, (i / 20) as f32 * 24.0, 20.0, 20.0));
        let pixels: u32 = regions(640, 480, many, 640, &FIRST).iter().map(|f| f.input.0 * f.input.1).sum();
        assert!(pixels <= 640 * 480, "{pixels}");
    }
}
