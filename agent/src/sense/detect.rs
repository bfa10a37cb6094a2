//! Scores the rows of a sensor group with a streaming isolation forest.

use super::memory::{Learned, Memory};
use crate::settings::{self, Alerts, Profile};
use edgeveil_wire::{ValueName, Values};
use linfa_isolation::{Episode, Hysteresis, Score, StreamError, StreamingForest, StreamingForestParams};

/// Ordinary rows after which an episode of alerts is over, at the pace of one row a second.
const QUIET_ROWS: u32 = 30;

/// What the detector says of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Anomaly score in [0, 1].
    pub score: f64,
    /// What it is held against.
    pub threshold: f64,
    /// Whether an alert is due.
    pub alert: bool,
    /// Each value's share in the score; they sum to 1.
    pub contributions: Values,
}

/// A forest for the values that the first row names. A value that is missing later on is no number to it, and one
/// that was not there at first is not scored.
pub struct Detector {
    settings: settings::Detector,
    learned: Option<Learned>,
    /// What it has learned is from before, and no row was seen since.
    recalled: bool,
    /// A forest could not be made: that is logged once, and rows go unscored.
    hopeless: bool,
}

impl Detector {
    /// Knows nothing, and learns from the first row on.
    pub fn new(settings: &settings::Detector) -> Self {
        Self { settings: settings.clone(), learned: None, recalled: false, hopeless: false }
    }

    /// Knows what was kept in `memory`. What is kept there but cannot be used is set aside with a line in the log.
    pub fn recall(settings: &settings::Detector, memory: &Memory) -> Self {
        let mut detector = Self::new(settings);
        let useless = match memory.recall() {
            Ok(None) => return detector,
            Ok(Some(learned)) if detector.made(&learned.forest) => {
                tracing::info!(
                    rows = learned.forest.rows_seen(),
                    "the detector goes on from what it had learned"
                );
                (detector.learned, detector.recalled) = (Some(learned), true);
                return detector;
            }
            Ok(Some(_)) => "it was learned with other settings".to_owned(),
            Err(error) => error.to_string(),
        };
        match memory.set_aside() {
            Ok(aside) => {
                tracing::warn!(aside = %aside.display(), "the detector starts anew, its memory is set aside: {useless}");
            }
            Err(error) => tracing::warn!(%error, "the detector starts anew: {useless}"),
        }
        detector
    }

    /// Whether a forest is one of these settings.
    fn made(&self, forest: &StreamingForest) -> bool {
        self::forest(forest.dimensions(), &self.settings)
            .is_ok_and(|new| new.hyperparams() == forest.hyperparams())
    }

    /// What it has learned, once there was a row.
    pub fn learned(&self) -> Option<&Learned> {
        self.learned.as_ref()
    }

    /// Scores a row against the past and learns it. Nothing while the forest warms up.
    pub fn score(&mut self, values: &Values) -> Option<Scored> {
        if values.is_empty() || self.hopeless {
            return None;
        }
        if std::mem::take(&mut self.recalled)
            && let Some(learned) = &self.learned
            && let Some(name) = values.keys().find(|name| !learned.names.contains(name))
        {
            tracing::info!(%name, "a value that the detector did not know: it starts anew");
            self.learned = None;
        }
        if self.learned.is_none() {
            let names: Vec<ValueName> = values.keys().cloned().collect();
            match forest(names.len(), &self.settings) {
                Ok(forest) => self.learned = Some(Learned { names, forest }),
                Err(error) => {
                    tracing::error!(%error, values = names.len(), "no detector for this sensor");
                    self.hopeless = true;
                }
            }
        }
        let Learned { names, forest } = self.learned.as_mut()?;
        let row: Vec<f64> = names.iter().map(|name| values.get(name).copied().unwrap_or(f64::NAN)).collect();
        let score = match forest.score(&row) {
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
            alert: due(&score, self.settings.alerts),
            contributions: shares(names, &score.contributions),
        })
    }
}

/// The agent's forest for rows of so many values.
pub fn forest(values: usize, settings: &settings::Detector) -> Result<StreamingForest, StreamError> {
    let pace = match settings.profile {
        Profile::Default => 1,
        Profile::Hz10 => 10,
        Profile::Hz100 => 100,
    };
    let hysteresis = Hysteresis { rows_to_begin: 1, quiet_rows: QUIET_ROWS * pace };
    StreamingForestParams::new(values)
        .seed(settings.seed)
        .pace(pace as usize)
        .hysteresis(Some(hysteresis))
        .detector()
}

fn due(score: &Score, alerts: Alerts) -> bool {
    match alerts {
        Alerts::Rows => score.is_anomaly,
        Alerts::Episodes => score.episode == Episode::Begin,
    }
}

fn shares(names: &[ValueName], contributions: &[f64]) -> Values {
    let sum: f64 = contributions.iter().filter(|c| c.is_finite()).sum();
    let share = |c: f64| if sum > 0.0 && c.is_finite() { c / sum } else { 0.0 };
    names.iter().cloned().zip(contributions.iter().map(|c| share(*c))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeveil_wire::Name;

    fn settings() -> settings::Detector {
        settings::Detector { seed: 0, profile: Profile::Default, alerts: Alerts::Rows }
    }

    fn row(i: u32, names: &[&str]) -> Values {
        names.iter().map(|name| (name.parse().unwrap(), f64::from(i * 7919 % 101))).collect()
    }

    #[test]
    fn a_restart_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path(), &"board".parse::<Name>().unwrap());
        let mut detector = Detector::recall(&settings(), &memory);
        (0..300).for_each(|i| _ = detector.score(&row(i, &["a", "b"])));
        memory.keep(detector.learned().unwrap()).unwrap();
        let mut restarted = Detector::recall(&settings(), &memory);
        for i in 300..400 {
            // A value that is missing at first is no reason to forget it.
            let names: &[&str] = if i < 310 { &["b"] } else { &["a", "b"] };
            let scored = restarted.score(&row(i, names));
            assert!(scored.is_some(), "no second warm-up");
            assert_eq!(scored, detector.score(&row(i, names)));
        }
    }

    #[test]
    fn a_memory_of_something_else_is_set_aside_or_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path(), &"board".parse::<Name>().unwrap());
        let mut detector = Detector::new(&settings());
        (0..100).for_each(|i| _ = detector.score(&row(i, &["a"])));
        memory.keep(detector.learned().unwrap()).unwrap();

        let mut other = Detector::recall(&settings(), &memory);
        assert!(other.score(&row(0, &["a", "new"])).is_none(), "it warms up with the new value");

        let fast = settings::Detector { profile: Profile::Hz10, ..settings() };
        assert!(Detector::recall(&fast, &memory).learned().is_none());
        assert!(dir.path().join("detectors/board.aside").exists());
        assert!(memory.recall().unwrap().is_none());
    }

    #[test]
    fn episodes_alert_once() {
        for (alerts, expected) in [(Alerts::Rows, 3..=10), (Alerts::Episodes, 1..=1)] {
            let mut detector = Detector::new(&settings::Detector { alerts, ..settings() });
            let mut sent = 0;
            for i in 0..1000 {
                let value = if (800..810).contains(&i) { 1000.0 } else { f64::from(i * 7919 % 101) };
                let values = Values::from([("a".parse().unwrap(), value)]);
                sent += usize::from(i >= 700 && detector.score(&values).is_some_and(|scored| scored.alert));
            }
            assert!(expected.contains(&sent), "{alerts:?}: {sent}");
        }
    }
}
