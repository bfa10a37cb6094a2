//! A thousand flipped bytes, each in a copy of its own, anywhere in a spool's files: it opens, and gives every
//! record that the flip did not touch, or says how many were lost.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use edgeveil_spool::{OpenReport, Reason, Spool};
use support::*;

/// Alerts, readings and images in many commits, some of them delivered, closed in order or not.
fn stored(dir: &Path, copy: Option<&Path>) -> BTreeSet<u64> {
    let spool = open(dir);
    for n in 1..=300 {
        put(&spool, READING, n, 150);
        if n % 20 == 0 {
            put(&spool, IMAGE, 1000 + n, 6000);
            put(&spool, ALERT, 2000 + n, 200);
            spool.commit().unwrap();
        }
    }
    let first = lease(&spool, edgeveil_spool::LeaseLimit::new(60, u64::MAX));
    done(&spool, &first);
    spool.commit().unwrap();
    if let Some(copy) = copy {
        copy_dir(dir, copy);
    }
    let all = (1..=300).chain((1..=15).flat_map(|n| [1000 + 20 * n, 2000 + 20 * n]));
    all.filter(|n| !first.contains(n)).collect()
}

/// What comes out, and how many records the spool says it has lost.
fn survivors(dir: &Path) -> (OpenReport, BTreeSet<u64>, u64) {
    let (spool, report) = Spool::open(options(dir)).unwrap();
    let mut out = BTreeSet::new();
    for _ in 0..4 {
        match spool.lease(ALL) {
            Ok(records) => {
                for r in &records {
                    let n = number(r.id);
                    assert_eq!(
                        (&r.payload, &r.header[..]),
                        (&payload(n, r.payload.len()), &n.to_le_bytes()[..])
                    );
                }
                out.extend(numbers(&records));
            }
            Err(e) => assert!(e.is_transient(), "{e}"),
        }
        spool.commit().unwrap();
    }
    let stats = spool.stats();
    assert_eq!(stats.degraded, None);
    let lost = |r: &Reason| stats.lanes.iter().map(|l| l.dropped_for(*r)).sum::<u64>();
    let dropped = [Reason::Corrupt, Reason::FileMissing].iter().map(lost).sum::<u64>();
    (report.clone(), out, dropped + report.repair.map_or(0, |r| r.lost))
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[test]
fn a_flipped_byte_anywhere_costs_what_it_touches_and_that_is_told() {
    let (closed, killed) = (quick_dir(), quick_dir());
    let all = stored(closed.path(), Some(killed.path()));
    let mut dice = Dice(2026);
    let (mut lost_in_all, mut worst, mut untouched) = (0, 0, 0);
    for flip in 0..flips() {
        let whole = if flip % 2 == 0 { closed.path() } else { killed.path() };
        // A byte of any file, each as likely: so most flips hit images, and then those would be all of the test.
        let files: Vec<_> = files_under(whole)
            .into_iter()
            .filter(|f| !f.ends_with("ballast") && !f.ends_with("lock"))
            .collect();
        let (images, others): (Vec<_>, Vec<_>) =
            files.iter().partition(|f| f.strip_prefix(whole).unwrap().starts_with("files"));
        let kind = if dice.below(4) == 0 { images } else { others };
        let file = kind[dice.below(kind.len() as u64) as usize];
        let mut bytes = fs::read(file).unwrap();
        // The log of the index is mostly empty.
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |n| n as u64 + 1);
        if used == 0 {
            continue;
        }
        let dir = quick_dir();
        copy_dir(whole, dir.path());
        let at = dice.below(used) as usize;
        bytes[at] ^= 1 << dice.below(8);
        let name = file.strip_prefix(whole).unwrap();
        fs::write(dir.path().join(name), &bytes).unwrap();

        let (report, out, told) = survivors(dir.path());
        let lost: Vec<_> = all.difference(&out).collect();
        let what =
            format!("flip {flip}: byte {at} of {}: lost {lost:?}, told {told}, {report:?}", name.display());
        assert!(lost.len() as u64 <= told, "{what}");
        assert!(lost.len() <= 1, "{what}");
        lost_in_all += lost.len();
        worst = worst.max(lost.len());
        untouched += usize::from(lost.is_empty());
    }
    println!(
        "{} flips: {untouched} cost nothing, {lost_in_all} records lost in all, {worst} at most by one, all told",
        flips()
    );
}

/// More by SPOOL_FLIPS, for the night.
fn flips() -> u64 {
    std::env::var("SPOOL_FLIPS").ok().map_or(1000, |n| n.parse().unwrap())
}
