//! CenterFace (arXiv 1911.03599): MobileNetV2 and a feature pyramid of 24 channels, down to a quarter of the input.

use super::first::First;
use super::layers::{Chain, Dense, Enlarge, Scratch, Single, Then};
use super::map::Map;
use super::onnx::{Conv, convolutions};
use super::simd::Isa;
use super::weights::{Colours, Depthwise, Pointwise, Stem, Taps};

/// MobileNetV2's stages after the first block: expansion, channels, blocks, stride of the first.
const STAGES: [(usize, usize, usize, usize); 6] =
    [(6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];
/// Where the pyramid takes a stage's result (24 channels at a quarter, 32 at an eighth, 96 at a sixteenth).
const TAPS: [usize; 3] = [0, 1, 3];
const PYRAMID: usize = 24;

struct Inverted {
    expand: Option<Pointwise>,
    depthwise: Depthwise,
    project: Pointwise,
    stride: usize,
    residual: bool,
    /// Its place among [`TAPS`].
    tap: Option<usize>,
}

pub(crate) struct CenterFace {
    stem: Stem,
    blocks: Vec<Inverted>,
    top: Pointwise,
    /// From coarse to fine: the enlargement and the lateral connection.
    pyramid: Vec<(Taps, Pointwise)>,
    smooth: Taps,
    head: Pointwise,
}

/// The maps of one input size.
pub(crate) struct Buffers {
    current: Map,
    next: Map,
    taps: [Map; 3],
    /// One for each thread.
    scratch: Vec<Scratch>,
    /// Score, logarithms of height and width, offsets down and right: five channels at a quarter of the input.
    pub(crate) output: Map,
}

impl Buffers {
    pub fn new(threads: usize) -> Buffers {
        Buffers {
            current: Map::default(),
            next: Map::default(),
            taps: Default::default(),
            scratch: super::scratch(threads),
            output: Map::default(),
        }
    }
}

impl CenterFace {
    pub fn load(model: &[u8]) -> Result<CenterFace, String> {
        let convs = convolutions(model)?;
        let mut left = convs.iter();
        let mut next = || left.next().ok_or("the model has too few layers");
        let stem = Stem::from(next()?, 32, Colours::RedFirst)?;
        let mut blocks = vec![Inverted {
            expand: None,
            depthwise: Depthwise::from(next()?, 32)?,
            project: Pointwise::from(next()?, 32, 16)?,
            stride: 1,
            residual: false,
            tap: None,
        }];
        let mut inputs = 16;
        for (stage, (expansion, channels, repeats, stride)) in STAGES.into_iter().enumerate() {
            for repeat in 0..repeats {
                let middle = expansion * inputs;
                blocks.push(Inverted {
                    expand: Some(Pointwise::from(next()?, inputs, middle)?),
                    depthwise: Depthwise::from(next()?, middle)?,
                    project: Pointwise::from(next()?, middle, channels)?,
                    stride: if repeat == 0 { stride } else { 1 },
                    residual: repeat > 0,
                    tap: TAPS.iter().position(|&tap| tap == stage && repeat == repeats - 1),
                });
                inputs = channels;
            }
        }
        let top = Pointwise::from(next()?, inputs, PYRAMID)?;
        let mut pyramid = Vec::new();
        for tap in TAPS.into_iter().rev() {
            let enlarge = Taps::transposed(next()?, PYRAMID, PYRAMID)?;
            pyramid.push((enlarge, Pointwise::from(next()?, STAGES[tap].1, PYRAMID)?));
        }
        let smooth = Taps::from(next()?, PYRAMID, PYRAMID)?;
        // The landmarks, which come last, are not needed.
        let heads: [&Conv; 3] = [next()?, next()?, next()?];
        let head = Pointwise::together(&heads, PYRAMID, 5)?;
        Ok(CenterFace { stem, blocks, top, pyramid, smooth, head })
    }

    /// Packed RGB, both sides multiples of 32.
    pub fn forward<'a>(&self, isa: Isa, rgb: &[u8], width: usize, b: &'a mut Buffers) -> &'a Map {
        let Buffers { current, next, taps, scratch, output } = b;
        First { rgb, width, layer: &self.stem }.compute(isa, current, scratch);
        for block in &self.blocks {
            let chain = Chain {
                input: current,
                expand: block.expand.as_ref().map(|layer| (layer, Then::Relu)),
                depthwise: (&block.depthwise, Then::Relu),
                stride: block.stride,
                project: Some(&block.project),
                residual: block.residual,
                pool: false,
            };
            chain.compute(isa, next, scratch);
            std::mem::swap(current, next);
            if let Some(tap) = block.tap {
                // Its lateral connection is all that the pyramid wants of it.
                let (_, lateral) = &self.pyramid[TAPS.len() - 1 - tap];
                let single = Single { input: current, layer: lateral, then: Then::Relu };
                single.compute(isa, &mut taps[tap], scratch);
            }
        }
        Single { input: current, layer: &self.top, then: Then::Relu }.compute(isa, next, scratch);
        let mut coarse: &Map = next;
        for ((enlarge, _), fine) in self.pyramid.iter().zip(taps.iter_mut().rev()) {
            Enlarge { input: coarse, layer: enlarge }.compute(isa, fine, scratch);
            coarse = fine;
        }
        Dense { input: coarse, layer: &self.smooth }.compute(isa, current, scratch);
        Single { input: current, layer: &self.head, then: Then::Keep }.compute(isa, output, scratch);
        super::sigmoid(output.numbers_mut(), 0);
        output
    }
}
