use super::deviation::Deviation;
use super::episode::{Episode, Episodes};
use super::features::{Channel, NOVELTY};
use super::head::{Head, Keep, Shape};
use super::hyperparams::{StreamingForestParams, StreamingForestValidParams};
use super::tree::Workspace;
use super::verdict::{Evidence, LINE, Peak};
use crate::error::StreamError;
use crate::math::cube;
use crate::random::Draws;

/// What the detector says about a row.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Score {
    /// How anomalous the row is against the rows before it, in [0, 1].
    pub value: f64,
    /// The line on that scale, 0.5: the adaptive part is within the value.
    pub threshold: f64,
    /// `value >= threshold`, and not warming up. By row: hysteresis does not change it.
    pub is_anomaly: bool,
    /// True for the first rows, whose values are not to be trusted and which never alert.
    pub warming_up: bool,
    /// The part of each value of the row in `value`: not negative, and the sum is `value`.
    pub contributions: Vec<f64>,
    /// Where the row stands in an episode, if hysteresis is on.
    pub episode: Episode,
}

/// A streaming detector. How it works, and what it does not see: [module documentation](crate::stream).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "super::saved::Saved", into = "super::saved::Saved"))]
pub struct StreamingForest {
    pub(super) params: StreamingForestValidParams,
    pub(super) seen: u64,
    pub(super) channels: Vec<Channel>,
    pub(super) novelty: Head,
    pub(super) state: Head,
    pub(super) deviation: Deviation,
    pub(super) peak: Peak,
    pub(super) episodes: Episodes,
    scratch: Scratch,
}

/// Working space that holds nothing from row to row.
#[derive(Clone, Debug, Default)]
struct Scratch {
    work: Workspace,
    novelty_row: Vec<f32>,
    state_row: Vec<f32>,
    offsets: Vec<f32>,
    novelty_credits: Vec<f32>,
    state_credits: Vec<f32>,
}

impl Scratch {
    fn memory(&self) -> usize {
        let lists =
            [&self.novelty_row, &self.state_row, &self.offsets, &self.novelty_credits, &self.state_credits];
        self.work.memory() + 4 * lists.iter().map(|list| list.capacity()).sum::<usize>()
    }
}

/// The most that [`StreamingForest::memory`] can become.
pub(super) fn most_memory(params: &StreamingForestValidParams) -> usize {
    let (novelty, state) = shapes(params);
    // Short lists may have room for twice as many, and at least for four.
    let lists = 4 * (2 * (2 * novelty.columns + 3 * state.columns) + 5 * 4);
    size_of::<StreamingForest>()
        + params.dimensions * size_of::<Channel>()
        + Head::most_memory(&novelty)
        + Head::most_memory(&state)
        + Deviation::most_memory(params.dimensions)
        + Workspace::most_memory(novelty.reservoir.max(state.reservoir), novelty.sample.max(state.sample))
        + lists
}

impl StreamingForest {
    /// The builder, for rows of `dimensions` values: [`StreamingForestParams::new`].
    pub fn params(dimensions: usize) -> StreamingForestParams {
        StreamingForestParams::new(dimensions)
    }

    pub(super) fn from_params(params: StreamingForestValidParams) -> Self {
        let (novelty, state) = shapes(&params);
        Self {
            seen: 0,
            channels: vec![Channel::new(); params.dimensions],
            novelty: Head::new(novelty),
            state: Head::new(state),
            deviation: Deviation::new(params.dimensions),
            peak: Peak::new(params.repeat_rows as f64 * params.pace as f64),
            episodes: Episodes::default(),
            scratch: Scratch::default(),
            params,
        }
    }

    /// Values a row.
    pub fn dimensions(&self) -> usize {
        self.params.dimensions
    }

    /// Rows scored so far.
    pub fn rows_seen(&self) -> u64 {
        self.seen
    }

    /// The hyperparameters.
    pub fn hyperparams(&self) -> &StreamingForestValidParams {
        &self.params
    }

