//! Keeps what a detector learns, now and then and at the end.

use super::{
    Detector,
    memory::{Memory, MemoryError},
};
use crate::state::State;
use edgeveil_wire::Name;
use std::{sync::Arc, time::Duration};
use tokio::task::{JoinHandle, spawn_blocking};

/// Writes a group's memory at most once in so long. The forest is copied and written by another thread, so that rows are read on time.
pub struct Keeper {
    memory: Memory,
    every: Duration,
    /// Uptime at which it is written next.
    due: Duration,
    /// Rows that the forest had seen when it was written last.
    kept: u64,
    /// One at a time.
    writing: Option<JoinHandle<Result<(), MemoryError>>>,
    part: String,
    state: Arc<State>,
}

impl Keeper {
    /// Of one group; the first writing is due after `every`.
    pub fn new(memory: Memory, every: Duration, group: &Name, state: Arc<State>) -> Self {
        let part = format!("memory of sensor {group}");
        Self { memory, every, due: every, kept: 0, writing: None, part, state }
    }

    /// Begins to write if it is time to, and something was learned.
    pub async fn tick(&mut self, uptime: Duration, detector: &Detector) {
        if uptime < self.due {
            return;
        }
        self.due = uptime + self.every;
        // A disk that takes so long is not given more to do.
        if self.writing.as_ref().is_none_or(JoinHandle::is_finished) {
            self.report().await;
            self.begin(detector);
        }
    }

    /// Writes what is not written yet, and waits for it.
    pub async fn finish(mut self, detector: &Detector) {
        self.report().await;
        self.begin(detector);
        self.report().await;
    }

    fn begin(&mut self, detector: &Detector) {
        let Some(learned) = detector.learned().filter(|learned| learned.forest.rows_seen() != self.kept)
        else {
            return;
        };
        self.kept = learned.forest.rows_seen();
        let (memory, learned) = (self.memory.clone(), learned.clone());
        self.writing = Some(spawn_blocking(move || memory.keep(&learned)));
    }

    /// Waits for the writing that was begun, and tells how it went. A failure costs history at a power cut, and no more.
    async fn report(&mut self) {
        let Some(writing) = self.writing.take() else { return };
        let what = match writing.await {
            Ok(Ok(())) => return self.state.solved(&self.part),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.kept = 0;
        if self.state.problem(&self.part, &what) {
            tracing::error!(
                part = self.part,
                "what the detector has learned is not kept; it is tried again: {what}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{self, Alerts, Profile};
    use edgeveil_wire::Values;

    #[tokio::test]
    async fn it_is_written_when_due_and_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let group: Name = "board".parse().unwrap();
        let memory = Memory::new(dir.path(), &group);
        let (state, minute) = (Arc::new(State::default()), Duration::from_secs(60));
        let mut keeper = Keeper::new(memory.clone(), minute, &group, state.clone());
        let settings = settings::Detector { seed: 0, profile: Profile::Default, alerts: Alerts::Rows };
        let mut detector = Detector::new(&settings);
        let row = Values::from([("a".parse().unwrap(), 1.0)]);
        let rows = || memory.recall().unwrap().map(|learned| learned.forest.rows_seen());

        detector.score(&row);
        keeper.tick(minute / 2, &detector).await;
        keeper.report().await;
        assert_eq!(rows(), None);
        keeper.tick(minute, &detector).await;
        keeper.report().await;
        assert_eq!(rows(), Some(1));
        detector.score(&row);
        keeper.finish(&detector).await;
        assert_eq!(rows(), Some(2));
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_a_problem_until_it_works_again() {
        let dir = tempfile::tempdir().unwrap();
        let group: Name = "board".parse().unwrap();
        let (state, second) = (Arc::new(State::default()), Duration::from_secs(1));
        std::fs::write(dir.path().join("detectors"), "in the way").unwrap();
        let mut keeper = Keeper::new(Memory::new(dir.path(), &group), second, &group, state.clone());
        let settings = settings::Detector { seed: 0, profile: Profile::Default, alerts: Alerts::Rows };
        let mut detector = Detector::new(&settings);
        detector.score(&Values::from([("a".parse().unwrap(), 1.0)]));
        keeper.tick(second, &detector).await;
        keeper.report().await;
        assert_eq!(state.problems().borrow().len(), 1);
        std::fs::remove_file(dir.path().join("detectors")).unwrap();
        keeper.tick(2 * second, &detector).await;
        keeper.report().await;
        assert!(state.problems().borrow().is_empty());
    }
}
