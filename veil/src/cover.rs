//! The covering: irreversible because of how little survives, not because it looks soft.
//!
//! A face's region is the ellipse around its grown box. Everything that a cover shows is made from the region's cell
//! averages, which are taken from the original once, before anything is painted. Then come the soft rims, which lie
//! outside of the regions, and then the regions, each pixel of which is overwritten: whatever overlaps, inside of a
//! region no original pixel and no blend with one remains.

use std::f32::consts::FRAC_1_SQRT_2;
use std::hash::{BuildHasher, RandomState};

use crate::Cover;
use crate::geometry::Rect;

/// The fixed colour of [`Cover::Solid`] and of fully covered images.
pub(crate) const FILL: [u8; 3] = [40, 42, 46];

/// The soft rim's outer edge over the region's.
const RIM: f32 = 1.14;

/// Most that a cell average is moved by, in levels of 255.
const NOISE: f32 = 5.0;

/// Random numbers from SipHash under a key that the standard library draws anew for each process.
pub(crate) struct Noise {
    key: RandomState,
    counter: u64,
}

impl Noise {
    pub fn new() -> Noise {
        Noise { key: RandomState::new(), counter: 0 }
    }

    /// Uniform in `-NOISE..NOISE`.
    fn next(&mut self) -> f32 {
        self.counter += 1;
        let bits = self.key.hash_one(self.counter) >> 40; // 24 bits fit a float
        (bits as f32 / (1 << 23) as f32 - 1.0) * NOISE
    }
}

/// Pixels of the frame, which are covered in place.
pub(crate) struct Canvas<'a> {
    pub width: usize,
    pub height: usize,
    pub pixels: &'a mut [u8],
}

/// How far a region reaches beyond its box.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growth {
    /// Width and height of the ellipse over those of the box.
    pub margin: f32,
    /// Pixels on every side beyond that: what the detector's boxes are uncertain by, whatever their size.
    pub slack: f32,
}

/// Covers the regions around these boxes.
pub(crate) fn cover(canvas: &mut Canvas, boxes: &[Rect], how: Cover, growth: Growth, noise: &mut Noise) {
    let regions: Vec<Region> =
        boxes.iter().filter_map(|b| Region::new(canvas, b, how, growth, noise)).collect();
    if how == Cover::DeepBlur {
        for region in &regions {
            region.paint_rim(canvas);
        }
    }
    for region in &regions {
        region.paint(canvas);
    }
}

/// Fills a polygon whose corners are shares of the canvas's sides: every pixel that its inside touches, looked at along the
/// pixels' upper edge, middle and lower edge, and one more on each side. Where its sides cross each other, all that they go
/// around is inside.
pub(crate) fn cover_polygon(canvas: &mut Canvas, corners: &[(f32, f32)]) {
    let (width, height) = (canvas.width as f32, canvas.height as f32);
    let at = |(x, y): (f32, f32)| (x * width, y * height);
    let sides = || corners.iter().zip(corners.iter().cycle().skip(1)).map(|(&a, &b)| (at(a), at(b)));
    let mut crossings: Vec<(f32, i32)> = Vec::with_capacity(corners.len());
    for y in 0..canvas.height {
        let line = &mut canvas.pixels[3 * y * canvas.width..][..3 * canvas.width];
        for within in [0.001, 0.5, 0.999] {
            let level = y as f32 + within;
            crossings.clear();
            for (a, b) in sides().filter(|(a, b)| (a.1 <= level) != (b.1 <= level)) {
                let x = a.0 + (level - a.1) / (b.1 - a.1) * (b.0 - a.0);
                crossings.push((x, if a.1 < b.1 { 1 } else { -1 }));
            }
            crossings.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut around = 0;
            for pair in crossings.windows(2) {
                around += pair[0].1;
                if around != 0 {
                    let from = (pair[0].0 - 1.0).clamp(0.0, width) as usize;
                    let to = (pair[1].0 + 1.0).ceil().clamp(0.0, width) as usize;
                    line[3 * from..3 * to].chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&FILL));
                }
            }
        }
    }
}

