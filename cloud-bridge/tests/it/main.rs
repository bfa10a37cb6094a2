//! The bridge as devices, operators and AWS IoT Core meet it. Everything runs on free ports below a temporary folder.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
#[cfg(feature = "worker")]
mod anonymise;
mod api;
mod broker;
mod command;
mod described;
mod enroll;
mod external;
mod film;
mod harness;
mod ingest;
mod kafka;
mod kept;
mod mosquitto;
mod notify;
mod outbox;
mod pages;
mod postgres;
mod retention;
mod s3;
mod truth;
mod webhook;
