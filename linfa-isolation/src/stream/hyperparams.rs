use linfa::ParamGuard;

use super::StreamingForest;
use crate::error::StreamError;

/// One alert an episode instead of one a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Hysteresis {
    /// Anomalous rows in a row that begin an episode, at least 1.
    pub rows_to_begin: u32,
    /// Ordinary rows in a row that end it, at least 1.
    pub quiet_rows: u32,
}

impl Default for Hysteresis {
    /// Begins at the first anomalous row and ends after 30 ordinary ones.
    fn default() -> Self {
        Self { rows_to_begin: 1, quiet_rows: 30 }
    }
}

/// Checked hyperparameters of a [`StreamingForest`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(remote = "Self", deny_unknown_fields))]
pub struct StreamingForestValidParams {
    pub(crate) dimensions: usize,
    pub(crate) n_trees: usize,
    pub(crate) max_samples: usize,
    pub(crate) reservoir: usize,
    pub(crate) pace: usize,
    pub(crate) warm_up: usize,
    pub(crate) false_discovery: f64,
    pub(crate) repeat_rows: usize,
    pub(crate) hysteresis: Option<Hysteresis>,
    pub(crate) seed: u64,
}

impl StreamingForestValidParams {
    /// A detector that has seen nothing.
    pub fn detector(&self) -> StreamingForest {
        StreamingForest::from_params(self.clone())
    }
    /// The bytes that a detector with these hyperparameters holds at most, whatever it is shown and however long; an allocator's overhead
    /// for about a hundred blocks comes on top. It grows by about 53 KiB a value of the row at the defaults.
    pub fn most_memory(&self) -> usize {
        super::detector::most_memory(self)
    }
}

/// Builder of a [`StreamingForest`]. One set of defaults is meant to serve every stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamingForestParams(pub(super) StreamingForestValidParams);

impl StreamingForestParams {
    /// The defaults, for rows of `dimensions` values.
    pub fn new(dimensions: usize) -> Self {
        Self(StreamingForestValidParams {
            dimensions,
            n_trees: 24,
            max_samples: 2048,
            reservoir: 4096,
            pace: 1,
            warm_up: 64,
            false_discovery: 0.5,
            repeat_rows: 400,
            hysteresis: None,
            seed: 42,
        })
    }
    /// Number of trees of each head, 1 to 1000 (default 24).
    pub fn n_trees(mut self, n: usize) -> Self {
        self.0.n_trees = n;
        self
    }
    /// Rows a tree is grown on, 8 to 4096 and no more than the reservoir (default 2048).
    pub fn max_samples(mut self, n: usize) -> Self {
        self.0.max_samples = n;
        self
    }
    /// Rows of the past that are kept, 32 to 65,536 (default 4096). Each row takes the place of a random one, so the
    /// age of the kept rows falls off exponentially with this as its mean.
    pub fn reservoir(mut self, rows: usize) -> Self {
        self.0.reservoir = rows;
        self
    }
    /// Rows that make one step of the detector's time, 1 to 10,000 (default 1). Everything it does over a number of rows it does over so
    /// many times as many: smoothing, levels, how far back its memory reaches (one row in so many is kept, at the same cost), the
    /// decay of novelties. For rows that come so fast that the ordinary course of things takes longer than the default's four
    /// thousand rows: a machine that runs every few minutes, read a hundred times a second. Until the stream is as long as the memory, what
    /// is kept is an even sample of all of it.
    pub fn pace(mut self, rows: usize) -> Self {
        self.0.pace = rows;
        self
    }
    /// Rows before the first alert is possible, at least 32 and no more than the reservoir (default 64).
    pub fn warm_up(mut self, rows: usize) -> Self {
        self.0.warm_up = rows;
        self
    }
    /// The local false discovery rate at the line, in (0, 0.9] (default 0.5): of rows that deviate just so much, this share may
    /// be ordinary. Lower values alert later.
    pub fn false_discovery(mut self, share: f64) -> Self {
        self.0.false_discovery = share;
        self
    }
    /// Rows after which the peak of novelties has fallen to 1/e, at least 1 (default 400). What is below the peak counts as a
    /// repeat and stays below what is new on the scale of the values. Novelties lie close together (0.78 to 0.93), so one as
    /// strong as the last is new again at once, and one at the lower end after about a sixth of these rows.
    pub fn repeat_rows(mut self, rows: usize) -> Self {
        self.0.repeat_rows = rows;
        self
    }
    /// Group alerts into episodes (default off: [`Score::episode`](super::Score::episode) stays `None`).
    pub fn hysteresis(mut self, hysteresis: Option<Hysteresis>) -> Self {
        self.0.hysteresis = hysteresis;
        self
    }
    /// Seed of everything random (default 42). The same seed and rows give the same scores on every platform.
    pub fn seed(mut self, seed: u64) -> Self {
        self.0.seed = seed;
        self
    }
    /// A detector that has seen nothing.
    ///
    /// # Errors
    /// [`StreamError::Parameter`] for the first value out of its range.
    pub fn detector(&self) -> Result<StreamingForest, StreamError> {
        Ok(self.check_ref()?.detector())
    }
}

impl ParamGuard for StreamingForestParams {
    type Checked = StreamingForestValidParams;
    type Error = StreamError;

    fn check_ref(&self) -> Result<&Self::Checked, Self::Error> {
        let p = &self.0;
        let refuse = |name, got: String, must| Err(StreamError::Parameter { name, got, must });
        if !(1..=256).contains(&p.dimensions) {
            return refuse("dimensions", p.dimensions.to_string(), "between 1 and 256");
        }
        if !(1..=1000).contains(&p.n_trees) {
            return refuse("n_trees", p.n_trees.to_string(), "between 1 and 1000");
        }
        if !(32..=65_536).contains(&p.reservoir) {
            return refuse("reservoir", p.reservoir.to_string(), "between 32 and 65,536 rows");
        }
        if !(8..=4096.min(p.reservoir)).contains(&p.max_samples) {
            return refuse(
                "max_samples",
                p.max_samples.to_string(),
                "between 8 and 4096, and at most the reservoir",
            );
        }
        if !(1..=10_000).contains(&p.pace) {
            return refuse("pace", p.pace.to_string(), "between 1 and 10,000 rows");
        }
        if !(32..=p.reservoir).contains(&p.warm_up) {
            return refuse("warm_up", p.warm_up.to_string(), "at least 32 rows and at most the reservoir");
        }
        if !(p.false_discovery > 0.0 && p.false_discovery <= 0.9) {
            return refuse("false_discovery", p.false_discovery.to_string(), "above 0 and at most 0.9");
        }
        if p.repeat_rows == 0 {
            return refuse("repeat_rows", p.repeat_rows.to_string(), "at least 1");
        }
        if let Some(h) = p.hysteresis
            && (h.rows_to_begin == 0 || h.quiet_rows == 0)
        {
            return refuse("hysteresis", format!("{h:?}"), "at least one row either way");
        }
        Ok(p)
    }

    fn check(self) -> Result<Self::Checked, Self::Error> {
        self.check_ref()?;
        Ok(self.0)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for StreamingForestValidParams {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Checked as they are by the builder: there is no other way to checked hyperparameters.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for StreamingForestValidParams {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StreamingForestParams(Self::deserialize(deserializer)?).check().map_err(serde::de::Error::custom)
    }
}
