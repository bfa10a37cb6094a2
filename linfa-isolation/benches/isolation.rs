//! What a fit, a batch of scores and a streamed row cost.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use linfa::prelude::*;
use linfa_isolation::{Cuts, IsolationForest, PathRule, StreamingForestParams};
use ndarray::Array2;

/// Sums of a chaotic sequence: cheap, and the same everywhere.
fn rows(n: usize, columns: usize) -> Array2<f64> {
    let mut x = 0.37f64;
    let mut next = || {
        x = 3.99 * x * (1.0 - x);
        x
    };
    Array2::from_shape_simple_fn((n, columns), || next() + next() + next())
}

fn batch(c: &mut Criterion) {
    let data = rows(100_000, 8);
    let dataset = DatasetBase::from(data.clone());
    let mut group = c.benchmark_group("batch");
    group.sample_size(10);
    group.bench_function("fit", |b| b.iter(|| IsolationForest::params().fit(black_box(&dataset))));
    group.throughput(Throughput::Elements(100_000));
    for (name, params) in [
        ("score", IsolationForest::params()),
        ("score by insertion", IsolationForest::params().path_rule(PathRule::Insertion)),
        ("score oblique", IsolationForest::params().cuts(Cuts::Oblique { columns: 3 })),
    ] {
        let forest = params.fit(&dataset).expect("a fit");
        group.bench_function(name, |b| b.iter(|| forest.score_samples(black_box(&data))));
    }
    group.finish();
}

fn stream(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1000));
    for columns in [1, 8] {
        let data = rows(11_000, columns);
        let mut warm = StreamingForestParams::new(columns).detector().expect("valid");
        let row = |i: usize| data.row(i).to_vec();
        (0..10_000).for_each(|i| _ = warm.score(&row(i)));
        let next: Vec<Vec<f64>> = (10_000..11_000).map(row).collect();
        group.bench_function(format!("1000 rows of {columns}"), |b| {
            b.iter_batched_ref(
                || warm.clone(),
                |detector| next.iter().for_each(|row| _ = black_box(detector.score(row))),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, batch, stream);
criterion_main!(benches);
