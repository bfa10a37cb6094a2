//! The device itself: certificate, clock, disk, permissions.

use super::Finding;
#[cfg(feature = "vision")]
use crate::settings::CameraSource;
use crate::{
    clock::{Clock, SystemClock},
    enroll::{Folder, renewal},
    link::Identity,
    settings::{SensorSource, Settings},
};
use edgeveil_wire::ClockState;
use jiff::{SignedDuration, Timestamp};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// A certificate that ends sooner is worth a word.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What runs here.
pub fn versions() -> Vec<Finding> {
    let text = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let kernel = text("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".to_owned());
    let board = text("/proc/device-tree/model").map(|board| format!(", {}", board.trim_end_matches('\0')));
    let v4l2 = if cfg!(feature = "v4l2") { "with V4L2" } else { "without V4L2" };
    let agent = concat!("edgeveil-agent ", env!("CARGO_PKG_VERSION"));
    let said =
        format!("{agent} {v4l2}, Linux {kernel} on {}{}", std::env::consts::ARCH, board.unwrap_or_default());
    vec![Finding::ok("versions", said)]
}

/// The clock.
pub fn clock() -> Finding {
    let now = SystemClock::start().now();
    let said = format!("{} UTC", now.timestamp.strftime("%Y-%m-%d %H:%M:%S"));
    match now.clock {
        ClockState::Synced => Finding::ok("clock", said),
        ClockState::Unsynced => Finding::warn(
            "clock",
            format!("{said}, and nobody has set it"),
            "`timedatectl set-ntp true`, or let the device reach a time server; records are restamped once it is set",
        ),
    }
}

/// Certificate and key; the identity when it can be used to connect.
pub fn identity(settings: &Settings) -> (Option<Identity>, Vec<Finding>) {
    let link = &settings.link;
    let issue = "issue one with `edgeveil-bridge certs device NAME`";
    let identity = match Identity::load(link) {
        Ok(identity) => identity,
        Err(error) => return (None, vec![Finding::fail("certificate", error, issue)]),
    };
    let now = Timestamp::now();
    let mut findings = Vec::new();
    for checked in
        [identity.check_name(settings.device.name.as_ref(), &link.cert), identity.check_time(now, &link.cert)]
    {
        if let Err(error) = checked {
            findings.push(Finding::fail("certificate", error, issue));
        }
    }
    if now < identity.not_before {
        let said = format!("{} is valid from {} on", link.cert.display(), identity.not_before);
        findings.push(Finding::fail("certificate", said, "set the device's clock, or wait"));
    }
    if findings.is_empty() {
        let days = (identity.not_after.duration_since(now)).as_hours() / 24;
        let said = format!("{} of {}, {days} days left", link.cert.display(), identity.device);
        findings.push(if let Some(folder) = &link.folder {
            renewal(&identity, settings, folder, said, now)
        } else if identity.not_after.duration_since(now) < SOON {
            let remedy = format!("issue a new one with `edgeveil-bridge certs device {} --force`; it is taken up without a restart", identity.device);
            Finding::warn("certificate", said, remedy)
        } else {
            Finding::ok("certificate", said)
        });
    }
    if let Err(why) = identity.check_chain() {
        let said = format!("{} is not signed by link.ca {} ({why})", link.cert.display(), link.ca.display());
        let remedy =
            "right only if the broker takes devices of another CA than its own; else issue it by that CA";
        findings.push(Finding::warn("chain", said, remedy));
    }
    let usable = findings.iter().all(|finding| !finding.is_fail());
    (usable.then_some(identity), findings)
}

/// A certificate that the agent renews itself.
fn renewal(identity: &Identity, settings: &Settings, folder: &Path, said: String, now: Timestamp) -> Finding {
    let due = |random| renewal::due(identity.not_before, identity.not_after, settings.renew.after, random);
    let folder = Folder::new(folder);
    if settings.renew.url.is_none() && folder.current().url().is_none() {
        let said = format!("{said}; it was put there by hand, so nobody renews it");
        let remedy = "enrol with a token (`edgeveil-bridge enroll token`), or set renew.url";
        return if identity.not_after.duration_since(now) < SOON {
            Finding::warn("certificate", said, remedy)
        } else {
            Finding::ok("certificate", said)
        };
    }
    // A twentieth of its lifetime after the last moment at which it should have been.
    if now > due(2.0) {
        let said = format!("{said}, and it was to be renewed on {}", due(0.0));
        return Finding::warn(
            "certificate",
            said,
            "the agent's log and status say what keeps it from the bridge's registrar",
        );
    }
    Finding::ok("certificate", format!("{said}, renewed from {} on", due(0.0)))
}

