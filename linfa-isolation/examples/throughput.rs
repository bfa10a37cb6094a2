//! The Rust side of `benches/compare.py`: fits and scores the rows of a file of little-endian f64 values, and streams some.
//!
//! `throughput fit FILE COLUMNS SEED` prints one JSON line with the best times of several rounds; with a further argument the scores go to
//! that file as f64. `throughput stream COLUMNS` prints the mean cost of a row in the best of five rounds.

use std::time::Instant;

use linfa::prelude::*;
use linfa_isolation::{IsolationForest, StreamingForestParams};
use ndarray::Array2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["fit", file, columns, seed] => fit(file, columns.parse()?, seed.parse()?, None),
        ["fit", file, columns, seed, scores] => fit(file, columns.parse()?, seed.parse()?, Some(scores)),
        ["stream", columns] => stream(columns.parse()?),
        _ => Err("throughput fit FILE COLUMNS SEED [SCORES] | throughput stream COLUMNS".into()),
    }
}

fn fit(
    file: &str,
    columns: usize,
    seed: u64,
    scores_to: Option<&str>,
) -> Result<(), Box<dyn std::error::Error>> {
    let bytes = std::fs::read(file)?;
    let values: Vec<f64> = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    let rows = Array2::from_shape_vec((values.len() / columns, columns), values)?;
    let dataset = DatasetBase::from(rows.clone());
    let params = IsolationForest::params().seed(seed);
    let rounds = if scores_to.is_some() { 1 } else { 5 };
    let (mut fit, mut score) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        let start = Instant::now();
        let forest = params.fit(&dataset)?;
        fit = fit.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let scores = forest.score_samples(&rows)?;
        score = score.min(start.elapsed().as_secs_f64());
        if let Some(path) = scores_to {
            std::fs::write(path, scores.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>())?;
        }
    }
    println!("{{\"fit\": {fit}, \"score\": {score}}}");
    Ok(())
}

/// Streamed rows of one round: every tree of the detector is grown anew ten times within it.
const ROUND: usize = 4000;

fn stream(columns: usize) -> Result<(), Box<dyn std::error::Error>> {
    // A cheap chaotic sequence with a few outliers; the detector is warm before the clock starts.
    let mut x = 0.37f64;
    let mut next = || {
        x = 3.99 * x * (1.0 - x);
        x
    };
    let rows: Vec<Vec<f64>> =
        (0..30_000).map(|_| (0..columns).map(|_| next() + next() + next()).collect()).collect();
    let mut detector = StreamingForestParams::new(columns).detector()?;
    for row in &rows[..10_000] {
        detector.score(row)?;
    }
    let (mut sum, mut best) = (0.0, f64::INFINITY);
    for round in rows[10_000..].chunks(ROUND) {
        let start = Instant::now();
        for row in round {
            sum += detector.score(row)?.value;
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    let micros = best * 1e6 / ROUND as f64;
    println!("{{\"micros\": {micros}, \"bytes\": {}, \"mean\": {}}}", detector.memory(), sum / 20_000.0);
    Ok(())
}
