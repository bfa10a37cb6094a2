//! The folder of an identity that the agent looks after itself.
//!
//! ```text
//! identity/
//!   a/  b/            two slots, each with key.pem, cert.pem, ca.pem, and url: where it came from
//!   current -> a      what the link connects with
//!   next -> b         what it is to try; becomes `current` by one rename once it has connected
//!   waiting.key       a key whose certificate has not come yet
//! ```
//!
//! What must stay true, whenever the power is cut: `current` names a whole identity or is not there, and `next` likewise;
//! what a slot holds that neither names is of no use. A key is on disk before anybody is asked to sign for it, and stays
//! in `waiting.key` until its identity has its name: so a token is not spent for a key that is lost.

use super::key;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown, symlink},
    path::{Path, PathBuf},
};

const CURRENT: &str = "current";
const NEXT: &str = "next";
const SLOTS: [&str; 2] = ["a", "b"];
const KEY: &str = "key.pem";
const CERT: &str = "cert.pem";
const CA: &str = "ca.pem";
const URL: &str = "url";
const WAITING: &str = "waiting.key";

/// What was to be done in the folder, and why it could not.
#[derive(Debug, thiserror::Error)]
#[error("{}: {action}: {why}; the folder must be writable for the agent's user and on a disk with room (device.data_dir)", path.display())]
pub struct FolderError {
    path: PathBuf,
    action: &'static str,
    why: String,
}

/// Where the parts of an identity are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The authorities.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    url: PathBuf,
}

impl Files {
    fn of(slot: &Path) -> Self {
        let [ca, cert, key, url] = [CA, CERT, KEY, URL].map(|name| slot.join(name));
        Self { ca, cert, key, url }
    }

    /// The bridge that has signed it; none for one that was put here by hand.
    pub fn url(&self) -> Option<String> {
        fs::read_to_string(&self.url).ok().map(|url| url.trim().to_owned())
    }
}

/// A key whose certificate is to come. It has no `Debug`, so that it gets into no log.
pub struct Pending {
    slot: &'static str,
    /// PEM.
    pub key: String,
}

/// What the bridge has given.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// PEM.
    pub cert: &'a str,
    /// PEM.
    pub ca: &'a str,
    /// Where the next one is asked for.
    pub url: &'a str,
}

