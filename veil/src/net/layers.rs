//! The layers that the two known models are made of. Each is one pass over its input, row by row; what lies between
//! a block's convolutions never leaves a ring of three rows, so that it stays in the cache.

#![allow(clippy::needless_range_loop, reason = "loops over registers: an index says which")]

use super::map::{Band, BandFrom, Block, Map, Rows, RowsMut, Target};
use super::simd::{Isa, Job, LANES, Simd, Tiles, run};
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

/// Blocks of a map under which another thread costs more than it saves.
const WORTH_A_THREAD: usize = 2048;

/// Computes a map, in as many bands (of a multiple of `step` rows) as there are scratch buffers, each on a thread of its own.
pub(super) fn in_bands<'a, J: Job + Send>(
    isa: Isa,
    output: &'a mut Map,
    step: usize,
    scratch: &'a mut [Scratch],
    job: impl Fn(Band<'a>, &'a mut Scratch) -> J,
) {
    let worth = output.cells().len() / WORTH_A_THREAD;
    let n = scratch.len().min(output.height / step).min(worth);
    if n <= 1 {
        return run(isa, job(output.band(), &mut scratch[0]));
    }
    std::thread::scope(|scope| {
        let mut jobs =
            output.bands(n, step).into_iter().zip(scratch).map(|(band, scratch)| job(band, scratch));
        let own = jobs.next();
        for job in jobs {
            scope.spawn(move || run(isa, job));
        }
        if let Some(job) = own {
            run(isa, job);
        }
    });
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
fn store<S: Simd, T: Target, const P: usize, const B: usize>(
    s: S,
    acc: &[[S::Block; B]; P],
    then: Then,
    plus: Option<Rows<'_>>,
    out: &mut T,
    at: usize,
    first: usize,
) {
    let floor = s.splat(then.floor());
    for b in 0..B {
        let cells: &mut [Block; P] = out.cells(first + b, at);
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
fn tile<S: Simd, T: Target, const P: usize>(
    s: S,
    x: Rows<'_>,
    at: usize,
    layer: &Pointwise,
    then: Then,
    plus: Option<Rows<'_>>,
    out: &mut T,
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
fn pointwise<S: Simd, T: Target>(
    s: S,
    x: Rows<'_>,
    n: usize,
    layer: &Pointwise,
    then: Then,
    plus: Option<Rows<'_>>,
    out: &mut T,
) {
    macro_rules! tiles {
        ($p:literal) => {{
            let mut at = 0;
            while at + $p <= n {
                tile::<S, T, $p>(s, x, at, layer, then, plus, out);
                at += $p;
            }
            if at < n && n >= $p {
                tile::<S, T, $p>(s, x, n - $p, layer, then, plus, out);
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
        tile::<S, T, 1>(s, x, at, layer, then, plus, out);
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
#[derive(Clone, Copy)]
pub(super) struct Chain<'a> {
    pub input: &'a Map,
    pub expand: Option<(&'a Pointwise, Then)>,
    pub depthwise: (&'a Depthwise, Then),
    pub stride: usize,
    pub project: Option<&'a Pointwise>,
    pub residual: bool,
    pub pool: bool,
}

impl<'a> Chain<'a> {
    pub fn compute(self, isa: Isa, output: &'a mut Map, scratch: &'a mut [Scratch]) {
        let (h, w) = (self.input.height / self.stride, self.input.width / self.stride);
        let blocks = self.project.map_or(self.depthwise.0.bias.len(), Pointwise::blocks);
        let shrink = if self.pool { 2 } else { 1 };
        output.shape(h / shrink, w / shrink, blocks);
        in_bands(isa, output, 1, scratch, |out, scratch| ChainBand { chain: self, out, scratch });
    }
}

struct ChainBand<'a> {
    chain: Chain<'a>,
    out: Band<'a>,
    scratch: &'a mut Scratch,
}

impl Job for ChainBand<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ChainBand {
            chain: Chain { input, expand, depthwise: (middle, then), stride, project, residual, pool },
            mut out,
            scratch,
        } = self;
        let (h, w) = (input.height, input.width);
        let ow = w / stride;
        let blocks = middle.bias.len();
        // Three rows with borders, and a row of zeros above and below the picture.
        let padded = w + 2;
        let slot = blocks * padded;
        let ring = room(&mut scratch.ring, 4 * slot);
        ring.fill([0.0; LANES]);
        let line = room(&mut scratch.line, 2 * blocks * ow);
        let shrink = if pool { 2 } else { 1 };
        let rows = out.first * shrink..(out.first + out.rows) * shrink;
        let mut filled = (rows.start * stride).saturating_sub(1);
        for y in rows {
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
            for b in 0..blocks {
                let to =
                    if project.is_some() || pool { &mut line[half + b * ow..][..ow] } else { out.row(b, y) };
                let rows = [row(0, b), row(1, b), row(2, b)];
                depthwise(s, rows, stride, &middle.taps[b], &middle.bias[b], then, to);
            }
            if let Some(layer) = project {
                let plus = residual.then_some(Rows { data: &input.data, at: y * w, plane: input.plane() });
                let mut out = BandFrom { band: &mut out, y };
                pointwise(s, Rows { data: line, at: 0, plane: ow }, ow, layer, Then::Keep, plus, &mut out);
            }
            if pool && y % 2 == 1 {
                let (upper, lower) = line.split_at(blocks * ow);
                for b in 0..blocks {
                    larger_of_four(s, &upper[b * ow..][..ow], &lower[b * ow..][..ow], out.row(b, y / 2));
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
#[derive(Clone, Copy)]
pub(super) struct Single<'a> {
    pub input: &'a Map,
    pub layer: &'a Pointwise,
    pub then: Then,
}

impl<'a> Single<'a> {
    pub fn compute(self, isa: Isa, output: &'a mut Map, scratch: &'a mut [Scratch]) {
        output.shape(self.input.height, self.input.width, self.layer.blocks());
        in_bands(isa, output, 1, scratch, |out, _| SingleBand { single: self, out });
    }
}

struct SingleBand<'a> {
    single: Single<'a>,
    out: Band<'a>,
}

impl Job for SingleBand<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SingleBand { single: Single { input, layer, then }, mut out } = self;
        let (y, n) = (out.first, out.rows * out.width);
        let from = Rows { data: &input.data, at: y * out.width, plane: input.plane() };
        pointwise(s, from, n, layer, then, None, &mut BandFrom { band: &mut out, y });
    }
}

/// Adds the positive part of a transposed convolution to a map of twice the size.
#[derive(Clone, Copy)]
pub(super) struct Enlarge<'a> {
    pub input: &'a Map,
    pub layer: &'a Taps,
}

impl<'a> Enlarge<'a> {
    pub fn compute(self, isa: Isa, onto: &'a mut Map, scratch: &'a mut [Scratch]) {
        in_bands(isa, onto, 2, scratch, |onto, scratch| EnlargeBand { enlarge: self, onto, scratch });
    }
}

struct EnlargeBand<'a> {
    enlarge: Enlarge<'a>,
    onto: Band<'a>,
    scratch: &'a mut Scratch,
}

impl Job for EnlargeBand<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let EnlargeBand { enlarge: Enlarge { input, layer }, mut onto, scratch } = self;
        let (h, w) = (input.height, input.width);
        let blocks = layer.taps[0].blocks();
        let line = room(&mut scratch.line, blocks * w);
        for y in onto.first / 2..(onto.first + onto.rows) / 2 {
            for (t, tap) in layer.taps.iter().enumerate() {
                let from = Rows { data: &input.data, at: y * w, plane: h * w };
                let mut to = RowsMut { data: line, at: 0, plane: w };
                pointwise(s, from, w, tap, Then::Relu, None, &mut to);
                for b in 0..blocks {
                    let (pairs, _) = onto.row(b, 2 * y + t / 2).as_chunks_mut::<2>();
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
#[derive(Clone, Copy)]
pub(super) struct Dense<'a> {
    pub input: &'a Map,
    pub layer: &'a Taps,
}

impl<'a> Dense<'a> {
    pub fn compute(self, isa: Isa, output: &'a mut Map, scratch: &'a mut [Scratch]) {
        output.shape(self.input.height, self.input.width, self.layer.taps[0].blocks());
        in_bands(isa, output, 1, scratch, |out, scratch| DenseBand { dense: self, out, scratch });
    }
}

struct DenseBand<'a> {
    dense: Dense<'a>,
    out: Band<'a>,
    scratch: &'a mut Scratch,
}

impl Job for DenseBand<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let DenseBand { dense: Dense { input, layer }, mut out, scratch } = self;
        let (h, w) = (input.height, input.width);
        let first = &layer.taps[0];
        let (inputs, blocks) = (first.inputs.div_ceil(LANES), first.blocks());
        let padded = w + 2;
        let slot = inputs * padded;
        let ring = room(&mut scratch.ring, 4 * slot);
        ring.fill([0.0; LANES]);
        let rows = out.first..out.first + out.rows;
        let mut filled = rows.start.saturating_sub(1);
        for y in rows {
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
            let mut out = BandFrom { band: &mut out, y };
            macro_rules! tiles {
                ($p:literal, $b:literal) => {{
                    let mut x = 0;
                    while x < w {
                        let from = if w >= $p { x.min(w - $p) } else { x };
                        if w >= $p {
                            dense_tile::<S, _, $p, $b>(s, ring, rows, padded, from, layer, &mut out);
                            x = from + $p;
                        } else {
                            dense_tile::<S, _, 1, $b>(s, ring, rows, padded, from, layer, &mut out);
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
fn dense_tile<S: Simd, T: Target, const P: usize, const B: usize>(
    s: S,
    ring: &[Block],
    rows: [usize; 3],
    padded: usize,
    at: usize,
    layer: &Taps,
    out: &mut T,
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
