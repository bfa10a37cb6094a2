//! The Rust side of `benches/compare.py`: fits and scores the rows of a file of little-endian f64 values, and streams some.
//!
//! `throughput fit FILE COLUMNS SEED` prints one JSON line with the processor time of a fit and of the scores; `throughput scores FILE COLUMNS
//! SEED TREES SCORES` writes the scores of a forest of so many trees to the file SCORES, as f64. `throughput stream COLUMNS` prints the mean cost of a row.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Instant;

use linfa::prelude::*;
use linfa_isolation::{IsolationForest, StreamingForestParams};
use ndarray::Array2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["fit", file, columns, seed] => fit(file, columns.parse()?, seed.parse()?),
        ["scores", file, columns, seed, trees, to] => {
            scores(file, columns.parse()?, seed.parse()?, trees.parse()?, to)
        }
        ["stream", columns] => stream(columns.parse()?),
        _ => Err("throughput fit FILE COLUMNS SEED | scores FILE COLUMNS SEED TREES SCORES | stream COLUMNS"
            .into()),
    }
}

fn rows(file: &str, columns: usize) -> Result<Array2<f64>, Box<dyn std::error::Error>> {
    let bytes = std::fs::read(file)?;
    let values: Vec<f64> = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    Ok(Array2::from_shape_vec((values.len() / columns, columns), values)?)
}

fn scores(
    file: &str,
    columns: usize,
    seed: u64,
    trees: usize,
    to: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let rows = rows(file, columns)?;
    let forest = IsolationForest::params().seed(seed).n_trees(trees).fit(&DatasetBase::from(rows.clone()))?;
    let scores = forest.score_samples(&rows)?;
    std::fs::write(to, scores.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>())?;
    Ok(())
}

fn fit(file: &str, columns: usize, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let rows = rows(file, columns)?;
    let dataset = DatasetBase::from(rows.clone());
    let params = IsolationForest::params().seed(seed);
    let forest = params.fit(&dataset)?;
    let fit = cost(|| drop(black_box(params.fit(&dataset))));
    let score = cost(|| drop(black_box(forest.score_samples(&rows))));
    println!("{{\"fit\": {fit}, \"score\": {score}}}");
    Ok(())
}

/// Processor seconds of this process, or seconds where the system does not tell.
fn clock() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/self/schedstat").ok();
    let nanos = told.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanos.map_or_else(|| START.elapsed().as_secs_f64(), |nanos| nanos / 1e9)
}

/// What an action takes, the best of three rounds of at least half a second: the system's count moves on only every few milliseconds.
fn cost(mut action: impl FnMut()) -> f64 {
    let round = |_| {
        let (start, mut times) = (clock(), 0);
        loop {
            action();
            times += 1;
            let taken = clock() - start;
            if taken >= 0.5 {
                return taken / f64::from(times);
            }
        }
    };
    (0..3).map(round).fold(f64::INFINITY, f64::min)
}

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
    let mut next = rows[10_000..].iter().cycle();
    // Every tree is grown anew twice within so many rows.
    let micros =
        cost(|| (0..1000).for_each(|_| drop(black_box(next.next().map(|row| detector.score(row)))))) * 1e3;
    println!("{{\"micros\": {micros}, \"bytes\": {}}}", detector.memory());
    Ok(())
}
