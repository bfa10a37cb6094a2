//! Two clusters and a few strays: where a batch forest finds the plane ordinary, by axis-parallel and by oblique cuts.
//!
//! `cargo run --release --example batch [FILE.svg]` draws the scores of the plane, the rows, and those that are predicted anomalous.

use linfa::prelude::*;
use linfa_isolation::{Contamination, Cuts, IsolationForest};
use ndarray::Array2;
use plotters::prelude::*;

/// Cells of the drawn plane on each side.
const CELLS: usize = 60;
const SIDE: f64 = 10.0;

/// Two clusters on a diagonal, and every fiftieth row anywhere.
fn rows() -> Array2<f64> {
    // A linear congruential generator; sums of three draws for the clusters.
    let mut state = 7u64;
    let mut draw = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let mut rows = Array2::zeros((1000, 2));
    for (i, mut row) in rows.rows_mut().into_iter().enumerate() {
        let centre = if i % 2 == 0 { 3.0 } else { 7.0 };
        row.mapv_inplace(
            |_| {
                if i % 50 == 0 { SIDE * draw() } else { centre + draw() + draw() + draw() - 1.5 }
            },
        );
    }
    rows
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "batch.svg".to_string());
    let rows = rows();
    let dataset = DatasetBase::from(rows.clone());
    let cell = SIDE / CELLS as f64;
    let plane = Array2::from_shape_fn((CELLS * CELLS, 2), |(i, axis)| {
        let at = if axis == 0 { i % CELLS } else { i / CELLS };
        (at as f64 + 0.5) * cell
    });

    let root = SVGBackend::new(&path, (1000, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let cuts = [("axis-parallel cuts", Cuts::Axis), ("oblique cuts", Cuts::Oblique { columns: 2 })];
    for (area, (name, cuts)) in root.split_evenly((1, 2)).iter().zip(cuts) {
        let params = IsolationForest::params().cuts(cuts).contamination(Contamination::Share(0.03));
        let forest = params.fit(&dataset)?;
        let scores = forest.score_samples(&plane)?;
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .caption(name, ("sans-serif", 16))
            .x_label_area_size(20)
            .y_label_area_size(36)
            .build_cartesian_2d(0.0..SIDE, 0.0..SIDE)?;
        chart.configure_mesh().disable_mesh().draw()?;
        chart.draw_series(plane.rows().into_iter().zip(&scores).map(|(corner, score)| {
            let (x, y) = (corner[0] - 0.5 * cell, corner[1] - 0.5 * cell);
            let shade = RGBColor(40, 80, 140).mix(((score - 0.35) / 0.4).clamp(0.0, 1.0));
            Rectangle::new([(x, y), (x + cell, y + cell)], shade.filled())
        }))?;
        let anomalous = forest.predict(&rows);
        chart.draw_series(rows.rows().into_iter().zip(&anomalous).map(|(row, &off)| {
            let (size, colour) = if off { (4, RED) } else { (1, BLACK) };
            Circle::new((row[0], row[1]), size, colour.filled())
        }))?;
        println!(
            "{name}: {} of {} rows anomalous",
            anomalous.iter().filter(|off| **off).count(),
            rows.nrows()
        );
    }
    root.present()?;
    println!("{path}");
    Ok(())
}
