//! Weights as the layers read them: outputs in blocks of 16, the numbers in the order in which they are needed.

use super::map::Block;
use super::onnx::Conv;
use super::simd::LANES;

/// A 1x1 convolution.
pub(super) struct Pointwise {
    /// Input channels.
    pub(super) inputs: usize,
    /// For each block of outputs and each block of inputs: 16 inputs, each with its weights to 16 outputs.
    pub(super) weights: Vec<[Block; LANES]>,
    /// Blocks of outputs.
    pub(super) bias: Vec<Block>,
}

/// A 3x3 convolution of each channel by itself.
pub(super) struct Depthwise {
    /// For each block the nine taps.
    pub(super) taps: Vec<[Block; 9]>,
    pub(super) bias: Vec<Block>,
}

/// Any 3x3 convolution: nine 1x1 ones. Also the four of a transposed 2x2 one.
pub(super) struct Taps {
    pub(super) taps: Vec<Pointwise>,
}

/// The first layer, 3x3 with stride 2, on bytes.
pub(super) struct Stem {
    /// For each block of outputs: 27 inputs (row, column, colour as they lie in the picture), each with 16 weights.
    pub(super) weights: Vec<[Block; 27]>,
    pub(super) bias: Vec<Block>,
}

fn wrong(conv: &Conv) -> String {
    format!("{} has shape {:?}", conv.name, conv.shape)
}

fn in_blocks(bias: &[f32]) -> Vec<Block> {
    let mut blocks = vec![[0.0; LANES]; bias.len().div_ceil(LANES)];
    blocks.as_flattened_mut()[..bias.len()].copy_from_slice(bias);
    blocks
}

impl Pointwise {
    fn new(inputs: usize, bias: &[f32], weight: impl Fn(usize, usize) -> f32) -> Pointwise {
        let bias_blocks = in_blocks(bias);
        let in_blocks = inputs.div_ceil(LANES);
        let mut weights = vec![[[0.0; LANES]; LANES]; bias_blocks.len() * in_blocks];
        for o in 0..bias.len() {
            for i in 0..inputs {
                weights[o / LANES * in_blocks + i / LANES][i % LANES][o % LANES] = weight(o, i);
            }
        }
        Pointwise { inputs, weights, bias: bias_blocks }
    }

    pub fn from(conv: &Conv, inputs: usize, outputs: usize) -> Result<Pointwise, String> {
        Self::together(&[conv], inputs, outputs)
    }

    /// Several convolutions of the same input as one.
    pub fn together(convs: &[&Conv], inputs: usize, outputs: usize) -> Result<Pointwise, String> {
        if let Some(conv) = convs.iter().find(|conv| conv.shape[1..] != [inputs, 1, 1]) {
            return Err(wrong(conv));
        }
        let bias: Vec<f32> = convs.iter().flat_map(|conv| conv.bias.iter().copied()).collect();
        let weights: Vec<f32> = convs.iter().flat_map(|conv| conv.weights.iter().copied()).collect();
        if bias.len() != outputs {
            return Err(format!("{} outputs instead of {outputs}", bias.len()));
        }
        Ok(Self::new(inputs, &bias, |o, i| weights[o * inputs + i]))
    }

    pub fn blocks(&self) -> usize {
        self.bias.len()
    }
}

impl Depthwise {
    pub fn from(conv: &Conv, channels: usize) -> Result<Depthwise, String> {
        Self::together(&[conv], channels)
    }

    pub fn together(convs: &[&Conv], channels: usize) -> Result<Depthwise, String> {
        if let Some(conv) = convs.iter().find(|conv| conv.shape[1..] != [1, 3, 3]) {
            return Err(wrong(conv));
        }
        let bias: Vec<f32> = convs.iter().flat_map(|conv| conv.bias.iter().copied()).collect();
        let weights: Vec<f32> = convs.iter().flat_map(|conv| conv.weights.iter().copied()).collect();
        if bias.len() != channels {
            return Err(format!("{} channels instead of {channels}", bias.len()));
        }
        let bias = in_blocks(&bias);
        let mut taps = vec![[[0.0; LANES]; 9]; bias.len()];
        for (i, tap) in weights.iter().enumerate() {
            taps[i / 9 / LANES][i % 9][i / 9 % LANES] = *tap;
        }
        Ok(Depthwise { taps, bias })
    }
}

impl Taps {
    /// A 3x3 convolution from 24 to 24 channels or the like.
    pub fn from(conv: &Conv, inputs: usize, outputs: usize) -> Result<Taps, String> {
        if conv.shape != [outputs, inputs, 3, 3] {
            return Err(wrong(conv));
        }
        let none = vec![0.0; outputs];
        let tap = |t: usize| {
            let bias = if t == 0 { &conv.bias } else { &none };
            Pointwise::new(inputs, bias, |o, i| conv.weights[(o * inputs + i) * 9 + t])
        };
        Ok(Taps { taps: (0..9).map(tap).collect() })
    }

    /// A transposed 2x2 convolution with stride 2: each input pixel makes four of its own.
    pub fn transposed(conv: &Conv, inputs: usize, outputs: usize) -> Result<Taps, String> {
        if conv.shape != [inputs, outputs, 2, 2] {
            return Err(wrong(conv));
        }
        let tap =
            |t: usize| Pointwise::new(inputs, &conv.bias, |o, i| conv.weights[(i * outputs + o) * 4 + t]);
        Ok(Taps { taps: (0..4).map(tap).collect() })
    }
}

/// In which order a model wants the colours of a pixel.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Colours {
    RedFirst,
    BlueFirst,
}

impl Stem {
    pub fn from(conv: &Conv, outputs: usize, colours: Colours) -> Result<Stem, String> {
        if conv.shape != [outputs, 3, 3, 3] {
            return Err(wrong(conv));
        }
        let bias = in_blocks(&conv.bias);
        let mut weights = vec![[[0.0; LANES]; 27]; bias.len()];
        for o in 0..outputs {
            for colour in 0..3 {
                let channel = if colours == Colours::BlueFirst { 2 - colour } else { colour };
                for t in 0..9 {
                    weights[o / LANES][3 * t + colour][o % LANES] = conv.weights[(o * 3 + channel) * 9 + t];
                }
            }
        }
        Ok(Stem { weights, bias })
    }
}
