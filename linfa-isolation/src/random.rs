//! Random draws that give the same numbers on every platform and with every version of this crate's dependencies.
//!
//! Only the generator's 64-bit output comes from outside; the mapping to indices and to the unit interval stands here.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

use crate::math::{cos, ln};

/// A seeded source of draws. Stream `n` of a seed is independent of how many draws the other streams made, so trees can be
/// grown in any order, or at the same time, with the same result.
#[derive(Clone, Debug)]
pub(crate) struct Draws(Xoshiro256PlusPlus);

impl Draws {
    pub(crate) fn stream(seed: u64, n: u64) -> Self {
        // The odd constant is 2^64 / golden ratio: neighbouring streams get seeds that differ in half of their bits.
        Self(Xoshiro256PlusPlus::seed_from_u64(seed ^ n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// Uniform in 0..n (n > 0), by the high half of a 128-bit product. Its bias is below n / 2^64.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform in (0, 1], 53 bits.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * ln(self.unit())).sqrt() * cos(std::f64::consts::TAU * self.unit())
    }

    /// `k` distinct indices of 0..n in random order of no meaning (Floyd's algorithm); all of them if k >= n.
    pub(crate) fn distinct(&mut self, n: usize, k: usize) -> Vec<usize> {
        if k >= n {
            return (0..n).collect();
        }
        if k * 8 >= n {
            let mut all: Vec<usize> = (0..n).collect();
            for i in 0..k {
                let j = i + self.below(n - i);
                all.swap(i, j);
            }
            all.truncate(k);
            return all;
        }
        // An open-addressing set of twice the size keeps this linear without a hasher's random state.
        let mask = (4 * k).next_power_of_two() - 1;
        let mut set = vec![usize::MAX; mask + 1];
        let mut insert = |v: usize| -> bool {
            let mut at = ((v as u32).wrapping_mul(0x9E37_79B1) >> 7) as usize & mask;
            while set[at] != usize::MAX {
                if set[at] == v {
                    return false;
                }
                at = (at + 1) & mask;
            }
            set[at] = v;
            true
        };
        let mut out = Vec::with_capacity(k);
        for j in n - k..n {
            let candidate = self.below(j + 1);
            if insert(candidate) {
                out.push(candidate);
            } else {
                insert(j);
                out.push(j);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_are_pinned() {
        let mut d = Draws::stream(42, 0);
        let got: Vec<usize> = (0..6).map(|_| d.below(1000)).collect();
        let mut again = Draws::stream(42, 0);
        assert_eq!(got, (0..6).map(|_| again.below(1000)).collect::<Vec<_>>());
        let mut other = Draws::stream(42, 1);
        assert_ne!(got, (0..6).map(|_| other.below(1000)).collect::<Vec<_>>());
    }

    #[test]
    fn distinct_indices_are_distinct_and_even() {
        let mut d = Draws::stream(7, 0);
        for (n, k) in [(10, 10), (10, 20), (100, 30), (10_000, 256), (1, 1)] {
            let mut got = d.distinct(n, k);
            got.sort_unstable();
            got.dedup();
            assert_eq!(got.len(), k.min(n));
            assert!(got.iter().all(|&i| i < n));
        }
        let mut hits = [0u32; 50];
        for _ in 0..4000 {
            d.distinct(50, 5).iter().for_each(|&i| hits[i] += 1);
        }
        assert!(hits.iter().all(|&h| (300..500).contains(&h)), "{hits:?}");
    }

    #[test]
    fn unit_stays_in_the_half_open_interval() {
        let mut d = Draws::stream(1, 1);
        let mean =
            (0..10_000).map(|_| d.unit()).inspect(|u| assert!(*u > 0.0 && *u <= 1.0)).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.02);
    }
}
