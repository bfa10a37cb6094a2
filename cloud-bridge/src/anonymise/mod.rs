//! Pictures of cameras that run no agent: taken in by HTTP, veiled by workers, read as results.
//!
//! The rooms, in the order of the data: [`api`] inspects a picture ([`picture`]), puts it into the input place and a row into
//! the catalog; a `worker` claims the row, veils, puts the result into the output place, marks the row and removes the
//! raw picture; [`mend`] finishes what a crash has left half done, and removes what has expired.
//!
//! What must stay true: nothing but a `VeiledJpeg` is written to the output place; a job has one result, whatever happens to
//! its workers, since the result's key comes from the job's id alone; a picture that was taken in (202) is never lost.

#[cfg(feature = "worker")]
pub mod amqp;
pub mod api;
mod form;
mod id;
pub mod mend;
pub mod picture;
#[cfg(feature = "worker")]
pub mod program;
pub mod results;
pub mod token;
#[cfg(feature = "worker")]
pub mod veiler;
#[cfg(feature = "worker")]
pub mod worker;

pub use api::Images;
pub use id::{JobId, NoJobId};
pub use mend::Mender;
pub use results::Results;

use crate::{objects::Objects, settings::AnonymiseSettings};
use anyhow::Result;
/// Where pictures lie.
#[derive(Debug, Clone)]
pub struct Places {
    /// Raw ones.
    pub input: Objects,
    /// Veiled ones.
    pub output: Results,
}

impl Places {
    /// Opens both.
    pub async fn open(settings: &AnonymiseSettings) -> Result<Self> {
        let input = Objects::open_as(&settings.input, "anonymise.input").await?;
        let output = Results::open(&settings.output, "anonymise.output").await?;
        Ok(Self { input, output })
    }
}

/// Why a job fails whose raw picture somebody has removed.
pub(crate) const RAW_IS_GONE: &str = "its raw picture is gone from the input place";
