//! Finds the agent's socket, and reads what it says.

use super::BAD_SETTINGS;
use crate::{
    cli::{Failure, read_settings},
    status,
};
use anyhow::{Result, anyhow};
use std::{
    fs,
    io::{self, Read},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

const DEFAULT: &str = "/etc/edgeveil/agent.toml";
/// The agent itself gives up after two seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any number of cameras and sensors makes.
const MAX_BYTES: u64 = 4 << 20;
const REMEDY: &str = "see `systemctl status edgeveil-agent` and `journalctl -u edgeveil-agent`, or name the socket of one that runs with --socket";

/// Where the agent may be asked.
pub struct Places {
    sockets: Vec<PathBuf>,
    /// The data folder of the agent that is meant, where that is known.
    data_dir: Option<PathBuf>,
}

/// By what the user says, or by the settings. Those of the unit are not everybody's to read, and need not be: its socket
/// has a well-known place.
pub fn places(config: Option<&Path>, socket: Option<&Path>) -> Result<Places, Failure> {
    if let Some(socket) = socket {
        return Ok(Places { sockets: vec![socket.to_owned()], data_dir: None });
    }
    match read_settings(config.unwrap_or(Path::new(DEFAULT))) {
        Ok(settings) => {
            let sockets = status::candidates(Some(&settings.device));
            Ok(Places { sockets, data_dir: Some(settings.device.data_dir) })
        }
        Err(failure) if config.is_some() => Err(Failure { code: BAD_SETTINGS, ..failure }),
        Err(_) => Ok(Places { sockets: status::candidates(None), data_dir: None }),
    }
}

/// What the first agent says that answers.
pub fn ask(places: &Places) -> Result<String> {
    let mut failures = Vec::new();
    let mut denied = Vec::new();
    for socket in &places.sockets {
        let why = match talk(socket) {
            Ok(said) if said.is_empty() => "it answers nothing, being about to start or stop".to_owned(),
            Ok(said) => match other_agent(&said, places.data_dir.as_deref()) {
                None => return Ok(said),
                Some(dir) => format!("an agent with another data folder, {dir}"),
            },
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    denied.push(socket.as_path());
                }
                words(&error)
            }
        };
        failures.push(format!("{} ({why})", socket.display()));
    }
    let remedy = if denied.is_empty() { REMEDY.to_owned() } else { format!("{}; {REMEDY}", rights(&denied)) };
    Err(anyhow!("no agent answers at {}; {remedy}", failures.join(" or ")))
}

fn talk(socket: &Path) -> io::Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut said)?;
    Ok(said)
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is none".to_owned(),
        io::ErrorKind::ConnectionRefused => "the agent that had made it is gone".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::WouldBlock => "it does not answer in time".to_owned(),
        _ => error.to_string(),
    }
}

/// The data folder of whoever says this, where it is not the wanted one.
fn other_agent(said: &str, wanted: Option<&Path>) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(said).ok()?;
    let dir = document.get("data_dir")?.as_str()?;
    (Path::new(dir) != wanted?).then(|| dir.to_owned())
}

/// Who may ask there.
fn rights(sockets: &[&Path]) -> String {
    let group = sockets.iter().find_map(|socket| group_of(socket)).map_or_else(String::new, |group| {
        format!(
            ", or as a member of the group {group} (`sudo usermod -aG {group} $USER`, and log in once more)"
        )
    });
    format!("ask with sudo{group}")
}

/// The group that may use the socket, or look into the folder that hides it.
fn group_of(socket: &Path) -> Option<String> {
    let seen = socket.ancestors().find_map(|path| fs::metadata(path).ok())?;
    let needed = if seen.is_dir() { 0o010 } else { 0o020 };
    if seen.mode() & needed == 0 {
        return None;
    }
    let groups = fs::read_to_string("/etc/group").ok()?;
    group_name(&groups, seen.gid())
}

