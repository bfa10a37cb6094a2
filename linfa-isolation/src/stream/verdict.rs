//! From what the heads say to one number.
//!
//! The scale of [`Score::value`](super::Score::value) has three bands, so that a threshold of 0.5 is always right and what is new
//! always stands above what goes on:
//!
//! | value | meaning |
//! |---|---|
//! | 0.6 to 1 | something not seen before: the novelty head at or above [`NOVEL`], and not a repeat |
//! | 0.5 to 0.6 | anomalous by itself: a repeat of such a thing, or a deviation beyond the line |
//! | 0 to 0.5 | ordinary; the more, the farther the smoothed values are from where they have been for long |

use crate::math::{cube, exp, square};

/// The line on the scale of the values.
pub(super) const LINE: f64 = 0.5;
/// Where the band of what is new begins.
const NEW: f64 = 0.6;
/// The insertion score from which a row is taken for unlike anything kept. In one dimension that is a value outside the range
/// of thousands of rows by a good part of that range.
pub(super) const NOVEL: f64 = 0.78;
/// What remains of a novelty that is below the decaying peak of those before it.
const REPEAT: f64 = 0.1;

/// What the heads say of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// Score of the novelty head.
    pub(super) novelty: f64,
    /// Score of the state head.
    pub(super) state: f64,
    /// Deviation over its line: 1 or more alerts.
    pub(super) deviation: f64,
    /// The novelty is not below the peak of those before it.
    pub(super) fresh: bool,
}

impl Evidence {
    pub(super) fn value(&self) -> f64 {
        let novelty = if self.fresh { self.novelty } else { REPEAT * self.novelty };
        // To the sixth power, ordinary novelty stays below ordinary state, and the two meet at the line.
        let below = square(cube(novelty / NOVEL)).max(self.state).min(1.0);
        if novelty >= NOVEL {
            NEW + (1.0 - NEW) * (novelty - NOVEL) / (1.0 - NOVEL)
        } else if self.deviation >= 1.0 || self.novelty >= NOVEL {
            LINE + (NEW - LINE) * below
        } else {
            // Kept off the line itself.
            (LINE * below).min(LINE - 1e-6)
        }
    }
}

/// The decaying peak that tells a repeat from something new.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Peak {
    pub(super) height: f64,
    decay: f64,
}

impl Peak {
    /// Falls to 1/e in so many rows.
    pub(super) fn new(rows: f64) -> Self {
        Self { height: 0.0, decay: exp(-1.0 / rows) }
    }

    /// Takes in the next novelty and says whether it is fresh.
    pub(super) fn next(&mut self, novelty: f64) -> bool {
        let fresh = novelty >= self.height;
        self.height = (self.height * self.decay).max(novelty);
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(novelty: f64, state: f64, deviation: f64, fresh: bool) -> f64 {
        Evidence { novelty, state, deviation, fresh }.value()
    }

    #[test]
    fn the_bands_hold() {
        assert!(value(0.77, 0.99, 0.99, true) < LINE);
        assert!(value(0.5, 1.0, 0.0, false) < LINE);
        assert!((LINE..NEW).contains(&value(0.4, 0.4, 1.0, true)));
        assert!((LINE..NEW).contains(&value(0.9, 0.4, 0.0, false)));
        assert!((NEW..=1.0).contains(&value(0.8, 0.4, 0.0, true)));
        assert_eq!(value(1.0, 1.0, 9.0, true), 1.0);
        assert_eq!(value(0.0, 0.0, 0.0, true), 0.0);
    }

    #[test]
    fn a_peak_fades() {
        let mut peak = Peak::new(100.0);
        assert!(peak.next(0.9));
        assert!(!peak.next(0.85));
        for _ in 0..50 {
            peak.next(0.4);
        }
        assert!(peak.next(0.85));
    }
}
