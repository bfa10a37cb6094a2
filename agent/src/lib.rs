//! Edgeveil's daemon: frames and readings in; veiled images, scored readings and alerts out; nothing lost between.
//!
//! Follow the data: [`capture`] and [`sense`] produce, [`vision`] veils, [`record`] makes durable, [`link`] delivers.
//! [`run`](run::run) puts them together.

pub mod allocator;
mod board;
#[cfg(feature = "vision")]
pub mod capture;
pub mod cli;
pub mod clock;
pub mod health;
pub mod link;
pub mod pause;
mod program;
pub mod record;
pub mod run;
pub mod sense;
pub mod settings;
pub mod state;
#[cfg(feature = "vision")]
pub mod vision;
pub mod watchdog;
