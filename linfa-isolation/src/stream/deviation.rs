//! The plain head: how many robust standard deviations the farthest value of a row is from its level.
//!
//! An isolation forest ranks single outliers well but does not say where they begin; in units of a spread that the outliers do not
//! inflate, that is a question [`tail`](super::tail) can answer.

use super::ring::put;
use super::tail;
use crate::math::square;

/// Largest deviations over which the line is drawn.
pub(super) const RECENT: usize = 2048;
/// Rows of offsets that centre and spread are taken from.
pub(super) const OFFSETS: usize = 1024;
/// No deviation is larger.
const LARGEST: f32 = 1e6;

/// Centres and spreads of the offsets, and the line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Deviation {
    /// Centre and spread of each value's offsets; the spread is 0 while unknown.
    pub(super) scales: Vec<(f32, f32)>,
    /// Offsets of recent rows, one row after the other; a ring once full.
    pub(super) offsets: Vec<f32>,
    /// Largest deviations of recent rows, a ring once full.
    pub(super) recent: Vec<f32>,
    /// Rows learned.
    pub(super) seen: u64,
    /// A row alerts if its deviation reaches this; infinite while unknown.
    pub(super) line: f64,
    sorted: Vec<f32>,
    work: Vec<f32>,
}

impl Deviation {
    pub(super) fn new(dimensions: usize) -> Self {
        Self {
            scales: vec![(0.0, 0.0); dimensions],
            offsets: Vec::new(),
            recent: Vec::new(),
            seen: 0,
            line: f64::INFINITY,
            sorted: Vec::new(),
            work: Vec::new(),
        }
    }

    /// The most that [`memory`](Self::memory) can become.
    pub(super) fn most_memory(dimensions: usize) -> usize {
        4 * (OFFSETS * dimensions + 3 * RECENT) + 8 * dimensions
    }

    pub(super) fn memory(&self) -> usize {
        let lists = [&self.offsets, &self.recent, &self.sorted, &self.work];
        4 * lists.iter().map(|list| list.capacity()).sum::<usize>() + 8 * self.scales.capacity()
    }

    /// Whether there is room for more rows.
    pub(super) fn is_filling(&self) -> bool {
        self.recent.len() < RECENT
    }

    /// The deviation of an offset in `dimension`, 0 if it is missing or nothing is known yet.
    pub(super) fn of(&self, dimension: usize, offset: f32) -> f32 {
        let (centre, spread) = self.scales[dimension];
        if spread > 0.0 && !offset.is_nan() { ((offset - centre).abs() / spread).min(LARGEST) } else { 0.0 }
    }

    /// The spread of the offsets in `dimension`, 0 while unknown.
    pub(super) fn spread(&self, dimension: usize) -> f32 {
        self.scales[dimension].1
    }

    /// The farthest of a row's offsets.
    pub(super) fn farthest(&self, offsets: &[f32]) -> f32 {
        offsets.iter().enumerate().map(|(dimension, &offset)| self.of(dimension, offset)).fold(0.0, f32::max)
    }

    /// Takes in a row's offsets and the deviation it was given, and from time to time draws everything anew.
    pub(super) fn learn(&mut self, offsets: &[f32], deviation: f32, odds: f64) {
        put(&mut self.offsets, offsets, self.seen, OFFSETS);
        put(&mut self.recent, &[deviation], self.seen, RECENT);
        self.seen += 1;
        let every = match self.seen {
            ..256 => 8,
            256..2048 => 64,
            _ => 128,
        };
        if self.seen < 16 || !self.seen.is_multiple_of(every) {
            return;
        }
        self.measure();
        if self.seen <= 128 {
            // The first centres and spreads were poor: look again at the rows so far, which are all still there, in order.
            let mut recent = std::mem::take(&mut self.recent);
            recent.clear();
            recent.extend(self.offsets.chunks_exact(offsets.len()).map(|row| self.farthest(row)));
            self.recent = recent;
        }
        // In the order of time.
        let oldest = if self.recent.len() < RECENT { 0 } else { (self.seen % RECENT as u64) as usize };
        self.work.clear();
        self.work.reserve_exact(self.recent.len());
        self.work.extend_from_slice(&self.recent[oldest..]);
        self.work.extend_from_slice(&self.recent[..oldest]);
        let line = tail::line(&self.work, self.scales.len(), odds, &mut self.sorted);
        self.line = line.filter(|line| *line > 0.0).unwrap_or(f64::INFINITY);
    }

