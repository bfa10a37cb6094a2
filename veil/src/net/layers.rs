//! The layers that the two known models are made of. Each is one pass over its input, row by row; what lies between
//! a block's convolutions never leaves a ring of three rows, so that it stays in the cache.

#![allow(clippy::needless_range_loop, reason = "loops over registers: an index says which")]

use super::map::{Block, Map, Rows, RowsMut};
use super::simd::{Job, LANES, Simd, Tiles};
use super::weights::{Depthwise, Pointwise, Taps};

/// What is done to a sum before it is stored.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Then {
    Keep,
    Relu,
}

impl Then {
    fn floor(self) -> f32 {
        if self == Then::Relu { 0.0 } else { f32::NEG_INFINITY }
    }
}

/// Rows between a block's convolutions, kept for the next one.
#[derive(Default)]
pub(super) struct Scratch {
    ring: Vec<Block>,
    line: Vec<Block>,
    pub(super) bytes: Vec<f32>,
}

pub(super) fn room<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.reserve_exact(len - buffer.len());
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

// ---------------------------------------------------------------------------------------------- 1x1

/// Sums for `P` pixels and `B` blocks of outputs.
#[inline(always)]
fn sums<S: Simd, const P: usize, const B: usize>(
    s: S,
    acc: &mut [[S::Block; B]; P],
    x: Rows<'_>,
    layer: &Pointwise,
    first: usize,
) {
    let in_blocks = layer.inputs.div_ceil(LANES);
    for k in 0..in_blocks {
        let from = x.at + k * x.plane;
        let pixels: &[Block; P] = x.data[from..from + P].first_chunk().expect("P blocks");
        let mut w = [&layer.weights[0]; B];
        for b in 0..B {
            w[b] = &layer.weights[(first + b) * in_blocks + k];
        }
        let used = (layer.inputs - k * LANES).min(LANES);
        for i in 0..used {
            step(s, acc, pixels, &w, i);
        }
    }
}

#[inline(always)]
fn step<S: Simd, const P: usize, const B: usize>(
    s: S,
    acc: &mut [[S::Block; B]; P],
    pixels: &[Block; P],
    w: &[&[Block; LANES]; B],
    i: usize,
) {
    let mut weights = [s.splat(0.0); B];
    for b in 0..B {
        weights[b] = s.load(&w[b][i]);
    }
    for p in 0..P {
        let v = s.splat(pixels[p][i]);
        for b in 0..B {
            acc[p][b] = s.fma(v, weights[b], acc[p][b]);
        }
    }
}

#[inline(always)]
fn start<S: Simd, const P: usize, const B: usize>(s: S, bias: &[Block]) -> [[S::Block; B]; P] {
    let mut acc = [[s.splat(0.0); B]; P];
    for b in 0..B {
        let v = s.load(&bias[b]);
        for pixel in &mut acc {
            pixel[b] = v;
        }
    }
    acc
}

#[inline(always)]
fn store<S: Simd, const P: usize, const B: usize>(
    s: S,
    acc: &[[S::Block; B]; P],
    then: Then,
    plus: Option<Rows<'_>>,
    out: &mut RowsMut<'_>,
    at: usize,
    first: usize,
) {
    let floor = s.splat(then.floor());
    for b in 0..B {
        let to = out.at + at + (first + b) * out.plane;
        let cells: &mut [Block; P] = out.data[to..to + P].first_chunk_mut().expect("P blocks");
        if let Some(plus) = plus {
            let from = plus.at + at + (first + b) * plus.plane;
            let more: &[Block; P] = plus.data[from..from + P].first_chunk().expect("P blocks");
            for p in 0..P {
                s.store(s.add(s.max(acc[p][b], floor), s.load(&more[p])), &mut cells[p]);
            }
        } else {
            for p in 0..P {
                s.store(s.max(acc[p][b], floor), &mut cells[p]);
            }
        }
    }
}

/// `P` pixels from `at` on, all outputs.
#[inline(always)]
fn tile<S: Simd, const P: usize>(
    s: S,
    x: Rows<'_>,
    at: usize,
    layer: &Pointwise,
    then: Then,
    plus: Option<Rows<'_>>,
    out: &mut RowsMut<'_>,
) {
    macro_rules! blocks {
        ($n:literal, $first:expr) => {{
            let mut acc = start::<S, P, $n>(s, &layer.bias[$first..]);
            sums(s, &mut acc, Rows { at: x.at + at, ..x }, layer, $first);
            store(s, &acc, then, plus, out, at, $first);
        }};
    }
    let blocks = layer.blocks();
    let mut first = 0;
    if P > 1 && matches!(S::TILES, Tiles::Wide) {
        while first + 3 <= blocks && (blocks - first) != 4 {
            blocks!(3, first);
            first += 3;
        }
        while first + 2 <= blocks {
            blocks!(2, first);
            first += 2;
        }
    }
    while first < blocks {
        blocks!(1, first);
        first += 1;
    }
}

