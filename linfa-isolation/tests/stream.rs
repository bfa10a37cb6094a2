//! The streaming detector, as a user meets it.
#![allow(clippy::disallowed_methods)] // its data need not be the same everywhere

mod made;

use linfa::prelude::*;
use linfa_isolation::{
    Episode, Hysteresis, IsolationError, Score, StreamError, StreamingForest, StreamingForestParams,
};
use made::{Chance, two_sensors};
use ndarray::{Array2, Axis};

fn detector(dimensions: usize) -> StreamingForest {
    StreamingForestParams::new(dimensions).detector().expect("the defaults are valid")
}

fn run(rows: impl IntoIterator<Item = f64>) -> Vec<Score> {
    let mut detector = detector(1);
    rows.into_iter().map(|x| detector.score(&[x]).expect("a score")).collect()
}

/// F1 of the alerts by row, the first 100 rows not counted.
fn f1(subtle: bool) -> f64 {
    let mut sum = 0.0;
    for seed in 0..10 {
        let (mut hit, mut wrong) = (0.0, 0.0);
        let mut detector = detector(2);
        for (i, (row, off)) in two_sensors(seed, 3000, subtle).into_iter().enumerate() {
            let score = detector.score(&row).expect("a score");
            if i >= 100 && score.is_anomaly && off {
                hit += 1.0;
            } else if i >= 100 && score.is_anomaly != off {
                wrong += 1.0;
            }
        }
        sum += 2.0 * hit / (2.0 * hit + wrong);
    }
    sum / 10.0
}

#[test]
fn the_line_finds_its_place_without_being_told_the_share() {
    let (plain, subtle) = (f1(false), f1(true));
    assert!(plain >= 0.98, "plain {plain}");
    assert!(subtle >= 0.93, "subtle {subtle}");
}

#[test]
fn ordinary_noise_hardly_alerts() {
    for dimensions in [1, 2, 8] {
        let mut chance = Chance::new(5);
        let mut detector = detector(dimensions);
        let mut alerts = 0;
        for _ in 0..20_000 {
            let row: Vec<f64> = (0..dimensions).map(|_| chance.normal()).collect();
            alerts += u32::from(detector.score(&row).expect("a score").is_anomaly);
        }
        assert!(alerts <= 60, "{alerts} of 20,000 rows of {dimensions}");
    }
}

#[test]
fn the_first_rows_are_declared_and_never_alert() {
    let scores = run((0..200).map(|i| if i == 40 { 1e6 } else { f64::from(i % 7) }));
    assert!(scores[..64].iter().all(|s| s.warming_up && !s.is_anomaly));
    assert!(scores[64..].iter().all(|s| !s.warming_up));
}

#[test]
fn a_spike_in_a_season_is_new_and_its_repeat_is_less() {
    let mut chance = Chance::new(1);
    let spikes = [3000, 3006];
    let scores = run((0..4000).map(|i| {
        let spike = spikes.iter().position(|&at| at == i).map_or(0.0, |nth| [12.0, 3.0][nth]);
        (f64::from(i) * std::f64::consts::TAU / 288.0).sin() + 0.05 * chance.normal() + spike
    }));
    assert!(scores[3000].value >= 0.6, "{}", scores[3000].value);
    assert!(scores[3006].is_anomaly && scores[3006].value < 0.6, "{}", scores[3006].value);
    let others = (1000..4000).filter(|i| !spikes.contains(&(*i as i32)) && scores[*i].is_anomaly).count();
    assert!(others <= 30, "{others}");
}

#[test]
fn a_level_shift_alerts_at_once_and_is_got_used_to() {
    let mut chance = Chance::new(2);
    let scores = run((0..8000).map(|i| chance.normal() + if i < 2000 { 0.0 } else { 10.0 }));
    assert!(scores[2000].is_anomaly);
    assert!(scores[6000..].iter().filter(|s| s.is_anomaly).count() <= 20);
}

#[test]
fn a_constant_is_quiet_and_its_change_is_not() {
    let scores = run((0..3000).map(|i| if i == 2500 { 3.5 } else { 3.0 }));
    assert!(scores[..2500].iter().all(|s| !s.is_anomaly));
    assert!(scores[2500].is_anomaly);
}

