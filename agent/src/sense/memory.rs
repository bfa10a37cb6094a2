//! What a detector has learned, on disk: a restart loses none of it.
//!
//! One file a group, `detectors/<group>` in the data folder: a line that says what it is, the CRC-32 of the rest (little-endian), and the
//! rest, which is CBOR. It is written beside itself, fsynced and put in its place by renaming, so that at any moment a whole one is
//! there. What cannot be used is set aside as `<group>.aside`, in the place of what was set aside before: so there are at most three
//! files a group.

use edgeveil_wire::{Name, ValueName};
use linfa_isolation::StreamingForest;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Names the format and its version.
const FIRST_LINE: &[u8] = b"edgeveil detector 1\n";
/// More than the largest detector there can be; nothing longer is read.
const MAX_BYTES: u64 = 64 << 20;

/// What is remembered of a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    /// The values of a row, in the forest's order.
    pub names: Vec<ValueName>,
    /// The forest.
    pub forest: StreamingForest,
}

/// Why a memory is not there or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A file or folder fails.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no memory, or was damaged.
    #[error("{} is no detector's memory: {what}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The file of one group.
#[derive(Debug, Clone)]
pub struct Memory {
    dir: PathBuf,
    name: String,
}

impl Memory {
    /// Of a group, below the data folder.
    pub fn new(data_dir: &Path, group: &Name) -> Self {
        Self { dir: data_dir.join("detectors"), name: group.to_string() }
    }

    fn file(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// What was kept; none if nothing was.
    pub fn recall(&self) -> Result<Option<Learned>, MemoryError> {
        let path = self.file();
        let damaged =
            |what: &dyn ToString| MemoryError::Damaged { path: path.clone(), what: what.to_string() };
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MemoryError::Io { action: "read", path: path.clone(), source }),
            Ok(_) => {}
        }
        let rest = bytes.strip_prefix(FIRST_LINE).ok_or_else(|| damaged(&"it begins with something else"))?;
        let (sum, rest) = rest.split_first_chunk().ok_or_else(|| damaged(&"it is cut off"))?;
        if u32::from_le_bytes(*sum) != crc32fast::hash(rest) {
            return Err(damaged(&"its checksum is wrong"));
        }
        let learned: Learned = ciborium::from_reader(rest).map_err(|error| damaged(&error))?;
        if learned.names.len() != learned.forest.dimensions() {
            return Err(damaged(&"it names more or fewer values than it scores"));
        }
        Ok(Some(learned))
    }

    /// Puts `learned` in the place of what was kept.
    pub fn keep(&self, learned: &Learned) -> Result<(), MemoryError> {
        let (path, new) = (self.file(), self.dir.join(format!("{}.new", self.name)));
        let fail = |action: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| MemoryError::Io { action, path, source }
        };
        let mut body = Vec::new();
        ciborium::into_writer(learned, &mut body)
            .map_err(|error| fail("write", &new)(io::Error::other(error.to_string())))?;
        fs::create_dir_all(&self.dir).map_err(fail("make", &self.dir))?;
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(FIRST_LINE)?;
            file.write_all(&crc32fast::hash(&body).to_le_bytes())?;
            file.write_all(&body)?;
            file.sync_all()
        };
        write().map_err(fail("write", &new))?;
        fs::rename(&new, &path).map_err(fail("put in place", &path))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(fail("fsync", &self.dir))
    }

    /// Moves what cannot be used out of the way, and says where to.
    pub fn set_aside(&self) -> Result<PathBuf, MemoryError> {
        let (path, aside) = (self.file(), self.dir.join(format!("{}.aside", self.name)));
        fs::rename(&path, &aside).map_err(|source| MemoryError::Io { action: "set aside", path, source })?;
        Ok(aside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linfa_isolation::StreamingForestParams;

    fn memory() -> (tempfile::TempDir, Memory) {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path(), &"board".parse().unwrap());
        (dir, memory)
    }

    fn learned(rows: u32) -> Learned {
        let mut forest = StreamingForestParams::new(2).detector().unwrap();
        (0..rows).for_each(|i| _ = forest.score(&[f64::from(i % 7), f64::from(i % 11)]));
        Learned { names: vec!["a".parse().unwrap(), "b".parse().unwrap()], forest }
    }

    #[test]
    fn what_was_learned_comes_back_as_it_was() {
        let (_dir, memory) = memory();
        assert!(memory.recall().unwrap().is_none());
        for rows in [0, 500] {
            let mut learned = learned(rows);
            memory.keep(&learned).unwrap();
            let mut recalled = memory.recall().unwrap().unwrap();
            for i in 0..100 {
                let row = [f64::from(i % 7), f64::from(i % 13)];
                assert_eq!(recalled.forest.score(&row), learned.forest.score(&row));
            }
        }
    }

    #[test]
    fn any_damage_is_seen() {
        let (_dir, memory) = memory();
        memory.keep(&learned(100)).unwrap();
        let whole = fs::read(memory.file()).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(memory.file(), bytes).unwrap();
            matches!(memory.recall(), Err(MemoryError::Damaged { .. }))
        };
        for at in (0..whole.len()).step_by(1009) {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            assert!(refused(&bytes), "byte {at}");
            assert!(refused(&whole[..at]), "cut off at {at}");
        }
        let aside = memory.set_aside().unwrap();
        assert!(aside.exists() && memory.recall().unwrap().is_none());
    }
}