/// How many cells a region's shorter side is averaged to: a cell is never under 24 pixels, so that a small face is
/// averaged over most of itself. Blocks have edges of their own, and three of them would trace a face's outline.
fn cells_of(shorter_side: f32, how: Cover) -> usize {
    let most = if how == Cover::Mosaic { 2.0 } else { 3.0 };
    (shorter_side / 24.0).floor().clamp(1.0, most) as usize
}

struct Region {
    cx: f32,
    cy: f32,
    /// Half axes.
    a: f32,
    b: f32,
    /// The part of the region's box that lies in the frame: x0, y0, x1, y1.
    part: [usize; 4],
    look: Look,
}

enum Look {
    Fill,
    /// `n` x `n` colours over `part`.
    Cells {
        n: usize,
        colours: Vec<[f32; 3]>,
        smooth: bool,
    },
}

impl Region {
    /// None when the region lies outside of the frame.
    fn new(canvas: &Canvas, face: &Rect, how: Cover, growth: Growth, noise: &mut Noise) -> Option<Region> {
        let (cx, cy) = face.centre();
        // From 1 / sqrt 2 on the ellipse holds the whole box; the floor is for boxes of next to no size.
        let half = (growth.margin / 2.0).max(FRAC_1_SQRT_2);
        let axis = |side: f32| (side * half + growth.slack).max(4.0);
        let (a, b) = (axis(face.w), axis(face.h));
        let edge = |v: f32, limit: usize| v.clamp(0.0, limit as f32) as usize;
        let part = [
            edge((cx - a).floor(), canvas.width),
            edge((cy - b).floor(), canvas.height),
            edge((cx + a).ceil(), canvas.width),
            edge((cy + b).ceil(), canvas.height),
        ];
        if part[0] >= part[2] || part[1] >= part[3] {
            return None;
        }
        let look = match how {
            Cover::Solid => Look::Fill,
            Cover::DeepBlur | Cover::Mosaic => {
                let shorter = (part[2] - part[0]).min(part[3] - part[1]);
                let n = cells_of(shorter as f32, how);
                Look::Cells { n, colours: averages(canvas, part, n, noise), smooth: how == Cover::DeepBlur }
            }
        };
        Some(Region { cx, cy, a, b, part, look })
    }

    /// The columns of row `y` whose pixels touch the region scaled by `scale`.
    fn span(&self, y: usize, scale: f32, width: usize) -> (usize, usize) {
        let (a, b) = (self.a * scale, self.b * scale);
        // Measured at the pixel's edge nearest to the centre, so that no pixel is covered only in part.
        let dy = ((y as f32 + 0.5 - self.cy).abs() - 0.5).max(0.0) / b;
        if dy >= 1.0 {
            return (0, 0);
        }
        let half = a * (1.0 - dy * dy).sqrt();
        let from = (self.cx - half).floor().clamp(0.0, width as f32) as usize;
        let to = (self.cx + half).ceil().clamp(0.0, width as f32) as usize;
        (from, to.max(from))
    }

    fn paint(&self, canvas: &mut Canvas) {
        let brush = Brush::new(self, canvas.width);
        for y in self.part[1]..self.part[3] {
            let (from, to) = self.span(y, 1.0, canvas.width);
            let row = brush.row(y);
            let line = &mut canvas.pixels[3 * y * canvas.width..][..3 * canvas.width];
            for (x, pixel) in (from..to).zip(line[3 * from..3 * to].chunks_exact_mut(3)) {
                pixel.copy_from_slice(&brush.colour(&row, x).map(|v| v as u8));
            }
        }
    }

