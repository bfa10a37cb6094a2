//! The average path length of an unsuccessful search in a binary search tree, c(n).
//!
//! Liu, Ting and Zhou (2008), equation 1: c(n) = 2 H(n-1) - 2 (n-1) / n, with the harmonic number H(i) estimated by ln(i) + 0.5772...
//! It is what an isolation tree grown on n rows is expected to need for one of them, so it stands for the part of a tree that is
//! not grown.
//!
//! The estimate is kept, although the exact harmonic number would be as cheap: it is the score as published and as scikit-learn
//! computes it. It is too small for few rows (c(3) is 1.21 instead of 1.67), so the leaves at the largest depth weigh differently.
//! Measured on 500 scikit-learn forests each, the estimate ranks wine's third class .0031 better in ROC AUC than the exact number,
//! breast cancer .0007 better and digits .0004 worse.

use crate::math::ln;

const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;

/// c(n): the average number of edges from the root to an external node of a random binary search tree on `n` rows, as estimated by
/// the paper.
///
/// 0 for n <= 1 and exactly 1 for n = 2, as the paper's later version (Liu, Ting and Zhou 2012) and scikit-learn have it.
pub fn average_path_length(n: u64) -> f64 {
    match n {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let n = n as f64;
            2.0 * (ln(n - 1.0) + EULER_GAMMA) - 2.0 * (n - 1.0) / n
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        // Computed to 30 digits from the formula above.
        for (n, c) in [
            (0, 0.0),
            (1, 0.0),
            (2, 1.0),
            (3, 1.207_392_357_589_623),
            (4, 1.851_655_907_139_285),
            (5, 2.327_020_052_042_847),
            (10, 3.748_880_484_475_504),
            (178, 9.517_966_750_006_904),
            (256, 10.244_770_920_119_918),
            (1000, 12.969_940_887_100_173),
            (65_536, 21.335_141_107_488_483),
        ] {
            let got = average_path_length(n);
            assert!((got - c).abs() < 1e-12, "c({n}) = {got}, want {c}");
        }
    }

    #[test]
    fn it_grows_with_n() {
        assert!((0..5000).all(|n| average_path_length(n) < average_path_length(n + 1) || n == 0));
    }
}
