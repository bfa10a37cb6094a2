//! A detector that learns from a data set before it is given a stream.

use linfa::dataset::{AsTargets, Records};
use linfa::traits::FitWith;
use linfa::{DatasetBase, Float};
use ndarray::{ArrayBase, Data, Ix2};

use super::detector::StreamingForest;
use super::hyperparams::StreamingForestValidParams;
use crate::error::{IsolationError, StreamError};

impl<'a, F: Float, D: Data<Elem = F> + 'a, T: AsTargets> FitWith<'a, ArrayBase<D, Ix2>, T, IsolationError>
    for StreamingForestValidParams
{
    type ObjectIn = Option<StreamingForest>;
    type ObjectOut = StreamingForest;

    /// A detector, or the one that is given, after the rows of a data set in their order. It is as if each had been
    /// [scored](StreamingForest::score). Targets are not looked at. A detector that is given must be one of these hyperparameters.
    fn fit_with(
        &self,
        detector: Option<StreamingForest>,
        dataset: &'a DatasetBase<ArrayBase<D, Ix2>, T>,
    ) -> Result<StreamingForest, IsolationError> {
        let mut detector = detector.unwrap_or_else(|| self.detector());
        if detector.hyperparams() != self {
            return Err(IsolationError::Hyperparameters);
        }
        let given = dataset.nfeatures();
        if given != self.dimensions {
            return Err(StreamError::Dimensions { expected: self.dimensions, given }.into());
        }
        let mut values = vec![0.0; given];
        for (row, data) in dataset.records().rows().into_iter().enumerate() {
            for (column, (value, x)) in values.iter_mut().zip(data).enumerate() {
                *value = x.to_f64().unwrap_or(f64::NAN);
                if value.is_infinite() {
                    return Err(IsolationError::Infinite { row, column });
                }
            }
            detector.score(&values)?;
        }
        Ok(detector)
    }
}