    fn measure(&mut self) {
        let dimensions = self.scales.len();
        for (dimension, scale) in self.scales.iter_mut().enumerate() {
            self.work.clear();
            self.work.reserve_exact(self.offsets.len() / dimensions);
            self.work.extend(self.offsets[dimension..].iter().step_by(dimensions).filter(|x| !x.is_nan()));
            if let Some(measured) = centre_and_spread(&self.work, &mut self.sorted) {
                *scale = measured;
            }
        }
    }
}

/// Mean and standard deviation of the part within 2.5 spreads of the centre, from the median and the median absolute deviation in
/// three rounds, corrected for what a Gaussian has outside. The spread is at least a tenth of the plain standard deviation, which is what is
/// left where most values are equal, and never 0.
fn centre_and_spread(values: &[f32], work: &mut Vec<f32>) -> Option<(f32, f32)> {
    const WITHIN: f64 = 2.5;
    /// Variance of a standard Gaussian cut off there.
    const VARIANCE: f64 = 0.9113;
    if values.len() < 8 {
        return None;
    }
    let middle = values.len() / 2;
    // The sums below are taken in the order of the values, which a selection among them would change.
    work.clear();
    work.reserve_exact(values.len());
    work.extend_from_slice(values);
    let median = f64::from(*work.select_nth_unstable_by(middle, f32::total_cmp).1);
    work.clear();
    work.extend(values.iter().map(|&x| (f64::from(x) - median).abs() as f32));
    let absolute = f64::from(*work.select_nth_unstable_by(middle, f32::total_cmp).1);
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let plain = (values.iter().map(|&x| square(f64::from(x) - mean)).sum::<f64>() / n).sqrt();
    let (mut centre, mut spread) = (median, (1.4826 * absolute).max(0.1 * plain));
    for _ in 0..3 {
        let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for &x in values.iter() {
            let e = f64::from(x) - centre;
            if e.abs() <= WITHIN * spread {
                count += 1.0;
                sum += e;
                squares += e * e;
            }
        }
        if count < 8.0 || squares <= 0.0 {
            break;
        }
        let shift = sum / count;
        centre += shift;
        spread = ((squares / count - shift * shift).max(0.0) / VARIANCE).sqrt().max(0.1 * plain);
    }
    // A constant: the smallest step an f32 can tell here, so that any change stands out.
    let spread = (spread as f32).max(centre.abs() as f32 * f32::EPSILON).max(f32::MIN_POSITIVE);
    Some((centre as f32, spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_do_not_inflate_the_spread() {
        let mut draws = crate::random::Draws::stream(3, 3);
        let mut values: Vec<f32> = (0..1000).map(|_| draws.normal() as f32 + 10.0).collect();
        values[..80].iter_mut().for_each(|x| *x += 30.0);
        let (centre, spread) = centre_and_spread(&values, &mut Vec::new()).expect("enough values");
        assert!((centre - 10.0).abs() < 0.15 && (spread - 1.0).abs() < 0.1, "{centre} {spread}");
    }

    #[test]
    fn a_constant_has_the_smallest_spread() {
        let (centre, spread) = centre_and_spread(&[0.0; 40], &mut Vec::new()).expect("enough values");
        assert!(centre == 0.0 && spread > 0.0 && spread < 1e-30);
    }
}
