//! Where a frame becomes veiled: one thread takes the newest frame of each camera in turn, covers its faces, and hands
//! on a JPEG. There is no other way from a camera to the spool.

mod slots;
mod start;
mod thread;

pub use slots::Slots;
pub use start::Start;
pub use thread::{CameraView, Vision, Waiting, watch};