    /// Bytes held, without the allocator's overhead: at most
    /// [`StreamingForestValidParams::most_memory`], and steady once the reservoirs are full.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.channels.capacity() * size_of::<Channel>()
            + self.novelty.memory()
            + self.state.memory()
            + self.deviation.memory()
            + self.scratch.memory()
    }

    /// Scores a row against the rows before it, then learns it. NaN is a missing value; a row of nothing else scores 0.
    ///
    /// # Errors
    /// [`StreamError::Dimensions`] or [`StreamError::Infinite`]; the detector is then as it was before the call.
    pub fn score(&mut self, row: &[f64]) -> Result<Score, StreamError> {
        let dimensions = self.params.dimensions;
        if row.len() != dimensions {
            return Err(StreamError::Dimensions { expected: dimensions, given: row.len() });
        }
        if let Some(index) = row.iter().position(|x| x.is_infinite()) {
            return Err(StreamError::Infinite { index });
        }
        let warming_up = self.seen < self.params.warm_up as u64;
        self.seen += 1;
        if row.iter().all(|x| x.is_nan()) {
            let episode = self.episodes.next(self.params.hysteresis, false);
            let contributions = vec![0.0; dimensions];
            return Ok(Score {
                value: 0.0,
                threshold: LINE,
                is_anomaly: false,
                warming_up,
                contributions,
                episode,
            });
        }

        let Scratch { work, novelty_row, state_row, offsets, novelty_credits, state_credits } =
            &mut self.scratch;
        let pace = self.params.pace as f64;
        novelty_row.clear();
        state_row.clear();
        offsets.clear();
        for (j, (channel, &value)) in self.channels.iter_mut().zip(row).enumerate() {
            let features = channel.next(value, self.deviation.spread(j), pace);
            novelty_row.extend(features.novelty);
            state_row.push(features.state);
            offsets.push(features.offset);
        }
        novelty_credits.clear();
        novelty_credits.resize(novelty_row.len(), 0.0);
        state_credits.clear();
        state_credits.resize(dimensions, 0.0);

        let novelty = self.novelty.score(novelty_row, novelty_credits) * confidence(self.seen);
        let state = self.state.score(state_row, state_credits);
        let farthest = self.deviation.farthest(offsets);
        let deviation = f64::from(farthest) / self.deviation.line;
        let fresh = self.peak.next(novelty);
        let value = Evidence { novelty, state, deviation, fresh }.value();
        let is_anomaly = value >= LINE && !warming_up;

        let contributions = {
            let novelty_part = |j: usize| novelty_credits[j * NOVELTY..(j + 1) * NOVELTY].iter().sum::<f32>();
            let parts = [
                (cube(novelty), shares(dimensions, novelty_part)),
                (cube(state), shares(dimensions, |j| state_credits[j])),
                (
                    deviation.min(2.0),
                    shares(dimensions, |j| {
                        self.deviation.of(j, offsets[j]) * self.deviation.of(j, offsets[j])
                    }),
                ),
            ];
            let weight: f64 = parts.iter().map(|(weight, _)| weight).sum();
            (0..dimensions)
                .map(|j| {
                    let share = parts.iter().map(|(weight, shares)| weight * shares[j]).sum::<f64>();
                    if weight > 0.0 { value * share / weight } else { value / dimensions as f64 }
                })
                .collect()
        };

        let mut draws = Draws::stream(self.params.seed, self.seen);
        self.novelty.learn(novelty_row, work, &mut draws);
        self.state.learn(state_row, work, &mut draws);
        if self.deviation.is_filling() || self.seen.is_multiple_of(self.params.pace as u64) {
            self.deviation.learn(offsets, farthest, self.params.false_discovery);
        }
        let episode = self.episodes.next(self.params.hysteresis, is_anomaly);
        Ok(Score { value, threshold: LINE, is_anomaly, warming_up, contributions, episode })
    }
}

/// What a novelty counts after so many rows: while few are kept, most of what comes is outside them.
fn confidence(seen: u64) -> f64 {
    (0.7 + 0.3 * seen as f64 / 300.0).min(1.0)
}

/// The heads of a detector.
fn shapes(params: &StreamingForestValidParams) -> (Shape, Shape) {
    let novelty = Shape {
        columns: NOVELTY * params.dimensions,
        trees: params.n_trees,
        sample: params.max_samples,
        reservoir: params.reservoir,
        keep: Keep::EvenlyThenOneIn(params.pace),
        regrow_every: 16,
    };
    let state = Shape {
        columns: params.dimensions,
        trees: params.n_trees,
        sample: 256,
        reservoir: 256,
        keep: Keep::OneIn(100 * params.pace),
        regrow_every: 64,
    };
    (novelty, state)
}

/// What is positive, scaled to the sum 1; even shares where nothing is.
fn shares(count: usize, of: impl Fn(usize) -> f32) -> Vec<f64> {
    let positive: Vec<f64> = (0..count).map(|j| f64::from(of(j).max(0.0))).collect();
    let sum: f64 = positive.iter().sum();
    positive.iter().map(|&p| if sum > 0.0 { p / sum } else { 1.0 / count as f64 }).collect()
}
