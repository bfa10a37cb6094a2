//! What the running agent tells somebody who is on the device: one JSON document to each connection of a local socket,
//! for `edgeveil-agent status`.
//!
//! Nothing is read from a connection, so there are no commands; and nothing that a camera saw or a sensor measured is
//! told, only counts, times, scores and problems.

mod document;
mod place;
mod recent;
mod socket;
mod teller;

pub use document::{CameraNow, Document, LinkNow, SCHEMA, SensorNow, SpoolNow};
pub use place::{MAX_PATH, agents, candidates};
pub use recent::{Connection, LinkState, Pace, Recent, Row};
pub use socket::{Socket, SocketError, serve};
pub use teller::Teller;