    fn paint_rim(&self, canvas: &mut Canvas) {
        let brush = Brush::new(self, canvas.width);
        let reach = (self.b * RIM).ceil();
        let top = (self.cy - reach).max(0.0) as usize;
        let bottom = (self.cy + reach).clamp(0.0, canvas.height as f32) as usize;
        for y in top..bottom {
            let (from, to) = self.span(y, RIM, canvas.width);
            let inner = self.span(y, 1.0, canvas.width);
            let row = brush.row(y);
            let dy = (y as f32 + 0.5 - self.cy) / self.b;
            let line = &mut canvas.pixels[3 * y * canvas.width..][..3 * canvas.width];
            for x in (from..to).filter(|x| !(inner.0..inner.1).contains(x)) {
                let dx = (x as f32 + 0.5 - self.cx) / self.a;
                let t = ((dx.hypot(dy) - 1.0) / (RIM - 1.0)).clamp(0.0, 1.0);
                let opaque = 1.0 - t * t * (3.0 - 2.0 * t);
                for (p, c) in line[3 * x..3 * x + 3].iter_mut().zip(brush.colour(&row, x)) {
                    *p = (f32::from(*p) * (1.0 - opaque) + c * opaque) as u8;
                }
            }
        }
    }
}

/// Average colour of each of the `n` x `n` cells, moved at random.
fn averages(canvas: &Canvas, part: [usize; 4], n: usize, noise: &mut Noise) -> Vec<[f32; 3]> {
    let [x0, y0, x1, y1] = part;
    let cut = |from: usize, to: usize, i: usize| from + (to - from) * i / n;
    let mut colours = Vec::with_capacity(n * n);
    for cell in 0..n * n {
        let (left, right) = (cut(x0, x1, cell % n), cut(x0, x1, cell % n + 1));
        let (top, bottom) = (cut(y0, y1, cell / n), cut(y0, y1, cell / n + 1));
        let mut sum = [0u64; 3];
        for y in top..bottom {
            let line = &canvas.pixels[3 * (y * canvas.width + left)..3 * (y * canvas.width + right)];
            for pixel in line.chunks_exact(3) {
                for (s, &p) in sum.iter_mut().zip(pixel) {
                    *s += u64::from(p);
                }
            }
        }
        let count = ((right - left) * (bottom - top)).max(1) as f32;
        colours.push(sum.map(|s| (s as f32 / count + noise.next()).clamp(0.0, 255.0)));
    }
    colours
}

/// Three neighbouring cells and their weights (a quadratic B-spline: smooth, and it never overshoots).
type Mix = [(usize, f32); 3];

fn mix(at: usize, from: usize, to: usize, n: usize, smooth: bool) -> Mix {
    // Rims lie outside of the cells: they show the outermost ones.
    let t = ((at as f32 + 0.5 - from as f32) / (to - from) as f32).clamp(0.0, 0.9999) * n as f32;
    let cell = (t as usize).min(n - 1);
    if !smooth {
        return [(cell, 1.0), (cell, 0.0), (cell, 0.0)];
    }
    let f = t - cell as f32 - 0.5;
    let weights = [(0.5 - f) * (0.5 - f) / 2.0, 0.75 - f * f, (0.5 + f) * (0.5 + f) / 2.0];
    [(cell.saturating_sub(1), weights[0]), (cell, weights[1]), ((cell + 1).min(n - 1), weights[2])]
}

fn blend(colours: [[f32; 3]; 3], mix: &Mix) -> [f32; 3] {
    std::array::from_fn(|c| (0..3).map(|i| colours[i][c] * mix[i].1).sum())
}

/// A region's cover, prepared for painting row by row.
struct Brush<'a> {
    region: &'a Region,
    /// One mix for each column from `left` on.
    columns: Vec<Mix>,
    left: usize,
}

