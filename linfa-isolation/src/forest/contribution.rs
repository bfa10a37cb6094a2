use linfa::Float;
use ndarray::{Array2, ArrayBase, Data, Ix2};

use super::algorithm::IsolationForest;
use crate::error::IsolationError;
use crate::path_length::average_path_length;

impl IsolationForest {
    /// What each column adds to each row's score.
    ///
    /// A node of `n` training rows promises c(n) more edges. A step to a child of `m` rows leaves c(m), and costs one edge: what is
    /// saved, `c(n) - 1 - c(m)`, is credited to the column of the cut. (At an oblique cut it is divided in proportion to each
    /// term's size, measured from the column's median.) Along a path the credits telescope, so for every row
    ///
    /// `sum of contributions = 1 - E[h] / c(sample size) = 1 + log2(score)`,
    ///
    /// 0 for an average row and near 1 for one that every tree isolates at once. A column that makes the row look *more* ordinary
    /// counts negative.
    ///
    /// # Errors
    /// [`IsolationError::Columns`] if the rows are not as wide as those of the fit.
    pub fn contributions<F: Float, D: Data<Elem = F>>(
        &self,
        rows: &ArrayBase<D, Ix2>,
    ) -> Result<Array2<f64>, IsolationError> {
        self.check_columns(rows.ncols())?;
        let lengths: Vec<f64> = (0..=self.sample as u64).map(average_path_length).collect();
        let full = self.full_length();
        let mut out = Array2::zeros(rows.raw_dim());
        let mut values = vec![0.0f32; self.columns()];
        for (row, mut credits) in rows.rows().into_iter().zip(out.rows_mut()) {
            for ((value, &x), frame) in values.iter_mut().zip(row).zip(&self.frames) {
                *value = frame.take(x);
            }
            for tree in 0..self.trees.count() {
                self.trees.path_length(tree, &values, self.params.path_rule, &mut |step| {
                    let saved = lengths[step.from as usize] - 1.0 - lengths[step.to as usize];
                    let credit = if full > 0.0 { step.share * saved / full } else { 0.0 };
                    match &self.trees.directions {
                        None => credits[self.trees.cuts[step.node].column as usize] += credit,
                        Some(directions) => {
                            let terms = directions.terms(step.node);
                            let pull = |&(column, weight): &(u32, f32)| {
                                let x = values[column as usize];
                                let pull = weight * (x - directions.medians[column as usize]);
                                if pull.is_finite() { f64::from(pull.abs()) } else { 0.0 }
                            };
                            let whole: f64 = terms.iter().map(pull).sum();
                            for term in terms {
                                let share =
                                    if whole > 0.0 { pull(term) / whole } else { 1.0 / terms.len() as f64 };
                                credits[term.0 as usize] += credit * share;
                            }
                        }
                    }
                });
            }
        }
        Ok(out)
    }
}
