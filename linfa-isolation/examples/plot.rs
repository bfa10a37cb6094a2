//! A day-and-night signal with a spike, a flat stretch and a level shift, and what the detector says about it.
//!
//! `cargo run --release --example plot [FILE.svg]` draws the values, the scores and the alerts.
#![allow(clippy::disallowed_methods)] // its data need not be the same everywhere

use linfa_isolation::{StreamError, StreamingForestParams};
use plotters::prelude::*;

const ROWS: usize = 4000;

/// A seeded stand-in for noise: the sum of three draws of a linear congruential generator, centred.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        let mut draw = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f64 / (1u64 << 24) as f64
        };
        draw() + draw() + draw() - 1.5
    }
}

fn signal() -> Vec<f64> {
    let mut noise = Noise(7);
    (0..ROWS)
        .map(|i| {
            let day = 20.0 + 4.0 * (i as f64 * std::f64::consts::TAU / 288.0).sin();
            let fault = match i {
                1700 => 12.0,
                2300..2420 => 20.0 - day,
                3200.. => 9.0,
                _ => 0.0,
            };
            day + fault + 0.6 * noise.next()
        })
        .collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "stream.svg".to_string());
    let values = signal();
    let mut detector = StreamingForestParams::new(1).detector()?;
    let scores = values.iter().map(|&x| detector.score(&[x])).collect::<Result<Vec<_>, StreamError>>()?;

    let root = SVGBackend::new(&path, (1000, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(280);

    let mut chart = ChartBuilder::on(&upper)
        .margin(12)
        .caption("value, with rows that alert", ("sans-serif", 16))
        .x_label_area_size(20)
        .y_label_area_size(36)
        .build_cartesian_2d(0..ROWS, 10.0..42.0)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).draw()?;
    chart.draw_series(LineSeries::new(values.iter().copied().enumerate(), RGBColor(40, 80, 140)))?;
    let alerts = scores.iter().enumerate().filter(|(_, score)| score.is_anomaly);
    chart.draw_series(alerts.map(|(i, _)| Circle::new((i, values[i]), 3, RED.filled())))?;

    let mut chart = ChartBuilder::on(&lower)
        .margin(12)
        .caption("score, with its line", ("sans-serif", 16))
        .x_label_area_size(20)
        .y_label_area_size(36)
        .build_cartesian_2d(0..ROWS, 0.0..1.0)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).draw()?;
    chart.draw_series(LineSeries::new(scores.iter().map(|s| s.value).enumerate(), RGBColor(90, 90, 90)))?;
    chart.draw_series(LineSeries::new([(0, 0.5), (ROWS, 0.5)], RED))?;
    root.present()?;
    println!("{path}: {} of {ROWS} rows alert", scores.iter().filter(|s| s.is_anomaly).count());
    Ok(())
}
