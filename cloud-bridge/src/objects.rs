//! The images' bytes: a folder or an S3 bucket.
//!
//! In a folder a put is durable when it returns: the file's bytes, its name, and every folder that was made for it.

use crate::settings::{ObjectSettings, S3Settings};
use anyhow::{Context, Result};
use bytes::Bytes;
use edgeveil_wire::{DeviceName, ImageMeta, RecordId};
use object_store::{
    ObjectStore, ObjectStoreExt, RetryConfig, aws::AmazonS3Builder, local::LocalFileSystem, path::Path,
};
use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Where images are kept.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    place: String,
    folder: Option<PathBuf>,
    /// Its settings' section, for remedies.
    section: &'static str,
}

/// Why an object could not be written or read. The text names the place and, where it is known, the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {why}")]
pub struct ObjectError {
    place: String,
    why: String,
    /// Whether it is simply not there.
    pub missing: bool,
}

impl Objects {
    /// Opens it. A folder is made, and written to once, so that a wrong one is found at the start.
    pub async fn open(settings: &ObjectSettings) -> Result<Self> {
        Self::open_as(settings, "objects").await
    }

    /// The same for a place of another section of the settings.
    pub async fn open_as(settings: &ObjectSettings, section: &'static str) -> Result<Self> {
        match settings {
            ObjectSettings::Folder(folder) => {
                let place = format!("object folder {}", folder.display());
                let remedy = || {
                    format!(
                        "{place}: cannot be written; make it writable for this user, or set {section}.folder"
                    )
                };
                fs::DirBuilder::new().recursive(true).mode(0o750).create(folder).with_context(remedy)?;
                let probe = folder.join(".writable");
                fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)).with_context(remedy)?;
                let store = LocalFileSystem::new_with_prefix(folder).with_context(remedy)?.with_fsync(true);
                Ok(Self { store: Arc::new(store), place, folder: Some(folder.clone()), section })
            }
            ObjectSettings::S3(settings) => {
                let place = format!("bucket {}", settings.bucket);
                let store = s3(settings).with_context(|| place.clone())?;
                Ok(Self { store: Arc::new(store), place, folder: None, section })
            }
        }
    }

    /// Opens what is there, to look at it only.
    pub async fn open_existing(settings: &ObjectSettings) -> Result<Self> {
        let ObjectSettings::Folder(folder) = settings else { return Self::open(settings).await };
        let place = format!("object folder {}", folder.display());
        anyhow::ensure!(folder.is_dir(), "{place}: there is none; mend data_dir or objects.folder");
        let store = LocalFileSystem::new_with_prefix(folder).with_context(|| place.clone())?;
        Ok(Self { store: Arc::new(store), place, folder: Some(folder.clone()), section: "objects" })
    }

    /// Whether it answers.
    pub async fn answers(&self) -> Result<(), ObjectError> {
        // A folder that nobody has: listing it asks for the bucket and the right to read it, and costs nothing.
        let listed = self.store.list_with_delimiter(Some(&Path::from(".answers"))).await;
        listed.map_err(|error| self.error(error)).map(drop)
    }

    /// Writes an object; the same key with the same bytes any number of times.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let path = Path::parse(key).map_err(|error| self.error(error.into()))?;
        self.store.put(&path, bytes.into()).await.map_err(|error| self.error(error)).map(drop)
    }

    /// Removes what a bridge that was killed has left half written in a folder: nobody else ever would. What is written
    /// now is left alone. Looks at every name, so it is for a thread of its own.
    pub fn sweep(&self, before: SystemTime) {
        let mut open: Vec<PathBuf> = self.folder.iter().cloned().collect();
        let mut swept = 0;
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    open.push(entry.path());
                } else if is_unfinished(&entry.file_name())
                    && entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at < before)
                    && fs::remove_file(entry.path()).is_ok()
                {
                    swept += 1;
                }
            }
        }
        if swept > 0 {
            tracing::info!(swept, place = self.place, "removed files that were left half written");
        }
    }

    /// Reads an object.
    pub async fn get(&self, key: &str) -> Result<Bytes, ObjectError> {
        let path = Path::parse(key).map_err(|error| self.error(error.into()))?;
        let found = self.store.get(&path).await.map_err(|error| self.error(error))?;
        found.bytes().await.map_err(|error| self.error(error))
    }

    /// Whether an object is there.
    pub async fn has(&self, key: &str) -> Result<bool, ObjectError> {
        let path = Path::parse(key).map_err(|error| self.error(error.into()))?;
        match self.store.head(&path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Removes an object, if it is there.
    pub async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let path = Path::parse(key).map_err(|error| self.error(error.into()))?;
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Every key and its size.
    pub async fn list(&self) -> Result<Vec<(String, u64)>, ObjectError> {
        let listed = self.store.list_with_delimiter(None).await.map_err(|error| self.error(error))?;
        let mut found = Vec::new();
        let mut open = vec![listed];
        while let Some(level) = open.pop() {
            found.extend(level.objects.into_iter().map(|meta| (meta.location.to_string(), meta.size)));
            for prefix in level.common_prefixes {
                let below = self.store.list_with_delimiter(Some(&prefix)).await;
                open.push(below.map_err(|error| self.error(error))?);
            }
        }
        Ok(found)
    }

    fn error(&self, error: object_store::Error) -> ObjectError {
        let missing = matches!(error, object_store::Error::NotFound { .. });
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(current) = source {
            let io = current.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            let why = match io {
                Some(std::io::ErrorKind::StorageFull) => {
                    "no space left; free some, nothing is lost meanwhile"
                }
                Some(std::io::ErrorKind::QuotaExceeded) => {
                    "quota reached; raise it, nothing is lost meanwhile"
                }
                Some(std::io::ErrorKind::PermissionDenied) => {
                    "not writable for this user; mend its owner or mode"
                }
                Some(std::io::ErrorKind::ReadOnlyFilesystem) => {
                    "its file system is read-only; remount it for writing"
                }
                _ => {
                    source = current.source();
                    continue;
                }
            };
            return ObjectError { place: self.place.clone(), why: why.to_owned(), missing };
        }
        let why = match &error {
            object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => {
                "access denied; check the keys, and that they may list, read and write this bucket".to_owned()
            }
            other => other.to_string(),
        };
        // Servers answer in XML of many lines.
        let why = if why.contains("<Code>NoSuchBucket</Code>") {
            format!("there is no such bucket; make it, or set {}.s3.bucket", self.section)
        } else {
            why.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        ObjectError { place: self.place.clone(), why, missing }
    }
}

fn s3(settings: &S3Settings) -> Result<object_store::aws::AmazonS3> {
    let secret = |file: &std::path::Path| {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Ok::<_, anyhow::Error>(text.trim().to_owned())
    };
    // From the environment come AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their like.
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_allow_http(settings.allow_http)
        // Ingest tries again by itself, and says meanwhile what is wrong.
        .with_retry(RetryConfig {
            max_retries: 2,
            retry_timeout: Duration::from_secs(15),
            ..RetryConfig::default()
        });
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(file) = &settings.access_key_id_file {
        builder = builder.with_access_key_id(secret(file)?);
    }
    if let Some(file) = &settings.secret_access_key_file {
        builder = builder.with_secret_access_key(secret(file)?);
    }
    builder.build().context("S3 settings")
}

/// object_store writes `name#1` and renames it; a name that ends so is never an object's.
fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    digits > 0 && name.len() > digits && name[name.len() - digits - 1] == b'#'
}

/// `<device>/<camera>/<yyyy>/<mm>/<dd>/<timestamp>-<id>.jpg`, so that a folder can be browsed and a day be removed.
pub fn key(device: &DeviceName, meta: &ImageMeta) -> String {
    let time = meta.stamp.timestamp.to_zoned(jiff::tz::TimeZone::UTC);
    let day = time.strftime("%Y/%m/%d");
    let millis = meta.stamp.timestamp.as_millisecond().rem_euclid(1000);
    format!(
        "{device}/{}/{day}/{}.{millis:03}Z-{}.jpg",
        meta.camera,
        time.strftime("%Y%m%dT%H%M%S"),
        meta.stamp.id
    )
}

/// `dead/<device>/<id>.jpg`: a refused record, whole. No image has such a key: theirs have more levels.
pub fn dead_key(device: &DeviceName, id: RecordId, extension: &str) -> String {
    format!("dead/{device}/{id}.{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_left_half_written_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(&ObjectSettings::Folder(dir.path().to_owned())).await.unwrap();
        objects.put("pi/desk/1.jpg", Bytes::from_static(b"whole")).await.unwrap();
        let (old, new) = (dir.path().join("pi/desk/2.jpg#1"), dir.path().join("pi/desk/3.jpg#12"));
        fs::write(&old, "ha").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let started = SystemTime::now();
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&new, "l").unwrap();
        objects.sweep(started);
        assert!(!old.exists() && new.exists());
        assert_eq!(objects.list().await.unwrap(), [("pi/desk/1.jpg".to_owned(), 5)]);
    }
}
