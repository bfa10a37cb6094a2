//! `edgeveil-agent enroll`

use super::{Failure, SettingsFile, read_settings};
use crate::{
    enroll::{BridgeUrl, Fingerprint, Folder, Place, ask},
    link::Identity,
    settings::Settings,
};
use anyhow::{Context, Result, bail};
use edgeveil_wire::DeviceName;
use jiff::Timestamp;
use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The bridge's registrar, such as https://bridge.lan:8444
    url: BridgeUrl,
    /// The device's name, which the token was made for
    #[arg(long, value_name = "NAME")]
    device: DeviceName,
    /// The one-time token; in the environment others on this device do not see it
    #[arg(long, env = "EDGEVEIL_TOKEN", hide_env_values = true)]
    token: Token,
    /// SHA-256 of the CA's certificate, by which the bridge is known
    #[arg(long, value_name = "FINGERPRINT")]
    ca: Fingerprint,
    /// Replaces the certificate that there is
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    settings: SettingsFile,
}

/// Shows itself to nobody.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a token)")
    }
}

impl From<&str> for Token {
    fn from(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

/// Makes a key, has it certified, and puts both where the settings say. Where that was done already nothing is, and no
/// token is used; where it was interrupted it goes on with the same key, for which the bridge gives the same certificate.
pub fn enroll(arguments: &Arguments) -> Result<(), Failure> {
    let settings = read_settings(&arguments.settings.config)?;
    let folder = folder(arguments, &settings)?;
    let there = Identity::load(&settings.link).ok().filter(|_| folder.has_current());
    if let Some(there) = there.as_ref().filter(|_| !arguments.force) {
        if there.device != arguments.device {
            let (found, dir) = (&there.device, folder.path().display());
            return Err(anyhow::anyhow!("{dir} holds the certificate of {found}; give --force to make this device {}: records of {found} then wait apart", arguments.device).into());
        }
        if there.not_after > Timestamp::now() {
            println!(
                "{} is enrolled already, until {}; --force enrols it anew",
                there.device, there.not_after
            );
            return Ok(());
        }
    }
    let Arguments { url, device, token, ca, .. } = arguments;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if arguments.force {
        // What waits to be tried would be in the way.
        folder.reject()?;
    }
    let pending = folder
        .prepare()?
        .context("a renewed certificate waits to be tried; start the agent, or give --force")?;
    let enrolled = runtime.block_on(ask::enroll(url, *ca, device, &token.0, &pending.key))?;
    // A running agent goes on with what it has until the new one has connected.
    let place = if there.is_some_and(|there| there.device == *device && there.not_after > Timestamp::now()) {
        Place::Next
    } else {
        Place::Current
    };
    folder.complete(pending, ask::given(&enrolled, &url.to_string()), place)?;
    let files = folder.next().unwrap_or_else(|| folder.current());
    let identity = Identity::load(&settings.link.with(&files))?;
    println!("{device} is enrolled until {}: {}", identity.not_after, files.cert.display());
    println!(
        "A running agent takes it up by itself. Else: systemctl enable --now edgeveil-agent, and `edgeveil-agent doctor`"
    );
    Ok(())
}

fn folder(arguments: &Arguments, settings: &Settings) -> Result<Folder> {
    let config = arguments.settings.config.display();
    let Some(folder) = &settings.link.folder else {
        bail!(
            "{config} names files of its own; take link.ca, link.cert and link.key out of it, so that the agent keeps its identity in {}, where it can renew it",
            settings.device.data_dir.join("identity").display()
        );
    };
    if let Some(name) = settings.device.name.as_ref().filter(|name| **name != arguments.device) {
        bail!(
            "{config} says that this device is {name}; take device.name out of it, or enrol as {name}, with a token for that"
        );
    }
    let above = folder.parent().unwrap_or(folder);
    DirBuilder::new().recursive(true).mode(0o700).create(above).with_context(|| {
        format!("cannot make {}; make it, and give it to the agent's user (`install -d -o edgeveil -g edgeveil -m 0700 {}`)", above.display(), above.display())
    })?;
    Ok(Folder::new(folder))
}
