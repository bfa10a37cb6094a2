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

/// Where the results of a 1x1 convolution go.
pub(super) trait Target {
    /// `P` pixels of a block's row, from pixel `at` on.
    fn cells<const P: usize>(&mut self, block: usize, at: usize) -> &mut [Block; P];
}

pub(super) struct RowsMut<'a> {
    pub data: &'a mut [Block],
    pub at: usize,
    pub plane: usize,
}

impl Target for RowsMut<'_> {
    #[inline(always)]
    fn cells<const P: usize>(&mut self, block: usize, at: usize) -> &mut [Block; P] {
        let from = self.at + at + block * self.plane;
        self.data[from..from + P].first_chunk_mut().expect("P blocks")
    }
}

/// Most blocks of a map that is written in bands: CenterFace has up to 320 channels.
const MOST_BLOCKS: usize = 20;

/// The same rows of all planes of a map: what one thread writes.
pub(super) struct Band<'a> {
    planes: [&'a mut [Block]; MOST_BLOCKS],
    pub first: usize,
    pub rows: usize,
    pub width: usize,
}

impl Band<'_> {
    #[inline(always)]
    pub fn row(&mut self, block: usize, y: usize) -> &mut [Block] {
        &mut self.planes[block][(y - self.first) * self.width..][..self.width]
    }
}

/// A band from one of its rows on.
pub(super) struct BandFrom<'a, 'b> {
    pub band: &'a mut Band<'b>,
    pub y: usize,
}

impl Target for BandFrom<'_, '_> {
    #[inline(always)]
    fn cells<const P: usize>(&mut self, block: usize, at: usize) -> &mut [Block; P] {
        let from = (self.y - self.band.first) * self.band.width + at;
        self.band.planes[block][from..from + P].first_chunk_mut().expect("P blocks")
    }
}

impl Map {
    /// All of it.
    pub(super) fn band(&mut self) -> Band<'_> {
        let (rows, width, plane) = (self.height, self.width, self.plane());
        let mut planes = self.cells_mut().chunks_exact_mut(plane);
        Band { planes: std::array::from_fn(|_| planes.next().unwrap_or_default()), first: 0, rows, width }
    }

    /// `n` bands, each of a multiple of `step` rows.
    pub(super) fn bands(&mut self, n: usize, step: usize) -> Vec<Band<'_>> {
        let (height, width, plane) = (self.height, self.width, self.plane());
        let cut = |i: usize| height / step * i / n * step;
        let mut bands: Vec<Band> = (0..n)
            .map(|i| Band { planes: Default::default(), first: cut(i), rows: cut(i + 1) - cut(i), width })
            .collect();
        for (block, mut rest) in self.cells_mut().chunks_exact_mut(plane).enumerate() {
            for band in &mut bands {
                let (own, others) = rest.split_at_mut(band.rows * width);
                (band.planes[block], rest) = (own, others);
            }
        }
        bands
    }
}