/// Who may read and write what.
pub fn permissions(settings: &Settings, file: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mode = |path: &Path| fs::metadata(path).map(|meta| meta.permissions().mode()).unwrap_or(0);
    #[cfg(feature = "vision")]
    let logins = settings.cameras.iter().filter_map(|camera| match &camera.source {
        CameraSource::Http(http) | CameraSource::Snapshot(http) => http.login.as_deref(),
        _ => None,
    });
    #[cfg(not(feature = "vision"))]
    let logins = std::iter::empty::<&Path>();
    let nearby = settings.sensors.iter().filter_map(|sensor| match &sensor.source {
        SensorSource::Mqtt(source) => source.login.as_deref(),
        _ => None,
    });
    for secret in logins.chain(nearby).chain([settings.link.key.as_path()]) {
        // A group that was made for it may read it.
        if mode(secret) & 0o007 != 0 {
            let said = format!("everybody may read {}", secret.display());
            findings.push(Finding::warn("permissions", said, format!("`chmod o= {}`", secret.display())));
        }
    }
    if mode(file) & 0o002 != 0 {
        let said = format!("everybody may write {}, and the programs that it names are run", file.display());
        findings.push(Finding::warn("permissions", said, format!("`chmod o-w {}`", file.display())));
    }
    if mode(&settings.device.data_dir) & 0o007 != 0 {
        let dir = settings.device.data_dir.display();
        findings.push(Finding::warn(
            "permissions",
            format!("everybody may look into {dir}"),
            format!("`chmod o= {dir}`"),
        ));
    }
    let owner = fs::metadata(&settings.device.data_dir).map(|meta| meta.uid());
    let me = rustix::process::geteuid();
    if me.is_root() && owner.is_ok_and(|owner| owner != 0) {
        let said = "run as root, who may do everything: what the agent's user may do was not seen";
        findings.push(Finding::warn("permissions", said, "`sudo -u edgeveil edgeveil-agent doctor`"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("permissions", "secrets are for those who need them"));
    }
    findings
}

/// Whether the spool can be kept where the settings say.
pub fn disk(settings: &Settings) -> Vec<Finding> {
    let dir = &settings.device.data_dir;
    if let Err(error) = data_dir(settings) {
        return vec![Finding::fail("disk", error, "make room for it")];
    }
    let Ok(disk) = rustix::fs::statvfs(dir) else { return Vec::new() };
    let free = (disk.f_bavail * disk.f_frsize).saturating_sub(settings.spool.min_free_bytes);
    let said = format!("{} has {} MiB for the spool", dir.display(), free >> 20);
    let wanted = settings.spool.max_bytes;
    vec![if free < wanted {
        let said = format!("{said}, and spool.max_bytes is {} MiB", wanted >> 20);
        Finding::warn("disk", said, "lower spool.max_bytes, or make room: else the free space bounds it")
    } else {
        Finding::ok("disk", said)
    }]
}

/// Whether the data folder can be written and has room.
pub fn data_dir(settings: &Settings) -> Result<(), String> {
    let dir = &settings.device.data_dir;
    let shown = dir.display();
    let probe = dir.join(".writable");
    fs::create_dir_all(dir).and_then(|()| fs::write(&probe, b"")).map_err(|error| {
        format!("device.data_dir {shown}: {error}; make it writable for the agent's user, or set another")
    })?;
    let _ = fs::remove_file(&probe);
    let disk = rustix::fs::statvfs(dir).map_err(|error| format!("device.data_dir {shown}: {error}"))?;
    let (free, wanted) = (disk.f_bavail * disk.f_frsize, settings.spool.min_free_bytes);
    if free < wanted {
        return Err(format!(
            "device.data_dir {shown}: {} MiB are free, and spool.min_free leaves {} MiB to others, so nothing could be recorded; free some space, or lower it",
            free >> 20,
            wanted >> 20
        ));
    }
    Ok(())
}
