//! What flows through a network: blocks of 16 channels, each a plane of its own (NCHWc with c = 16, the layout of
//! onnxruntime's convolutions). Channels are rounded up to whole blocks; what is added holds zeros or is never read.

use super::simd::LANES;

/// Sixteen channels of one pixel.
pub(super) type Block = [f32; LANES];

#[derive(Debug, Default)]
pub(crate) struct Map {
    pub height: usize,
    pub width: usize,
    /// Blocks of channels.
    blocks: usize,
    /// At least as long as the shape needs: buffers serve several layers, and cutting them would mean filling them anew.
    pub(super) data: Vec<Block>,
}

impl Map {
    /// Takes this shape; what it holds then is undefined. Memory is only asked for when it grows.
    pub(super) fn shape(&mut self, height: usize, width: usize, blocks: usize) {
        (self.height, self.width, self.blocks) = (height, width, blocks);
        let need = height * width * blocks;
        if self.data.len() < need {
            // A `resize` beyond the capacity would double it.
            self.data.reserve_exact(need - self.data.len());
            self.data.resize(need, [0.0; LANES]);
        }
    }

    /// Pixels of one plane.
    pub(super) fn plane(&self) -> usize {
        self.height * self.width
    }

    /// All blocks of the shape, plane after plane.
    pub(super) fn cells(&self) -> &[Block] {
        &self.data[..self.blocks * self.plane()]
    }

    pub(super) fn cells_mut(&mut self) -> &mut [Block] {
        let n = self.blocks * self.plane();
        &mut self.data[..n]
    }

    /// The numbers of the first 16 channels, those of one pixel together.
    pub(crate) fn numbers(&self) -> &[f32] {
        self.data[..self.plane()].as_flattened()
    }

    pub(super) fn numbers_mut(&mut self) -> &mut [f32] {
        let plane = self.plane();
        self.data[..plane].as_flattened_mut()
    }
}

/// Rows of several planes: where pixel 0 of a row lies, and how far the planes are apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub data: &'a [Block],
    pub at: usize,
    pub plane: usize,
}

pub(super) struct RowsMut<'a> {
    pub data: &'a mut [Block],
    pub at: usize,
    pub plane: usize,
}