/// A 1x1 convolution of `n` pixels that lie side by side. The last tile may do some pixels again.
#[inline(always)]
fn pointwise<S: Simd>(
    s: S,
    x: Rows<'_>,
    n: usize,
    layer: &Pointwise,
    then: Then,
    plus: Option<Rows<'_>>,
    out: &mut RowsMut<'_>,
) {
    macro_rules! tiles {
        ($p:literal) => {{
            let mut at = 0;
            while at + $p <= n {
                tile::<S, $p>(s, x, at, layer, then, plus, out);
                at += $p;
            }
            if at < n && n >= $p {
                tile::<S, $p>(s, x, n - $p, layer, then, plus, out);
                at = n;
            }
            at
        }};
    }
    let done = match S::TILES {
        Tiles::Wide => tiles!(8),
        Tiles::Middle => tiles!(6),
        Tiles::Narrow => tiles!(3),
    };
    for at in done..n {
        tile::<S, 1>(s, x, at, layer, then, plus, out);
    }
}

// ---------------------------------------------------------------------------------------------- 3x3 by channel

/// One row of one block. The rows have a pixel of border on each side.
#[inline(always)]
fn depthwise<S: Simd>(
    s: S,
    rows: [&[Block]; 3],
    stride: usize,
    taps: &[Block; 9],
    bias: &Block,
    then: Then,
    out: &mut [Block],
) {
    // As many pixels at a time as it takes to hide the latency of a sum; they see STRIDE * (Q - 1) + 3 of a row.
    let wide = matches!(S::TILES, Tiles::Wide) && out.len() >= 8;
    match (stride, wide, out.len() >= 4) {
        (1, true, _) => depthwise_row::<S, 1, 8, 10>(s, rows, taps, bias, then, out),
        (1, false, true) => depthwise_row::<S, 1, 4, 6>(s, rows, taps, bias, then, out),
        (1, false, false) => depthwise_row::<S, 1, 1, 3>(s, rows, taps, bias, then, out),
        (_, true, _) => depthwise_row::<S, 2, 8, 17>(s, rows, taps, bias, then, out),
        (_, false, true) => depthwise_row::<S, 2, 4, 9>(s, rows, taps, bias, then, out),
        (_, false, false) => depthwise_row::<S, 2, 1, 3>(s, rows, taps, bias, then, out),
    }
}

#[inline(always)]
fn depthwise_row<S: Simd, const STRIDE: usize, const Q: usize, const SPAN: usize>(
    s: S,
    rows: [&[Block]; 3],
    taps: &[Block; 9],
    bias: &Block,
    then: Then,
    out: &mut [Block],
) {
    let floor = s.splat(then.floor());
    let n = out.len();
    let mut at = 0;
    while at < n {
        // The last ones may be done again.
        let from = at.min(n - Q);
        let mut acc = [s.load(bias); Q];
        for (y, row) in rows.iter().enumerate() {
            let seen: &[Block; SPAN] = row[from * STRIDE..].first_chunk().expect("what Q pixels see");
            for x in 0..3 {
                let w = s.load(&taps[3 * y + x]);
                for q in 0..Q {
                    acc[q] = s.fma(s.load(&seen[q * STRIDE + x]), w, acc[q]);
                }
            }
        }
        let cells: &mut [Block; Q] = out[from..].first_chunk_mut().expect("Q pixels");
        for q in 0..Q {
            s.store(s.max(acc[q], floor), &mut cells[q]);
        }
        at = from + Q;
    }
}

// ---------------------------------------------------------------------------------------------- blocks