/// A motor at ten rows a second that runs for 30 s every two minutes, and how often an episode of alerts begins in its second half hour.
#[test]
fn a_machine_that_starts_now_and_then_is_ordinary_at_the_right_pace() {
    let episodes = |pace: usize| {
        let mut chance = Chance::new(12);
        let mut detector = StreamingForestParams::new(1).pace(pace).detector().expect("valid");
        let (mut last, mut begins) = (0, 0);
        for i in 0..36_000 {
            let current =
                if i % 1200 < 300 { 4.0 + 0.1 * chance.normal() } else { 0.2 + 0.02 * chance.normal() };
            let score = detector.score(&[current]).expect("a score");
            if score.is_anomaly && i >= 18_000 {
                begins += u32::from(i - last > 300);
                last = i;
            }
        }
        begins
    };
    let (every_row, as_fast_as_the_rows) = (episodes(1), episodes(10));
    assert!(every_row >= 10 && as_fast_as_the_rows <= 3, "{every_row} {as_fast_as_the_rows}");
}

#[test]
fn a_long_faint_fault_shows_in_the_values_below_the_line() {
    let mut chance = Chance::new(3);
    let mut detector = detector(8);
    let mut scores = Vec::new();
    for i in 0..1200 {
        let row: Vec<f64> = (0..8)
            .map(|j| chance.normal() + if (550..950).contains(&i) && j < 2 { 1.5 } else { 0.0 })
            .collect();
        scores.push(detector.score(&row).expect("a score").value);
    }
    let labels: Vec<bool> = (0..1200).map(|i| (550..950).contains(&i)).collect();
    let auc = made::roc_auc(&scores, &labels);
    assert!(auc > 0.85, "{auc}");
}

#[test]
fn contributions_sum_to_the_value_and_find_the_value_that_is_off() {
    let mut chance = Chance::new(4);
    let mut detector = detector(8);
    let (mut planted, mut right) = (0, 0);
    for i in 0..6000 {
        let mut row: Vec<f64> = (0..8).map(|j| chance.normal() * 10f64.powi(j - 4)).collect();
        let off = (i > 500 && i % 40 == 0).then(|| chance.below(8));
        if let Some(off) = off {
            row[off] = chance.sign() * chance.between(5.0, 10.0) * 10f64.powi(off as i32 - 4);
        }
        let score = detector.score(&row).expect("a score");
        let parts = &score.contributions;
        assert!((parts.iter().sum::<f64>() - score.value).abs() < 1e-9 && parts.iter().all(|p| *p >= 0.0));
        if let Some(off) = off {
            planted += 1;
            right += usize::from((0..8).max_by(|&a, &b| parts[a].total_cmp(&parts[b])) == Some(off));
        }
    }
    println!("right first: {right} of {planted}");
    assert!(right * 100 >= planted * 95, "{right} of {planted}");
}

#[test]
fn missing_values_are_passed_over() {
    let mut chance = Chance::new(6);
    let mut detector = detector(3);
    for i in 0..2000 {
        let mut row = [chance.normal(), chance.normal(), f64::NAN];
        if i % 10 == 0 {
            row[0] = f64::NAN;
        }
        let score = detector.score(&row).expect("a score");
        assert!((0.0..=1.0).contains(&score.value));
    }
    let nothing = detector.score(&[f64::NAN; 3]).expect("a score");
    assert_eq!((nothing.value, nothing.is_anomaly), (0.0, false));
    assert!(detector.score(&[f64::NAN, 50.0, f64::NAN]).expect("a score").is_anomaly);
}

#[test]
fn a_refused_row_changes_nothing() {
    let mut detector = detector(2);
    assert_eq!(detector.score(&[1.0]), Err(StreamError::Dimensions { expected: 2, given: 1 }));
    assert_eq!(detector.score(&[1.0, f64::NEG_INFINITY]), Err(StreamError::Infinite { index: 1 }));
    assert_eq!(detector.rows_seen(), 0);
}

