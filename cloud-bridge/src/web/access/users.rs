//! Local users: a file with a line `NAME:ROLE:HASH` for each, hashed by Argon2id. It is read with each login and, when
//! it has changed, with the next request: so whoever is taken out is out.

use super::Role;
use anyhow::{Context, Result, anyhow, ensure};
use argon2::{
    Argon2, Params,
    password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString},
};
use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// A file of users is no larger: some 500 of them.
const MAX_FILE: u64 = 64 << 10;
/// A password is no shorter, and no longer, in bytes.
const PASSWORD: std::ops::RangeInclusive<usize> = 8..=256;
const MAX_NAME: usize = 64;
/// What checking a password may cost: KiB, and passes over them.
const MAX_MEMORY: u32 = 64 << 10;
const MAX_PASSES: u32 = 10;
/// Of no password that anybody knows.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5aXNoZXJlIQ$5J9rX0q7m1cD9m2pYw0m3J4eUuV1kq6mQm3bqf0J2nE";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// As it is typed.
    pub name: String,
    /// What they may do.
    pub role: Role,
    hash: String,
}

/// The users of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users(Vec<User>);

impl Users {
    /// Reads a file. An error names it, the line and the remedy.
    pub fn read(path: &Path) -> Result<Self> {
        let place = || format!("access.users {}", path.display());
        let size = fs::metadata(path).with_context(place)?.len();
        ensure!(size <= MAX_FILE, "{}: is longer than 64 KiB", place());
        Self::parse(&fs::read_to_string(path).with_context(place)?)
            .map_err(|why| anyhow!("{}: {why}", place()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut users: Vec<User> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let bad =
                |why: &str| format!("line {}: {why}; make lines by `edgeveil-bridge users add`", number + 1);
            let (name, rest) = line.trim().split_once(':').ok_or_else(|| bad("has no `:`"))?;
            let (role, hash) = rest.split_once(':').ok_or_else(|| bad("has no hash"))?;
            let role = role.parse().map_err(|()| bad("the role is neither `viewer` nor `operator`"))?;
            check_name(name).map_err(|why| bad(&why))?;
            let cost = PasswordHash::new(hash).and_then(|hash| Params::try_from(&hash));
            let cost = cost.map_err(|_| bad("the hash is none of Argon2's"))?;
            if cost.m_cost() > MAX_MEMORY || cost.t_cost() > MAX_PASSES {
                return Err(bad("checking the hash would take more than 64 MiB or 10 passes"));
            }
            if users.iter().any(|user| user.name == name) {
                return Err(bad("this user is there twice"));
            }
            users.push(User { name: name.to_owned(), role, hash: hash.to_owned() });
        }
        Ok(Self(users))
    }

    /// One by name.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.0.iter().find(|user| user.name == name)
    }

    /// All, in the file's order.
    pub fn all(&self) -> &[User] {
        &self.0
    }

    /// Whether this is the user's password. Takes as long for a name that nobody has. Some 20 MiB and 30 ms: for a
    /// thread that may block.
    pub fn check(&self, name: &str, password: &str) -> bool {
        let user = self.get(name);
        let hash = user.map_or(NOBODY, |user| &user.hash);
        let right = PasswordHash::new(hash).is_ok_and(|hash| {
            PASSWORD.contains(&password.len())
                && Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
        });
        right && user.is_some()
    }

    /// With this user, in place of one of the same name.
    pub fn with(mut self, name: &str, role: Role, password: &str) -> Result<Self> {
        check_name(name).map_err(|why| anyhow!(why))?;
        ensure!(
            PASSWORD.contains(&password.len()),
            "a password has {} to {} bytes",
            PASSWORD.start(),
            PASSWORD.end()
        );
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).context("no random numbers")?;
        let salt = SaltString::encode_b64(&salt).map_err(|error| anyhow!("{error}"))?;
        let hash = Argon2::default()
            .hash_password(password.as_bytes(), &salt)
            .map_err(|error| anyhow!("{error}"))?;
        let user = User { name: name.to_owned(), role, hash: hash.to_string() };
        match self.0.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = user,
            None => self.0.push(user),
        }
        Ok(self)
    }

    /// Without this user. None when there is no such.
    pub fn without(mut self, name: &str) -> Option<Self> {
        let before = self.0.len();
        self.0.retain(|user| user.name != name);
        (self.0.len() < before).then_some(self)
    }

    /// Writes the file anew, whole or not at all, readable for its owner alone.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text: String =
            self.0.iter().map(|user| format!("{}:{}:{}\n", user.name, user.role, user.hash)).collect();
        let part = path.with_extension("part");
        let written = || -> std::io::Result<()> {
            let mut file =
                fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, path)
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(good) {
        return Err(format!("a user's name has 1 to {MAX_NAME} letters, digits, `.`, `_`, `-` and `@`"));
    }
    Ok(())
}

/// The file as it is now.
#[derive(Debug)]
pub struct UserFile {
    path: PathBuf,
    read: Mutex<Option<(SystemTime, Users)>>,
}

impl UserFile {
    /// Reads it for the first time.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Self { path: path.to_owned(), read: Mutex::new(None) };
        file.now()?;
        Ok(file)
    }

    /// Its users. A file that has become unreadable lets nobody in.
    pub fn now(&self) -> Result<Users> {
        let changed = fs::metadata(&self.path)
            .and_then(|metadata| metadata.modified())
            .with_context(|| format!("access.users {}", self.path.display()))?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, users)) = &*read
            && *at == changed
        {
            return Ok(users.clone());
        }
        let users = Users::read(&self.path)?;
        *read = Some((changed, users.clone()));
        Ok(users)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_one_password_and_can_be_taken_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let users = Users::default().with("ann", Role::Operator, "correct horse").unwrap();
        users.with("bob", Role::Viewer, "battery staple").unwrap().write(&path).unwrap();
        let file = UserFile::open(&path).unwrap();
        let users = file.now().unwrap();
        assert_eq!(users.get("ann").unwrap().role, Role::Operator);
        assert!(users.check("ann", "correct horse") && users.check("bob", "battery staple"));
        for (name, password) in
            [("ann", "battery staple"), ("ann", ""), ("eve", "correct horse"), ("Ann", "correct horse")]
        {
            assert!(!users.check(name, password), "{name} {password}");
        }
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777,
            0o600
        );
        assert!(users.clone().without("eve").is_none());
        users.without("bob").unwrap().write(&path).unwrap();
        assert!(Users::read(&path).unwrap().get("bob").is_none());
    }

    #[test]
    fn bad_lines_are_named() {
        let good = Users::default().with("ann", Role::Viewer, "correct horse").unwrap();
        let hash = &good.0[0].hash;
        for (text, why) in [
            ("ann".to_owned(), "line 1: has no `:`"),
            (format!("\n# x\nann:boss:{hash}"), "line 3: the role"),
            ("ann:viewer:md5".to_owned(), "line 1: the hash"),
            (format!("ann:viewer:{}", hash.replace("m=19456", "m=1048576")), "line 1: checking"),
            (format!("a b:viewer:{hash}"), "line 1: a user's name"),
            (format!("ann:viewer:{hash}\nann:viewer:{hash}"), "line 2: this user is there twice"),
        ] {
            let found = Users::parse(&text).unwrap_err();
            assert!(found.starts_with(why), "{found}");
        }
        assert!(PasswordHash::new(NOBODY).is_ok());
        assert!(Users::default().with("ann", Role::Viewer, "short").is_err());
        assert!(Users::default().with("", Role::Viewer, "correct horse").is_err());
    }
}
