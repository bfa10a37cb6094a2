//! `edgeveil-agent score`

use super::Failure;
use crate::{
    sense::forest,
    settings::{Alerts, Detector, Profile},
};
use anyhow::{Context, bail};
use std::io::{BufRead, Read, Write};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How fast the rows come
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    profile: Profile,
    /// Writes `score,alert` with alert 0 or 1, row by row without hysteresis
    #[arg(long)]
    alerts: bool,
    /// Seed of the forest
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// A longer line is no row of numbers.
const MAX_LINE: u64 = 64 << 10;
/// More values than a reading may carry.
const MAX_VALUES: usize = edgeveil_wire::MAX_VALUES;

/// Scores as the agent does, a row at a time.
pub fn score(arguments: &Arguments) -> Result<(), Failure> {
    let done = rows(std::io::stdin().lock(), std::io::stdout().lock(), arguments);
    // Whoever reads the scores has had enough: `score | head`.
    let is_closed = |error: &anyhow::Error| {
        error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    Ok(done.or_else(|error| if is_closed(&error) { Ok(()) } else { Err(error) })?)
}

fn rows(mut input: impl BufRead, mut out: impl Write, arguments: &Arguments) -> anyhow::Result<()> {
    let mut detector = None;
    let (mut line, mut row, mut number) = (String::new(), Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        let read =
            (&mut input).take(MAX_LINE).read_line(&mut line).with_context(|| format!("line {number}"))?;
        if read == 0 {
            return Ok(out.flush()?);
        }
        if read as u64 == MAX_LINE {
            bail!("line {number} has more than {MAX_LINE} bytes; it wants numbers between commas");
        }
        parse(&line, &mut row).map_err(|what| anyhow::anyhow!("line {number}: {what}"))?;
        let wanted = match &detector {
            None => row.len(),
            Some((_, wanted)) => *wanted,
        };
        if row.len() != wanted {
            bail!("line {number} has {} values where the first had {wanted}", row.len());
        }
        if detector.is_none() {
            let settings =
                Detector { seed: arguments.seed, profile: arguments.profile, alerts: Alerts::Rows };
            detector = Some((forest(wanted, &settings)?, wanted));
        }
        let Some((forest, _)) = &mut detector else { continue };
        let score = forest.score(&row).with_context(|| format!("line {number}"))?;
        if arguments.alerts {
            writeln!(out, "{:.6},{}", score.value, u8::from(score.is_anomaly))?;
        } else {
            writeln!(out, "{:.6}", score.value)?;
        }
        // Whoever feeds rows one by one sees each score at once.
        out.flush()?;
    }
}

fn parse(line: &str, row: &mut Vec<f64>) -> Result<(), String> {
    row.clear();
    let line = line.trim();
    if line.is_empty() {
        return Err("is empty; it wants numbers between commas".to_owned());
    }
    for field in line.split(',') {
        let field = field.trim();
        match field.parse::<f64>() {
            Ok(value) if value.is_finite() => row.push(value),
            _ => {
                let field: String = field.chars().take(40).collect();
                return Err(format!("`{field}` is no finite number"));
            }
        }
        if row.len() > MAX_VALUES {
            return Err(format!("has more than {MAX_VALUES} values"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::fuzz_cases;
    use rand_xoshiro::{
        Xoshiro256PlusPlus,
        rand_core::{RngCore, SeedableRng},
    };

    fn arguments(alerts: bool) -> Arguments {
        Arguments { profile: Profile::Default, alerts, seed: 0 }
    }

    fn scored(input: &str, alerts: bool) -> anyhow::Result<String> {
        let mut out = Vec::new();
        rows(input.as_bytes(), &mut out, &arguments(alerts))?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn a_line_for_each_row() {
        let input: String = (0..600).map(|i| format!("{}, {}\n", i % 7, (i * i) % 11)).collect();
        let output = scored(&input, true).unwrap();
        assert_eq!(output.lines().count(), 600);
        for line in output.lines() {
            let (score, alert) = line.split_once(',').unwrap();
            assert!((0.0..=1.0).contains(&score.parse::<f64>().unwrap()));
            assert!(["0", "1"].contains(&alert));
        }
        assert_eq!(scored(&input, true).unwrap(), output, "the same seed gives the same scores");
    }

    #[test]
    fn a_bad_row_is_named_by_its_line() {
        for (input, what) in [
            ("1,2\n3\n", "line 2 has 1 values where the first had 2"),
            ("1\nx\n", "line 2: `x` is no finite number"),
            ("NaN\n", "line 1: `NaN`"),
            ("1\ninf\n", "line 2: `inf`"),
            ("1\n\n2\n", "line 2: is empty"),
        ] {
            let error = scored(input, false).unwrap_err().to_string();
            assert!(error.contains(what), "{input:?}: {error}");
        }
    }

    /// `EDGEVEIL_FUZZ_CASES` sets how many inputs are tried.
    #[test]
    fn any_input_is_scored_up_to_the_line_that_is_named() {
        const PARTS: &[&[u8]] = &[
            b"1",
            b"-2.5",
            b"1e308",
            b"-1e308",
            b"1e999",
            b"5e-324",
            b"NaN",
            b"inf",
            b"",
            b" ",
            b",",
            b",",
            b",",
            b"\n",
            b"\n",
            b"\n",
            b"\r\n",
            b"\0",
            b"\xff",
            b"0x10",
            b"1_000",
            b"\xef\xbb\xbf",
            b"x",
            b"\t7\t",
            b"999999999999999999999",
        ];
        let mut draws = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut below = |n: usize| (draws.next_u64() % n as u64) as usize;
        for _ in 0..fuzz_cases() {
            let input: Vec<u8> = match below(3) {
                // Mostly right, so that it gets far.
                0 => (0..below(40)).flat_map(|_| [b"3,4\n", PARTS[below(6)], b",9\n"].concat()).collect(),
                _ => (0..below(30)).flat_map(|_| PARTS[below(PARTS.len())]).copied().collect(),
            };
            let mut out = Vec::new();
            let result = rows(&input[..], &mut out, &arguments(true));
            let scored = out.iter().filter(|byte| **byte == b'\n').count();
            let out = String::from_utf8(out).expect("numbers");
            for line in out.lines() {
                let score = line.split(',').next().and_then(|score| score.parse::<f64>().ok());
                assert!(score.is_some_and(|score| (0.0..=1.0).contains(&score)), "{line}");
            }
            let lines = input.split_inclusive(|byte| *byte == b'\n').count();
            match result {
                Ok(()) => assert_eq!(scored, lines),
                Err(error) => {
                    assert!(format!("{error:#}").starts_with(&format!("line {}", scored + 1)), "{error:#}")
                }
            }
        }
    }
}
