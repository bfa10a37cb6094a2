//! Counts durations in fixed buckets, so that it costs the same memory whatever is counted.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A bucket's width is at most so small a part of its values: 1/64, or 1.6 %.
const STEPS: u32 = 64;
/// From microseconds up to 2^36 of them, which is 19 hours; what is longer counts as that.
const OCTAVES: u32 = 31;

/// Of durations: 16 KiB.
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    most: AtomicU64,
}

impl Histogram {
    pub fn new() -> Self {
        let buckets = (0..STEPS * OCTAVES).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, most: AtomicU64::new(0) }
    }

    pub fn count(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[index(micros)].fetch_add(1, Relaxed);
        self.most.fetch_max(micros, Relaxed);
    }

    /// The duration that a share of all is not above; none when nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let wanted = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (n, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(Duration::from_micros(end(n).min(self.most.load(Relaxed))));
            }
        }
        None
    }

    pub fn most(&self) -> Option<Duration> {
        self.quantile(1.0).map(|_| Duration::from_micros(self.most.load(Relaxed)))
    }
}

/// Values below [`STEPS`] have a bucket each; above, each doubling has `STEPS`.
fn index(micros: u64) -> usize {
    let octave = micros.max(1).ilog2().saturating_sub(STEPS.ilog2());
    let place = if micros < u64::from(STEPS) {
        micros as u32
    } else {
        (octave + 1) * STEPS + (micros >> octave) as u32 - STEPS
    };
    place.min(STEPS * OCTAVES - 1) as usize
}

/// The largest value of a bucket.
fn end(index: usize) -> u64 {
    let (octave, step) = (index as u64 / u64::from(STEPS), index as u64 % u64::from(STEPS));
    match octave {
        0 => step,
        _ => ((u64::from(STEPS) + step + 1) << (octave - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_a_bucket_that_is_hardly_wider_than_it() {
        let powers = (18..36).map(|n| 1 << n);
        let mut last = 0;
        for micros in (0..200_000).chain(powers) {
            let n = index(micros);
            let end = end(n);
            assert!(end >= micros && end - micros <= micros / 64, "{micros}: {end}");
            assert!(n >= last, "{micros}");
            last = n;
        }
        assert_eq!(index(u64::MAX), (STEPS * OCTAVES) as usize - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let histogram = Histogram::new();
        assert_eq!((histogram.quantile(0.5), histogram.most()), (None, None));
        (1..=1000).rev().for_each(|ms| histogram.count(Duration::from_millis(ms)));
        for (share, ms) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.quantile(share).unwrap().as_secs_f64() * 1000.0;
            assert!((found / ms - 1.0).abs() < 1.0 / 64.0, "{share}: {found}");
        }
        assert_eq!(histogram.most(), Some(Duration::from_secs(1)));
    }
}