/// The folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// At this path, whether it is there or not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What the link connects with, whether it is there or not.
    pub fn current(&self) -> Files {
        Files::of(&self.0.join(CURRENT))
    }

    /// Whether there is one.
    pub fn has_current(&self) -> bool {
        self.named(CURRENT).is_some()
    }

    /// What it is to try, where something waits.
    pub fn next(&self) -> Option<Files> {
        self.named(NEXT).map(|_| Files::of(&self.0.join(NEXT)))
    }

    /// A key to ask with: the one that waits since the last time, when its answer was lost, or a new one. None while
    /// another identity waits to be tried.
    pub fn prepare(&self) -> Result<Option<Pending>, FolderError> {
        self.make(&self.0)?;
        let current = self.named(CURRENT);
        if self.named(NEXT).is_some() {
            return Ok(None);
        }
        let slot = if current == Some(SLOTS[0]) { SLOTS[1] } else { SLOTS[0] };
        self.make(&self.0.join(slot))?;
        self.empty(slot)?;
        let waiting = self.0.join(WAITING);
        if let Ok(key) = fs::read_to_string(&waiting)
            && key::is_key(&key)
            && fs::read_to_string(self.current().key).ok().as_ref() != Some(&key)
        {
            return Ok(Some(Pending { slot, key }));
        }
        let key = key::generate().map_err(|error| self.error("making a key", &error))?;
        self.write(&waiting, &key)?;
        sync(&self.0).map_err(|error| self.error("making a key durable", &error))?;
        Ok(Some(Pending { slot, key }))
    }

    /// Puts the certificate beside its key. Where there is no identity yet, or the current one is of no use, it is the
    /// current one from now on; else it waits to be tried.
    pub fn complete(&self, pending: Pending, given: Given<'_>, place: Place) -> Result<(), FolderError> {
        let dir = self.0.join(pending.slot);
        let files = Files::of(&dir);
        self.write(&files.key, &pending.key)?;
        self.write(&files.ca, given.ca)?;
        self.write(&files.url, given.url)?;
        self.write(&files.cert, given.cert)?;
        sync(&dir).map_err(|error| self.error("making a certificate durable", &error))?;
        match (place, self.named(CURRENT)) {
            (Place::Next, Some(_)) => self.link(NEXT, pending.slot)?,
            (_, before) => {
                self.link(CURRENT, pending.slot)?;
                before.map_or(Ok(()), |before| self.empty(before))?;
            }
        }
        remove(&self.0.join(WAITING)).map_err(|error| self.error("removing a key that waits no more", &error))
    }

    /// The next one has connected: it is the current one, and the other is gone.
    pub fn accept(&self) -> Result<(), FolderError> {
        let before = self.named(CURRENT);
        let rename = fs::rename(self.0.join(NEXT), self.0.join(CURRENT)).and_then(|()| sync(&self.0));
        rename.map_err(|error| self.error("taking the new identity", &error))?;
        before.map_or(Ok(()), |before| self.empty(before))
    }

    /// The next one is of no use: it is gone.
    pub fn reject(&self) -> Result<(), FolderError> {
        let Some(slot) = self.named(NEXT) else { return Ok(()) };
        let remove = fs::remove_file(self.0.join(NEXT)).and_then(|()| sync(&self.0));
        remove.map_err(|error| self.error("removing the refused identity", &error))?;
        self.empty(slot)
    }

    /// The slot that a link names.
    fn named(&self, link: &str) -> Option<&'static str> {
        let target = fs::read_link(self.0.join(link)).ok()?;
        SLOTS.into_iter().find(|slot| target == Path::new(slot))
    }

    fn link(&self, link: &str, slot: &str) -> Result<(), FolderError> {
        let temporary = self.0.join(format!(".{link}"));
        let put = || {
            remove(&temporary)?;
            symlink(slot, &temporary)?;
            fs::rename(&temporary, self.0.join(link))?;
            sync(&self.0)
        };
        put().map_err(|error| self.error("putting the identity in place", &error))
    }

    fn empty(&self, slot: &str) -> Result<(), FolderError> {
        let dir = self.0.join(slot);
        let files = Files::of(&dir);
        let all =
            || [&files.key, &files.cert, &files.ca, &files.url].into_iter().try_for_each(|path| remove(path));
        all().map_err(|error| self.error("removing the former identity", &error))
    }

    /// A folder for the agent's user alone.
    fn make(&self, dir: &Path) -> Result<(), FolderError> {
        let make = || match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.give(dir).and_then(|()| dir.parent().map_or(Ok(()), sync)),
        };
        make().map_err(|error| self.error("making it", &error))
    }

    /// Whole or not at all, and never readable by others for a moment.
    fn write(&self, path: &Path, text: &str) -> Result<(), FolderError> {
        let temporary = path.with_extension("new");
        let write = || {
            remove(&temporary)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            self.give(&temporary)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(|error| FolderError {
            path: path.to_owned(),
            action: "writing it",
            why: error.to_string(),
        })
    }

    /// Whoever owns the data folder owns this: an administrator may enrol for the agent's user.
    fn give(&self, path: &Path) -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let owner = self.0.parent().map_or_else(|| fs::metadata(&self.0), fs::metadata)?;
        chown(path, Some(owner.uid()), Some(owner.gid()))
    }

    fn error(&self, action: &'static str, why: &dyn std::fmt::Display) -> FolderError {
        FolderError { path: self.0.clone(), action, why: why.to_string() }
    }
}

/// Where an identity goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In place of the current one.
    Current,
    /// Beside it, to be tried.
    Next,
}

