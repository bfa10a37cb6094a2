//! The images' bytes: a folder or an S3 bucket.
//!
//! In a folder a put is durable when it returns: the file's bytes, its name, and every folder that was made for it.

mod key;
mod s3;

pub use key::{KeyTemplate, dead_key};

use crate::settings::{ObjectSettings, S3Settings};
use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    WriteMultipart, aws::AmazonS3, local::LocalFileSystem, path::Path, signer::Signer,
};
use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// Parts in which a file goes to a bucket, of which one at a time is on its way.
const PART: usize = 8 << 20;
/// What is read of a file at once.
const PIECE: usize = 256 << 10;

/// Where images are kept.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    place: String,
    folder: Option<PathBuf>,
    bucket: Option<Arc<Bucket>>,
    /// Its settings' section, for remedies.
    section: &'static str,
}

/// What a folder has not.
#[derive(Debug)]
struct Bucket {
    store: AmazonS3,
    settings: S3Settings,
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
                // Another replica may do the same at this moment.
                let remove = || match fs::remove_file(&probe) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
                fs::write(&probe, b"").and_then(|()| remove()).with_context(remedy)?;
                let store = LocalFileSystem::new_with_prefix(folder).with_context(remedy)?.with_fsync(true);
                Ok(Self {
                    store: Arc::new(store),
                    place,
                    folder: Some(folder.clone()),
                    bucket: None,
                    section,
                })
            }
            ObjectSettings::S3(settings) => {
                let place = format!("bucket {}", settings.bucket);
                let store = s3::open(settings).with_context(|| place.clone())?;
                let bucket = Some(Arc::new(Bucket { store: store.clone(), settings: settings.clone() }));
                Ok(Self { store: Arc::new(store), place, folder: None, bucket, section })
            }
        }
    }

    /// Opens what is there, to look at it only.
    pub async fn open_existing(settings: &ObjectSettings) -> Result<Self> {
        let ObjectSettings::Folder(folder) = settings else { return Self::open(settings).await };
        let place = format!("object folder {}", folder.display());
        anyhow::ensure!(folder.is_dir(), "{place}: there is none; mend data_dir or objects.folder");
        let store = LocalFileSystem::new_with_prefix(folder).with_context(|| place.clone())?;
        let folder = Some(folder.clone());
        Ok(Self { store: Arc::new(store), place, folder, bucket: None, section: "objects" })
    }

    /// Whether it answers.
    pub async fn answers(&self) -> Result<(), ObjectError> {
        // A folder that nobody has: listing it asks for the bucket and the right to read it, and costs nothing.
        let listed = self.store.list_with_delimiter(Some(&Path::from(".answers"))).await;
        listed.map_err(|error| self.error(error)).map(drop)
    }

    /// Writes an object, in place of any that was there.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.put_as(key, bytes, PutMode::Overwrite).await.map_err(|error| self.error(error))
    }

    /// Writes an object whose key names the same bytes for ever. Where it is there already nothing is written, so that a bucket
    /// that keeps versions has one.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let conditional = self.bucket.as_ref().is_some_and(|bucket| bucket.settings.conditional_put);
        if !conditional {
            return self.put(key, bytes).await;
        }
        match self.put_as(key, bytes.clone(), PutMode::Create).await {
            Err(object_store::Error::AlreadyExists { .. }) => {
                let path = Path::parse(key).map_err(|error| self.error(error.into()))?;
                let there = self.store.head(&path).await.map_err(|error| self.error(error))?;
                if there.size == bytes.len() as u64 {
                    return Ok(());
                }
                tracing::warn!(
                    key,
                    place = self.place,
                    "something else has this record's key: it is replaced"
                );
                self.put(key, bytes).await
            }
            put => put.map_err(|error| self.error(error)),
        }
    }

    async fn put_as(&self, key: &str, bytes: Bytes, mode: PutMode) -> object_store::Result<()> {
        let path = Path::parse(key)?;
        let options = match &self.bucket {
            Some(bucket) => s3::put_options(&bucket.settings, key, mode),
            None => PutOptions { mode, ..PutOptions::default() },
        };
        self.store.put_opts(&path, bytes.into(), options).await.map(drop)
    }

    /// Where whoever has this link can read the object, for so long. None in a folder.
    pub async fn link(&self, key: &str, lasts: Duration) -> Result<Option<String>, ObjectError> {
        let Some(bucket) = &self.bucket else { return Ok(None) };
        let path = Path::parse(key).map_err(|error| self.error(error.into()))?;
        let url = bucket.store.signed_url(reqwest::Method::GET, &path, lasts).await;
        url.map(|url| Some(url.into())).map_err(|error| self.error(error))
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

    /// Writes what is in a file, some of it at a time: its length. What is half written is taken back when that fails, or is
    /// told to stop.
    pub async fn put_file(
        &self,
        key: &str,
        file: &std::path::Path,
        stop: &CancellationToken,
    ) -> Result<u64, ObjectError> {
        let written = async {
            let path = Path::parse(key)?;
            let failed = |error: std::io::Error| object_store::Error::Generic {
                store: "file",
                source: Box::new(error),
            };
            let mut from = tokio::fs::File::open(file).await.map_err(failed)?;
            let options = match &self.bucket {
                Some(bucket) => s3::multipart_options(&bucket.settings, key),
                None => PutMultipartOptions::default(),
            };
            let upload = self.store.put_multipart_opts(&path, options).await?;
            let mut writer = WriteMultipart::new_with_chunk_size(upload, PART);
            let (mut buffer, mut all) = (vec![0; PIECE], 0);
            let filled = loop {
                let read = match from.read(&mut buffer).await {
                    Ok(0) => break Ok(()),
                    Ok(read) => read,
                    Err(error) => break Err(failed(error)),
                };
                if stop.is_cancelled() {
                    break Err(failed(std::io::ErrorKind::Interrupted.into()));
                }
                if let Err(error) = writer.wait_for_capacity(1).await {
                    break Err(error);
                }
                writer.write(&buffer[..read]);
                all += read as u64;
            };
            match filled {
                Ok(()) => writer.finish().await?,
                Err(error) => {
                    let _ = writer.abort().await;
                    return Err(error);
                }
            };
            Ok(all)
        };
        written.await.map_err(|error| self.error(error))
    }

    /// Some of an object's bytes, as they come.
    pub async fn stream(
        &self,
        key: &str,
        range: std::ops::Range<u64>,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, ObjectError> {
        let path = Path::parse(key).map_err(|error| self.error(error.into()))?;
        let range = (!range.is_empty()).then_some(GetRange::Bounded(range));
        let options = GetOptions { range, ..GetOptions::default() };
        let found = self.store.get_opts(&path, options).await.map_err(|error| self.error(error))?;
        Ok(found.into_stream())
    }

    /// Reads an object of at most so many bytes; none when it is larger.
    pub async fn get_up_to(&self, key: &str, most: u64) -> Result<Option<Bytes>, ObjectError> {
        let path = Path::parse(key).map_err(|error| self.error(error.into()))?;
        let found = self.store.get(&path).await.map_err(|error| self.error(error))?;
        if found.meta.size > most {
            return Ok(None);
        }
        found.bytes().await.map(Some).map_err(|error| self.error(error))
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
        let refused = matches!(
            error,
            object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. }
        );
        let why = error.to_string();
        let says = |code: &str| why.contains(&format!("<Code>{code}</Code>"));
        let why = if refused
            || ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"].into_iter().any(says)
        {
            "access denied; check the keys, and that they may list, read and write this bucket".to_owned()
        } else if says("NoSuchBucket") {
            format!("there is no such bucket; make it, or set {}.s3.bucket", self.section)
        } else if says("NotImplemented") {
            format!(
                "it does not take a header of ours; try {0}.s3.conditional_put = false, and no {0}.s3.encryption or storage_class",
                self.section
            )
        } else {
            // Servers answer in XML of many lines.
            why.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        ObjectError { place: self.place.clone(), why, missing }
    }
}

/// object_store writes `name#1` and renames it; a name that ends so is never an object's.
fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    digits > 0 && name.len() > digits && name[name.len() - digits - 1] == b'#'
}

/// Whether an object can have this key in a folder and in a bucket alike.
pub fn is_key(key: &str) -> bool {
    Path::parse(key).is_ok_and(|path| path.as_ref() == key) && !is_unfinished(OsStr::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_open_one_folder_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let settings = ObjectSettings::Folder(dir.path().to_owned());
        for _ in 0..50 {
            let open = || {
                tokio::spawn({
                    let settings = settings.clone();
                    async move { Objects::open(&settings).await.map(drop) }
                })
            };
            for opened in [open(), open(), open(), open()] {
                opened.await.unwrap().unwrap();
            }
        }
    }

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
