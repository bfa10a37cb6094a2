use linfa::dataset::{AsTargets, Records};
use linfa::traits::{Fit, PredictInplace};
use linfa::{DatasetBase, Float};
use ndarray::{Array1, ArrayBase, ArrayView2, CowArray, Data, Ix2};

use super::grow::{Grower, Tree};
use super::hyperparams::{Contamination, Cuts, IsolationForestParams, IsolationForestValidParams, PathRule};
use super::layout::{Directions, Trees};
use crate::error::IsolationError;
use crate::path_length::average_path_length;
use crate::random::Draws;

/// A fitted isolation forest (Liu, Ting and Zhou 2008).
///
/// Missing values are NaN. While growing, a row whose value is missing at a cut takes a side at random in proportion to the rows
/// that have a value; while scoring, it goes both ways and the path lengths are averaged by the same proportion, so a value
/// that is missing neither raises nor lowers a score on average. A column of NaN is never cut.
#[derive(Clone, Debug, PartialEq)]
pub struct IsolationForest<F> {
    pub(super) params: IsolationForestValidParams,
    pub(super) columns: usize,
    /// Rows each tree was grown on.
    pub(super) sample: usize,
    pub(super) threshold: F,
    pub(super) trees: Trees<F>,
}

impl IsolationForest<f64> {
    /// The builder. The forest has the element type of the data it is fitted on, `f32` or `f64`.
    pub fn params() -> IsolationForestParams {
        IsolationForestParams::new()
    }
}

impl<F: Float> IsolationForest<F> {
    /// The anomaly score of each row, `2^(-E[h] / c(n))` in (0, 1]: the higher, the easier the row is to isolate. 0.5 is
    /// the average of a sample of `n` rows; anomalies lie above. (scikit-learn's `score_samples` is the negative of this.)
    ///
    /// # Errors
    /// [`IsolationError::Columns`] if the rows are not as wide as those of the fit.
    pub fn score_samples<D: Data<Elem = F>>(
        &self,
        rows: &ArrayBase<D, Ix2>,
    ) -> Result<Array1<F>, IsolationError> {
        self.check_columns(rows.ncols())?;
        let rows: CowArray<F, Ix2> = rows.as_standard_layout();
        let flat = rows.as_slice().unwrap_or(&[]);
        let mut sums = vec![0.0f32; rows.nrows()];
        self.add_path_lengths(flat, &mut sums);
        Ok(sums.into_iter().map(|sum| self.score_of(f64::from(sum))).collect())
    }

    /// Rows scoring above this are anomalous to [`predict`](linfa::traits::Predict::predict).
    pub fn threshold(&self) -> F {
        self.threshold
    }

    /// Columns of the data the forest was fitted on.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows each tree was grown on: `max_samples`, or all rows where there were fewer.
    pub fn sample_size(&self) -> usize {
        self.sample
    }

    /// The hyperparameters of the fit.
    pub fn hyperparams(&self) -> &IsolationForestValidParams {
        &self.params
    }

    pub(super) fn check_columns(&self, given: usize) -> Result<(), IsolationError> {
        if given == self.columns {
            Ok(())
        } else {
            Err(IsolationError::Columns { fitted: self.columns, given })
        }
    }

    fn score_of(&self, path_length_sum: f64) -> F {
        F::cast((-path_length_sum / self.full_length()).exp2())
    }

    /// The path length, summed over the trees, that scores 0.5.
    pub(super) fn full_length(&self) -> f64 {
        self.trees.count() as f64 * average_path_length(self.sample as u64)
    }

    #[cfg(not(feature = "rayon"))]
    fn add_path_lengths(&self, flat: &[F], sums: &mut [f32]) {
        self.trees.add_path_lengths(flat, self.columns, self.params.path_rule, sums);
    }

    #[cfg(feature = "rayon")]
    fn add_path_lengths(&self, flat: &[F], sums: &mut [f32]) {
        use rayon::prelude::*;
        let rows = 8 * super::layout::BLOCK;
        flat.par_chunks(rows * self.columns).zip(sums.par_chunks_mut(rows)).for_each(|(flat, sums)| {
            self.trees.add_path_lengths(flat, self.columns, self.params.path_rule, sums);
        });
    }
}

