//! The first layer of both networks, which reads bytes.

#![allow(clippy::needless_range_loop, reason = "loops over registers: an index says which")]

use super::layers::{Scratch, room};
use super::map::{Block, Map};
use super::simd::{Job, Simd, Tiles};
use super::weights::Stem;

/// Bytes of packed RGB to the first map, with ReLU.
pub(super) struct First<'a> {
    pub rgb: &'a [u8],
    pub width: usize,
    pub output: &'a mut Map,
    pub layer: &'a Stem,
    pub scratch: &'a mut Scratch,
}

impl Job for First<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let First { rgb, width, output, layer, scratch } = self;
        let bytes = 3 * width;
        let (h, w) = (rgb.len() / bytes / 2, width / 2);
        output.shape(h, w, layer.bias.len());
        // Three rows, with a pixel of border on the left (with stride 2 and even sides the right one is not looked at).
        let padded = bytes + 3;
        let rows = room(&mut scratch.bytes, 3 * padded);
        rows.fill(0.0);
        for y in 0..h {
            // Rows 2y - 1, 2y and 2y + 1; the first of them is the last one of before.
            let slot = |row: usize| row % 3 * padded;
            for row in 2 * y..2 * y + 2 {
                let to = &mut rows[slot(row) + 3..][..bytes];
                for (to, from) in to.iter_mut().zip(&rgb[row * bytes..][..bytes]) {
                    *to = f32::from(*from);
                }
            }
            let three = [2 * y + 2, 2 * y, 2 * y + 1].map(|row| &rows[slot(row)..][..padded]);
            for b in 0..layer.bias.len() {
                let out = &mut output.data[(b * h + y) * w..][..w];
                // What P pixels see of a row: 6 * (P - 1) + 9 floats.
                match S::TILES {
                    Tiles::Wide => stem_row::<S, 8, 51>(s, three, layer, b, out),
                    Tiles::Middle => stem_row::<S, 4, 27>(s, three, layer, b, out),
                    Tiles::Narrow => stem_row::<S, 2, 15>(s, three, layer, b, out),
                }
            }
        }
    }
}

#[inline(always)]
fn stem_row<S: Simd, const P: usize, const SPAN: usize>(
    s: S,
    rows: [&[f32]; 3],
    layer: &Stem,
    b: usize,
    out: &mut [Block],
) {
    let zero = s.splat(0.0);
    let weights = &layer.weights[b];
    let (tiles, _) = out.as_chunks_mut::<P>();
    // Sides are multiples of 32, so that no pixel is left over.
    for (i, cells) in tiles.iter_mut().enumerate() {
        let mut acc = [s.load(&layer.bias[b]); P];
        for (y, row) in rows.iter().enumerate() {
            let seen: &[f32; SPAN] = row[6 * P * i..].first_chunk().expect("what P pixels see");
            for x in 0..9 {
                let w = s.load(&weights[9 * y + x]);
                for p in 0..P {
                    acc[p] = s.fma(s.splat(seen[6 * p + x]), w, acc[p]);
                }
            }
        }
        for p in 0..P {
            s.store(s.max(acc[p], zero), &mut cells[p]);
        }
    }
}
