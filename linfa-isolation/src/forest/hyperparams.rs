use linfa::ParamGuard;

use crate::error::IsolationError;

/// How many of the rows are taken for anomalies by `predict`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Contamination {
    /// A score above 0.5, the paper's line between rows that are easier and harder to isolate than the average.
    Auto,
    /// The score above which this share of the training rows lies, in (0, 0.5].
    Share(f64),
}

/// The direction of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Cuts {
    /// One column a cut (Liu, Ting, Zhou 2008).
    Axis,
    /// A random direction over this many columns (at least 2; more than there are means all): the extended isolation forest of
    /// Hariri, Carrasco Kind and Brunner (2019). It has no axis-parallel artefacts and is slower. Missing values are taken as
    /// the median of their column.
    Oblique {
        /// Columns that take part in one cut.
        columns: usize,
    },
}

/// What is read off a tree for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PathRule {
    /// The depth of the leaf the row falls into, as in the paper.
    Leaf,
    /// The depth expected if the tree had been grown with the row among its sample. At a node whose training rows span `r` along
    /// the cut, and whose span the row would stretch by `e`, the row is cut off at once with probability `e / (r + e)`. So a
    /// row outside everything seen scores higher than the outermost row seen; with [`PathRule::Leaf`] they tie. This is the
    /// insertion rule of Guha, Mishra, Roy and Schrijvers (2016) for one column at a time.
    Insertion,
}

/// Checked hyperparameters of an [`IsolationForest`](super::IsolationForest).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(remote = "Self", deny_unknown_fields))]
pub struct IsolationForestValidParams {
    pub(crate) n_trees: usize,
    pub(crate) max_samples: usize,
    pub(crate) contamination: Contamination,
    pub(crate) cuts: Cuts,
    pub(crate) path_rule: PathRule,
    pub(crate) seed: u64,
}

impl IsolationForestValidParams {
    /// Number of trees.
    pub fn n_trees(&self) -> usize {
        self.n_trees
    }
    /// Rows a tree is grown on, at most.
    pub fn max_samples(&self) -> usize {
        self.max_samples
    }
    /// The rule for the line between ordinary and anomalous.
    pub fn contamination(&self) -> Contamination {
        self.contamination
    }
    /// The direction of the cuts.
    pub fn cuts(&self) -> Cuts {
        self.cuts
    }
    /// What is read off a tree.
    pub fn path_rule(&self) -> PathRule {
        self.path_rule
    }
    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// Builder of an [`IsolationForest`](super::IsolationForest), with the paper's defaults: 100 trees of 256 rows.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct IsolationForestParams(IsolationForestValidParams);

impl Default for IsolationForestParams {
    fn default() -> Self {
        Self(IsolationForestValidParams {
            n_trees: 100,
            max_samples: 256,
            contamination: Contamination::Auto,
            cuts: Cuts::Axis,
            path_rule: PathRule::Leaf,
            seed: 42,
        })
    }
}

impl IsolationForestParams {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }
    /// Number of trees, 1 to 10,000 (default 100). The score's noise falls with its square root.
    pub fn n_trees(mut self, n: usize) -> Self {
        self.0.n_trees = n;
        self
    }
    /// Rows drawn for each tree without replacement, 2 to 65,536 (default 256; all rows if there are fewer). A tree is at most
    /// ceil(log2(rows)) deep.
    pub fn max_samples(mut self, n: usize) -> Self {
        self.0.max_samples = n;
        self
    }
    /// Where `predict` draws the line (default [`Contamination::Auto`]).
    pub fn contamination(mut self, c: Contamination) -> Self {
        self.0.contamination = c;
        self
    }
    /// The direction of the cuts (default [`Cuts::Axis`]).
    pub fn cuts(mut self, cuts: Cuts) -> Self {
        self.0.cuts = cuts;
        self
    }
    /// What is read off a tree (default [`PathRule::Leaf`]).
    pub fn path_rule(mut self, rule: PathRule) -> Self {
        self.0.path_rule = rule;
        self
    }
    /// Seed of everything random (default 42). The same seed and data give the same forest on every platform.
    pub fn seed(mut self, seed: u64) -> Self {
        self.0.seed = seed;
        self
    }
}

impl ParamGuard for IsolationForestParams {
    type Checked = IsolationForestValidParams;
    type Error = IsolationError;

    fn check_ref(&self) -> Result<&Self::Checked, Self::Error> {
        let p = &self.0;
        let refuse = |name, got: String, must| Err(IsolationError::Parameter { name, got, must });
        if !(1..=10_000).contains(&p.n_trees) {
            return refuse("n_trees", p.n_trees.to_string(), "between 1 and 10,000");
        }
        if !(2..=65_536).contains(&p.max_samples) {
            return refuse("max_samples", p.max_samples.to_string(), "between 2 and 65,536");
        }
        if let Contamination::Share(share) = p.contamination
            && !(share > 0.0 && share <= 0.5)
        {
            return refuse("contamination", share.to_string(), "above 0 and at most 0.5");
        }
        if let Cuts::Oblique { columns } = p.cuts
            && columns < 2
        {
            return refuse("columns of an oblique cut", columns.to_string(), "at least 2");
        }
        Ok(p)
    }

    fn check(self) -> Result<Self::Checked, Self::Error> {
        self.check_ref()?;
        Ok(self.0)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for IsolationForestValidParams {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Checked as they are by the builder: there is no other way to checked hyperparameters.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for IsolationForestValidParams {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IsolationForestParams(Self::deserialize(deserializer)?).check().map_err(serde::de::Error::custom)
    }
}
