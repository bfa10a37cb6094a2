//! The whole state of a detector as serde sees it.
//!
//! Floats go as their bits: every value comes back exactly, NaN and infinity too, in formats that have no word for them. What
//! comes in is checked for everything the detector relies on, so that no input, however it was made, leads to a panic or to a
//! score that is not a number.

use serde::{Deserialize, Serialize};

use super::detector::StreamingForest;
use super::deviation::{OFFSETS, RECENT};
use super::episode::Episodes;
use super::features::Channel;
use super::head::Head;
use super::hyperparams::StreamingForestValidParams;
use super::tree::Tree;
use crate::error::StreamError;
use crate::version::Version;

/// Raised whenever the meaning of a field changes.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    version: Version<VERSION>,
    params: StreamingForestValidParams,
    seen: u64,
    /// Origin, previous, fast, slow, level; values seen.
    channels: Vec<([u64; 5], u64)>,
    novelty: SavedHead,
    state: SavedHead,
    deviation: SavedDeviation,
    peak: u64,
    episodes: Episodes,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedHead {
    rows: Vec<u32>,
    seen: u64,
    trees: Vec<Vec<u32>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedDeviation {
    scales: Vec<(u32, u32)>,
    offsets: Vec<u32>,
    recent: Vec<u32>,
    seen: u64,
    line: u64,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn floats(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|&b| f32::from_bits(b)).collect()
}

impl From<StreamingForest> for Saved {
    fn from(detector: StreamingForest) -> Self {
        let head = |head: &Head| SavedHead {
            rows: bits(&head.rows),
            seen: head.seen,
            trees: head.trees.iter().map(Tree::to_bits).collect(),
        };
        let channel =
            |c: &Channel| ([c.origin, c.previous, c.fast, c.slow, c.level].map(f64::to_bits), c.seen);
        Self {
            version: Version,
            seen: detector.seen,
            channels: detector.channels.iter().map(channel).collect(),
            novelty: head(&detector.novelty),
            state: head(&detector.state),
            deviation: SavedDeviation {
                scales: detector.deviation.scales.iter().map(|(c, s)| (c.to_bits(), s.to_bits())).collect(),
                offsets: bits(&detector.deviation.offsets),
                recent: bits(&detector.deviation.recent),
                seen: detector.deviation.seen,
                line: detector.deviation.line.to_bits(),
            },
            peak: detector.peak.height.to_bits(),
            episodes: detector.episodes,
            params: detector.params,
        }
    }
}

impl TryFrom<Saved> for StreamingForest {
    type Error = StreamError;

    fn try_from(saved: Saved) -> Result<Self, StreamError> {
        let params = saved.params;
        let dimensions = params.dimensions;
        let mut detector = StreamingForest::from_params(params);
        // Far more rows than any stream has, and far from where counting would overflow.
        let countable = |rows: u64| rows <= 1 << 53;
        require(countable(saved.seen), "a count of rows is out of bounds")?;
        require(saved.channels.len() == dimensions, "it has not one channel a value")?;
        detector.seen = saved.seen;
        for (channel, (bits, seen)) in detector.channels.iter_mut().zip(saved.channels) {
            let [origin, previous, fast, slow, level] = bits.map(f64::from_bits);
            let origin_is_sound = if seen == 0 { origin.is_nan() } else { origin.is_finite() };
            let held = [previous, fast, slow, level].iter().all(|x| x.abs() <= 1e38);
            require(origin_is_sound && held && countable(seen), "a channel is out of bounds")?;
            *channel = Channel { origin, previous, fast, slow, level, seen };
        }
        restore_head(&mut detector.novelty, saved.novelty)?;
        restore_head(&mut detector.state, saved.state)?;
        let rows_learned = detector.novelty.seen;
        require(
            rows_learned <= detector.seen && detector.state.seen == rows_learned,
            "the counts of rows differ",
        )?;

        let deviation = saved.deviation;
        let scales: Vec<(f32, f32)> =
            deviation.scales.iter().map(|&(c, s)| (f32::from_bits(c), f32::from_bits(s))).collect();
        let line = f64::from_bits(deviation.line);
        require(scales.len() == dimensions, "it has not one scale a value")?;
        require(
            scales.iter().all(|(c, s)| c.is_finite() && s.is_finite() && *s >= 0.0),
            "a scale is out of bounds",
        )?;
        require(line > 0.0, "the line is out of bounds")?;
        let (offsets, recent) = (floats(&deviation.offsets), floats(&deviation.recent));
        let held = |ring: usize| deviation.seen.min(ring as u64) as usize;
        require(deviation.seen <= rows_learned, "the counts of rows differ")?;
        require(
            offsets.len() == held(OFFSETS) * dimensions && recent.len() == held(RECENT),
            "a ring is not as long as it was",
        )?;
        require(offsets.iter().all(|x| !x.is_infinite()), "an offset is infinite")?;
        require(recent.iter().all(|x| x.is_finite() && *x >= 0.0), "a deviation is out of bounds")?;
        detector.deviation.scales = scales;
        detector.deviation.offsets = offsets;
        detector.deviation.recent = recent;
        detector.deviation.seen = deviation.seen;
        detector.deviation.line = line;

        detector.peak.height = f64::from_bits(saved.peak);
        require((0.0..=1.0).contains(&detector.peak.height), "the peak is out of bounds")?;
        detector.episodes = saved.episodes;
        Ok(detector)
    }
}

fn restore_head(head: &mut Head, saved: SavedHead) -> Result<(), StreamError> {
    let shape = head.shape;
    let rows = floats(&saved.rows);
    let held = saved.seen.min(shape.reservoir as u64) as usize;
    require(rows.len() == held * shape.columns, "a reservoir is not as full as it was")?;
    require(rows.iter().all(|x| x.is_nan() || x.abs() <= 1e38), "a kept value is out of bounds")?;
    let expected = if held >= super::head::FIRST { shape.trees } else { 0 };
    require(saved.trees.len() == expected, "trees are missing")?;
    let trees: Option<Vec<Tree>> =
        saved.trees.iter().map(|bits| Tree::from_bits(bits, shape.depth(), shape.columns)).collect();
    head.trees = trees.ok_or(StreamError::Restore("a tree is none"))?;
    head.rows = rows;
    head.seen = saved.seen;
    Ok(())
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), StreamError> {
    if holds { Ok(()) } else { Err(StreamError::Restore(otherwise)) }
}
