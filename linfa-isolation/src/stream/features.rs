//! What the heads look at: each value against its own recent past.

/// Weight of a new value in the fast smoothing: about the last ten rows.
const FAST: f64 = 1.0 / 10.0;
/// Weight of a new value in the slow smoothing: about the last thirty rows.
const SLOW: f64 = 1.0 / 30.0;
/// Values are measured from the first one seen and held within this, so that no span of an f32 and no square of an f64 overflows.
const BOUND: f64 = 1e37;

/// Columns of the novelty head for each value: the value, its fast smoothing, and the size of its last step.
pub(super) const NOVELTY: usize = 3;

/// The recent past of one value of the rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Channel {
    /// The first value seen; NaN before that.
    pub(super) origin: f64,
    pub(super) previous: f64,
    pub(super) fast: f64,
    pub(super) slow: f64,
    /// Values seen.
    pub(super) seen: u64,
}

impl Channel {
    pub(super) fn new() -> Self {
        Self { origin: f64::NAN, previous: 0.0, fast: 0.0, slow: 0.0, seen: 0 }
    }

    /// Takes the next value in. Gives what the novelty head sees and what the state head sees; NaN stays NaN and leaves the
    /// smoothing alone.
    pub(super) fn next(&mut self, value: f64) -> ([f32; NOVELTY], f32) {
        if value.is_nan() {
            return ([f32::NAN; NOVELTY], f32::NAN);
        }
        if self.seen == 0 {
            self.origin = value;
        }
        let x = (value - self.origin).clamp(-BOUND, BOUND);
        // The first values are averaged evenly, so that the smoothing does not start from one of them.
        let even = 1.0 / (self.seen as f64 + 1.0);
        self.fast += FAST.max(even) * (x - self.fast);
        self.slow += SLOW.max(even) * (x - self.slow);
        let step = if self.seen == 0 { 0.0 } else { (x - self.previous).abs() };
        self.previous = x;
        self.seen += 1;
        ([x as f32, self.fast as f32, step as f32], self.slow as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_value_leaves_no_trace() {
        let (mut with, mut without) = (Channel::new(), Channel::new());
        for x in [5.0, 6.0, f64::NAN, 7.0] {
            let (seen, _) = with.next(x);
            assert_eq!(x.is_nan(), seen[0].is_nan());
        }
        for x in [5.0, 6.0, 7.0] {
            without.next(x);
        }
        assert_eq!(with, without);
    }

    #[test]
    fn small_steps_on_a_large_offset_survive_the_f32() {
        let mut channel = Channel::new();
        channel.next(1.7e9);
        let (seen, _) = channel.next(1.7e9 + 0.25);
        assert_eq!(seen[0], 0.25);
    }

    #[test]
    fn extremes_stay_finite() {
        let mut channel = Channel::new();
        for x in [f64::MAX, f64::MIN, 0.0, f64::MIN_POSITIVE] {
            let (seen, slow) = channel.next(x);
            assert!(seen.iter().chain([&slow]).all(|x| x.is_finite()));
        }
    }
}
