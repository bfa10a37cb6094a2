//! S3, and what speaks like it.

use crate::settings::{Encryption, S3Settings};
use anyhow::{Context, Result};
use object_store::{
    Attribute, Attributes, PutMode, PutMultipartOptions, PutOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut},
};
use std::{fs, path::Path, time::Duration};

/// Connects on its first request.
pub fn open(settings: &S3Settings) -> Result<AmazonS3> {
    let secret = |file: &Path| {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Ok::<_, anyhow::Error>(text.trim().to_owned())
    };
    let conditional =
        if settings.conditional_put { S3ConditionalPut::ETagMatch } else { S3ConditionalPut::Disabled };
    // From the environment come AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their like.
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_allow_http(settings.allow_http)
        .with_conditional_put(conditional)
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
    if let Some(encryption) = &settings.encryption {
        let key = |name: &str| name.parse::<AmazonS3ConfigKey>().context("a setting of S3");
        let (kind, id) = match encryption {
            Encryption::S3 => ("AES256", None),
            Encryption::Kms(id) => ("aws:kms", id.as_ref()),
            Encryption::KmsTwice(id) => ("aws:kms:dsse", id.as_ref()),
        };
        builder = builder.with_config(key("server_side_encryption")?, kind);
        if let Some(id) = id {
            builder = builder.with_config(key("sse_kms_key_id")?, id);
        }
    }
    builder.build().context("S3 settings")
}

/// How an object is written.
pub fn put_options(settings: &S3Settings, key: &str, mode: PutMode) -> PutOptions {
    PutOptions { mode, attributes: attributes(settings, key), ..PutOptions::default() }
}

/// The same for one that goes in parts.
pub fn multipart_options(settings: &S3Settings, key: &str) -> PutMultipartOptions {
    PutMultipartOptions { attributes: attributes(settings, key), ..PutMultipartOptions::default() }
}

fn attributes(settings: &S3Settings, key: &str) -> Attributes {
    let mut attributes = Attributes::new();
    // Browsers see it, when they are sent to the bucket.
    let kind = match key.rsplit_once('.') {
        Some((_, "jpg")) => "image/jpeg",
        Some((_, "mp4")) => "video/mp4",
        Some((_, "json")) => "application/json",
        _ => "application/octet-stream",
    };
    attributes.insert(Attribute::ContentType, kind.into());
    if let Some(class) = &settings.storage_class {
        attributes.insert(Attribute::StorageClass, class.clone().into());
    }
    attributes
}
