//! Where the socket is.

use crate::settings::Device;
use std::{
    env,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The longest path that a socket may have, bytes: `sun_path` of Linux less its zero.
pub const MAX_PATH: usize = 107;

const NAME: &str = "agent.sock";
/// Of the unit's `RuntimeDirectory`.
const OF_THE_UNIT: &str = "/run/edgeveil/agent.sock";

/// Where the agent makes it.
pub fn agents(device: &Device) -> PathBuf {
    within(device, env::var_os("RUNTIME_DIRECTORY").as_deref())
}

fn within(device: &Device, runtime: Option<&OsStr>) -> PathBuf {
    // systemd names several with colons between them.
    let first = runtime.and_then(|dirs| dirs.as_bytes().split(|byte| *byte == b':').next());
    let runtime = first.filter(|dir| !dir.is_empty()).map(|dir| Path::new(OsStr::from_bytes(dir)));
    let given = device.status_socket.clone();
    given.unwrap_or_else(|| runtime.unwrap_or(&device.data_dir).join(NAME))
}

/// Where it may be: whoever asks does not know whether systemd has started the agent.
pub fn candidates(device: Option<&Device>) -> Vec<PathBuf> {
    if let Some(given) = device.and_then(|device| device.status_socket.clone()) {
        return vec![given];
    }
    let data_dir = device.map_or(Path::new("/var/lib/edgeveil"), |device| &device.data_dir);
    vec![data_dir.join(NAME), OF_THE_UNIT.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_looks_where_the_agent_makes_it() {
        let device = |status_socket: Option<&str>| Device {
            name: None,
            data_dir: "/data".into(),
            sysfs: "/sys".into(),
            status_socket: status_socket.map(PathBuf::from),
        };
        for (given, runtime, expected) in [
            (None, None, "/data/agent.sock"),
            (None, Some(""), "/data/agent.sock"),
            (None, Some("/run/edgeveil"), OF_THE_UNIT),
            (None, Some("/run/edgeveil:/run/other"), OF_THE_UNIT),
            (Some("/s"), Some("/run/edgeveil"), "/s"),
            (Some("/s"), None, "/s"),
        ] {
            let device = device(given);
            let made = within(&device, runtime.map(OsStr::new));
            assert_eq!(made, Path::new(expected));
            assert!(candidates(Some(&device)).contains(&made), "{made:?}");
        }
        assert_eq!(candidates(None)[0], Path::new("/var/lib/edgeveil/agent.sock"));
    }
}
