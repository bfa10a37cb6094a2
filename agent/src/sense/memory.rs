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
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MemoryError::Io { action: "read", path: path.clone(), source }),
            Ok(_) => {}
        }
        parse(&bytes).map(Some).map_err(|what| MemoryError::Damaged { path, what })
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

fn parse(bytes: &[u8]) -> Result<Learned, String> {
    let rest = bytes.strip_prefix(FIRST_LINE).ok_or("it begins with something else")?;
    let (sum, rest) = rest.split_first_chunk().ok_or("it is cut off")?;
    if u32::from_le_bytes(*sum) != crc32fast::hash(rest) {
        return Err("its checksum is wrong".to_owned());
    }
    let learned: Learned = ciborium::from_reader(rest).map_err(|error| error.to_string())?;
    if learned.names.len() != learned.forest.dimensions() {
        return Err("it names more or fewer values than it scores".to_owned());
    }
    Ok(learned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::fuzz_cases;
    use linfa_isolation::StreamingForestParams;
    use rand_xoshiro::{
        Xoshiro256PlusPlus,
        rand_core::{RngCore, SeedableRng},
    };

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

    #[test]
    fn a_full_memory_is_small() {
        let (_dir, memory) = memory();
        let mut forest = StreamingForestParams::new(8).detector().unwrap();
        let row = |i: u32| [1, 3, 5, 7, 11, 13, 17, 19].map(|n| f64::from((i * n * 7919) % 1009) / 7.0);
        (0..5000).for_each(|i| _ = forest.score(&row(i)));
        let names = "abcdefgh".chars().map(|c| c.to_string().parse().unwrap()).collect();
        memory.keep(&Learned { names, forest }).unwrap();
        let bytes = fs::metadata(memory.file()).unwrap().len();
        assert!(bytes < 1 << 20, "{bytes}");
    }

    /// A checksum keeps chance out; this keeps out what has a right one. `EDGEVEIL_FUZZ_CASES` sets how many are tried.
    #[test]
    fn what_is_no_memory_is_refused_or_sound() {
        let forest = StreamingForestParams::new(1).n_trees(2).max_samples(8).reservoir(32).warm_up(32);
        let mut forest = forest.detector().unwrap();
        (0..40).for_each(|i| _ = forest.score(&[f64::from(i * 7919 % 101)]));
        let mut whole = Vec::new();
        ciborium::into_writer(&Learned { names: vec!["a".parse().unwrap()], forest }, &mut whole).unwrap();
        let mut draws = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut below = |n: usize| (draws.next_u64() % n as u64) as usize;
        for _ in 0..fuzz_cases() {
            let mut body = whole.clone();
            for _ in 0..=below(4) {
                let at = below(body.len());
                match below(5) {
                    0 if at > 0 => body.truncate(at),
                    1 => body.insert(at, below(256) as u8),
                    2 => body[at] ^= 1 << below(8),
                    _ => body[at] = [0, 0x1b, 0x3b, 0x5b, 0x7b, 0x9b, 0xbb, 0xf9, 0xfb, 0xff][below(10)],
                }
            }
            let bytes = [FIRST_LINE, &crc32fast::hash(&body).to_le_bytes(), &body].concat();
            if let Ok(mut learned) = parse(&bytes) {
                let row = vec![below(1000) as f64; learned.forest.dimensions()];
                let score = learned.forest.score(&row).expect("a score");
                assert!((0.0..=1.0).contains(&score.value), "{score:?}");
            }
        }
    }
}