/// [1x1 ->] 3x3 by channel [-> 1x1] [+ input] [-> 2x2 maximum], row by row.
pub(super) struct Chain<'a> {
    pub input: &'a Map,
    pub output: &'a mut Map,
    pub expand: Option<(&'a Pointwise, Then)>,
    pub depthwise: (&'a Depthwise, Then),
    pub stride: usize,
    pub project: Option<&'a Pointwise>,
    pub residual: bool,
    pub pool: bool,
    pub scratch: &'a mut Scratch,
}

impl Job for Chain<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Chain {
            input,
            output,
            expand,
            depthwise: (middle, then),
            stride,
            project,
            residual,
            pool,
            scratch,
        } = self;
        let (h, w) = (input.height, input.width);
        let (oh, ow) = (h / stride, w / stride);
        let blocks = middle.bias.len();
        if pool {
            output.shape(oh / 2, ow / 2, blocks);
        } else {
            output.shape(oh, ow, project.map_or(blocks, Pointwise::blocks));
        }
        // Three rows with borders, and a row of zeros above and below the picture.
        let padded = w + 2;
        let slot = blocks * padded;
        let ring = room(&mut scratch.ring, 4 * slot);
        ring.fill([0.0; LANES]);
        let line = room(&mut scratch.line, 2 * blocks * ow);
        let mut filled = 0;
        for y in 0..oh {
            while filled < h && filled <= y * stride + 1 {
                let at = filled % 3 * slot;
                let from = Rows { data: &input.data, at: filled * w, plane: input.plane() };
                if let Some((layer, then)) = expand {
                    let mut out = RowsMut { data: ring, at: at + 1, plane: padded };
                    pointwise(s, from, w, layer, then, None, &mut out);
                } else {
                    for b in 0..blocks {
                        let row = &from.data[from.at + b * from.plane..][..w];
                        ring[at + b * padded + 1..][..w].copy_from_slice(row);
                    }
                }
                filled += 1;
            }
            let row = |below: usize, b: usize| {
                let y = (y * stride + below).checked_sub(1).filter(|&y| y < h);
                &ring[y.map_or(3, |y| y % 3) * slot + b * padded..][..padded]
            };
            let half = if pool { y % 2 * blocks * ow } else { 0 };
            let plane = output.height * output.width;
            for b in 0..blocks {
                let out = if project.is_some() || pool {
                    &mut line[half + b * ow..][..ow]
                } else {
                    &mut output.data[b * plane + y * ow..][..ow]
                };
                let rows = [row(0, b), row(1, b), row(2, b)];
                depthwise(s, rows, stride, &middle.taps[b], &middle.bias[b], then, out);
            }
            if let Some(layer) = project {
                let plus = residual.then_some(Rows { data: &input.data, at: y * w, plane: input.plane() });
                let mut out = RowsMut { data: &mut output.data, at: y * ow, plane };
                pointwise(s, Rows { data: line, at: 0, plane: ow }, ow, layer, Then::Keep, plus, &mut out);
            }
            if pool && y % 2 == 1 {
                let (upper, lower) = line.split_at(blocks * ow);
                for b in 0..blocks {
                    let out = &mut output.data[b * plane + y / 2 * (ow / 2)..][..ow / 2];
                    larger_of_four(s, &upper[b * ow..][..ow], &lower[b * ow..][..ow], out);
                }
            }
        }
    }
}

#[inline(always)]
fn larger_of_four<S: Simd>(s: S, upper: &[Block], lower: &[Block], out: &mut [Block]) {
    let (upper, _) = upper.as_chunks::<2>();
    let (lower, _) = lower.as_chunks::<2>();
    for ((u, l), out) in upper.iter().zip(lower).zip(out) {
        let above = s.max(s.load(&u[0]), s.load(&u[1]));
        let below = s.max(s.load(&l[0]), s.load(&l[1]));
        s.store(s.max(above, below), out);
    }
}

/// 2x2 maximum.
pub(super) struct Pool<'a> {
    pub input: &'a Map,
    pub output: &'a mut Map,
    pub blocks: usize,
}

impl Job for Pool<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (h, w) = (self.input.height, self.input.width);
        self.output.shape(h / 2, w / 2, self.blocks);
        let rows = self.input.cells().chunks_exact(2 * w);
        for (pair, out) in rows.zip(self.output.cells_mut().chunks_exact_mut(w / 2)) {
            let (upper, lower) = pair.split_at(w);
            larger_of_four(s, upper, lower, out);
        }
    }
}

/// A 1x1 convolution by itself.
pub(super) struct Single<'a> {
    pub input: &'a Map,
    pub output: &'a mut Map,
    pub layer: &'a Pointwise,
    pub then: Then,
}

impl Job for Single<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Single { input, output, layer, then } = self;
        output.shape(input.height, input.width, layer.blocks());
        let n = input.plane();
        let mut out = RowsMut { data: &mut output.data, at: 0, plane: n };
        pointwise(s, Rows { data: &input.data, at: 0, plane: n }, n, layer, then, None, &mut out);
    }
}

/// Adds the positive part of a transposed convolution to a map of twice the size.
pub(super) struct Enlarge<'a> {
    pub input: &'a Map,
    pub onto: &'a mut Map,
    pub layer: &'a Taps,
    pub scratch: &'a mut Scratch,
}

