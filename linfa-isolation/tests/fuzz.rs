//! Saved forests and detectors with random damage: each is refused, or gives scores that are numbers; never a panic.
//!
//! `FUZZ_CASES=1000000 cargo test --release --features serde --test fuzz` for a long run; `FUZZ_SEED` for another one.
#![cfg(feature = "serde")]
#![allow(clippy::disallowed_methods)] // its data need not be the same everywhere

mod made;

use linfa::prelude::*;
use linfa_isolation::{Cuts, IsolationForest, PathRule, StreamingForest, StreamingForestParams};
use made::Chance;
use ndarray::Array2;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a whole number"))
}

/// What breaks readers: the ends of the types, what JSON has no word for, and its own marks.
const WORDS: &[&str] = &[
    "0",
    "1",
    "-1",
    "255",
    "4096",
    "65536",
    "2143289344",
    "2139095040",
    "4286578688",
    "4294967295",
    "4294967296",
    "9218868437227405312",
    "9221120237041090560",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "0.5",
    "NaN",
    "null",
    "true",
    "[]",
    "{}",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "\"version\":1",
    "[[[[[[[[",
];

fn damage(text: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut text = text.to_vec();
    for _ in 0..=chance.below(4) {
        if text.is_empty() {
            break;
        }
        let at = chance.below(text.len());
        let end = (at + 1 + chance.below(40)).min(text.len());
        match chance.below(7) {
            0 => text[at] ^= 1 << chance.below(8),
            1 => text.truncate(at),
            2 => drop(text.drain(at..end)),
            3 => {
                let again = text[at..end].to_vec();
                text.splice(at..at, again);
            }
            4 => drop(text.splice(at..at, WORDS[chance.below(WORDS.len())].bytes())),
            // Most of the text is numbers, and a number in the place of another one is read the farthest.
            _ => {
                let Some(start) = (at..text.len()).find(|&i| text[i].is_ascii_digit()) else { continue };
                let digits = text[start..].iter().take_while(|b| b.is_ascii_digit()).count();
                let number = if chance.unit() < 0.5 {
                    WORDS[chance.below(16)].to_owned()
                } else {
                    ((chance.unit() * 4294967296.0) as u64).to_string()
                };
                text.splice(start..start + digits, number.bytes());
            }
        }
    }
    text
}

/// Damages each text by turns; says how many were still taken.
fn run(texts: &[String], mut read: impl FnMut(&[u8], &mut Chance) -> bool) -> (u64, u64) {
    let (cases, mut taken) = (from_environment("FUZZ_CASES", 4000), 0);
    let mut chance = Chance::new(from_environment("FUZZ_SEED", 1));
    for case in 0..cases {
        let text = damage(texts[case as usize % texts.len()].as_bytes(), &mut chance);
        taken += u64::from(read(&text, &mut chance));
    }
    println!("{taken} of {cases} were still taken");
    (taken, cases)
}

fn odd(chance: &mut Chance) -> f64 {
    match chance.below(6) {
        0 => f64::NAN,
        1 => f64::MAX * chance.sign(),
        _ => chance.normal() * 10f64.powi(chance.below(9) as i32 - 4),
    }
}

#[test]
fn a_damaged_detector_is_refused_or_sound() {
    let texts: Vec<String> = [(1, 0), (1, 40), (2, 100)]
        .map(|(dimensions, rows)| {
            let params =
                StreamingForestParams::new(dimensions).n_trees(2).max_samples(8).reservoir(32).warm_up(32);
            let (mut detector, mut chance) = (params.detector().expect("valid"), Chance::new(rows));
            for _ in 0..rows {
                let row: Vec<f64> = (0..dimensions).map(|_| chance.normal()).collect();
                detector.score(&row).expect("a score");
            }
            serde_json::to_string(&detector).expect("saved")
        })
        .to_vec();
    let (taken, cases) = run(&texts, |text, chance| {
        let Ok(mut detector) = serde_json::from_slice::<StreamingForest>(text) else { return false };
        let held = detector.memory();
        assert!(held < 64 * text.len() + (1 << 16), "{held} bytes of {}", text.len());
        for _ in 0..4 {
            let row: Vec<f64> = (0..detector.dimensions()).map(|_| odd(chance)).collect();
            let score = detector.score(&row).expect("a score");
            assert!((0.0..=1.0).contains(&score.value), "{score:?}");
            assert!(score.contributions.iter().all(|part| *part >= 0.0), "{score:?}");
        }
        true
    });
    assert!(taken > cases / 100, "the damage is too rough to test anything");
}

#[test]
fn a_damaged_forest_is_refused_or_sound() {
    let rows = Array2::from_shape_fn((40, 3), |(i, j)| ((i * 31 + j * 17) % 23) as f64);
    let texts: Vec<String> = [
        IsolationForest::params().path_rule(PathRule::Insertion),
        IsolationForest::params(),
        IsolationForest::params().cuts(Cuts::Oblique { columns: 2 }),
    ]
    .map(|params| {
        let forest = params.n_trees(2).max_samples(8).fit(&DatasetBase::from(rows.clone())).expect("a fit");
        serde_json::to_string(&forest).expect("saved")
    })
    .to_vec();
    let (taken, cases) = run(&texts, |text, chance| {
        let Ok(forest) = serde_json::from_slice::<IsolationForest>(text) else { return false };
        let rows = Array2::from_shape_simple_fn((40, forest.columns()), || odd(chance));
        let scores = forest.score_samples(&rows).expect("scores");
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores}");
        forest.contributions(&rows).expect("contributions");
        true
    });
    assert!(taken > cases / 100, "the damage is too rough to test anything");
}
