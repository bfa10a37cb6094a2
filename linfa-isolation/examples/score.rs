//! CSV rows of numbers on standard input, a score a line on standard output; with `--alerts`, `score,alert`.
//!
//! `cargo run --release --example score < rows.csv`. An empty field or `nan` is a missing value. A row that cannot be taken
//! ends the run with its line number.

use std::io::{self, BufRead, Write};

use linfa_isolation::{StreamingForest, StreamingForestParams};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut alerts = false;
    let (mut seed, mut pace, mut repeat_rows, mut warm_up) = (42, 1, 400, 64);
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("--seed", given)) => seed = given.parse()?,
            Some(("--pace", given)) => pace = given.parse()?,
            Some(("--repeat-rows", given)) => repeat_rows = given.parse()?,
            Some(("--warm-up", given)) => warm_up = given.parse()?,
            None if argument == "--alerts" => alerts = true,
            _ => {
                let known = "--alerts, --seed=N, --pace=N, --repeat-rows=N and --warm-up=N";
                return Err(format!("{argument}: only {known} are known").into());
            }
        }
    }
    let mut detector: Option<StreamingForest> = None;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (at, line) in io::stdin().lock().lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            return Err(format!("line {}: empty", at + 1).into());
        }
        let row: Vec<f64> = line
            .split(',')
            .map(|field| match field.trim() {
                "" => Ok(f64::NAN),
                number => number.parse().map_err(|_| format!("line {}: `{number}` is no number", at + 1)),
            })
            .collect::<Result<_, _>>()?;
        let detector = match &mut detector {
            Some(detector) => detector,
            none => none.insert(
                StreamingForestParams::new(row.len())
                    .seed(seed)
                    .pace(pace)
                    .repeat_rows(repeat_rows)
                    .warm_up(warm_up)
                    .detector()
                    .map_err(|error| format!("line {}: {error}", at + 1))?,
            ),
        };
        let score = detector.score(&row).map_err(|error| format!("line {}: {error}", at + 1))?;
        if alerts {
            writeln!(out, "{:.6},{}", score.value, u8::from(score.is_anomaly))?;
        } else {
            writeln!(out, "{:.6}", score.value)?;
        }
    }
    Ok(out.flush()?)
}
