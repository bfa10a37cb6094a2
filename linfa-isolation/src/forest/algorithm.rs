use linfa::dataset::{AsTargets, Records};
use linfa::traits::{Fit, PredictInplace};
use linfa::{DatasetBase, Float};
use ndarray::{Array1, ArrayBase, ArrayView2, Axis, Data, Ix2};

use super::frame::{Frame, frames};
use super::grow::{Grower, Plot};
use super::hyperparams::{Contamination, Cuts, IsolationForestParams, IsolationForestValidParams, PathRule};
use super::layout::{Directions, NOWHERE, Trees, framed};
use crate::error::IsolationError;
use crate::math::exp2;
use crate::path_length::average_path_length;
use crate::random::Draws;

/// Rows that are brought into the forest's unit, and scored by one thread, at a time.
const CHUNK: usize = 1024;

/// A fitted isolation forest (Liu, Ting and Zhou 2008). It can be fitted on `f32` or `f64` and asked about either.
///
/// Missing values are NaN. While growing, a row whose value is missing at a cut takes a side at random in proportion to the rows
/// that have a value; while scoring, it goes both ways and the path lengths are averaged by the same proportion, so a value
/// that is missing neither raises nor lowers a score on average. A column of NaN is never cut.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "super::saved::Saved", into = "super::saved::Saved"))]
pub struct IsolationForest {
    pub(super) params: IsolationForestValidParams,
    pub(super) frames: Vec<Frame>,
    /// Rows each tree was grown on.
    pub(super) sample: usize,
    pub(super) threshold: f64,
    pub(super) trees: Trees,
}

impl IsolationForest {
    /// The builder.
    pub fn params() -> IsolationForestParams {
        IsolationForestParams::new()
    }

    /// The anomaly score of each row, `2^(-E[h] / c(n))` in (0, 1]: the higher, the easier the row is to isolate. 0.5 is
    /// the average of a sample of `n` rows; anomalies lie above. (scikit-learn's `score_samples` is the negative of this.)
    /// Infinite values are scored as what they are: beyond all others.
    ///
    /// # Errors
    /// [`IsolationError::Columns`] if the rows are not as wide as those of the fit.
    pub fn score_samples<F: Float, D: Data<Elem = F>>(
        &self,
        rows: &ArrayBase<D, Ix2>,
    ) -> Result<Array1<F>, IsolationError> {
        self.check_columns(rows.ncols())?;
        let mut sums = vec![0.0f32; rows.nrows()];
        self.add_path_lengths(rows.view(), &mut sums);
        if self.sample == 1 {
            // One row tells nothing of any other.
            return Ok(Array1::from_elem(sums.len(), F::cast(0.5)));
        }
        let full = self.full_length();
        Ok(sums.into_iter().map(|sum| F::cast(exp2(-f64::from(sum) / full))).collect())
    }

    /// Rows scoring above this are anomalous to [`predict`](linfa::traits::Predict::predict).
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Columns of the data the forest was fitted on.
    pub fn columns(&self) -> usize {
        self.frames.len()
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
        let fitted = self.columns();
        if given == fitted { Ok(()) } else { Err(IsolationError::Columns { fitted, given }) }
    }

    /// The path length, summed over the trees, that scores 0.5; 0 if they were grown on one row.
    pub(super) fn full_length(&self) -> f64 {
        self.trees.count() as f64 * average_path_length(self.sample as u64)
    }

    fn add_chunk<F: Float>(&self, rows: ArrayView2<F>, sums: &mut [f32]) {
        let flat = framed(rows, &self.frames);
        self.trees.add_path_lengths(&flat, self.columns(), self.params.path_rule, sums);
    }

    #[cfg(not(feature = "rayon"))]
    fn add_path_lengths<F: Float>(&self, rows: ArrayView2<F>, sums: &mut [f32]) {
        for (rows, sums) in rows.axis_chunks_iter(Axis(0), CHUNK).zip(sums.chunks_mut(CHUNK)) {
            self.add_chunk(rows, sums);
        }
    }

    #[cfg(feature = "rayon")]
    fn add_path_lengths<F: Float>(&self, rows: ArrayView2<F>, sums: &mut [f32]) {
        use rayon::prelude::*;
        let chunks: Vec<_> = rows.axis_chunks_iter(Axis(0), CHUNK).zip(sums.chunks_mut(CHUNK)).collect();
        chunks.into_par_iter().for_each(|(rows, sums)| self.add_chunk(rows, sums));
    }
}

impl<F: Float, D: Data<Elem = F>, T: AsTargets> Fit<ArrayBase<D, Ix2>, T, IsolationError>
    for IsolationForestValidParams
{
    type Object = IsolationForest;

    /// Targets are not looked at.
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<Self::Object, IsolationError> {
        let rows = dataset.records().view();
        let (n, columns) = (dataset.nsamples(), dataset.nfeatures());
        if n == 0 || columns == 0 {
            return Err(IsolationError::Empty { rows: n, columns });
        }
        let frames = frames(&rows)?;
        let sample = self.max_samples.min(n);
        let depth = sample.next_power_of_two().trailing_zeros() as usize;
        let medians = match self.cuts {
            Cuts::Axis => Vec::new(),
            Cuts::Oblique { .. } => {
                let columns = rows.columns().into_iter().zip(&frames);
                columns.map(|(column, frame)| median(column.iter().map(|&x| frame.take(x)))).collect()
            }
        };
        let trees = self.grow_all(&rows, &frames, sample, depth, medians);
        let mut forest = IsolationForest { params: self.clone(), frames, sample, threshold: 0.5, trees };
        if let Contamination::Share(share) = self.contamination {
            let mut scores = forest.score_samples(&rows)?.to_vec();
            let above = ((n as f64 * share) as usize).min(n - 1);
            let at = n - 1 - above;
            let ascending = |a: &F, b: &F| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal);
            let line = *scores.select_nth_unstable_by(at, ascending).1;
            forest.threshold = line.to_f64().unwrap_or(0.5);
        }
        Ok(forest)
    }
}

