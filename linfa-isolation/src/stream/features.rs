//! What the heads look at: each value against its own recent past.

/// Weight of a new value in the fast smoothing: about the last ten rows.
const FAST: f64 = 1.0 / 10.0;
/// Weight of a new value in the slow smoothing: about the last thirty rows.
const SLOW: f64 = 1.0 / 30.0;
/// Weight of a new value in the level that deviations are measured from.
const LEVEL: f64 = 1.0 / 100.0;
/// Spreads by which one value can pull that level at most as far as its weight goes.
const PULL: f64 = 3.0;
/// Values are measured from the first one seen and held within this, so that no span of an f32 and no square of an f64 overflows.
const BOUND: f64 = 1e37;

/// Columns of the novelty head for each value: the value, its fast smoothing, and the size of its last step (at a pace of `n` rows: how far
/// it is from the last `n` values).
pub(super) const NOVELTY: usize = 3;

/// The recent past of one value of the rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Channel {
    /// The first value seen; NaN before that.
    pub(super) origin: f64,
    /// The value before; at a pace of `n` rows, the smoothing over the last `n`.
    pub(super) previous: f64,
    pub(super) fast: f64,
    pub(super) slow: f64,
    /// The level that deviations are measured from.
    pub(super) level: f64,
    /// Values seen.
    pub(super) seen: u64,
}

/// What the heads are shown of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Features {
    pub(super) novelty: [f32; NOVELTY],
    /// The slow smoothing.
    pub(super) state: f32,
    /// How far the value is from the level before it.
    pub(super) offset: f32,
}

impl Channel {
    pub(super) fn new() -> Self {
        Self { origin: f64::NAN, previous: 0.0, fast: 0.0, slow: 0.0, level: 0.0, seen: 0 }
    }

    /// Takes the next value in. `spread` is that of the offsets so far, 0 while unknown; smoothing takes `pace` times as long. NaN stays
    /// NaN and leaves no trace.
    pub(super) fn next(&mut self, value: f64, spread: f32, pace: f64) -> Features {
        if value.is_nan() {
            return Features { novelty: [f32::NAN; NOVELTY], state: f32::NAN, offset: f32::NAN };
        }
        if self.seen == 0 {
            self.origin = value;
        }
        let x = (value - self.origin).clamp(-BOUND, BOUND);
        // The first values are averaged evenly, so that the smoothing does not start from one of them.
        let even = 1.0 / (self.seen as f64 + 1.0);
        self.fast += (FAST / pace).max(even) * (x - self.fast);
        self.slow += (SLOW / pace).max(even) * (x - self.slow);
        // An outlier pulls the level no farther than an ordinary value (Huber's psi); a level shift is followed at that pace.
        let offset = if self.seen == 0 { 0.0 } else { x - self.level };
        let pull = if spread > 0.0 { PULL * f64::from(spread) } else { f64::INFINITY };
        self.level += (LEVEL / pace).max(even) * offset.clamp(-pull, pull);
        let step = if self.seen == 0 { 0.0 } else { (x - self.previous).abs() };
        self.previous = x + (1.0 - (1.0 / pace).max(even)) * (self.previous - x);
        self.seen += 1;
        Features {
            novelty: [x as f32, self.fast as f32, step as f32],
            state: self.slow as f32,
            offset: offset as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_value_leaves_no_trace() {
        let (mut with, mut without) = (Channel::new(), Channel::new());
        for x in [5.0, 6.0, f64::NAN, 7.0] {
            assert_eq!(x.is_nan(), with.next(x, 0.0, 1.0).novelty[0].is_nan());
        }
        for x in [5.0, 6.0, 7.0] {
            without.next(x, 0.0, 1.0);
        }
        assert_eq!(with, without);
    }

    #[test]
    fn small_steps_on_a_large_offset_survive_the_f32() {
        let mut channel = Channel::new();
        channel.next(1.7e9, 0.0, 1.0);
        assert_eq!(channel.next(1.7e9 + 0.25, 0.0, 1.0).novelty[0], 0.25);
    }

    #[test]
    fn extremes_stay_finite() {
        let mut channel = Channel::new();
        for x in [f64::MAX, f64::MIN, 0.0, f64::MIN_POSITIVE] {
            let features = channel.next(x, 1.0, 1.0);
            assert!(
                features.novelty.iter().chain([&features.state, &features.offset]).all(|x| x.is_finite())
            );
        }
    }

    #[test]
    fn the_level_follows_a_shift_but_not_an_outlier() {
        let mut channel = Channel::new();
        (0..100).for_each(|i| _ = channel.next(f64::from(i % 2), 1.0, 1.0));
        let before = channel.level;
        channel.next(1000.0, 1.0, 1.0);
        assert!((channel.level - before).abs() <= 0.1 + 1e-9);
        (0..1500).for_each(|_| _ = channel.next(10.0, 1.0, 1.0));
        assert!((channel.level - 10.0).abs() < 0.1);
    }
}
