//! The batch forest, as a user meets it.
#![allow(clippy::disallowed_methods)] // its data need not be the same everywhere

mod made;

use linfa::prelude::*;
use linfa_isolation::{Contamination, Cuts, IsolationError, IsolationForest, PathRule, average_path_length};
use made::{Chance, roc_auc};
use ndarray::{Array1, Array2, Axis, array};

/// Eight Gaussian columns; in the first `planted` rows one column, by turns, is off by eight standard deviations.
fn planted_rows(seed: u64, rows: usize, planted: usize) -> Array2<f64> {
    let mut chance = Chance::new(seed);
    let mut data = Array2::from_shape_simple_fn((rows, 8), || chance.normal());
    for row in 0..planted {
        data[[row, row % 8]] = chance.sign() * 8.0;
    }
    data
}

fn fit(rows: &Array2<f64>) -> IsolationForest {
    IsolationForest::params().fit(&DatasetBase::from(rows.clone())).expect("a fit")
}

/// On the rows 0, 1 and 10 the first cut parts 10 off nine times in ten and 0 otherwise, and the second parts the other two: the mean path
/// lengths are 1.9, 2 and 1.1, and c(3) is 1.2074.
#[test]
fn scores_are_those_of_the_paper() {
    let rows = array![[0.0], [1.0], [10.0]];
    let params = IsolationForest::params().n_trees(10_000);
    let forest = params.fit(&DatasetBase::from(rows.clone())).expect("a fit");
    let scores = forest.score_samples(&rows).expect("scores");
    for (score, length) in scores.iter().zip([1.9, 2.0, 1.1]) {
        let paper = 2f64.powf(-length / average_path_length(3));
        assert!((score - paper).abs() < 0.005, "{score}, want {paper}");
    }
}

#[test]
fn anomalies_are_ranked_first() {
    let rows = planted_rows(1, 2000, 40);
    let labels: Vec<bool> = (0..2000).map(|i| i < 40).collect();
    for params in [
        IsolationForest::params(),
        IsolationForest::params().path_rule(PathRule::Insertion),
        IsolationForest::params().cuts(Cuts::Oblique { columns: 3 }),
        IsolationForest::params().cuts(Cuts::Oblique { columns: 99 }).path_rule(PathRule::Insertion),
        IsolationForest::params().max_samples(1000),
        IsolationForest::params().max_samples(64),
    ] {
        let forest = params.fit(&DatasetBase::from(rows.clone())).expect("a fit");
        let scores = forest.score_samples(&rows).expect("scores").to_vec();
        assert!(scores.iter().all(|s| *s > 0.0 && *s <= 1.0));
        let auc = roc_auc(&scores, &labels);
        assert!(auc > 0.85, "{auc} for {params:?}");
    }
}

#[test]
fn insertion_tells_far_from_farther() {
    let rows = planted_rows(2, 500, 0).column(0).to_owned().insert_axis(Axis(1));
    let params = IsolationForest::params().path_rule(PathRule::Insertion);
    let forest = params.fit(&DatasetBase::from(rows)).expect("a fit");
    let scores = forest.score_samples(&array![[0.0], [4.0], [8.0], [100.0]]).expect("scores");
    assert!(scores.windows(2).into_iter().all(|pair| pair[0] < pair[1]), "{scores}");
}

#[test]
fn units_and_offsets_do_not_matter() {
    let rows = planted_rows(3, 1000, 20);
    let moved = rows.mapv(|x| 1.7e9 + 1e-3 * x);
    let (a, b) = (fit(&rows).score_samples(&rows), fit(&moved).score_samples(&moved));
    let difference = (a.expect("scores") - b.expect("scores")).mapv(f64::abs);
    assert!(difference.iter().all(|d| *d < 0.02), "{difference}");
}

