//! Data that the tests make.
#![allow(dead_code)] // each test takes what it needs

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

pub struct Chance(Xoshiro256PlusPlus);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    pub fn unit(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    pub fn sign(&mut self) -> f64 {
        if self.unit() < 0.5 { -1.0 } else { 1.0 }
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }
}

/// Two sensors, the second with 8 % outliers: far away, or from 3 to 6 standard deviations.
pub fn two_sensors(seed: u64, rows: usize, subtle: bool) -> Vec<([f64; 2], bool)> {
    let mut chance = Chance::new(seed);
    (0..rows)
        .map(|_| {
            let (first, mut second) = (20.0 + 0.5 * chance.normal(), 0.5 + 0.05 * chance.normal());
            let off = chance.unit() < 0.08;
            if off && subtle {
                second = 0.5 + chance.sign() * 0.05 * chance.between(3.0, 6.0);
            } else if off {
                second += chance.sign() * chance.between(0.5, 1.5);
            }
            ([first, second], off)
        })
        .collect()
}

/// The share of pairs that scores rank rightly (ties count half).
pub fn roc_auc(scores: &[f64], labels: &[bool]) -> f64 {
    let of = |label: bool| scores.iter().zip(labels).filter(move |(_, l)| **l == label).map(|(s, _)| *s);
    let (mut right, mut pairs) = (0.0, 0.0);
    for positive in of(true) {
        for negative in of(false) {
            pairs += 1.0;
            right += if positive > negative {
                1.0
            } else if positive == negative {
                0.5
            } else {
                0.0
            };
        }
    }
    right / pairs
}
