//! What holds for any input. `PROPTEST_CASES` sets how many are tried.
#![allow(clippy::disallowed_methods)] // its data need not be the same everywhere

mod made;

use linfa::prelude::*;
use linfa_isolation::{IsolationForest, PathRule, StreamingForest, StreamingForestParams};
use ndarray::Array2;
use proptest::prelude::*;

/// Any f64, the odd ones often.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1e3..1e3f64,
        1 => any::<f64>(),
        1 => prop::sample::select(vec![0.0, f64::NAN, f64::MAX, f64::MIN, f64::MIN_POSITIVE, -0.0, f64::INFINITY]),
    ]
}

/// A detector as small as they come, so that many can be tried.
fn small(dimensions: usize) -> StreamingForest {
    let params = StreamingForestParams::new(dimensions).n_trees(2).max_samples(8).reservoir(32).warm_up(32);
    params.detector().expect("valid")
}

fn sound(detector: &mut StreamingForest, row: &[f64]) {
    let seen = detector.rows_seen();
    match detector.score(row) {
        Ok(score) => {
            assert!((0.0..=1.0).contains(&score.value), "{score:?}");
            assert!((score.contributions.iter().sum::<f64>() - score.value).abs() < 1e-9, "{score:?}");
            assert_eq!(score.is_anomaly, score.value >= score.threshold && !score.warming_up);
            assert_eq!(detector.rows_seen(), seen + 1);
        }
        Err(_) => {
            assert!(row.len() != detector.dimensions() || row.iter().any(|x| x.is_infinite()));
            assert_eq!(detector.rows_seen(), seen);
        }
    }
}

proptest! {
    #[test]
    fn any_rows_are_scored_or_refused(rows in prop::collection::vec(prop::collection::vec(value(), 0..4), 1..80)) {
        let mut detector = small(2);
        for row in &rows {
            sound(&mut detector, row);
        }
        prop_assert!(detector.memory() < 1 << 20);
    }

    #[test]
    fn any_rows_are_fitted_or_refused(
        values in prop::collection::vec(value(), 3..90),
        insertion in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let rows = Array2::from_shape_vec((values.len() / 3, 3), values[..values.len() / 3 * 3].to_vec()).expect("a shape");
        let rule = if insertion { PathRule::Insertion } else { PathRule::Leaf };
        let params = IsolationForest::params().n_trees(5).max_samples(16).path_rule(rule).seed(seed);
        match params.fit(&DatasetBase::from(rows.clone())) {
            Ok(forest) => {
                let scores = forest.score_samples(&rows).expect("scores");
                prop_assert!(scores.iter().all(|s| (0.0..=1.0).contains(s)), "{scores}");
                let contributions = forest.contributions(&rows).expect("contributions");
                for (parts, score) in contributions.rows().into_iter().zip(&scores) {
                    prop_assert!((parts.sum() - (1.0 + score.log2())).abs() < 1e-4, "{parts} {score}");
                }
            }
            Err(_) => prop_assert!(rows.iter().any(|x| x.is_infinite())),
        }
    }
}

#[cfg(feature = "serde")]
mod restoring {
    use std::sync::LazyLock;

    use super::*;

    static SAVED: LazyLock<String> = LazyLock::new(|| {
        let mut detector = small(1);
        let mut chance = made::Chance::new(1);
        (0..50).for_each(|_| _ = detector.score(&[chance.normal()]));
        serde_json::to_string(&detector).expect("saved")
    });

    static FOREST: LazyLock<String> = LazyLock::new(|| {
        let rows = Array2::from_shape_fn((40, 2), |(i, j)| ((i * 31 + j * 17) % 23) as f64);
        let params = IsolationForest::params().n_trees(2).max_samples(8).path_rule(PathRule::Insertion);
        serde_json::to_string(&params.fit(&DatasetBase::from(rows)).expect("a fit")).expect("saved")
    });

    /// Puts a number in the place of another one of a JSON text.
    fn with_number(text: &str, nth: usize, number: u64) -> String {
        let starts: Vec<usize> = text
            .char_indices()
            .filter(|&(i, c)| {
                c.is_ascii_digit() && !text[..i].ends_with(|b: char| b.is_ascii_digit() || b == '.')
            })
            .map(|(i, _)| i)
            .collect();
        let start = starts[nth % starts.len()];
        let length = text[start..].find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        format!("{}{number}{}", &text[..start], &text[start + length..])
    }

    fn number() -> impl Strategy<Value = u64> {
        let odd = vec![
            0,
            1,
            2,
            u64::MAX,
            1 << 53,
            0x7FC0_0000,
            0x7F80_0000,
            0xFF80_0000,
            0x7F7F_FFFF,
            0xFF7F_FFFF,
            1 << 63,
        ];
        prop_oneof![any::<u32>().prop_map(u64::from), any::<u64>(), prop::sample::select(odd)]
    }

    proptest! {
        #[test]
        fn a_changed_detector_is_refused_or_sound(
            changes in prop::collection::vec((any::<usize>(), number()), 1..4),
            rows in prop::collection::vec(value(), 1..20),
        ) {
            let text = changes.iter().fold(SAVED.clone(), |text, &(nth, number)| with_number(&text, nth, number));
            if let Ok(mut detector) = serde_json::from_str::<StreamingForest>(&text) {
                // A change may name a detector of other dimensions only with all that goes with it.
                prop_assert_eq!(detector.dimensions(), 1);
                for row in rows {
                    sound(&mut detector, &[row]);
                }
            }
        }

        #[test]
        fn a_changed_forest_is_refused_or_sound(
            changes in prop::collection::vec((any::<usize>(), number()), 1..4),
            row in prop::collection::vec(value(), 2),
        ) {
            let text = changes.iter().fold(FOREST.clone(), |text, &(nth, number)| with_number(&text, nth, number));
            if let Ok(forest) = serde_json::from_str::<IsolationForest>(&text) {
                let rows = Array2::from_shape_vec((1, 2), row).expect("a shape");
                let scores = forest.score_samples(&rows).expect("scores");
                prop_assert!((0.0..=1.0).contains(&scores[0]), "{scores}");
                forest.contributions(&rows).expect("contributions");
            }
        }

        #[test]
        fn a_cut_off_text_is_refused(end in any::<prop::sample::Index>()) {
            let cut = &SAVED[..end.index(SAVED.len())];
            prop_assert!(serde_json::from_str::<StreamingForest>(cut).is_err());
        }
    }
}