/// From lines such as `edgeveil:x:999:`.
fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::net::UnixListener, thread};

    fn at(sockets: &[&Path], data_dir: Option<&str>) -> Places {
        let sockets = sockets.iter().map(|path| path.to_path_buf()).collect();
        Places { sockets, data_dir: data_dir.map(PathBuf::from) }
    }

    /// Answers each connection with this.
    fn answering(path: &Path, said: &'static str) {
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(said.as_bytes());
            }
        });
    }

    #[test]
    fn the_first_that_answers_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let [none, gone, mute, right] = ["none", "gone", "mute", "right"].map(|name| dir.path().join(name));
        drop(UnixListener::bind(&gone).unwrap());
        answering(&mute, "");
        let error = ask(&at(&[&none, &gone, &mute], None)).unwrap_err().to_string();
        for said in [
            format!("{} (there is none)", none.display()),
            format!("{} (the agent that had made it is gone)", gone.display()),
            format!("{} (it answers nothing", mute.display()),
            "systemctl status edgeveil-agent".to_owned(),
            "--socket".to_owned(),
        ] {
            assert!(error.contains(&said), "{error}");
        }
        assert!(!error.contains("sudo"), "{error}");
        answering(&right, "{\"data_dir\": \"/data\"}");
        let all: [&Path; 4] = [&none, &gone, &mute, &right];
        assert_eq!(ask(&at(&all, None)).unwrap(), "{\"data_dir\": \"/data\"}");
        assert_eq!(ask(&at(&all, Some("/data"))).unwrap(), "{\"data_dir\": \"/data\"}");
        let error = ask(&at(&all, Some("/other"))).unwrap_err().to_string();
        assert!(error.contains("(an agent with another data folder, /data)"), "{error}");
    }

    #[test]
    fn groups_go_by_their_numbers() {
        let groups = "root:x:0:\nvideo:x:44:edgeveil\n\nbroken\nedgeveil:x:999:pi\n";
        assert_eq!(group_name(groups, 999).as_deref(), Some("edgeveil"));
        assert_eq!(group_name(groups, 44).as_deref(), Some("video"));
        assert_eq!(group_name(groups, 9), None);
    }

    #[test]
    fn the_group_that_may_ask_is_named_and_none_that_may_not() {
        let dir = tempfile::tempdir().unwrap();
        let gid = fs::metadata(dir.path()).unwrap().gid();
        let own = group_name(&fs::read_to_string("/etc/group").unwrap(), gid).expect("the group has a name");
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        let socket = dir.path().join("folder/agent.sock");
        for (bits, group) in [(0o750, Some(&own)), (0o700, None)] {
            mode(dir.path(), bits);
            assert_eq!(group_of(&socket).as_ref(), group, "the folder hides it: {bits:o}");
        }
        fs::create_dir(dir.path().join("folder")).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        for (bits, group) in [(0o660, Some(&own)), (0o640, None)] {
            mode(&socket, bits);
            assert_eq!(group_of(&socket).as_ref(), group, "{bits:o}");
        }
        mode(&socket, 0o660);
        // The data folder is nobody else's to look into.
        mode(dir.path(), 0o750);
        let hidden = dir.path().join("hidden");
        fs::create_dir(&hidden).unwrap();
        mode(&hidden, 0o700);
        let said = rights(&[&hidden.join("agent.sock"), &socket]);
        assert!(said.contains(&format!("sudo usermod -aG {own} $USER")), "{said}");
        assert_eq!(rights(&[&hidden.join("agent.sock")]), "ask with sudo");
    }

    #[test]
    fn settings_that_are_named_have_to_be_there() {
        let Err(failure) = places(Some(Path::new("/nonexistent.toml")), None) else {
            panic!("it is not there")
        };
        assert_eq!(failure.code, BAD_SETTINGS);
        let places = places(Some(Path::new("/nonexistent.toml")), Some(Path::new("/s"))).unwrap();
        assert_eq!(places.sockets, [Path::new("/s")]);
    }
}
