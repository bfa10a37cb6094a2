//! The standard normal's tail, which the standard library has not.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::math::exp;

/// The probability that a standard normal is farther from 0 than `u` (>= 0), to about 14 digits.
pub(super) fn two_sided_tail(u: f64) -> f64 {
    let x = u * FRAC_1_SQRT_2;
    if x < 2.0 {
        // erf(x) by its power series.
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-17 * sum.abs() {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        1.0 - 2.0 / PI.sqrt() * sum
    } else if x < 26.0 {
        // erfc(x) by its continued fraction, from the far end.
        let fraction = (1..=80).rev().fold(x, |below, k| x + f64::from(k) / 2.0 / below);
        exp(-x * x) / (PI.sqrt() * fraction)
    } else {
        0.0
    }
}

/// The `u` with this two-sided tail, in (0, 1].
pub(super) fn two_sided_quantile(tail: f64) -> f64 {
    let (mut low, mut high) = (0.0, 37.0);
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if two_sided_tail(middle) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        // From tables of the normal distribution.
        for (u, tail) in [
            (0.0, 1.0),
            (1.0, 0.317_310_507_862_914_1),
            (2.0, 0.045_500_263_896_358_4),
            (3.0, 0.002_699_796_063_260_19),
            (6.0, 1.973_175_290_075_4e-9),
        ] {
            assert!((two_sided_tail(u) / tail - 1.0).abs() < 1e-11, "{u}: {}", two_sided_tail(u));
            if u > 0.0 {
                assert!((two_sided_quantile(tail) - u).abs() < 1e-9);
            }
        }
    }
}
