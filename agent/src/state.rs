//! What the agent knows of itself: counters for `health`, and what is wrong for `status`.

use crate::status::{Recent, Row};
use edgeveil_wire::{CameraHealth, Lane, LinkHealth, Name, SensorHealth};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Shared by all parts. Its maps have one entry for each camera, sensor group and part, so settings bound them.
#[derive(Debug)]
pub struct State {
    counters: Mutex<Counters>,
    recent: Mutex<Recent>,
    problems: watch::Sender<BTreeMap<String, String>>,
    is_throttled: AtomicBool,
}

/// Counters since the agent started.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// By camera.
    pub cameras: BTreeMap<Name, CameraHealth>,
    /// By sensor group.
    pub sensors: BTreeMap<Name, SensorHealth>,
    /// The connection.
    pub link: LinkHealth,
    /// Records that the spool did not take, by lane.
    pub dropped: [u64; 4],
}

impl Default for State {
    fn default() -> Self {
        Self {
            counters: Mutex::default(),
            recent: Mutex::default(),
            problems: watch::Sender::new(BTreeMap::new()),
            is_throttled: AtomicBool::new(false),
        }
    }
}

impl State {
    /// Counters stay right enough after a panic elsewhere: they are only added to.
    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts for a camera.
    pub fn camera(&self, name: &Name, count: impl FnOnce(&mut CameraHealth)) {
        let mut counters = self.counters();
        if let Some(health) = counters.cameras.get_mut(name) {
            count(health);
        } else {
            count(counters.cameras.entry(name.clone()).or_default());
        }
    }

    /// Counts for a sensor group.
    pub fn sensor(&self, name: &Name, count: impl FnOnce(&mut SensorHealth)) {
        let mut counters = self.counters();
        if let Some(health) = counters.sensors.get_mut(name) {
            count(health);
        } else {
            count(counters.sensors.entry(name.clone()).or_default());
        }
    }

    /// Counts for the link.
    pub fn link(&self, count: impl FnOnce(&mut LinkHealth)) {
        count(&mut self.counters().link);
    }

    /// All counters as they are.
    pub fn counted(&self) -> Counters {
        self.counters().clone()
    }

    /// What was done last stays right enough after a panic elsewhere, too.
    fn last(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame of a camera has come, at this uptime.
    pub fn frame(&self, name: &Name, at: Duration) {
        self.last().cameras.entry(name.clone()).or_default().frame(at);
    }

    /// A row of a sensor group was read.
    pub fn row(&self, name: &Name, row: Row) {
        self.last().sensors.insert(name.clone(), row);
    }

    /// The connection stands, since this uptime.
    pub fn connected(&self, at: Duration) {
        self.last().connection.made(at);
    }

    /// There is no connection, at this uptime.
    pub fn disconnected(&self, at: Duration) {
        self.last().connection.lost(at);
    }

    /// What the parts did last.
    pub fn recent(&self) -> Recent {
        self.last().clone()
    }

    /// A record was lost on the way into the spool: its number is used up, and it is counted here.
    pub fn dropped(&self, lane: Lane) {
        self.counters().dropped[lane as usize] += 1;
    }

    /// The board holds its processor back, or does no longer. Tells whether that is new.
    pub fn throttle(&self, is_throttled: bool) -> bool {
        self.is_throttled.swap(is_throttled, Relaxed) != is_throttled
    }

    /// Whether the board holds its processor back.
    pub fn is_throttled(&self) -> bool {
        self.is_throttled.load(Relaxed)
    }

    /// Something is wrong with a part. Tells whether that is new, so that it is logged once.
    pub fn problem(&self, part: &str, what: &str) -> bool {
        self.problems.send_if_modified(|problems| {
            let new = problems.get(part).is_none_or(|known| known != what);
            if new {
                problems.insert(part.to_owned(), what.to_owned());
            }
            new
        })
    }

    /// It is right again.
    pub fn solved(&self, part: &str) {
        self.problems.send_if_modified(|problems| problems.remove(part).is_some());
    }

    /// What is wrong now, and word of every change.
    pub fn problems(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.problems.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told() {
        let state = State::default();
        let mut problems = state.problems();
        state.problem("camera a", "gone");
        assert!(problems.has_changed().unwrap());
        problems.mark_unchanged();
        state.problem("camera a", "gone");
        assert!(!problems.has_changed().unwrap());
        state.solved("camera a");
        assert!(problems.has_changed().unwrap() && problems.borrow().is_empty());
    }
}
