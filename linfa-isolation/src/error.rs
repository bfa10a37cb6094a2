//! What can go wrong, for batches and for streams.

use thiserror::Error;

/// Why a batch forest could not be built, fitted, asked or restored, or a data set not be learned by a streaming detector.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IsolationError {
    /// A hyperparameter is out of its range.
    #[error("{name} is {got}, but must be {must}")]
    Parameter {
        /// The builder's method.
        name: &'static str,
        /// The value given.
        got: String,
        /// The range it must lie in.
        must: &'static str,
    },
    /// The data set has no rows or no columns.
    #[error("cannot fit on {rows} rows of {columns} columns")]
    Empty {
        /// Rows given.
        rows: usize,
        /// Columns given.
        columns: usize,
    },
    /// An infinite value in the training data. NaN means missing and is accepted; infinity has no place between two cuts.
    #[error("row {row}, column {column} (counted from 0) is infinite; NaN means missing")]
    Infinite {
        /// Row of the value, from 0.
        row: usize,
        /// Column of the value, from 0.
        column: usize,
    },
    /// Rows to be scored have another number of columns than the rows of the fit.
    #[error("the forest was fitted on {fitted} columns, the rows have {given}")]
    Columns {
        /// Columns at the fit.
        fitted: usize,
        /// Columns given.
        given: usize,
    },
    /// What was to be restored is no saved forest.
    #[error("cannot restore the forest: {0}")]
    Restore(&'static str),
    /// A detector was to learn on with other hyperparameters than it was made with.
    #[error("the detector was made with other hyperparameters")]
    Hyperparameters,
    /// A streaming detector did not take a row or its hyperparameters.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// An error of linfa itself.
    #[error(transparent)]
    Linfa(#[from] linfa::error::Error),
}

/// Why a streaming detector did not take a row, or could not be built or restored. A refused row changes nothing.
#[derive(Debug, Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum StreamError {
    /// A hyperparameter is out of its range.
    #[error("{name} is {got}, but must be {must}")]
    Parameter {
        /// The builder's method.
        name: &'static str,
        /// The value given.
        got: String,
        /// The range it must lie in.
        must: &'static str,
    },
    /// The row has another number of values than the detector was made for.
    #[error("the detector takes {expected} values a row, this row has {given}")]
    Dimensions {
        /// Values a row the detector was made for.
        expected: usize,
        /// Values given.
        given: usize,
    },
    /// What was to be restored is no saved detector.
    #[error("cannot restore the detector: {0}")]
    Restore(&'static str),
    /// An infinite value. NaN means missing and is accepted.
    #[error("value {index} of the row (counted from 0) is infinite; NaN means missing")]
    Infinite {
        /// Index of the value in its row, from 0.
        index: usize,
    },
}
