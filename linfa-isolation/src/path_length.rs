//! The average path length of an unsuccessful search in a binary search tree, c(n).
//!
//! Liu, Ting and Zhou (2008), equation 1: c(n) = 2 H(n-1) - 2 (n-1) / n with the harmonic number H. It is what an isolation
//! tree grown on n rows is expected to need for one of them, so it stands for the part of a tree that is not grown.

const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
/// Up to here H(n) is summed term by term; past it the asymptotic series is exact to the last bits of an f64.
const EXACT: u64 = 64;

/// The n-th harmonic number, 1 + 1/2 + ... + 1/n; 0 for n = 0.
pub fn harmonic(n: u64) -> f64 {
    if n <= EXACT {
        return (1..=n).rev().map(|k| 1.0 / k as f64).sum();
    }
    let n = n as f64;
    n.ln() + EULER_GAMMA + 1.0 / (2.0 * n) - 1.0 / (12.0 * n * n) + 1.0 / (120.0 * n.powi(4))
}

/// c(n): the expected number of edges from the root to an external node of a random binary search tree on `n` rows.
///
/// 0 for n <= 1 and exactly 1 for n = 2, as the paper's later version states.
pub fn average_path_length(n: u64) -> f64 {
    match n {
        0 | 1 => 0.0,
        _ => 2.0 * harmonic(n - 1) - 2.0 * (n - 1) as f64 / n as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        // Computed with rational arithmetic (2 H(n-1) - 2 (n-1)/n).
        for (n, c) in [
            (0, 0.0),
            (1, 0.0),
            (2, 1.0),
            (3, 5.0 / 3.0),
            (4, 13.0 / 6.0),
            (5, 77.0 / 30.0),
            (10, 3.857_936_507_936_508),
            (256, 10.248_689_925_634_562),
        ] {
            let got = average_path_length(n);
            assert!((got - c).abs() < 1e-12, "c({n}) = {got}, want {c}");
        }
    }

    #[test]
    fn the_series_continues_the_sum() {
        let direct: f64 = (1..=1000u64).rev().map(|k| 1.0 / k as f64).sum();
        assert!((harmonic(1000) - direct).abs() < 1e-13);
        assert!(harmonic(EXACT + 1) > harmonic(EXACT));
    }
}
