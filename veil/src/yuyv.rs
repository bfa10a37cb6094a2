//! A camera's YUYV becomes RGB in one pass, before anything else looks at it. At 640x480 neither network of `fast` and
//! `balanced` needs scaling: the same RGB is what the first one reads, what is covered and what is encoded, without a copy.
//! A second way into the networks straight from YUYV was not built, since it could save no more than this pass costs, and the
//! picture needs it all the same: .5 ms beside 18 for finding and covering and 4.3 for encoding (`fast`, 640x480), 3.2
//! beside 33 and 29 at 1920x1080, medians of `cost yuyv` on one core of a busy x86-64. Pixel by pixel it took three to
//! four times as long.
//!
//! Pixels are taken apart into planes first, since a compiler can compute with those many at a time.

use crate::net::{Isa, Job, Simd, run};

/// Pairs of pixels that are converted at a time: their planes stay in the nearest cache.
const PAIRS: usize = 64;

/// BT.601, limited range; `yuyv` has four bytes for two pixels.
pub(crate) fn to_rgb(yuyv: &[u8]) -> Vec<u8> {
    to_rgb_with(Isa::best(), yuyv)
}

fn to_rgb_with(isa: Isa, yuyv: &[u8]) -> Vec<u8> {
    let mut pixels = vec![0; yuyv.len() / 4 * 6];
    run(isa, Convert { yuyv, pixels: &mut pixels });
    pixels
}

struct Convert<'a> {
    yuyv: &'a [u8],
    pixels: &'a mut [u8],
}

impl Job for Convert<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let chunks = self.yuyv.as_chunks::<4>().0.chunks(PAIRS);
        for (quads, out) in chunks.zip(self.pixels.chunks_mut(6 * PAIRS)) {
            let [mut ys, mut us, mut vs] = [[0i16; 2 * PAIRS]; 3];
            for (i, &[first, u, second, v]) in quads.iter().enumerate() {
                ys[2 * i] = i16::from(first);
                ys[2 * i + 1] = i16::from(second);
                us[2 * i..2 * i + 2].fill(i16::from(u));
                vs[2 * i..2 * i + 2].fill(i16::from(v));
            }
            let [mut reds, mut greens, mut blues] = [[0u8; 2 * PAIRS]; 3];
            for i in 0..2 * PAIRS {
                let (y, u, v) =
                    (298 * (i32::from(ys[i]) - 16), i32::from(us[i]) - 128, i32::from(vs[i]) - 128);
                reds[i] = level(y + 409 * v);
                greens[i] = level(y - 100 * u - 208 * v);
                blues[i] = level(y + 516 * u);
            }
            for (i, rgb) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                *rgb = [reds[i], greens[i], blues[i]];
            }
        }
    }
}

/// From 256ths of a level, rounded.
#[inline(always)]
fn level(v: i32) -> u8 {
    ((v + 128) >> 8).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in real numbers.
    fn expected(y: u8, u: u8, v: u8) -> [u8; 3] {
        let (y, u, v) = (f64::from(y) - 16.0, f64::from(u) - 128.0, f64::from(v) - 128.0);
        let y = 255.0 / 219.0 * y;
        let rgb = [y + 1.596_027 * v, y - 0.391_762 * u - 0.812_968 * v, y + 2.017_232 * u];
        rgb.map(|c| c.round().clamp(0.0, 255.0) as u8)
    }

    #[test]
    fn every_colour_is_within_a_level() {
        let mut yuyv = Vec::new();
        for u in (0..=255).step_by(5) {
            for v in (0..=255).step_by(5) {
                for y in (0..=254).step_by(6) {
                    yuyv.extend([y, u, y + 1, v]);
                }
            }
        }
        let rgb = to_rgb(&yuyv);
        for (quad, six) in yuyv.as_chunks::<4>().0.iter().zip(rgb.as_chunks::<6>().0) {
            let [first, u, second, v] = *quad;
            let wanted = [expected(first, u, v), expected(second, u, v)].concat();
            let off = six.iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(off <= 1, "{quad:?} became {six:?} and not {wanted:?}");
        }
    }

    #[test]
    fn whatever_the_processor_has_gives_the_same() {
        // No multiple of the pairs that are converted at a time.
        let yuyv: Vec<u8> = (0..4 * 333u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let baseline = to_rgb_with(Isa::Baseline, &yuyv);
        for isa in Isa::available() {
            assert!(to_rgb_with(isa, &yuyv) == baseline, "{isa:?}");
        }
    }
}
