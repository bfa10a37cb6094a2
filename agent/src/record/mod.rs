//! Where a record becomes durable: everything that is to be delivered goes through [`Records`] to one thread, which
//! numbers it, pushes it into the spool and commits.
//!
//! The only image that fits through is a [`VeiledJpeg`](edgeveil_veil::VeiledJpeg), which only the veil can make.

mod claim;
mod lanes;
#[cfg(feature = "vision")]
mod receipt;
mod writer;

pub use claim::{claim, left_behind};
pub use lanes::{REFUSED, lane_index, open};
#[cfg(feature = "vision")]
pub use receipt::{Fate, Receipt};
#[cfg(feature = "vision")]
pub use writer::ImageNumbers;
pub use writer::{AlertBody, Observation, Records, Writer};
