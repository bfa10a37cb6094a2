//! YuNet 2023mar: depthwise-separable convolutions, a pyramid of 64 channels and a head at an eighth, a sixteenth and a
//! thirty-second of the input.

use super::first::First;
use super::layers::{Chain, Pool, Scratch, Spread, Then};
use super::map::Map;
use super::onnx::{Conv, convolutions};
use super::simd::{Isa, run};
use super::weights::{Colours, Depthwise, Pointwise, Stem};

/// Channels before and after each of the body's 14 pairs of convolutions.
const BODY: [(usize, usize); 14] = [
    (16, 16),
    (16, 16),
    (16, 32),
    (32, 32),
    (32, 64),
    (64, 64),
    (64, 64),
    (64, 64),
    (64, 64),
    (64, 64),
    (64, 64),
    (64, 64),
    (64, 64),
    (64, 64),
];
const CHANNELS: usize = 64;
/// Class, box (4), objectness.
const HEAD: usize = 6;

struct Pair {
    pointwise: Pointwise,
    depthwise: Depthwise,
}

pub(crate) struct YuNet {
    stem: Stem,
    body: Vec<Pair>,
    heads: Vec<Pair>,
}

/// The maps of one input size.
pub(crate) struct Buffers {
    a: Map,
    b: Map,
    eighth: Map,
    sixteenth: Map,
    thirty_second: Map,
    /// One for each thread.
    scratch: Vec<Scratch>,
    /// Class, box (4) and objectness, at an eighth, a sixteenth and a thirty-second of the input.
    pub(crate) outputs: [Map; 3],
}

impl Buffers {
    pub fn new(threads: usize) -> Buffers {
        Buffers {
            a: Map::default(),
            b: Map::default(),
            eighth: Map::default(),
            sixteenth: Map::default(),
            thirty_second: Map::default(),
            scratch: super::scratch(threads),
            outputs: Default::default(),
        }
    }
}

impl YuNet {
    pub fn load(model: &[u8]) -> Result<YuNet, String> {
        let convs = convolutions(model)?;
        let conv = |i: usize| convs.get(i).ok_or("the model has too few layers");
        let stem = Stem::from(conv(0)?, 16, Colours::BlueFirst)?;
        let mut body = Vec::new();
        for (i, (inputs, outputs)) in BODY.into_iter().enumerate() {
            body.push(Pair {
                pointwise: Pointwise::from(conv(1 + 2 * i)?, inputs, outputs)?,
                depthwise: Depthwise::from(conv(2 + 2 * i)?, outputs)?,
            });
        }
        // Then come, each for the three levels, class, box, objectness and landmarks, which are not needed.
        let heads_at = 1 + 2 * BODY.len();
        let mut heads = Vec::new();
        for level in 0..3 {
            let at = |kind: usize, second: usize| conv(heads_at + 6 * kind + 2 * level + second);
            let pointwise: [&Conv; 3] = [at(0, 0)?, at(1, 0)?, at(2, 0)?];
            let depthwise: [&Conv; 3] = [at(0, 1)?, at(1, 1)?, at(2, 1)?];
            heads.push(Pair {
                pointwise: Pointwise::together(&pointwise, CHANNELS, HEAD)?,
                depthwise: Depthwise::together(&depthwise, HEAD)?,
            });
        }
        Ok(YuNet { stem, body, heads })
    }

    /// Packed RGB, both sides multiples of 32.
    pub fn forward<'a>(&self, isa: Isa, rgb: &[u8], width: usize, buffers: &'a mut Buffers) -> &'a [Map; 3] {
        let Buffers { a, b, eighth, sixteenth, thirty_second, scratch, outputs } = buffers;
        let pair = |i: usize, input: &Map, output: &mut Map, pool: bool, scratch: &mut [Scratch]| {
            chain(isa, &self.body[i], Then::Relu, input, output, pool, scratch);
        };
        let pool = |input: &Map, output: &mut Map| run(isa, Pool { input, output, blocks: CHANNELS / 16 });
        First { rgb, width, layer: &self.stem }.compute(isa, b, scratch);
        pair(0, b, a, true, scratch);
        pair(1, a, b, false, scratch);
        pair(2, b, a, false, scratch);
        pair(3, a, b, false, scratch);
        pair(4, b, a, true, scratch);
        pair(5, a, b, false, scratch);
        pair(6, b, eighth, false, scratch);
        pool(eighth, a);
        pair(7, a, b, false, scratch);
        pair(8, b, sixteenth, false, scratch);
        pool(sixteenth, a);
        pair(9, a, b, false, scratch);
        pair(10, b, a, false, scratch);
        pair(11, a, thirty_second, false, scratch);
        run(isa, Spread { input: thirty_second, onto: sixteenth });
        pair(12, sixteenth, a, false, scratch);
        run(isa, Spread { input: a, onto: eighth });
        pair(13, eighth, b, false, scratch);
        for ((head, input), output) in
            self.heads.iter().zip([&*b, &*a, &*thirty_second]).zip(outputs.iter_mut())
        {
            chain(isa, head, Then::Keep, input, output, false, scratch);
            super::sigmoid(output.numbers_mut(), 0);
            super::sigmoid(output.numbers_mut(), HEAD - 1);
        }
        outputs
    }
}

fn chain(
    isa: Isa,
    pair: &Pair,
    then: Then,
    input: &Map,
    output: &mut Map,
    pool: bool,
    scratch: &mut [Scratch],
) {
    let chain = Chain {
        input,
        expand: Some((&pair.pointwise, Then::Keep)),
        depthwise: (&pair.depthwise, then),
        stride: 1,
        project: None,
        residual: false,
        pool,
    };
    chain.compute(isa, output, scratch);
}
