//! The output place. Nothing but a `VeiledJpeg` can be written to it, and only the crate `veil` can make one.

use crate::{
    objects::{ObjectError, Objects},
    settings::ObjectSettings,
};
use anyhow::Result;
use bytes::Bytes;

/// Veiled pictures.
#[derive(Debug, Clone)]
pub struct Results(Objects);

impl Results {
    /// Opens the place that a section of the settings names.
    pub async fn open(settings: &ObjectSettings, section: &'static str) -> Result<Self> {
        Ok(Self(Objects::open_as(settings, section).await?))
    }

    /// Writes one, in place of any that was there.
    #[cfg(feature = "worker")]
    pub async fn put(&self, key: &str, picture: edgeveil_veil::VeiledJpeg) -> Result<(), ObjectError> {
        self.0.put(key, picture.into_bytes().into()).await
    }

    /// Reads one.
    pub async fn get(&self, key: &str) -> Result<Bytes, ObjectError> {
        self.0.get(key).await
    }

    /// Whether it is there.
    pub async fn has(&self, key: &str) -> Result<bool, ObjectError> {
        self.0.has(key).await
    }

    /// Removes one, if it is there.
    pub async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.0.delete(key).await
    }

    /// Whether the place answers.
    pub async fn answers(&self) -> Result<(), ObjectError> {
        self.0.answers().await
    }

    /// Removes what was left half written.
    pub fn sweep(&self, before: std::time::SystemTime) {
        self.0.sweep(before);
    }
}
