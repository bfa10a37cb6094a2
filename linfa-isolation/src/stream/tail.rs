//! A line between the ordinary and the anomalous that needs no share of anomalies to be told.
//!
//! The sizes of recent deviations are taken for a mixture: ordinary ones, distributed as the largest of `d` absolute normals after a
//! power transformation, `S(u) = 1 - (1 - P(|N| > scale u^power))^d`, and a share of others of which nothing is assumed (the empirical
//! null of Efron 2004). Power and scale are fitted at the median and the 80 % point of the ordinary part, and the share is the excess
//! over S far out: the power is 1 for Gaussian values, less for heavier tails. The line is where `observed above - ordinary expected above / odds` is largest: moved up, it would miss more anomalies than it spares false
//! alerts, weighed by `odds`, the local false discovery rate that is put up with. Where deviations and their line are far apart, any
//! place in the gap will do, and the geometric middle is taken.
//!
//! That is only believed where it may be: ordinary deviations of nearly Gaussian decline, and outliers that come singly. Bursts, regimes
//! and heavy tails look like many anomalies too; there the line does not go below what one row in five hundred exceeds. Without
//! outliers it lies where S is [`RARE`].

use super::normal::{two_sided_quantile, two_sided_tail};
use crate::math::{expm1, ln, log1p, pow};

/// Survival at which a deviation alerts by itself, without others like it.
const RARE: f64 = 1e-4;
/// The line is not looked for where ordinary rows are more frequent than this.
const COMMON: f64 = 0.02;
/// Where the ordinary part cannot be told from the others, the line lies beyond what this share of the rows exceeds ...
const SELDOM: f64 = 0.002;
/// ... by this factor, so that the values a machine returns to at each start do not alert each time.
const BEYOND: f64 = 1.05;
/// Of the best balance, what is given up for a line in the middle of the good ones.
const SLACK: f64 = 0.06;
/// Standard errors by which the excess must be real.
const SIGNIFICANT: f64 = 2.0;
/// The fewest deviations a line is drawn on.
const FEWEST: usize = 32;

/// The ordinary part of a mixture of deviations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Null {
    dimensions: f64,
    power: f64,
    scale: f64,
    /// The power as measured; the one in use is held within bounds.
    measured_power: f64,
    /// Share of the deviations that is not ordinary.
    others: f64,
}

impl Null {
    /// Fits to ascending deviations, each the largest of `dimensions`.
    fn fit(sorted: &[f32], dimensions: usize) -> Self {
        let n = sorted.len() as f64;
        let mut null = Self {
            dimensions: dimensions as f64,
            power: 1.0,
            scale: 1.0,
            measured_power: f64::NAN,
            others: 0.0,
        };
        let (normal_middle, normal_upper) = (null.normal_at(0.5), null.normal_at(0.2));
        let spread = ln(normal_upper / normal_middle);
        let far = [0.02, 0.01, 0.005].map(|survival| (survival, null.normal_at(survival)));
        for _ in 0..4 {
            let ordinary = 1.0 - null.others;
            let (middle, upper) = (quantile(sorted, 0.5 * ordinary), quantile(sorted, 0.8 * ordinary));
            null.measured_power = spread / ln(upper / middle);
            // Where most values are equal there is nothing to measure.
            let middle = middle.max(0.2);
            null.power = (spread / ln((upper / middle).max(1.05))).clamp(0.3, 1.0);
            null.scale = normal_middle / pow(middle, null.power);
            null.others = far
                .iter()
                .map(|&(survival, normal)| {
                    let u = null.deviation(normal);
                    let above = sorted.len() - sorted.partition_point(|&x| f64::from(x) < u);
                    (above as f64 / n - survival) / (1.0 - survival)
                })
                .fold(0.0, f64::max)
                .min(0.25);
        }
        null
    }

    fn survival(&self, u: f64) -> f64 {
        let tail = two_sided_tail(self.scale * pow(u, self.power));
        // 1 - (1 - tail)^d without cancellation.
        -expm1(self.dimensions * log1p(-tail))
    }

