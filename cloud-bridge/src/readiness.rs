//! What the bridge needs to do its work, and what of it is missing now: `/readyz`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// What the bridge depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The catalog.
    Database,
    /// The object store.
    Objects,
    /// The broker, embedded or elsewhere.
    Source,
    /// The places of pictures to be veiled, where there are any.
    Pictures,
}

impl Part {
    const ALL: [Self; 4] = [Self::Database, Self::Objects, Self::Source, Self::Pictures];

    /// Its name in `/readyz`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Objects => "objects",
            Self::Source => "source",
            Self::Pictures => "pictures",
        }
    }
}

/// The state of every part, as last seen by whoever uses it.
#[derive(Debug, Default)]
pub struct Readiness {
    parts: Mutex<BTreeMap<Part, State>>,
}

#[derive(Debug)]
enum State {
    Up,
    /// Nobody knows yet; what is being tried.
    Starting(String),
    Down(String),
}

impl Readiness {
    /// It is tried for the first time.
    pub fn starting(&self, part: Part, what: String) {
        self.set(part, State::Starting(what));
    }

    /// It works. True when it did not before.
    pub fn up(&self, part: Part) -> bool {
        !matches!(self.set(part, State::Up), Some(State::Up))
    }

    /// It does not, for this reason. True when that is news: it did before, or was tried for the first time.
    pub fn down(&self, part: Part, reason: String) -> bool {
        !matches!(self.set(part, State::Down(reason)), Some(State::Down(_)))
    }

    fn set(&self, part: Part, state: State) -> Option<State> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, state)
    }

    /// What keeps the bridge from its work; empty when it is ready.
    pub fn missing(&self) -> Vec<(Part, String)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |part| match parts.get(&part) {
            Some(State::Up) => None,
            Some(State::Starting(reason) | State::Down(reason)) => Some((part, reason.clone())),
            None => Some((part, "not started yet".to_owned())),
        };
        Part::ALL.into_iter().filter_map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_news_and_the_second_is_not() {
        let readiness = Readiness::default();
        let why = |text: &str| text.to_owned();
        readiness.starting(Part::Source, why("connecting"));
        assert!(readiness.missing().contains(&(Part::Source, why("connecting"))));
        assert!(readiness.down(Part::Source, why("no such host")));
        assert!(!readiness.down(Part::Source, why("refused")));
        assert!(readiness.missing().contains(&(Part::Source, why("refused"))));
        assert!(readiness.up(Part::Source) && !readiness.up(Part::Source));
        assert!(readiness.down(Part::Source, why("gone")));
    }
}