#[test]
fn f32_and_f64_agree() {
    let rows = planted_rows(4, 400, 10);
    let narrow = rows.mapv(|x| x as f32);
    let forest = fit(&rows);
    let (a, b) =
        (forest.score_samples(&rows).expect("scores"), forest.score_samples(&narrow).expect("scores"));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - f64::from(*b)).abs() < 0.01));
    let of_narrow = IsolationForest::params().fit(&DatasetBase::from(narrow.clone())).expect("a fit");
    assert_eq!(of_narrow.predict(&narrow).len(), 400);
}

#[test]
fn contamination_sets_the_line() {
    let rows = planted_rows(5, 1000, 50);
    let data = DatasetBase::from(rows.clone());
    let forest =
        IsolationForest::params().contamination(Contamination::Share(0.05)).fit(&data).expect("a fit");
    let anomalous: Array1<bool> = forest.predict(&rows);
    let marked = anomalous.iter().filter(|a| **a).count();
    assert!((45..=50).contains(&marked), "{marked}");
    assert!(anomalous.iter().take(50).filter(|a| **a).count() > 30);
    assert_eq!(fit(&rows).threshold(), 0.5);
}

#[test]
fn missing_values_neither_raise_nor_lower() {
    let mut rows = planted_rows(6, 1000, 0);
    let mut chance = Chance::new(60);
    rows.iter_mut().for_each(|x| *x = if chance.unit() < 0.1 { f64::NAN } else { *x });
    rows.column_mut(7).fill(f64::NAN);
    let forest = fit(&rows);
    let scores = forest.score_samples(&rows).expect("scores");
    let mean = |missing: bool| {
        let of = |(i, _): &(usize, &f64)| {
            (rows.row(*i).iter().take(7).filter(|x| x.is_nan()).count() > 1) == missing
        };
        let picked: Vec<f64> = scores.iter().enumerate().filter(of).map(|(_, s)| *s).collect();
        picked.iter().sum::<f64>() / picked.len() as f64
    };
    assert!((mean(true) - mean(false)).abs() < 0.02, "{} {}", mean(true), mean(false));
    let nothing = forest.score_samples(&Array2::from_elem((1, 8), f64::NAN)).expect("a score");
    let average = scores.mean().expect("rows");
    assert!((nothing[0] - average).abs() < 0.02, "{nothing} {average}");
}

#[test]
fn contributions_sum_to_what_is_documented_and_find_the_column() {
    let rows = planted_rows(7, 2000, 80);
    for params in [
        IsolationForest::params(),
        IsolationForest::params().path_rule(PathRule::Insertion),
        IsolationForest::params().cuts(Cuts::Oblique { columns: 2 }),
    ] {
        let forest = params.fit(&DatasetBase::from(rows.clone())).expect("a fit");
        let some = rows.select(Axis(0), &(0..160).collect::<Vec<_>>());
        let contributions = forest.contributions(&some).expect("contributions");
        let scores = forest.score_samples(&some).expect("scores");
        for (row, score) in contributions.rows().into_iter().zip(&scores) {
            assert!((row.sum() - (1.0 + score.log2())).abs() < 1e-4, "{row} {score}");
        }
        let first = |row: usize| {
            let row = contributions.row(row);
            (0..8).max_by(|&a, &b| row[a].total_cmp(&row[b]))
        };
        let right = (0..80).filter(|&row| first(row) == Some(row % 8)).count();
        println!("right first: {right} of 80 for {params:?}");
        assert!(right >= 76, "{right} of 80 for {params:?}");
    }
}

