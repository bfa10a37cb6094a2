//! The detector for rows as they come.

mod detector;
mod deviation;
mod episode;
mod features;
mod head;
mod hyperparams;
mod normal;
#[cfg(feature = "serde")]
mod saved;
mod tail;
mod tree;
mod verdict;

pub use detector::{Score, StreamingForest};
pub use episode::Episode;
pub use hyperparams::{Hysteresis, StreamingForestParams, StreamingForestValidParams};