impl<F: Float, D: Data<Elem = F>, T: AsTargets> Fit<ArrayBase<D, Ix2>, T, IsolationError>
    for IsolationForestValidParams
{
    type Object = IsolationForest<F>;

    /// Targets are not looked at.
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<Self::Object, IsolationError> {
        let rows = dataset.records().view();
        let (n, columns) = (dataset.nsamples(), dataset.nfeatures());
        if n == 0 || columns == 0 {
            return Err(IsolationError::Empty { rows: n, columns });
        }
        if let Some(((row, column), _)) = rows.indexed_iter().find(|(_, x)| x.is_infinite()) {
            return Err(IsolationError::Infinite { row, column });
        }
        let sample = self.max_samples.min(n);
        let depth = sample.next_power_of_two().trailing_zeros() as usize;
        let medians = match self.cuts {
            Cuts::Axis => Vec::new(),
            Cuts::Oblique { .. } => {
                rows.columns().into_iter().map(|column| median(column.iter().copied())).collect()
            }
        };
        let trees = assemble(self, columns, depth, self.grow_all(&rows, sample, depth, &medians), medians);
        let mut forest =
            IsolationForest { params: self.clone(), columns, sample, threshold: F::cast(0.5), trees };
        if let Contamination::Share(share) = self.contamination {
            let mut scores = forest.score_samples(&rows)?.to_vec();
            let above = ((n as f64 * share) as usize).min(n - 1);
            let at = n - 1 - above;
            scores.select_nth_unstable_by(at, |a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            forest.threshold = scores[at];
        }
        Ok(forest)
    }
}

impl IsolationForestValidParams {
    fn grow_one<F: Float>(
        &self,
        rows: &ArrayView2<F>,
        sample: usize,
        depth: usize,
        medians: &[F],
        tree: usize,
    ) -> Tree<F> {
        let mut draws = Draws::stream(self.seed, tree as u64);
        let columns = rows.ncols();
        let mut flat = Vec::with_capacity(sample * columns);
        for row in draws.distinct(rows.nrows(), sample) {
            flat.extend(rows.row(row as usize).iter().copied());
        }
        if !medians.is_empty() {
            for (i, x) in flat.iter_mut().enumerate().filter(|(_, x)| x.is_nan()) {
                *x = medians[i % columns];
            }
        }
        let keep_spans = self.path_rule == PathRule::Insertion;
        Grower { sample: &flat, columns, depth, cuts: self.cuts, keep_spans }.grow(&mut draws)
    }

    #[cfg(not(feature = "rayon"))]
    fn grow_all<F: Float>(
        &self,
        rows: &ArrayView2<F>,
        sample: usize,
        depth: usize,
        medians: &[F],
    ) -> Vec<Tree<F>> {
        (0..self.n_trees).map(|tree| self.grow_one(rows, sample, depth, medians, tree)).collect()
    }

    #[cfg(feature = "rayon")]
    fn grow_all<F: Float>(
        &self,
        rows: &ArrayView2<F>,
        sample: usize,
        depth: usize,
        medians: &[F],
    ) -> Vec<Tree<F>> {
        use rayon::prelude::*;
        (0..self.n_trees)
            .into_par_iter()
            .map(|tree| self.grow_one(rows, sample, depth, medians, tree))
            .collect()
    }
}

fn assemble<F: Float>(
    params: &IsolationForestValidParams,
    columns: usize,
    depth: usize,
    grown: Vec<Tree<F>>,
    medians: Vec<F>,
) -> Trees<F> {
    let width = match params.cuts {
        Cuts::Axis => 0,
        Cuts::Oblique { columns: wanted } => wanted.min(columns),
    };
    let mut trees = Trees {
        depth,
        cuts: Vec::with_capacity(grown.len() << depth),
        leaves: Vec::with_capacity(grown.len() << depth),
        sizes: Vec::with_capacity(grown.len() << (depth + 1)),
        spans: Vec::new(),
        directions: (width > 0).then(|| Directions { width, terms: Vec::new(), medians }),
    };
    for tree in grown {
        trees.cuts.extend(tree.cuts);
        trees.leaves.extend(tree.leaves);
        trees.sizes.extend(tree.sizes);
        trees.spans.extend(tree.spans);
        if let Some(directions) = &mut trees.directions {
            directions.terms.extend(tree.terms);
        }
    }
    trees
}

/// The median of what is not missing; 0 where nothing is.
fn median<F: Float>(values: impl Iterator<Item = F>) -> F {
    let mut known: Vec<F> = values.filter(|x| !x.is_nan()).collect();
    if known.is_empty() {
        return F::zero();
    }
    let middle = known.len() / 2;
    *known.select_nth_unstable_by(middle, |a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal)).1
}

impl<F: Float, D: Data<Elem = F>> PredictInplace<ArrayBase<D, Ix2>, Array1<bool>> for IsolationForest<F> {
    /// True for rows that score above [`threshold`](IsolationForest::threshold).
    ///
    /// # Panics
    /// As everywhere in linfa, if the rows are not as wide as those of the fit, or the targets not as many as the rows.
    fn predict_inplace<'a>(&'a self, rows: &'a ArrayBase<D, Ix2>, targets: &mut Array1<bool>) {
        assert_eq!(rows.nrows(), targets.len(), "one target a row");
        let scores = self.score_samples(rows).expect("rows as wide as those of the fit");
        targets.iter_mut().zip(scores).for_each(|(target, score)| *target = score > self.threshold);
    }

    fn default_target(&self, rows: &ArrayBase<D, Ix2>) -> Array1<bool> {
        Array1::from_elem(rows.nrows(), false)
    }
}
