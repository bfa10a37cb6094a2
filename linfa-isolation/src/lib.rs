//! Isolation forests for batches and for streams.
//!
//! (Overview follows.)

mod error;
mod forest;
mod path_length;
mod random;
mod stream;

pub use error::{IsolationError, StreamError};
pub use forest::{
    Contamination, Cuts, IsolationForest, IsolationForestParams, IsolationForestValidParams, PathRule,
};
pub use path_length::{average_path_length, harmonic};
pub use stream::{
    Episode, Hysteresis, Score, StreamingForest, StreamingForestParams, StreamingForestValidParams,
};
