//! The detector for rows as they come.

mod detector;
mod episode;
mod hyperparams;
mod tail;
mod tree;

pub use detector::{Score, StreamingForest};
pub use episode::Episode;
pub use hyperparams::{Hysteresis, StreamingForestParams, StreamingForestValidParams};
