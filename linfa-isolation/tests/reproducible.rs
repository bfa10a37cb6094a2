//! The same seed and rows give the same scores, bit for bit: the numbers here were computed on x86-64 and hold on every platform.

use linfa::prelude::*;
use linfa_isolation::{Cuts, IsolationForest, PathRule, StreamingForest};
use ndarray::Array2;

/// Rows made by whole numbers and additions alone, for the standard library's sine and logarithm may differ. Sums of eight draws, now
/// and then one that is off, and a season of triangles.
fn rows(n: usize, columns: usize) -> Array2<f64> {
    let mut state = 7u64;
    let mut draw = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    Array2::from_shape_fn((n, columns), |(i, j)| {
        let noise: f64 = (0..8).map(|_| draw()).sum();
        let off = if draw() < 0.01 { 20.0 * draw() } else { 0.0 };
        let season = (i % 288) as f64 / 144.0 - 1.0;
        match j {
            0 => 1.7e9 + noise + off,
            1 => 0.001 * noise + 0.01 * season.abs(),
            _ if draw() < 0.05 => f64::NAN,
            _ => noise + off,
        }
    })
}

/// FNV-1a over the bits of all numbers.
fn digest(numbers: impl IntoIterator<Item = f64>) -> u64 {
    numbers.into_iter().flat_map(|x| x.to_bits().to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[test]
fn batch_scores_are_the_same_everywhere() {
    const EXPECTED: [u64; 3] = [0xa195_be7d_65ac_8d77, 0x67e8_1236_d823_b2cc, 0x8a86_0c5d_e99a_955f];
    let rows = rows(2000, 4);
    let digests = [
        IsolationForest::params(),
        IsolationForest::params().seed(1).path_rule(PathRule::Insertion).max_samples(1000),
        IsolationForest::params().seed(2).cuts(Cuts::Oblique { columns: 3 }),
    ]
    .map(|params| {
        let forest = params.fit(&DatasetBase::from(rows.clone())).expect("a fit");
        let scores = forest.score_samples(&rows).expect("scores");
        digest(scores.into_iter().chain(forest.contributions(&rows).expect("contributions")))
    });
    assert_eq!(digests, EXPECTED, "{digests:#x?}");
}

#[test]
fn streamed_scores_are_the_same_everywhere() {
    const EXPECTED: [u64; 3] = [0x8f88_6ce7_fb31_91dd, 0xc7c5_b2af_bd70_8936, 0x881e_2033_2178_39f4];
    let digests = [(1, 1), (4, 1), (3, 10)].map(|(columns, pace)| {
        let mut detector = StreamingForest::params(columns).pace(pace).detector().expect("valid");
        let rows = rows(6000, columns);
        let scores = rows.rows().into_iter().map(|row| detector.score(&row.to_vec()).expect("a score"));
        digest(scores.flat_map(|score| [vec![score.value], score.contributions].concat()))
    });
    assert_eq!(digests, EXPECTED, "{digests:#x?}");
}
