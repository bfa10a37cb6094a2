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
    parts: Mutex<BTreeMap<Part, Result<(), String>>>,
}

impl Readiness {
    /// It works. True when it did not before.
    pub fn up(&self, part: Part) -> bool {
        let before = self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, Ok(()));
        !matches!(before, Some(Ok(())))
    }

    /// It does not, for this reason. True when it did before.
    pub fn down(&self, part: Part, reason: String) -> bool {
        let before = self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, Err(reason));
        !matches!(before, Some(Err(_)))
    }

    /// What keeps the bridge from its work; empty when it is ready.
    pub fn missing(&self) -> Vec<(Part, String)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |part| match parts.get(&part) {
            Some(Ok(())) => None,
            Some(Err(reason)) => Some((part, reason.clone())),
            None => Some((part, "not started yet".to_owned())),
        };
        Part::ALL.into_iter().filter_map(state).collect()
    }
}
