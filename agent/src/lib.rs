//! Edgeveil's daemon: frames and readings in; veiled images, scored readings and alerts out; nothing lost between.
//!
//! Follow the data: [`capture`] and [`sense`] produce, [`vision`] veils, [`record`] makes durable, [`link`] delivers.
//! [`run`](run::run) puts them together; [`enroll`] gets the device its certificate.

pub mod allocator;
mod board;
#[cfg(feature = "vision")]
pub mod capture;
pub mod cli;
pub mod clock;
pub mod enroll;
pub mod health;
pub mod link;
pub mod pause;
mod program;
pub mod record;
pub mod run;
pub mod sense;
pub mod settings;
#[cfg(feature = "simulate")]
pub mod simulate;
pub mod state;
pub mod status;
pub mod tuning;
#[cfg(feature = "vision")]
pub mod vision;
pub mod watchdog;

/// A random number in [0, 1).
fn random_share() -> f64 {
    // Without randomness there is no jitter, and all else goes on.
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}
