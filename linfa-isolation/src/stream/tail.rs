//! The causal threshold.

/// Recent scores, and the line above which they are anomalous.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Tail {
    recent: Vec<f32>,
    next: usize,
    threshold: f32,
}

const KEPT: usize = 1024;
const EVERY: usize = 16;

impl Tail {
    pub(super) fn new() -> Self {
        Self { recent: Vec::new(), next: 0, threshold: 1.0 }
    }

    pub(super) fn threshold(&self) -> f32 {
        self.threshold
    }

    pub(super) fn add(&mut self, score: f32) {
        if self.recent.len() < KEPT {
            self.recent.push(score);
        } else {
            self.recent[self.next] = score;
        }
        self.next = (self.next + 1) % KEPT;
        if self.next.is_multiple_of(EVERY) {
            let mut sorted = self.recent.clone();
            sorted.sort_unstable_by(f32::total_cmp);
            let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
            self.threshold = (at(0.5) + 3.5 * (at(0.8) - at(0.5)).max(0.02)).min(0.95);
        }
    }
}
