//! The isolation forest for data sets at rest.
//!
//! ```
//! use linfa::prelude::*;
//! use linfa_isolation::{Contamination, IsolationForest};
//! use ndarray::Array2;
//!
//! let mut rows = Array2::from_shape_fn((200, 2), |(i, j)| ((i * 7 + j * 3) % 20) as f64 / 20.0);
//! rows.row_mut(17).fill(9.0);
//! let forest = IsolationForest::params()
//!     .contamination(Contamination::Share(0.01))
//!     .fit(&DatasetBase::from(rows.clone()))?;
//! let anomalous = forest.predict(&rows);
//! assert!(anomalous[17]);
//! # Ok::<(), linfa_isolation::IsolationError>(())
//! ```

mod algorithm;
mod contribution;
mod frame;
mod grow;
mod hyperparams;
mod layout;
#[cfg(feature = "serde")]
mod saved;

pub use algorithm::IsolationForest;
pub use hyperparams::{Contamination, Cuts, IsolationForestParams, IsolationForestValidParams, PathRule};
