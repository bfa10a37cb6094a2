//! Which lane has which slot on disk: the file `lanes`, one name a line behind a line with the format's name.
//! Records find their lane by its name, so lanes may be reordered, added and removed between two starts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::SpoolError;
use crate::disk::sync_dir;
use crate::options::MAX_LANES;

const OLD_TITLE: &str = "edgeveil-spool 1";
/// Followed by the CRC-32 of what follows the line, in hex.
const TITLE: &str = "edgeveil-spool 2";
/// All else can be rebuilt from other files; this one is there twice.
const FILES: [&str; 2] = ["lanes", "lanes.copy"];

/// All lanes that the spool ever had by slot, and the slots of the lanes asked for. New ones get slots.
pub(crate) fn slots_for<'a>(
    dir: &Path,
    lanes: impl Iterator<Item = &'a str>,
) -> Result<(Vec<String>, Vec<u8>), SpoolError> {
    let mut names = read(dir)?;
    let known = names.len();
    let mut slots = Vec::new();
    for lane in lanes {
        let slot = names.iter().position(|n| n == lane).unwrap_or_else(|| {
            names.push(lane.to_owned());
            names.len() - 1
        });
        slots.push(u8::try_from(slot).ok().filter(|s| usize::from(*s) < 4 * MAX_LANES).ok_or_else(|| {
            SpoolError::Options(format!("{} has seen too many lanes by other names", dir.display()))
        })?);
    }
    if names.len() != known || read_one(&dir.join(FILES[0]))?.is_none() {
        write(dir, &names)?;
    }
    Ok((names, slots))
}

/// The names by slot. Empty if neither file can be understood: then the lanes get their slots in the order of the
/// settings, as they did when the spool was new.
pub(crate) fn read(dir: &Path) -> Result<Vec<String>, SpoolError> {
    for name in FILES {
        if let Some(names) = read_one(&dir.join(name))? {
            return Ok(names);
        }
    }
    Ok(Vec::new())
}

fn read_one(path: &Path) -> Result<Option<Vec<String>>, SpoolError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            return Ok(None);
        }
        Err(e) => return Err(SpoolError::io("read", path, e)),
    };
    let Some((title, names)) = text.split_once('\n') else { return Ok(None) };
    let sound = title == OLD_TITLE || title == title_of(names);
    Ok((sound && names.ends_with('\n')).then(|| names.lines().map(str::to_owned).collect()))
}

fn title_of(names: &str) -> String {
    format!("{TITLE} {:08x}", crc32fast::hash(names.as_bytes()))
}

fn write(dir: &Path, names: &[String]) -> Result<(), SpoolError> {
    let names: String = names.iter().flat_map(|name| [name.as_str(), "\n"]).collect();
    let text = format!("{}\n{names}", title_of(&names));
    for name in FILES {
        let (path, new) = (dir.join(name), dir.join("lanes.new"));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|e| SpoolError::io("write", &path, e))?;
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_keep_their_slots_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let slots = |lanes: &[&'static str]| slots_for(dir.path(), lanes.iter().copied()).unwrap().1;
        assert_eq!(slots(&["alert", "reading"]), [0, 1]);
        assert_eq!(slots(&["status", "reading", "alert"]), [2, 1, 0]);
        assert_eq!(read(dir.path()).unwrap(), ["alert", "reading", "status"]);
        let damage = |name, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        damage("lanes", b"edgeveil-spool 2 00000000\nalert\nrebding\nstatus\n");
        assert_eq!(slots(&["status", "reading", "alert"]), [2, 1, 0]);
        assert_eq!(read_one(&dir.path().join("lanes")).unwrap().unwrap(), ["alert", "reading", "status"]);
        damage("lanes", b"edgeveil-spool 1\nalert\nreading\nstatus\n");
        assert_eq!(slots(&["status", "reading", "alert"]), [2, 1, 0]);
        damage("lanes", b"\xff\xfe");
        damage("lanes.copy", b"");
        assert_eq!(slots(&["alert", "reading"]), [0, 1]);
    }
}