impl<'a> Brush<'a> {
    fn new(region: &'a Region, width: usize) -> Self {
        let left = (region.cx - region.a * RIM).floor().max(0.0) as usize;
        let right = (region.cx + region.a * RIM).ceil().clamp(0.0, width as f32) as usize;
        let columns = match &region.look {
            Look::Fill => Vec::new(),
            Look::Cells { n, smooth, .. } => {
                (left..right).map(|x| mix(x, region.part[0], region.part[2], *n, *smooth)).collect()
            }
        };
        Brush { region, columns, left }
    }

    /// The cells' colours as they are in this row, one for each column of cells.
    fn row(&self, y: usize) -> [[f32; 3]; 3] {
        let Look::Cells { n, colours, smooth } = &self.region.look else { return [[0.0; 3]; 3] };
        let m = mix(y, self.region.part[1], self.region.part[3], *n, *smooth);
        std::array::from_fn(|column| {
            let column = column.min(n - 1);
            blend(m.map(|(cell, _)| colours[cell * n + column]), &m)
        })
    }

    fn colour(&self, row: &[[f32; 3]; 3], x: usize) -> [f32; 3] {
        match &self.region.look {
            Look::Fill => FILL.map(f32::from),
            Look::Cells { .. } => {
                let m = &self.columns[x - self.left];
                blend(m.map(|(cell, _)| row[cell]), m)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 200;
    const GROWTH: Growth = Growth { margin: 1.6, slack: 0.0 };

    /// Stripes that a face could be told by, as strong as they get.
    fn stripes() -> Vec<u8> {
        (0..SIDE * SIDE)
            .flat_map(|i| if (i % SIDE + i / SIDE) % 6 < 3 { [255, 240, 230] } else { [0, 10, 20] })
            .collect()
    }

    fn covered(mut pixels: Vec<u8>, boxes: &[Rect], how: Cover) -> Vec<u8> {
        // The same noise for each call: what remains different comes from the pixels.
        let mut noise = Noise { key: fixed_key(), counter: 0 };
        cover(&mut Canvas { width: SIDE, height: SIDE, pixels: &mut pixels }, boxes, how, GROWTH, &mut noise);
        pixels
    }

    fn fixed_key() -> RandomState {
        use std::sync::OnceLock;
        static KEY: OnceLock<RandomState> = OnceLock::new();
        KEY.get_or_init(RandomState::new).clone()
    }

    fn pixel(pixels: &[u8], x: usize, y: usize) -> [u8; 3] {
        std::array::from_fn(|c| pixels[3 * (y * SIDE + x) + c])
    }

    const FACE: Rect = Rect { x: 70.0, y: 60.0, w: 60.0, h: 80.0 };

    #[test]
    fn nothing_but_the_cell_averages_survives() {
        // Rearranging the pixels within a cell changes every pixel and no average: the cover must come out the same.
        // FACE x 1.6 is 52..148 by 36..164.
        let original = stripes();
        for (how, n) in [(Cover::DeepBlur, 3), (Cover::Mosaic, 2), (Cover::Solid, 1)] {
            let mut other = original.clone();
            for cell in 0..n * n {
                let (column, row) = (cell % n, cell / n);
                let columns = 52 + 96 * column / n..52 + 96 * (column + 1) / n;
                let rows = 36 + 128 * row / n..36 + 128 * (row + 1) / n;
                let spots: Vec<_> = rows.flat_map(|y| columns.clone().map(move |x| (x, y))).collect();
                for (from, to) in spots.iter().zip(spots.iter().cycle().skip(3)) {
                    let at = 3 * (to.1 * SIDE + to.0);
                    other[at..at + 3].copy_from_slice(&pixel(&original, from.0, from.1));
                }
            }
            assert!(original != other);
            let (a, b) = (covered(original.clone(), &[FACE], how), covered(other, &[FACE], how));
            let mut inside = 0;
            for y in 36..164 {
                for x in 52..148 {
                    let (dx, dy) = ((x as f32 + 0.5 - 100.0) / 48.0, (y as f32 + 0.5 - 100.0) / 64.0);
                    if dx * dx + dy * dy <= 1.0 {
                        inside += 1;
                        assert_eq!(pixel(&a, x, y), pixel(&b, x, y), "{how} at {x},{y}");
                    }
                }
            }
            assert!(inside > 9000);
        }
    }

    #[test]
    fn a_mask_fills_its_polygon_and_nothing_far_from_it() {
        let mut pixels = vec![255; 3 * SIDE * SIDE];
        let mut canvas = Canvas { width: SIDE, height: SIDE, pixels: &mut pixels };
        // A triangle whose right angle is at the lower left.
        cover_polygon(&mut canvas, &[(0.25, 0.25), (0.25, 0.75), (0.75, 0.75)]);
        for y in 0..SIDE {
            for x in 0..SIDE {
                let inside = x >= 50 && y < 150 && x < y;
                let outside = x + 3 < 50 || !(50..150).contains(&y) || x > y + 3;
                let p = pixel(&pixels, x, y);
                assert!(!inside || p == FILL, "{x},{y} is open");
                assert!(!outside || p == [255; 3], "{x},{y} is covered");
            }
        }
    }

    #[test]
    fn a_mask_whose_sides_cross_has_no_hole() {
        let mut pixels = vec![255; 3 * SIDE * SIDE];
        let mut canvas = Canvas { width: SIDE, height: SIDE, pixels: &mut pixels };
        // A five-pointed star: its middle is gone around twice.
        let star: Vec<(f32, f32)> = (0..5)
            .map(|i| (i as f32 * 0.8 * std::f32::consts::PI).sin_cos())
            .map(|(sin, cos)| (0.5 + 0.4 * sin, 0.5 - 0.4 * cos))
            .collect();
        cover_polygon(&mut canvas, &star);
        assert_eq!(pixel(&pixels, 100, 100), FILL);
        assert_eq!(pixel(&pixels, 100, 40), FILL);
        assert_eq!(pixel(&pixels, 20, 20), [255; 3]);
    }

    #[test]
    fn a_mask_at_the_edge_or_thinner_than_a_pixel_covers_what_it_touches() {
        let mut pixels = vec![255; 3 * SIDE * SIDE];
        let mut canvas = Canvas { width: SIDE, height: SIDE, pixels: &mut pixels };
        cover_polygon(&mut canvas, &[(0.0, 0.0), (1.0, 0.0), (1.0, 0.003), (0.0, 0.003)]);
        cover_polygon(&mut canvas, &[(0.999, 0.0), (1.0, 0.0), (1.0, 1.0), (0.999, 1.0)]);
        assert!((0..SIDE).all(|x| pixel(&pixels, x, 0) == FILL && pixel(&pixels, SIDE - 1, x) == FILL));
        assert_eq!(pixel(&pixels, 100, 2), [255; 3]);
    }

    #[test]
    fn whatever_the_boxes_are_nothing_panics() {
        let mut odd = vec![
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            -1e30,
            -7.5,
            0.0,
            1e-30,
            3.7,
            199.9,
            1e9,
        ];
        odd.push(f32::MIN_POSITIVE);
        let mut noise = Noise::new();
        for (width, height) in [(1, 1), (1, 9), (33, 2), (64, 48)] {
            let mut pixels = vec![100; 3 * width * height];
            for how in [Cover::DeepBlur, Cover::Mosaic, Cover::Solid] {
                for (i, &x) in odd.iter().enumerate() {
                    for (j, &w) in odd.iter().enumerate() {
                        let rect =
                            Rect { x, y: odd[(i + j) % odd.len()], w, h: odd[(i * 5 + j) % odd.len()] };
                        let mut canvas = Canvas { width, height, pixels: &mut pixels };
                        cover(&mut canvas, &[rect, rect.grown(0.5)], how, GROWTH, &mut noise);
                    }
                }
            }
        }
    }

    #[test]
    fn overlapping_faces_leave_no_original_pixel() {
        let second = FACE.shifted(30.0, 20.0);
        let out = covered(stripes(), &[FACE, second, FACE.shifted(-40.0, 0.0)], Cover::DeepBlur);
        for face in [FACE, second, FACE.shifted(-40.0, 0.0)] {
            for y in face.y as usize..(face.y + face.h) as usize {
                for x in face.x as usize..(face.x + face.w) as usize {
                    // The stripes are near 0 and 255, their averages near the middle.
                    let p = pixel(&out, x, y);
                    assert!(p.iter().all(|v| (85..=170).contains(v)), "{p:?} at {x},{y}");
                }
            }
        }
    }

    #[test]
    fn the_whole_box_is_covered_even_with_a_small_margin() {
        for margin in [1.0, 1.6, 2.0] {
            let mut pixels = vec![255; 3 * SIDE * SIDE];
            let mut canvas = Canvas { width: SIDE, height: SIDE, pixels: &mut pixels };
            let growth = Growth { margin, slack: 0.0 };
            cover(&mut canvas, &[FACE], Cover::Solid, growth, &mut Noise::new());
            for (x, y) in [(70, 60), (129, 60), (70, 139), (129, 139), (100, 100)] {
                assert_eq!(pixel(&pixels, x, y), FILL);
            }
            assert_eq!(pixel(&pixels, 5, 100), [255; 3]);
        }
    }

    #[test]
    fn the_rim_is_soft_and_lies_outside() {
        let mut white = vec![255; 3 * SIDE * SIDE];
        for y in 40..160 {
            for x in 55..145 {
                white[3 * (y * SIDE + x)..][..3].fill(0);
            }
        }
        let out = covered(white, &[FACE], Cover::DeepBlur);
        let row: Vec<u8> = (148..160).map(|x| pixel(&out, x, 100)[0]).collect();
        assert!(row.windows(2).all(|w| w[0] <= w[1]), "{row:?}");
        assert_eq!(*row.last().unwrap(), 255);
        assert!(row.windows(2).all(|w| w[1] - w[0] < 120), "{row:?}");
    }

    #[test]
    fn regions_over_the_edge_and_outside() {
        for how in [Cover::DeepBlur, Cover::Solid, Cover::Mosaic] {
            let at = |x, y, w, h| Rect { x, y, w, h };
            let boxes = [
                at(-30.0, -30.0, 60.0, 60.0),
                at(190.0, 190.0, 60.0, 60.0),
                at(-500.0, 10.0, 20.0, 20.0),
                at(50.0, 900.0, 20.0, 20.0),
                at(100.0, 100.0, 0.0, 0.0),
                at(-1e9, -1e9, 2e9, 2e9),
            ];
            for b in boxes {
                covered(stripes(), &[b], how);
            }
            let corner = pixel(&covered(stripes(), &boxes[..1], how), 0, 0);
            assert!(corner.iter().all(|v| (30..=180).contains(v)), "{corner:?}");
        }
    }

    #[test]
    fn few_numbers_survive() {
        let cells = [1.0, 47.0, 48.0, 71.0, 72.0, 5000.0];
        assert_eq!(cells.map(|side| cells_of(side, Cover::DeepBlur)), [1, 1, 2, 2, 3, 3]);
        assert_eq!(cells.map(|side| cells_of(side, Cover::Mosaic)), [1, 1, 2, 2, 2, 2]);
    }

    #[test]
    fn averages_are_moved_a_little_and_never_the_same_way() {
        let mut noise = Noise::new();
        let moves: Vec<f32> = (0..1000).map(|_| noise.next()).collect();
        assert!(moves.iter().all(|m| m.abs() <= NOISE));
        assert!((moves.iter().sum::<f32>() / 1000.0).abs() < 0.6);
        assert!(moves.iter().any(|m| *m > 4.0) && moves.iter().any(|m| *m < -4.0));
    }
}
