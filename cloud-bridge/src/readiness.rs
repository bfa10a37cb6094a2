//! What the bridge needs to do its work, and what of it is missing now: `/readyz`.

use jiff::{Timestamp, Unit};
use std::{
    collections::BTreeMap,
    fmt,
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

    /// What comes of it when it is missing.
    pub const fn without(self) -> &'static str {
        match self {
            Self::Database | Self::Objects => {
                "Nothing is acknowledged until it works again: devices keep what they have to tell."
            }
            Self::Source => {
                "Devices are shown as they were last heard of, and keep what they have to tell until it works again."
            }
            Self::Pictures => "Pictures to be veiled wait.",
        }
    }
}

/// A part that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub part: Part,
    /// Why, and what to do.
    pub reason: String,
    /// Since when: of a part that never worked, since it was first tried.
    pub since: Timestamp,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.round(Unit::Second).unwrap_or(self.since);
        write!(f, "{}: {} (since {since})", self.part.as_str(), self.reason)
    }
}

/// The state of every part, as last seen by whoever uses it.
#[derive(Debug)]
pub struct Readiness {
    begun: Timestamp,
    parts: Mutex<BTreeMap<Part, (State, Timestamp)>>,
}

#[derive(Debug)]
enum State {
    Up,
    /// Nobody knows yet; what is being tried.
    Starting(String),
    Down(String),
}

impl Default for Readiness {
    fn default() -> Self {
        Self { begun: Timestamp::now(), parts: Mutex::default() }
    }
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
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = parts.remove(&part);
        // It is missing since it first was, whatever the reason is by now.
        let since = match &before {
            Some((State::Starting(_) | State::Down(_), since)) if !matches!(state, State::Up) => *since,
            _ => Timestamp::now(),
        };
        parts.insert(part, (state, since));
        before.map(|(state, _)| state)
    }

    /// What keeps the bridge from its work; empty when it is ready.
    pub fn missing(&self) -> Vec<Missing> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |part| match parts.get(&part) {
            Some((State::Up, _)) => None,
            Some((State::Starting(reason) | State::Down(reason), since)) => {
                Some(Missing { part, reason: reason.clone(), since: *since })
            }
            None => Some(Missing { part, reason: "not started yet".to_owned(), since: self.begun }),
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
        let source = || readiness.missing().into_iter().find(|missing| missing.part == Part::Source);
        readiness.starting(Part::Source, why("connecting"));
        let first = source().unwrap();
        assert_eq!(first.reason, "connecting");
        assert!(readiness.down(Part::Source, why("no such host")));
        assert!(!readiness.down(Part::Source, why("refused")));
        assert_eq!(
            source(),
            Some(Missing { reason: why("refused"), ..first.clone() }),
            "since the first time"
        );
        assert!(readiness.up(Part::Source) && !readiness.up(Part::Source));
        assert_eq!(source(), None);
        assert!(readiness.down(Part::Source, why("gone")));
        assert!(source().unwrap().since > first.since, "that is another time");
    }
}
