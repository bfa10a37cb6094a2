//! Which lane has which slot on disk: the file `lanes`, one name a line behind a line with the format's name.
//! Records find their lane by its name, so lanes may be reordered, added and removed between two starts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::SpoolError;
use crate::disk::sync_dir;
use crate::options::MAX_LANES;

const TITLE: &str = "edgeveil-spool 1";

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
    if names.len() != known {
        write(dir, &names)?;
    }
    Ok((names, slots))
}

/// The names by slot. Empty if there is no such file, or none that can be understood: then the lanes get their
/// slots in the order of the settings, as they did when the spool was new.
pub(crate) fn read(dir: &Path) -> Result<Vec<String>, SpoolError> {
    let path = dir.join("lanes");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => String::new(),
        Err(e) => return Err(SpoolError::io("read", &path, e)),
    };
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) || !text.ends_with('\n') {
        return Ok(Vec::new());
    }
    Ok(lines.map(str::to_owned).collect())
}

fn write(dir: &Path, names: &[String]) -> Result<(), SpoolError> {
    let (path, new) = (dir.join("lanes"), dir.join("lanes.new"));
    let text: String =
        [TITLE].into_iter().chain(names.iter().map(String::as_str)).flat_map(|l| [l, "\n"]).collect();
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(|e| SpoolError::io("write", &path, e))?;
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
        fs::write(dir.path().join("lanes"), b"\xff\xfe").unwrap();
        assert_eq!(slots(&["alert", "reading"]), [0, 1]);
    }
}
