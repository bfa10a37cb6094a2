//! The detector for rows as they come.
//!
//! # Three heads
//!
//! A row is looked at by three heads, each of which knows only the rows before it.
//!
//! *Novelty* is an isolation forest over each value, its smoothing over about ten rows, and the size of its last step. Its
//! trees are grown on samples of a reservoir that each row enters in the place of a random other one (Aggarwal 2006), so that the past fades
//! exponentially; every 16 rows one tree is grown anew. A row is scored as if it had been among the sample: at each cut it is parted
//! from the others with the probability `e / (r + e)` that a cut over their span `r`, stretched by `e` to hold the row, falls in
//! between (the insertion rule of robust random cut forests: Guha, Mishra, Roy and Schrijvers 2016). So what lies outside all that was
//! seen scores by how far it lies outside. A peak that decays tells something new from its repeats.
//!
//! *State* is a forest over the values smoothed over about thirty rows, against a small reservoir that forgets only over some 25,000
//! rows. It tells how far the machine is from where it has long been: long faults that no single row betrays.
//!
//! *Deviation* is the distance of a value from its level in robust standard deviations, the largest of the row's values counting. It
//! alerts beyond a line that needs no share of anomalies to be told: ordinary deviations are modelled from their own middle, and the line lies
//! where a deviation is as likely an anomaly as not (the local false discovery rate of Efron 2004). In a stream without
//! outliers the line lies far out; among 8 % outliers of three to six standard deviations it lies near three.
//!
//! # The score
//!
//! [`Score::value`] is made so that its line is always at 0.5:
//!
//! | value | meaning |
//! |---|---|
//! | 0.6 to 1 | something not seen before |
//! | 0.5 to 0.6 | anomalous by itself, or a repeat of such a thing |
//! | 0 to 0.5 | ordinary; the higher, the farther the state is from where it has long been |
//!
//! An application that should hear only of what is new compares with 0.6; one that watches for faint long faults compares the
//! values below 0.5 with its own line (0.4, say) over minutes.
//!
//! [`Score::contributions`] divides the value among the row's values by what each head holds against them: each head's part in
//! proportion to the strength of its evidence, and within a head by what its cuts saved on the value's columns (see
//! [`IsolationForest::contributions`](crate::IsolationForest::contributions)) or by squared deviation. They are not negative and sum to
//! the value.
//!
//! # What it does, and does not do
//!
//! Measured on made streams (`tests/stream.rs`, `benches/compare.py`):
//!
//! - Gaussian noise of 1, 2 or 8 values: less than one row in a thousand alerts.
//! - A constant never alerts; the first change does.
//! - A level shift alerts at once and for some hundred rows, until the level has followed.
//! - A drift by the noise's standard deviation in 100 rows alerts at 8 rows in a thousand, in 500 rows at one in a thousand, in 2,000 rows no
//!   more than the noise itself.
//! - A season is learned in its first period, which may alert (a quarter of the rows of a day), and is quiet after it: let [`warm_up`](StreamingForestParams::warm_up) cover one. An
//!   anomaly *within* the range and the pace of the season (a flat stretch, say) is not seen: no head knows the time of day.
//! - A spike must stand out of the stream's range or of its deviations. Spikes smaller than a season's swing are
//!   better found by a detector that models the season, and those as large often by a plain z-score.
//! - A counter, or any ramp that is steep against its noise and always goes on, is always new. Score its differences.
//! - Of two values that are jointly odd but each ordinary, only the forests know, and they know it less well the more values
//!   a row has.
//!
//! NaN is a missing value: it neither alerts nor is learned, and the other values of the row count as usual. Infinite values are
//! refused.
//!
//! # How fast the rows come
//!
//! All of that is counted in rows, and the defaults suit rows that come from once a second to once in some minutes. For faster ones
//! [`pace`](StreamingForestParams::pace) stretches everything: at ten rows a second, a pace of 10. Measured on made streams of a motor
//! that starts about every two minutes (current and vibration, six jolts of a second while it stands, one overload): at 10 rows a second the
//! starts raised 40 episodes of alerts an hour at a pace of 1 and 1.5 at a pace of 10; at 100 rows a second 2.3 % of the rows alerted
//! at a pace of 1 and 0.3 % at a pace of 100 (in the first 40 minutes, while the memory fills). All faults were found.
//!
//! A value that has few different states is seen by how rare they are: a switch that is on for one row in ten alerts when it is on.
//!
//! # Cost
//!
//! A detector holds no more than [`most_memory`](StreamingForestValidParams::most_memory): at the defaults 400 KiB for one value a row,
//! 770 KiB for eight, 1 MiB for twelve, and 53 KiB for each further one. A row costs some 10 us on one core of a small server. With the `serde` feature its whole state can be saved and restored; a restored detector gives the scores that
//! the saved one would have given, bit for bit.
//!
//! ```
//! use linfa_isolation::{Hysteresis, StreamingForestParams};
//!
//! let mut detector = StreamingForestParams::new(2).hysteresis(Some(Hysteresis::default())).detector()?;
//! for i in 0..1000 {
//!     let mut row = [20.0 + f64::from(i % 10) / 10.0, 0.5];
//!     if i == 900 {
//!         row[1] = 0.9;
//!     }
//!     let score = detector.score(&row)?;
//!     assert_eq!(score.is_anomaly, i == 900);
//!     if score.is_anomaly {
//!         assert!(score.contributions[1] > score.contributions[0]);
//!     }
//! }
//! # Ok::<(), linfa_isolation::StreamError>(())
//! ```

mod detector;
mod deviation;
mod episode;
mod features;
mod head;
mod hyperparams;
mod learn;
mod normal;
mod ring;
#[cfg(feature = "serde")]
mod saved;
mod tail;
mod tree;
mod verdict;

pub use detector::{Score, StreamingForest};
pub use episode::Episode;
pub use hyperparams::{Hysteresis, StreamingForestParams, StreamingForestValidParams};