impl Job for Enlarge<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Enlarge { input, onto, layer, scratch } = self;
        let (h, w) = (input.height, input.width);
        let blocks = layer.taps[0].blocks();
        let line = room(&mut scratch.line, blocks * w);
        for y in 0..h {
            for (t, tap) in layer.taps.iter().enumerate() {
                let from = Rows { data: &input.data, at: y * w, plane: h * w };
                let mut to = RowsMut { data: line, at: 0, plane: w };
                pointwise(s, from, w, tap, Then::Relu, None, &mut to);
                for b in 0..blocks {
                    let row = &mut onto.data[(b * 2 * h + 2 * y + t / 2) * 2 * w..][..2 * w];
                    let (pairs, _) = row.as_chunks_mut::<2>();
                    for (pair, add) in pairs.iter_mut().zip(&line[b * w..][..w]) {
                        let cell = &mut pair[t % 2];
                        s.store(s.add(s.load(cell), s.load(add)), cell);
                    }
                }
            }
        }
    }
}

/// Adds a map to one of twice the size, each pixel to four.
pub(super) struct Spread<'a> {
    pub input: &'a Map,
    pub onto: &'a mut Map,
}

impl Job for Spread<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let w = self.input.width;
        for (row, pair) in
            self.input.cells().chunks_exact(w).zip(self.onto.cells_mut().chunks_exact_mut(4 * w))
        {
            for half in pair.chunks_exact_mut(2 * w) {
                let (cells, _) = half.as_chunks_mut::<2>();
                for (add, [left, right]) in row.iter().zip(cells) {
                    let add = s.load(add);
                    s.store(s.add(s.load(left), add), left);
                    s.store(s.add(s.load(right), add), right);
                }
            }
        }
    }
}

/// A 3x3 convolution of all channels, then ReLU.
pub(super) struct Dense<'a> {
    pub input: &'a Map,
    pub output: &'a mut Map,
    pub layer: &'a Taps,
    pub scratch: &'a mut Scratch,
}

impl Job for Dense<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Dense { input, output, layer, scratch } = self;
        let (h, w) = (input.height, input.width);
        let first = &layer.taps[0];
        let (inputs, blocks) = (first.inputs.div_ceil(LANES), first.blocks());
        output.shape(h, w, blocks);
        let padded = w + 2;
        let slot = inputs * padded;
        let ring = room(&mut scratch.ring, 4 * slot);
        ring.fill([0.0; LANES]);
        let mut filled = 0;
        for y in 0..h {
            while filled < h && filled <= y + 1 {
                for b in 0..inputs {
                    let row = &input.data[(b * h + filled) * w..][..w];
                    ring[filled % 3 * slot + b * padded + 1..][..w].copy_from_slice(row);
                }
                filled += 1;
            }
            let at = |below: usize| {
                let y = (y + below).checked_sub(1).filter(|&y| y < h);
                y.map_or(3, |y| y % 3) * slot
            };
            let rows = [at(0), at(1), at(2)];
            let mut out = RowsMut { data: &mut output.data, at: y * w, plane: h * w };
            macro_rules! tiles {
                ($p:literal, $b:literal) => {{
                    let mut x = 0;
                    while x < w {
                        let from = if w >= $p { x.min(w - $p) } else { x };
                        if w >= $p {
                            dense_tile::<S, $p, $b>(s, ring, rows, padded, from, layer, &mut out);
                            x = from + $p;
                        } else {
                            dense_tile::<S, 1, $b>(s, ring, rows, padded, from, layer, &mut out);
                            x += 1;
                        }
                    }
                }};
            }
            match S::TILES {
                Tiles::Wide if blocks.is_multiple_of(2) => tiles!(8, 2),
                Tiles::Wide => tiles!(8, 1),
                Tiles::Middle => tiles!(6, 1),
                Tiles::Narrow => tiles!(3, 1),
            }
        }
    }
}

#[inline(always)]
fn dense_tile<S: Simd, const P: usize, const B: usize>(
    s: S,
    ring: &[Block],
    rows: [usize; 3],
    padded: usize,
    at: usize,
    layer: &Taps,
    out: &mut RowsMut<'_>,
) {
    let mut first = 0;
    while first + B <= layer.taps[0].blocks() {
        let mut acc = start::<S, P, B>(s, &layer.taps[0].bias[first..]);
        for (t, tap) in layer.taps.iter().enumerate() {
            let x = Rows { data: ring, at: rows[t / 3] + at + t % 3, plane: padded };
            sums(s, &mut acc, x, tap, first);
        }
        store(s, &acc, Then::Relu, None, out, at, first);
        first += B;
    }
}
