//! Whose records the spool holds. A device that gets another name cannot deliver what it recorded under the old one: the
//! broker lets it write below its own name only. So the old spool is set aside, whole.

use edgeveil_wire::DeviceName;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const SPOOL: &str = "spool";

/// Notes that the spool below `data_dir` belongs to this device. Another device's is renamed to `spool.<name>`, or
/// `spool.<name>.<n>` when there is one already.
pub fn claim(data_dir: &Path, device: &DeviceName) -> io::Result<()> {
    let note = data_dir.join("device");
    let owner = match fs::read_to_string(&note) {
        Ok(owner) => owner.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    if owner == device.as_str() {
        return Ok(());
    }
    // What is in the file may be anything; only a name becomes part of a path.
    if owner.parse::<DeviceName>().is_ok() && data_dir.join(SPOOL).exists() {
        let lock = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(data_dir.join(SPOOL).join("lock"))?;
        if lock.try_lock().is_err() {
            let what = format!(
                "another agent, {owner}, runs on {}; give each its own device.data_dir",
                data_dir.display()
            );
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        }
        let free = |n: u32| {
            let end = if n == 0 { String::new() } else { format!(".{n}") };
            Some(data_dir.join(format!("{SPOOL}.{owner}{end}"))).filter(|dir| !dir.exists())
        };
        let aside = (0..1000).find_map(free).ok_or(io::ErrorKind::AlreadyExists)?;
        fs::rename(data_dir.join(SPOOL), aside)?;
    }
    fs::create_dir_all(data_dir)?;
    let part = data_dir.join("device.part");
    fs::write(&part, format!("{device}\n"))?;
    fs::rename(part, note)
}

/// Spools that were set aside, with the names of their devices.
pub fn left_behind(data_dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(data_dir).into_iter().flatten().flatten();
    let aside = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let device = name.strip_prefix(SPOOL)?.strip_prefix('.')?.split('.').next()?.to_owned();
        Some((device, entry.path()))
    });
    aside.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_device_begins_a_new_spool_and_the_old_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let [old, new]: [DeviceName; 2] = ["dev1", "dev2"].map(|name| name.parse().unwrap());
        let spool = dir.path().join(SPOOL);
        claim(dir.path(), &old).unwrap();
        for round in 1..3 {
            fs::create_dir(&spool).unwrap();
            fs::write(spool.join("record"), "kept").unwrap();
            claim(dir.path(), &old).unwrap();
            assert!(spool.exists(), "its own");
            claim(dir.path(), &new).unwrap();
            assert!(!spool.exists());
            assert_eq!(left_behind(dir.path()).len(), round);
            claim(dir.path(), &old).unwrap();
        }
        assert_eq!(fs::read_to_string(dir.path().join("spool.dev1.1/record")).unwrap(), "kept");
    }
}