#[test]
fn odd_data_is_fitted_or_refused() {
    let fit_on = |rows: Array2<f64>| IsolationForest::params().fit(&DatasetBase::from(rows));
    assert!(matches!(fit_on(Array2::zeros((0, 3))), Err(IsolationError::Empty { .. })));
    assert!(matches!(fit_on(Array2::zeros((3, 0))), Err(IsolationError::Empty { .. })));
    let infinite = array![[0.0, 1.0], [2.0, f64::INFINITY]];
    assert!(matches!(fit_on(infinite), Err(IsolationError::Infinite { row: 1, column: 1 })));
    for rows in [array![[1.0]], Array2::zeros((100, 2)), array![[f64::MAX], [f64::MIN], [0.0], [1e-300]]] {
        let forest = fit_on(rows.clone()).expect("a fit");
        assert!(forest.score_samples(&rows).expect("scores").iter().all(|s| (0.0..=1.0).contains(s)));
        let far = Array2::from_elem((2, rows.ncols()), f64::INFINITY);
        assert!(forest.score_samples(&far).expect("scores").iter().all(|s| (0.0..=1.0).contains(s)));
    }
    let forest = fit_on(Array2::zeros((9, 2))).expect("a fit");
    let wrong = forest.score_samples(&Array2::<f64>::zeros((1, 3)));
    assert!(matches!(wrong, Err(IsolationError::Columns { fitted: 2, given: 3 })));
    for params in [
        IsolationForest::params().n_trees(0),
        IsolationForest::params().max_samples(1),
        IsolationForest::params().contamination(Contamination::Share(0.6)),
        IsolationForest::params().contamination(Contamination::Share(f64::NAN)),
        IsolationForest::params().cuts(Cuts::Oblique { columns: 1 }),
    ] {
        assert!(params.check_ref().is_err(), "{params:?}");
    }
}

#[test]
fn layouts_of_memory_do_not_matter() {
    let rows = planted_rows(8, 300, 0);
    let turned = rows.t().as_standard_layout().to_owned();
    let a = fit(&rows).score_samples(&rows).expect("scores");
    let forest = IsolationForest::params().fit(&DatasetBase::from(turned.t())).expect("a fit");
    assert_eq!(forest.score_samples(&turned.t()).expect("scores"), a);
}

#[test]
fn rows_score_the_same_alone_and_together() {
    for columns in [1, 3, 8, 20, 40] {
        let mut chance = Chance::new(10);
        let rows = Array2::from_shape_simple_fn((600, columns), || chance.normal());
        for samples in [2, 3, 100, 256, 600] {
            let params = IsolationForest::params().n_trees(20).max_samples(samples);
            let forest = params.fit(&DatasetBase::from(rows.clone())).expect("a fit");
            let together = forest.score_samples(&rows).expect("scores");
            for at in [0, 1, 255, 256, 599] {
                let alone = rows.row(at).insert_axis(Axis(0));
                assert_eq!(
                    forest.score_samples(&alone).expect("a score")[0],
                    together[at],
                    "{columns} {samples}"
                );
            }
        }
    }
}

#[cfg(feature = "serde")]
#[test]
fn hyperparameters_are_checked_on_the_way_in() {
    use linfa_isolation::{IsolationForestParams, IsolationForestValidParams};
    let saved = serde_json::to_string(&IsolationForest::params()).expect("saved");
    assert_eq!(
        serde_json::from_str::<IsolationForestParams>(&saved).expect("restored"),
        IsolationForest::params()
    );
    let refused = saved.replacen("\"n_trees\":100", "\"n_trees\":0", 1);
    let error =
        serde_json::from_str::<IsolationForestValidParams>(&refused).expect_err("no trees").to_string();
    assert!(error.contains("n_trees is 0"), "{error}");
}

#[cfg(feature = "serde")]
#[test]
fn what_is_saved_comes_back() {
    let mut rows = planted_rows(9, 300, 5);
    rows[[3, 3]] = f64::NAN;
    for params in [
        IsolationForest::params().contamination(Contamination::Share(0.1)),
        IsolationForest::params().cuts(Cuts::Oblique { columns: 2 }).path_rule(PathRule::Insertion),
    ] {
        let forest = params.fit(&DatasetBase::from(rows.clone())).expect("a fit");
        let saved = serde_json::to_string(&forest).expect("saved");
        let restored: IsolationForest = serde_json::from_str(&saved).expect("restored");
        assert_eq!(restored, forest);
        let other = saved.replacen("\"version\":1,\"params\"", "\"version\":2,\"parameters\"", 1);
        let error = serde_json::from_str::<IsolationForest>(&other).expect_err("another version").to_string();
        assert!(error.contains("saved in version 2 of its format, this is 1"), "{error}");
    }
}