#[test]
fn an_episode_is_one_alert() {
    let params =
        StreamingForestParams::new(1).hysteresis(Some(Hysteresis { rows_to_begin: 1, quiet_rows: 50 }));
    let mut detector = params.detector().expect("valid");
    let mut chance = Chance::new(7);
    let mut begins = Vec::new();
    let mut ends = 0;
    for i in 0..3000 {
        let x = chance.normal() + if (2000..2010).contains(&i) { 30.0 } else { 0.0 };
        match detector.score(&[x]).expect("a score").episode {
            Episode::Begin if i >= 500 => begins.push(i),
            Episode::End if i >= 500 => ends += 1,
            _ => {}
        }
    }
    assert!(begins.contains(&2000) && begins.len() <= 4 && ends == begins.len(), "{begins:?} {ends}");
}

#[test]
fn memory_stays_within_its_bound() {
    let mut chance = Chance::new(8);
    for params in [
        StreamingForest::params(1),
        StreamingForest::params(3).reservoir(100).max_samples(100).n_trees(7),
        StreamingForest::params(5).reservoir(5000).pace(3),
        StreamingForest::params(8),
    ] {
        let most = params.check_ref().expect("valid").most_memory();
        let mut detector = params.detector().expect("valid");
        let dimensions = detector.dimensions();
        let mut row = || -> Vec<f64> { (0..dimensions).map(|_| chance.normal()).collect() };
        for i in 0..6000 {
            detector.score(&row()).expect("a score");
            assert!(detector.memory() <= most, "{} of {most} after {i} rows", detector.memory());
            if i == 1000 {
                // A copy has room for what it holds only, and grows from there.
                detector = detector.clone();
            }
        }
        let held = detector.memory();
        (0..2000).for_each(|_| _ = detector.score(&row()));
        assert_eq!(detector.memory(), held);
        assert!(held * 10 > most * 9, "{held} of {most}: the bound is too wide to tell anything");
    }
}

#[test]
fn the_defaults_hold_a_mebibyte_at_most() {
    let most = |dimensions| StreamingForest::params(dimensions).check_ref().expect("valid").most_memory();
    println!("{} {} {}", most(1), most(8), most(12));
    assert!(most(1) <= 400 << 10 && most(8) <= 770 << 10 && most(12) <= 1 << 20);
}

/// What the system says of a hundred detectors, for what they say of themselves.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_what_the_system_sees() {
    let resident = || -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
    };
    let (data, mut detectors) = (two_sensors(1, 5000, false), Vec::new());
    let mut grown = detector(2);
    data.iter().for_each(|(row, _)| _ = grown.score(row));
    let before = resident();
    (0..100).for_each(|_| detectors.push(grown.clone()));
    let (seen, told) = (resident() - before, 100 * grown.memory());
    println!("{seen} bytes seen, {told} told");
    // Tests beside this one allocate as well.
    assert!(seen < told * 5 / 4 + (32 << 20), "{seen} bytes seen, {told} told");
}

#[test]
fn a_data_set_can_be_learned_first() {
    let data = two_sensors(3, 700, false);
    let rows = Array2::from_shape_fn((700, 2), |(i, j)| data[i].0[j]);
    let (first, second) = rows.view().split_at(Axis(0), 400);
    let params = StreamingForest::params(2);
    let learned = params.fit_with(None, &DatasetBase::from(first)).expect("learned");
    let mut learned = params.fit_with(Some(learned), &DatasetBase::from(second)).expect("learned");
    let mut streamed = detector(2);
    data.iter().for_each(|(row, _)| _ = streamed.score(row));
    assert_eq!(learned.rows_seen(), 700);
    assert_eq!(learned.score(&[20.0, 0.9]), streamed.score(&[20.0, 0.9]));

    let other = params.seed(1).fit_with(Some(learned.clone()), &DatasetBase::from(first));
    assert!(matches!(other, Err(IsolationError::Hyperparameters)));
    let narrow = StreamingForest::params(1).fit_with(None, &DatasetBase::from(first));
    assert!(matches!(narrow, Err(IsolationError::Stream(StreamError::Dimensions { expected: 1, given: 2 }))));
    let mut infinite = rows.clone();
    infinite[[5, 1]] = f64::INFINITY;
    let refused = StreamingForest::params(2).fit_with(None, &DatasetBase::from(infinite));
    assert!(matches!(refused, Err(IsolationError::Infinite { row: 5, column: 1 })));
}