impl IsolationForestValidParams {
    fn grow_all<F: Float>(
        &self,
        rows: &ArrayView2<F>,
        frames: &[Frame],
        sample: usize,
        depth: usize,
        medians: Vec<f32>,
    ) -> Trees {
        let nodes = self.n_trees << depth;
        let spans = if self.path_rule == PathRule::Insertion { nodes } else { 0 };
        let terms = match self.cuts {
            Cuts::Axis => 0,
            Cuts::Oblique { columns } => columns.min(frames.len()),
        };
        let mut trees = Trees {
            depth,
            cuts: vec![NOWHERE; nodes],
            leaves: vec![0.0; nodes],
            sizes: vec![0; 2 * nodes],
            spans: vec![(0.0, 0.0); spans],
            directions: None,
        };
        let mut all_terms = vec![(0, 0.0); nodes * terms];
        let width = 1 << depth;
        // The last two lists may be empty, which gives every tree an empty part.
        let mut spans = trees.spans.chunks_mut(width);
        let mut term_parts = all_terms.chunks_mut((width * terms).max(1));
        let parts = trees
            .cuts
            .chunks_mut(width)
            .zip(trees.leaves.chunks_mut(width))
            .zip(trees.sizes.chunks_mut(2 * width));
        let plots: Vec<Plot> = parts
            .map(|((cuts, leaves), sizes)| Plot {
                cuts,
                leaves,
                sizes,
                spans: spans.next().unwrap_or_default(),
                terms: term_parts.next().unwrap_or_default(),
            })
            .collect();
        self.grow_plots(plots, |tree, plot, flat| {
            self.grow_one(rows, frames, sample, &medians, tree, plot, flat)
        });
        trees.directions = (terms > 0).then_some(Directions { width: terms, terms: all_terms, medians });
        trees
    }

    /// Calls `grow` for each tree, with working space.
    #[cfg(not(feature = "rayon"))]
    fn grow_plots(&self, plots: Vec<Plot>, grow: impl Fn(usize, Plot, &mut Vec<f32>)) {
        let mut flat = Vec::new();
        plots.into_iter().enumerate().for_each(|(tree, plot)| grow(tree, plot, &mut flat));
    }

    #[cfg(feature = "rayon")]
    fn grow_plots(&self, plots: Vec<Plot>, grow: impl Fn(usize, Plot, &mut Vec<f32>) + Sync) {
        use rayon::prelude::*;
        plots
            .into_par_iter()
            .enumerate()
            .for_each_init(Vec::new, |flat, (tree, plot)| grow(tree, plot, flat));
    }

    #[expect(clippy::too_many_arguments, reason = "the state of one loop body that runs on any thread")]
    fn grow_one<F: Float>(
        &self,
        rows: &ArrayView2<F>,
        frames: &[Frame],
        sample: usize,
        medians: &[f32],
        tree: usize,
        mut plot: Plot,
        flat: &mut Vec<f32>,
    ) {
        let mut draws = Draws::stream(self.seed, tree as u64);
        let columns = rows.ncols();
        flat.clear();
        for row in draws.distinct(rows.nrows(), sample) {
            flat.extend(rows.row(row).iter().zip(frames).map(|(&x, frame)| frame.take(x)));
        }
        if !medians.is_empty() {
            for (i, x) in flat.iter_mut().enumerate().filter(|(_, x)| x.is_nan()) {
                *x = medians[i % columns];
            }
        }
        let depth = plot.cuts.len().trailing_zeros() as usize;
        Grower { sample: flat, columns, depth, cuts: self.cuts }.grow(&mut plot, &mut draws);
    }
}

/// The median of what is not missing; 0 where nothing is.
fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut known: Vec<f32> = values.filter(|x| !x.is_nan()).collect();
    if known.is_empty() {
        return 0.0;
    }
    let middle = known.len() / 2;
    *known.select_nth_unstable_by(middle, f32::total_cmp).1
}

impl<F: Float, D: Data<Elem = F>> PredictInplace<ArrayBase<D, Ix2>, Array1<bool>> for IsolationForest {
    /// True for rows that score above [`threshold`](IsolationForest::threshold).
    ///
    /// # Panics
    /// As everywhere in linfa, if the rows are not as wide as those of the fit, or the targets not as many as the rows.
    fn predict_inplace<'a>(&'a self, rows: &'a ArrayBase<D, Ix2>, targets: &mut Array1<bool>) {
        assert_eq!(rows.nrows(), targets.len(), "one target a row");
        let scores = self.score_samples(rows).expect("rows as wide as those of the fit");
        let line = F::cast(self.threshold);
        targets.iter_mut().zip(scores).for_each(|(target, score)| *target = score > line);
    }

    fn default_target(&self, rows: &ArrayBase<D, Ix2>) -> Array1<bool> {
        Array1::from_elem(rows.nrows(), false)
    }
}
