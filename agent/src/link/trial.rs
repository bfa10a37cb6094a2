//! Which of two identities the next connection is made with: the current one, or the next one, which has to show first that
//! the broker takes it. The current one stays until it has.

use crate::{
    enroll::{Files, Folder, FolderError, renewal::PART},
    state::State,
};
use std::time::Duration;
use tokio::time::Instant;

/// A connection that did not come about says little: it may be the road. So often in a row, while the current identity
/// does connect, it is the identity.
const MAX_UNDECIDED: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// What is known of the next identity.
#[derive(Debug)]
pub struct Trial {
    folder: Option<Folder>,
    not_before: Instant,
    undecided: u32,
    /// The current identity did not connect either, when it was last tried.
    current_failed: bool,
}

impl Trial {
    /// Without a folder there is only one identity.
    pub fn new(folder: Option<Folder>) -> Self {
        Self { folder, not_before: Instant::now(), undecided: 0, current_failed: false }
    }

    /// Whether it is time to connect with the next one.
    pub fn is_due(&self) -> bool {
        self.due().is_some()
    }

    /// The next one, when its time has come.
    pub fn due(&self) -> Option<Files> {
        let due = self.current_failed || Instant::now() >= self.not_before;
        if due { self.folder.as_ref()?.next() } else { None }
    }

    /// The next one has connected.
    pub fn accept(&self, state: &State) -> Result<(), FolderError> {
        self.folder.as_ref().map_or(Ok(()), Folder::accept)?;
        state.solved(PART);
        tracing::info!("connected with the new certificate; the former one is removed");
        Ok(())
    }

    /// The next one has not connected; whether for a reason that lies in itself is `refused`.
    pub fn failed(&mut self, refused: bool, why: &str, state: &State) {
        self.current_failed = false;
        self.undecided += 1;
        if !refused && self.undecided < MAX_UNDECIDED {
            self.not_before = Instant::now() + FIRST_WAIT * (1 << self.undecided);
            tracing::warn!(why, "not connected with the new certificate; trying the current one");
            return;
        }
        self.undecided = 0;
        let what = format!(
            "the new certificate does not connect ({why}); the current one is used on, and another is asked for later"
        );
        if state.problem(PART, &what) {
            tracing::error!("{what}");
        }
        if let Some(folder) = &self.folder
            && let Err(error) = folder.reject()
        {
            self.not_before = Instant::now() + FIRST_WAIT;
            tracing::warn!(%error, "the refused certificate stays for now");
        }
    }

    /// The current one was tried.
    pub fn current(&mut self, connected: bool) {
        self.current_failed = !connected;
        if !connected {
            // So it was the road.
            self.undecided = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enroll::{Given, Place};

    fn two() -> (tempfile::TempDir, Folder, Trial, State) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let given = Given { cert: "c", ca: "a", url: "https://bridge.lan" };
        for _ in 0..2 {
            folder.complete(folder.prepare().unwrap().unwrap(), given, Place::Next).unwrap();
        }
        let trial = Trial::new(Some(folder.clone()));
        (dir, folder, trial, State::default())
    }

    #[test]
    fn a_refused_identity_goes_and_is_told_of() {
        let (_dir, folder, mut trial, state) = two();
        assert!(trial.is_due());
        trial.failed(true, "unknown CA", &state);
        assert!(folder.next().is_none() && folder.has_current() && !trial.is_due());
        assert!(state.problems().borrow()[PART].contains("unknown CA"));
    }

    #[test]
    fn a_bad_road_is_not_the_identitys_fault() {
        let (_dir, folder, mut trial, state) = two();
        for _ in 0..10 {
            trial.failed(false, "timed out", &state);
            assert!(!trial.is_due());
            trial.current(false);
            assert!(trial.is_due(), "neither connects: they take turns");
        }
        assert!(folder.next().is_some());
        for _ in 0..MAX_UNDECIDED {
            assert!(folder.next().is_some());
            trial.failed(false, "timed out", &state);
            trial.current(true);
        }
        assert!(folder.next().is_none());
        assert!(state.problems().borrow()[PART].contains("timed out"));
    }

    #[test]
    fn the_one_that_connects_is_the_current_one() {
        let (_dir, folder, trial, state) = two();
        state.problem(PART, "late");
        trial.accept(&state).unwrap();
        assert!(folder.next().is_none() && folder.has_current() && state.problems().borrow().is_empty());
    }
}
