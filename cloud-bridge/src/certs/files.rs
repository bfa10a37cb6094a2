//! Writing a file so that it is there whole or not at all, and never readable by others for a moment.

use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// Whether a file that is there may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays, and the writing fails.
    Refuse,
    /// It is replaced.
    Allow,
}

/// Writes under a temporary name with the final permissions, makes it durable, and gives it its name.
pub fn write(path: &Path, bytes: &[u8], mode: u32, overwrite: Overwrite) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut random = [0; 6];
    getrandom::fill(&mut random).context("random bytes for a temporary name")?;
    let temporary =
        folder.join(format!(".new-{:012x}", random.iter().fold(0_u64, |n, b| n << 8 | u64::from(*b))));
    let result = put(&temporary, path, bytes, mode, overwrite);
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("making {} durable", folder.display()))
}

fn put(temporary: &Path, path: &Path, bytes: &[u8], mode: u32, overwrite: Overwrite) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary).with_context(cannot)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(cannot)?;
    match overwrite {
        Overwrite::Allow => fs::rename(temporary, path).with_context(cannot),
        Overwrite::Refuse => {
            match fs::hard_link(temporary, path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    bail!("{} is there already; give --force to replace it", path.display())
                }
                linked => linked.with_context(cannot)?,
            }
            fs::remove_file(temporary).with_context(cannot)
        }
    }
}
