//! `check`: whether all that the settings name is there and good, or can be made. Makes and changes nothing.

use crate::{
    anonymise::token,
    catalog::Catalog,
    certs,
    forward::{NotifyService, kafka_config, open_webhook},
    objects::Objects,
    settings::{
        AmqpLogin, AnonymiseSettings, BrokerCertificates, BrokerSettings, CatalogSettings, ImageAccess,
        ObjectSettings, Settings, SourceSettings,
    },
    tls,
};
use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use std::{fs, path::Path};

/// The first thing that is wrong, with its remedy.
pub async fn check(settings: &Settings) -> Result<()> {
    match &settings.source {
        SourceSettings::Embedded(BrokerSettings { certificates: BrokerCertificates::Own(files), .. }) => {
            tls::server(files).map(drop)?;
        }
        SourceSettings::Embedded(_) => {}
        SourceSettings::External(mqtt) => drop(tls::client(&mqtt.tls, None)?),
        SourceSettings::Amqp(amqp) => {
            tls::client(&amqp.tls, None)?;
            if let AmqpLogin::Password { password_file, .. } = &amqp.login {
                fs::File::open(password_file)
                    .with_context(|| format!("cannot read amqp.password_file {}", password_file.display()))?;
            }
        }
    }
    if let Some(enroll) = &settings.enroll
        && !is_made_at_start(settings, &enroll.ca)
    {
        certs::fingerprint(&enroll.ca)
            .with_context(|| format!("the registrar's CA (enroll.ca) in {}", enroll.ca.display()))?;
    }
    if let Some(aws) = &settings.forward.aws {
        tls::client(&aws.tls, aws.alpn.as_deref())?;
    }
    if let Some(webhook) = &settings.forward.webhook {
        open_webhook(webhook)?;
    }
    if let Some(notify) = &settings.forward.notify {
        NotifyService::open(notify)?;
    }
    if let Some(kafka) = &settings.forward.kafka {
        kafka_config(kafka)?;
    }
    if let ObjectSettings::S3(s3) = &settings.objects {
        for file in [&s3.access_key_id_file, &s3.secret_access_key_file].into_iter().flatten() {
            fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        }
    }
    if let Some(settings) = &settings.anonymise {
        anonymise(settings).await?;
    }
    can_hold_files(&settings.data_dir)
        .with_context(|| format!("data folder {}", settings.data_dir.display()))?;
    objects(&settings.objects, "objects").await?;
    let CatalogSettings::Sqlite(file) = &settings.catalog else {
        return Ok(Catalog::check(&settings.catalog).await?);
    };
    if file.exists() {
        Catalog::check(&settings.catalog).await?;
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    can_hold_files(folder).with_context(|| format!("catalog {}: its folder", file.display()))
}

/// Whether a CA that is not there yet is one that `serve` makes.
fn is_made_at_start(settings: &Settings, ca: &Path) -> bool {
    let SourceSettings::Embedded(BrokerSettings {
        certificates: BrokerCertificates::Development(dir), ..
    }) = &settings.source
    else {
        return false;
    };
    dir == ca && !ca.join("ca.pem").exists() && !ca.join("ca.key").exists()
}

/// The model is not looked for: it may be on the machine of a worker only, which tells at its start.
async fn anonymise(settings: &AnonymiseSettings) -> Result<()> {
    if let ImageAccess::Tokens(file) = &settings.access {
        token::read(file).await?;
    }
    objects(&settings.input, "anonymise.input").await?;
    objects(&settings.output, "anonymise.output").await?;
    if let Some(amqp) = &settings.amqp {
        for file in [Some(&amqp.password_file), amqp.ca.as_ref()].into_iter().flatten() {
            std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        }
        objects(&amqp.input, "anonymise.amqp.input").await?;
        objects(&amqp.output, "anonymise.amqp.output").await?;
    }
    Ok(())
}

async fn objects(settings: &ObjectSettings, section: &'static str) -> Result<()> {
    if let ObjectSettings::Folder(folder) = settings {
        return can_hold_files(folder).with_context(|| format!("object folder {}", folder.display()));
    }
    let objects = Objects::open_as(settings, section).await?;
    objects.answers().await.map_err(anyhow::Error::from)
}

/// Whether a folder is writable, or can be made.
fn can_hold_files(folder: &Path) -> Result<()> {
    // Of a folder that is not there yet the nearest one above it counts.
    let mut there = folder;
    while !there.exists() {
        there = there.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    }
    if !there.is_dir() {
        bail!("{} is no folder; name another one", there.display());
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK)
        .with_context(|| format!("{} is not writable for this user; mend its owner or mode", there.display()))
}