/// By ten to two hundred times its noise within 20,000 rows.
#[test]
fn a_slow_drift_hardly_alerts() {
    for (slope, most) in [(0.01, 300), (-0.002, 60), (0.0005, 30)] {
        let mut chance = Chance::new(13);
        let scores = run((0..20_000).map(|i| slope * f64::from(i) + chance.normal()));
        let alerts = scores.iter().filter(|score| score.is_anomaly).count();
        println!("{alerts} alerts at a slope of {slope}");
        assert!(alerts <= most, "{alerts} at a slope of {slope}");
    }
}

/// Ten days of a reading every five minutes.
#[test]
fn a_daily_season_is_quiet_after_its_first_day() {
    let mut chance = Chance::new(14);
    let scores = run((0..2880).map(|i| {
        let hour = f64::from(i % 288) * std::f64::consts::TAU / 288.0;
        15.0 + 6.0 * hour.sin() + 2.0 * (2.0 * hour).cos() + 0.3 * chance.normal()
    }));
    let alerts = |rows: std::ops::Range<usize>| scores[rows].iter().filter(|score| score.is_anomaly).count();
    println!("{} alerts on the first day, {} on the others", alerts(0..288), alerts(288..2880));
    assert!(alerts(288..2880) <= 15, "{}", alerts(288..2880));
}

#[test]
fn a_constant_column_leaves_the_others_alone() {
    let mut chance = Chance::new(15);
    let mut detector = detector(3);
    let mut alerts = 0;
    for i in 0..6000 {
        let row = [
            chance.normal(),
            if i == 5000 { 7.001 } else { 7.0 },
            if i == 5500 { 8.0 } else { chance.normal() },
        ];
        let score = detector.score(&row).expect("a score");
        alerts += usize::from(score.is_anomaly);
        if i == 5000 || i == 5500 {
            let column = [1, 2][usize::from(i == 5500)];
            assert!(score.is_anomaly && score.contributions[column] > 0.9 * score.value, "{i}: {score:?}");
        }
    }
    assert!(alerts <= 20, "{alerts}");
}

/// A counter is always new: the documentation says so, and to score its differences instead.
#[test]
fn a_ramp_is_always_new_and_its_differences_are_not() {
    let scores = run((0..3000).map(|i| f64::from(i * 5)));
    let alerts = |scores: &[Score]| scores.iter().filter(|score| score.is_anomaly).count();
    println!("{} alerts on a counter", alerts(&scores));
    assert!(alerts(&scores) > 1000);
    assert_eq!(alerts(&run((0..3000).map(|_| 5.0))), 0);
}

#[test]
fn parameters_out_of_range_are_named() {
    for (params, name) in [
        (StreamingForestParams::new(0), "dimensions"),
        (StreamingForestParams::new(1).n_trees(0), "n_trees"),
        (StreamingForestParams::new(1).max_samples(5000), "max_samples"),
        (StreamingForestParams::new(1).reservoir(1), "reservoir"),
        (StreamingForestParams::new(1).pace(0), "pace"),
        (StreamingForestParams::new(1).warm_up(0), "warm_up"),
        (StreamingForestParams::new(1).false_discovery(f64::NAN), "false_discovery"),
        (StreamingForestParams::new(1).repeat_rows(0), "repeat_rows"),
    ] {
        let error = params.detector().expect_err(name).to_string();
        assert!(error.starts_with(name), "{error}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_restored_detector_goes_on_as_if_nothing_had_happened() {
    for rows in [0, 10, 40, 100, 700, 5000] {
        let mut stream = two_sensors(9, rows + 300, false).into_iter().map(|(row, _)| row);
        let params = StreamingForestParams::new(2).hysteresis(Some(Hysteresis::default())).pace(1 + rows % 7);
        let mut detector = params.detector().expect("valid");
        stream.by_ref().take(rows).for_each(|row| _ = detector.score(&row));
        let saved = serde_json::to_string(&detector).expect("saved");
        let mut restored: StreamingForest = serde_json::from_str(&saved).expect("restored");
        for row in stream {
            assert_eq!(detector.score(&row), restored.score(&row), "after {rows} rows");
        }
        let other = saved.replacen("\"version\":1,\"params\"", "\"version\":2,\"parameters\"", 1);
        let error = serde_json::from_str::<StreamingForest>(&other).expect_err("another version").to_string();
        assert!(error.contains("saved in version 2 of its format, this is 1"), "{error}");
    }
}
