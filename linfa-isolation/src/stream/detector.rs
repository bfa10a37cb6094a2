use super::episode::{Episode, Episodes};
use super::hyperparams::StreamingForestValidParams;
use super::tail::Tail;
use super::tree::{Tree, Workspace};
use crate::error::StreamError;
use crate::path_length::average_path_length;
use crate::random::Draws;

/// What the detector says about a row.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Score {
    /// How anomalous the row is against the rows before it, in [0, 1].
    pub value: f64,
    /// The line for this row, drawn before the row was seen.
    pub threshold: f64,
    /// `value >= threshold`, and not warming up. By row: hysteresis does not change it.
    pub is_anomaly: bool,
    /// True for the first rows, whose values are not to be trusted and which never alert.
    pub warming_up: bool,
    /// What each value of the row has to do with it: not negative, and the sum is `value`.
    pub contributions: Vec<f64>,
    /// Where the row stands in an episode, if hysteresis is on.
    pub episode: Episode,
}

/// A streaming detector.
#[derive(Clone, Debug)]
pub struct StreamingForest {
    params: StreamingForestValidParams,
    seen: u64,
    rows: Vec<f32>,
    trees: Vec<Tree>,
    grown_on: usize,
    tail: Tail,
    episodes: Episodes,
    work: Workspace,
}

impl StreamingForest {
    pub(super) fn from_params(params: StreamingForestValidParams) -> Self {
        let depth = params.max_samples.next_power_of_two().trailing_zeros() as usize;
        Self {
            trees: vec![Tree::new(depth); params.n_trees],
            rows: Vec::new(),
            seen: 0,
            grown_on: 0,
            tail: Tail::new(),
            episodes: Episodes::default(),
            work: Workspace::default(),
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

    /// Bytes held, without the allocator's overhead.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.rows.capacity() * 4 + self.trees.iter().map(Tree::memory).sum::<usize>()
    }

    /// Scores a row against the rows before it, then learns it. NaN is a missing value.
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
        let features: Vec<f32> = row.iter().map(|&x| (x as f32).clamp(f32::MIN, f32::MAX)).collect();
        let mut credits = vec![0.0f32; dimensions];
        let value = if self.grown_on > 0 {
            let saved: f32 = self.trees.iter().map(|tree| tree.saved(&features, &mut credits)).sum();
            let full = self.trees.len() as f64 * average_path_length(self.grown_on as u64);
            (f64::from(saved) / full - 1.0).exp2().clamp(0.0, 1.0)
        } else {
            0.0
        };
        let threshold = f64::from(self.tail.threshold());
        let warming_up = self.seen < self.params.warm_up as u64;
        let is_anomaly = !warming_up && value >= threshold;
        let contributions = shares(&credits, value);
        self.tail.add(value as f32);
        self.learn(&features);
        let episode = self.episodes.next(self.params.hysteresis, is_anomaly);
        Ok(Score { value, threshold, is_anomaly, warming_up, contributions, episode })
    }

    fn learn(&mut self, features: &[f32]) {
        let width = features.len();
        let mut draws = Draws::stream(self.params.seed, self.seen);
        self.seen += 1;
        let held = self.rows.len() / width;
        if held < self.params.reservoir {
            self.rows.extend_from_slice(features);
        } else {
            let at = draws.below(held) * width;
            self.rows[at..at + width].copy_from_slice(features);
        }
        let held = self.rows.len() / width;
        let sample = self.params.max_samples.min(held);
        if (held as u64 == self.seen
            && held >= 16
            && held.is_power_of_two()
            && held <= self.params.max_samples)
            || (self.grown_on == 0 && held >= 16)
        {
            for tree in &mut self.trees {
                tree.grow(&self.rows, width, sample, &mut self.work, &mut draws);
            }
            self.grown_on = sample;
        } else if self.grown_on > 0 && self.seen.is_multiple_of(8) {
            let turn = (self.seen / 8) as usize % self.trees.len();
            self.trees[turn].grow(&self.rows, width, self.grown_on, &mut self.work, &mut draws);
        }
    }
}

/// The positive credits, scaled to the sum `value`; even shares where there are none.
fn shares(credits: &[f32], value: f64) -> Vec<f64> {
    let positive: f64 = credits.iter().map(|&c| f64::from(c.max(0.0))).sum();
    let even = value / credits.len() as f64;
    credits
        .iter()
        .map(|&c| if positive > 0.0 { value * f64::from(c.max(0.0)) / positive } else { even })
        .collect()
}
