//! Scores the rows of a sensor group with a streaming isolation forest.

use crate::settings;
use edgeveil_wire::{ValueName, Values};
use linfa_isolation::{StreamingForest, StreamingForestParams};

/// What the detector says of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Anomaly score in [0, 1].
    pub score: f64,
    /// What it is held against.
    pub threshold: f64,
    /// Whether an alert is due.
    pub is_anomaly: bool,
    /// Each value's share in the score; they sum to 1.
    pub contributions: Values,
}

/// A forest for the values that the first row names. A value that is missing later on is no number to it, and one
/// that was not there at first is not scored.
pub struct Detector {
    seed: u64,
    names: Vec<ValueName>,
    forest: Option<StreamingForest>,
}

impl Detector {
    /// Learns from the first row on.
    pub fn new(settings: &settings::Detector) -> Self {
        Self { seed: settings.seed, names: Vec::new(), forest: None }
    }

    /// Scores a row against the past and learns it. Nothing while the forest warms up.
    pub fn score(&mut self, values: &Values) -> Option<Scored> {
        if self.forest.is_none() {
            if values.is_empty() {
                return None;
            }
            self.names = values.keys().cloned().collect();
            self.forest = forest(self.names.len(), self.seed);
        }
        let row: Vec<f64> =
            self.names.iter().map(|name| values.get(name).copied().unwrap_or(f64::NAN)).collect();
        let score = match self.forest.as_mut()?.score(&row) {
            Ok(score) => score,
            Err(error) => {
                tracing::debug!(%error, "a row was not scored");
                return None;
            }
        };
        if score.warming_up {
            return None;
        }
        Some(Scored {
            score: score.value,
            threshold: score.threshold,
            is_anomaly: score.is_anomaly,
            contributions: shares(&self.names, &score.contributions),
        })
    }
}

/// The agent's forest for rows of so many values.
pub fn forest(values: usize, seed: u64) -> Option<StreamingForest> {
    match StreamingForestParams::new(values).seed(seed).detector() {
        Ok(forest) => Some(forest),
        Err(error) => {
            tracing::error!(%error, values, "no detector for this sensor");
            None
        }
    }
}

fn shares(names: &[ValueName], contributions: &[f64]) -> Values {
    let sum: f64 = contributions.iter().filter(|c| c.is_finite()).sum();
    let share = |c: f64| if sum > 0.0 && c.is_finite() { c / sum } else { 0.0 };
    names.iter().cloned().zip(contributions.iter().map(|c| share(*c))).collect()
}