    /// The absolute normal of which the largest of `dimensions` has this survival.
    fn normal_at(&self, survival: f64) -> f64 {
        two_sided_quantile(-expm1(log1p(-survival) / self.dimensions))
    }

    /// The deviation that corresponds to an absolute normal.
    fn deviation(&self, normal: f64) -> f64 {
        pow(normal / self.scale, 1.0 / self.power)
    }

    /// The deviation with this survival.
    fn at(&self, survival: f64) -> f64 {
        self.deviation(self.normal_at(survival))
    }
}

/// The line for deviations like `recent` (in the order of time), at `odds` in (0, 1). `sorted` is working space.
pub(super) fn line(recent: &[f32], dimensions: usize, odds: f64, sorted: &mut Vec<f32>) -> Option<f64> {
    if recent.len() < FEWEST {
        return None;
    }
    sorted.clear();
    sorted.reserve_exact(recent.len());
    sorted.extend_from_slice(recent);
    sorted.sort_unstable_by(f32::total_cmp);
    let null = Null::fit(sorted, dimensions);
    let ordinary = sorted.len() as f64 * (1.0 - null.others);
    let rare = null.at(RARE);
    // Candidates from the largest down: how many lie at or above, and how many ordinary ones are expected there.
    let candidates = || {
        (0..sorted.len()).rev().enumerate().map(|(above, at)| {
            let u = f64::from(sorted[at]);
            (at, u, above as f64 + 1.0, ordinary * null.survival(u))
        })
    };
    let within = |&(_, u, _, _): &(usize, f64, f64, f64)| null.survival(u) <= COMMON;
    let best = candidates()
        .take_while(within)
        .filter(|&(_, _, above, expected)| above - expected > SIGNIFICANT * (1.0 + expected.sqrt()))
        .map(|(_, u, above, expected)| (above - expected / odds, u))
        .filter(|&(balance, _)| balance > 0.0)
        .fold(
            None,
            |best: Option<(f64, f64)>, next| {
                if best.is_none_or(|b| next.0 > b.0) { Some(next) } else { best }
            },
        );
    let Some((balance, outermost)) = best else { return Some(rare) };
    // The power of few deviations is not known better than that.
    let doubt = 2.0 / (sorted.len() as f64).sqrt();
    let credible =
        (0.9 - doubt..=1.25 + doubt).contains(&null.measured_power) && comes_singly(recent, outermost);
    let edge = BEYOND * quantile(sorted, 1.0 - SELDOM);
    if !credible && outermost < edge {
        return Some(edge.max(rare));
    }
    let enough = balance - (SLACK * balance).max(1.0);
    let (mut low, mut high) = (f64::INFINITY, 0f64);
    for (at, u, above, expected) in candidates().take_while(within) {
        if above - expected / odds < enough {
            continue;
        }
        high = high.max(u);
        // Down from `u` to the next deviation the count above is the same: how far down is the balance still good enough?
        let next = if at > 0 { f64::from(sorted[at - 1]) } else { u };
        let affordable = (above - enough) * odds / ordinary;
        let down = if affordable < 1.0 { null.at(affordable) } else { 0.0 };
        low = low.min(down.max(next).min(u));
    }
    Some((low * high).sqrt().min(rare.max(low)))
}

/// Whether deviations beyond the line mostly come one at a time.
fn comes_singly(recent: &[f32], line: f64) -> bool {
    let beyond = |&u: &f32| f64::from(u) >= line;
    let after_another = recent.windows(2).filter(|pair| pair.iter().all(beyond)).count();
    10 * after_another <= 3 * recent.iter().filter(|u| beyond(u)).count()
}

/// By linear interpolation.
pub(super) fn quantile(sorted: &[f32], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (at, part) = (place as usize, place.fract());
    let low = f64::from(sorted[at]);
    sorted.get(at + 1).map_or(low, |&high| low + part * (f64::from(high) - low))
}
