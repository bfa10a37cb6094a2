//! Edgeveil's bridge: it receives what devices send, makes it durable, acknowledges it, and passes alerts on.
//!
//! The rooms, in the order of the data:
//! [`broker`] (embedded) or [`source::external`] -> [`source`] -> [`ingest`] -> [`objects`] and [`catalog`] ->
//! acknowledgement by [`source::ToDevices`]; [`forward`] drains the catalog's outbox; [`homeassistant`] tells Home Assistant what is there; [`web`] shows it all.
//! [`enroll`] gives devices their certificates. [`anonymise`] veils pictures of cameras that run no agent. [`serve`] puts them together. Nothing is acknowledged before it is durable.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

pub mod anonymise;
mod backoff;
pub mod broker;
pub mod catalog;
pub mod certs;
pub mod check;
pub mod cli;
pub mod demo;
pub mod enroll;
pub mod film;
pub mod forward;
pub mod homeassistant;
pub mod ingest;
pub mod metrics;
pub mod objects;
pub mod readiness;
pub mod retention;
pub mod serve;
pub mod settings;
pub mod source;
pub mod telemetry;
pub mod tls;
pub mod troubles;
pub mod verify;
pub mod web;
pub mod wishes;
