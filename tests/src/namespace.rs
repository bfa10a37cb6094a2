//! Programs with a small disk of their own: a tmpfs in a mount namespace, as root, or where the kernel lets users have
//! namespaces.

use crate::{Process, run, stderr};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What makes a namespace here, and what enters one.
fn namespace() -> [&'static [&'static str]; 2] {
    let root = run(Command::new("id").arg("-u")).stdout.trim_ascii() == b"0";
    if root { [&["-m"], &["-m"]] } else { [&["-r", "-m"], &["-U", "-m", "--preserve-credentials"]] }
}

/// A command that sees `folder` as an empty disk of so many bytes (as `mount` writes them: `300k`).
pub fn with_small_disk(folder: &Path, size: &str, command: &Command) -> Command {
    fs::create_dir_all(folder).expect("a folder in the temporary folder");
    let mut small = Command::new("unshare");
    small.args(namespace()[0]).args(["sh", "-c"]);
    small.arg(format!("mount -t tmpfs -o size={size} none \"$1\" && shift && exec \"$@\""));
    small.arg("sh").arg(folder).arg(command.get_program()).args(command.get_args());
    small
}

/// A command that sees the disk of a process that was started so.
pub fn inside(process: &Process, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg("-t").arg(process.pid().to_string()).args(namespace()[1]).arg(program);
    command
}

/// Gives the disk another size.
pub fn resize(process: &Process, folder: &Path, size: &str) {
    let mut mount = inside(process, "mount");
    let output = run(mount.args(["-o", &format!("remount,size={size}")]).arg(folder));
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Fills the disk to its last byte with somebody else's file. Gives the file.
pub fn fill_up(process: &Process, folder: &Path) -> PathBuf {
    let file = folder.join("of-others");
    // It ends when there is no room left.
    let _ = run(inside(process, "dd").args(["if=/dev/zero", "bs=4k", "oflag=append", "conv=notrunc"]).arg({
        let mut of = std::ffi::OsString::from("of=");
        of.push(&file);
        of
    }));
    file
}

/// Removes a file of that disk.
pub fn remove(process: &Process, file: &Path) {
    let output = run(inside(process, "rm").arg("-f").arg(file));
    assert!(output.status.success(), "{}", stderr(&output));
}
