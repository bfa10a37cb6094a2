//! A fitted forest as serde sees it: with a version, and with a check on the way in of everything a walk relies on.

use serde::{Deserialize, Serialize};

use super::algorithm::IsolationForest;
use super::frame::Frame;
use super::hyperparams::{Cuts, IsolationForestValidParams, PathRule};
use super::layout::Trees;
use crate::error::IsolationError;
use crate::version::Version;

/// Raised whenever the meaning of a field changes.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    version: Version<VERSION>,
    params: IsolationForestValidParams,
    /// Bits of offset and scale of each column.
    frames: Vec<(u64, u64)>,
    sample: usize,
    /// Bits of an f64.
    threshold: u64,
    trees: Trees,
}

impl From<IsolationForest> for Saved {
    fn from(forest: IsolationForest) -> Self {
        let IsolationForest { params, frames, sample, threshold, trees } = forest;
        let frames = frames.iter().map(|f| (f.offset.to_bits(), f.scale.to_bits())).collect();
        Self { version: Version, params, frames, sample, threshold: threshold.to_bits(), trees }
    }
}

impl TryFrom<Saved> for IsolationForest {
    type Error = IsolationError;

    fn try_from(saved: Saved) -> Result<Self, IsolationError> {
        let Saved { version: _, params, frames, sample, threshold, trees } = saved;
        let threshold = f64::from_bits(threshold);
        let frames: Vec<Frame> = frames
            .iter()
            .map(|&(offset, scale)| Frame { offset: f64::from_bits(offset), scale: f64::from_bits(scale) })
            .collect();
        let columns = frames.len();
        let in_bounds = |f: &Frame| f.offset.is_finite() && f.scale.is_finite() && f.scale > 0.0;
        require(frames.iter().all(in_bounds), "a column's unit is out of bounds")?;
        require(
            (1..=params.max_samples).contains(&sample) && columns > 0,
            "its sample or columns are out of bounds",
        )?;
        require(threshold.is_finite(), "its threshold is not finite")?;
        let depth = sample.next_power_of_two().trailing_zeros() as usize;
        require(trees.depth == depth, "its trees are not as deep as their sample asks")?;
        let (width, count) = (1usize << depth, params.n_trees);
        let cuts = width * count;
        require(
            trees.cuts.len() == cuts && trees.leaves.len() == cuts && trees.sizes.len() == 2 * cuts,
            "its trees are not complete",
        )?;
        require(
            trees.cuts.iter().all(|cut| cut.threshold().is_finite() && (cut.column as usize) < columns)
                && trees.leaves.iter().all(|x| x.is_finite() && *x >= 0.0)
                && trees.sizes.iter().all(|&size| size as usize <= sample),
            "a node is out of bounds",
        )?;
        let adds_up = |sizes: &[u32]| {
            sizes[..width].iter().enumerate().skip(1).all(|(at, &size)| {
                let (left, right) = (sizes[2 * at], sizes[2 * at + 1]);
                left == 0 || (right > 0 && u64::from(left) + u64::from(right) == u64::from(size))
            })
        };
        require(trees.sizes.chunks_exact(2 * width).all(adds_up), "the rows of its nodes do not add up")?;
        let spans = if params.path_rule == PathRule::Insertion { cuts } else { 0 };
        require(
            trees.spans.len() == spans
                && trees.spans.iter().all(|(low, high)| low.is_finite() && low <= high && high.is_finite()),
            "its spans are out of bounds",
        )?;
        let sound = match (params.cuts, &trees.directions) {
            (Cuts::Axis, None) => true,
            (Cuts::Oblique { columns: wanted }, Some(directions)) => {
                directions.width == wanted.min(columns)
                    && directions.terms.len() == cuts * directions.width
                    && directions
                        .terms
                        .iter()
                        .all(|(column, weight)| (*column as usize) < columns && weight.is_finite())
                    && directions.medians.len() == columns
                    && directions.medians.iter().all(|x| x.is_finite())
            }
            _ => false,
        };
        require(sound, "its directions are out of bounds")?;
        Ok(Self { params, frames, sample, threshold, trees })
    }
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), IsolationError> {
    if holds { Ok(()) } else { Err(IsolationError::Restore(otherwise)) }
}
