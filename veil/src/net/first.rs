//! The first layer of both networks, which reads bytes.

#![allow(clippy::needless_range_loop, reason = "loops over registers: an index says which")]

use super::layers::{Scratch, in_bands, room};
use super::map::{Band, Block, Map};
use super::simd::{Isa, Job, Simd, Tiles};
use super::weights::Stem;

/// Bytes of packed RGB to the first map, with ReLU.
#[derive(Clone, Copy)]
pub(super) struct First<'a> {
    pub rgb: &'a [u8],
    pub width: usize,
    pub layer: &'a Stem,
}

impl<'a> First<'a> {
    pub fn compute(self, isa: Isa, output: &'a mut Map, scratch: &'a mut [Scratch]) {
        let height = self.rgb.len() / (3 * self.width);
        output.shape(height / 2, self.width / 2, self.layer.bias.len());
        in_bands(isa, output, 1, scratch, |out, scratch| FirstBand { first: self, out, scratch });
    }
}

struct FirstBand<'a> {
    first: First<'a>,
    out: Band<'a>,
    scratch: &'a mut Scratch,
}

impl Job for FirstBand<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let FirstBand { first: First { rgb, width, layer }, mut out, scratch } = self;
        let bytes = 3 * width;
        // Three rows, with a pixel of border on the left (with stride 2 and even sides the right one is not looked at).
        let padded = bytes + 3;
        let rows = room(&mut scratch.bytes, 3 * padded);
        rows.fill(0.0);
        let slot = |row: usize| row % 3 * padded;
        let mut filled = (2 * out.first).saturating_sub(1);
        for y in out.first..out.first + out.rows {
            // Rows 2y - 1, 2y and 2y + 1; the first of them is the last one of before.
            while filled < 2 * y + 2 {
                let to = &mut rows[slot(filled) + 3..][..bytes];
                for (to, from) in to.iter_mut().zip(&rgb[filled * bytes..][..bytes]) {
                    *to = f32::from(*from);
                }
                filled += 1;
            }
            let three = [2 * y + 2, 2 * y, 2 * y + 1].map(|row| &rows[slot(row)..][..padded]);
            for b in 0..layer.bias.len() {
                let out = out.row(b, y);
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