/// Whether it was there or not.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const GIVEN: Given<'_> = Given { cert: "first", ca: "authority", url: "https://bridge.lan:8444" };

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("identity"));
        (dir, folder)
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    /// Everything but the lost answer: what is in the slots.
    fn holds(folder: &Folder, slot: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder.0.join(slot))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    #[test]
    fn the_first_identity_is_the_current_one_and_only_its_owner_can_read_it() {
        let (_dir, folder) = folder();
        assert!(!folder.has_current() && folder.next().is_none());
        let pending = folder.prepare().unwrap().unwrap();
        let key = pending.key.clone();
        folder.complete(pending, GIVEN, Place::Next).unwrap();
        let files = folder.current();
        assert_eq!((text(&files.key), text(&files.cert)), (key, "first".to_owned()));
        assert_eq!(files.url().as_deref(), Some("https://bridge.lan:8444"));
        assert!(folder.next().is_none());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files.key), mode(folder.path())), (0o600, 0o700));
    }

    #[test]
    fn a_key_waits_for_a_lost_answer_and_is_never_used_twice() {
        let (_dir, folder) = folder();
        let first = folder.prepare().unwrap().unwrap().key;
        assert_eq!(folder.prepare().unwrap().unwrap().key, first);
        let pending = folder.prepare().unwrap().unwrap();
        folder.complete(pending, GIVEN, Place::Current).unwrap();
        let second = folder.prepare().unwrap().unwrap();
        assert_ne!(second.key, first);
        folder.complete(second, GIVEN, Place::Current).unwrap();
        // The slot of the first one is free again, and its key gone.
        assert_ne!(folder.prepare().unwrap().unwrap().key, first);
        // Cut short after the identity had its name, and before the waiting key was removed.
        let used = text(&folder.current().key);
        fs::write(folder.0.join(WAITING), &used).unwrap();
        assert_ne!(folder.prepare().unwrap().unwrap().key, used);
        // A key that was cut short is made anew.
        fs::write(folder.0.join(WAITING), &used[..40]).unwrap();
        assert!(key::is_key(&folder.prepare().unwrap().unwrap().key));
    }

    /// The certificate is in its slot, and the power goes before it has its name: the token is spent for this key.
    #[test]
    fn a_key_outlives_a_cut_between_its_certificate_and_its_name() {
        let (_dir, folder) = folder();
        let key = folder.prepare().unwrap().unwrap().key;
        for (name, text) in [(KEY, key.as_str()), (CERT, "first"), (CA, "authority")] {
            fs::write(folder.0.join("a").join(name), text).unwrap();
        }
        let again = folder.prepare().unwrap().unwrap();
        assert_eq!(again.key, key);
        folder.complete(again, GIVEN, Place::Next).unwrap();
        assert_eq!(text(&folder.current().key), key);
        assert!(!folder.0.join(WAITING).exists());
    }

    #[test]
    fn the_next_identity_replaces_the_current_one_or_goes() {
        let (_dir, folder) = folder();
        folder.complete(folder.prepare().unwrap().unwrap(), GIVEN, Place::Next).unwrap();
        let second = Given { cert: "second", ..GIVEN };
        folder.complete(folder.prepare().unwrap().unwrap(), second, Place::Next).unwrap();
        assert_eq!(text(&folder.current().cert), "first");
        assert_eq!(text(&folder.next().unwrap().cert), "second");
        assert!(folder.prepare().unwrap().is_none(), "no third one meanwhile");
        folder.reject().unwrap();
        assert!(folder.next().is_none() && holds(&folder, "b").is_empty());
        assert_eq!(text(&folder.current().cert), "first");
        folder.complete(folder.prepare().unwrap().unwrap(), second, Place::Next).unwrap();
        folder.accept().unwrap();
        assert!(folder.next().is_none() && holds(&folder, "a").is_empty());
        assert_eq!(text(&folder.current().cert), "second");
        // And back into the first slot.
        let third = Given { cert: "third", ..GIVEN };
        folder.complete(folder.prepare().unwrap().unwrap(), third, Place::Next).unwrap();
        folder.accept().unwrap();
        assert_eq!((text(&folder.current().cert), holds(&folder, "b").len()), ("third".to_owned(), 0));
    }
}
