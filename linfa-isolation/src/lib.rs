//! Isolation forests for data sets at rest and for streams.
//!
//! An anomaly is easy to isolate: random cuts part it from the other rows in a few steps, where an ordinary row needs many (Liu, Ting
//! and Zhou 2008). This crate has that idea twice:
//!
//! - [`IsolationForest`] for batches, with linfa's traits: axis-parallel or oblique cuts, missing values, contributions of the
//!   columns, scores that tell the far from the farther.
//! - [`StreamingForest`] for rows as they come: one row in, one score out, in bounded memory, with a line that needs no
//!   tuning. The [module documentation](stream) says how it works and where its limits are.
//!
//! ```
//! use linfa::prelude::*;
//! use linfa_isolation::IsolationForest;
//! use ndarray::Array2;
//!
//! let mut rows = Array2::from_shape_fn((200, 2), |(i, j)| ((i * 7 + j * 3) % 20) as f64);
//! rows.row_mut(17).fill(90.0);
//! let forest = IsolationForest::params().seed(7).fit(&DatasetBase::from(rows.clone()))?;
//! let scores = forest.score_samples(&rows)?;
//! assert!(scores.iter().enumerate().all(|(i, score)| i == 17 || *score < scores[17]));
//! # Ok::<(), linfa_isolation::IsolationError>(())
//! ```
//!
//! The same seed and data give the same scores, bit for bit, on every platform whose floats are IEEE 754's. Features: `serde` (save and restore, with a version and checks),
//! `rayon` (batch forests on all cores, with the same result).
//!
//! # Literature
//!
//! - F. T. Liu, K. M. Ting, Z.-H. Zhou: Isolation Forest. ICDM 2008.
//! - S. Hariri, M. Carrasco Kind, R. J. Brunner: Extended Isolation Forest. IEEE TKDE, 2019.
//! - S. Guha, N. Mishra, G. Roy, O. Schrijvers: Robust Random Cut Forest Based Anomaly Detection on Streams. ICML 2016.
//! - C. C. Aggarwal: On Biased Reservoir Sampling in the Presence of Stream Evolution. VLDB 2006.
//! - B. Efron: Large-Scale Simultaneous Hypothesis Testing: The Choice of a Null Hypothesis. JASA, 2004.

mod error;
mod forest;
mod math;
mod path_length;
mod random;
pub mod stream;
#[cfg(feature = "serde")]
mod version;

pub use error::{IsolationError, StreamError};
pub use forest::{
    Contamination, Cuts, IsolationForest, IsolationForestParams, IsolationForestValidParams, PathRule,
};
pub use path_length::average_path_length;
pub use stream::{
    Episode, Hysteresis, Score, StreamingForest, StreamingForestParams, StreamingForestValidParams,
};
