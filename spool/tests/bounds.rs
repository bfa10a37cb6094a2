//! What gives way when there is no room, by age, evenly, and on a disk without room.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::time::Duration;

use edgeveil_spool::{LeaseLimit, Options, Reason, Spool, WhenFull};
use support::*;

/// An image of 4000 bytes counts for one block, its header and its entry.
const IMAGE_BYTES: u64 = 4096 + 8 + 64;

fn thinned(dir: &std::path::Path, images: u64) -> Options {
    let mut options = options(dir);
    options.lanes[3].max_bytes = images * IMAGE_BYTES;
    options.lanes[3].when_full = WhenFull::Thin;
    options
}

#[test]
fn thinning_leaves_pictures_of_the_whole_outage_evenly_spread() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(thinned(dir.path(), 50)).unwrap();
    for n in 0..1000 {
        let pushed = push(&spool, IMAGE, n, 4000);
        assert!(pushed.dropped.iter().all(|d| d.reason == Reason::LaneFull && d.id != Some(id(n))));
        spool.commit().unwrap();
    }
    let out = lease(&spool, ALL);
    let gaps: Vec<u64> = out.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!((out.len(), out[0], *out.last().unwrap()), (50, 0, 999));
    // Every 16th or every 32nd, but for the newest ones, which are on their way to that.
    let (newest, others) = gaps.split_last().unwrap();
    assert!(others.iter().all(|gap| [16, 32].contains(gap)), "{gaps:?}");
    assert!(*newest <= 32);
    assert_eq!(dropped(&spool, IMAGE, Reason::LaneFull), 950);
}

#[test]
fn thinning_goes_on_after_a_restart_and_begins_anew_after_a_delivery() {
    let dir = tempfile::tempdir().unwrap();
    for start in 0..4 {
        let (spool, _) = Spool::open(thinned(dir.path(), 40)).unwrap();
        for n in start * 100..(start + 1) * 100 {
            let _ = push(&spool, IMAGE, n, 4000);
        }
    }
    let (spool, _) = Spool::open(thinned(dir.path(), 40)).unwrap();
    let out = lease(&spool, ALL);
    assert_eq!(out.len(), 40);
    assert!(out.windows(2).all(|w| w[1] - w[0] <= 20), "{out:?}");
    // In flight: nothing may go, so the new one does not come in.
    assert_eq!(push(&spool, IMAGE, 1000, 4000).kept, edgeveil_spool::Kept::Refused);
    done(&spool, &out);
    (2000..2040).for_each(|n| put(&spool, IMAGE, n, 4000));
    let _ = push(&spool, IMAGE, 2040, 4000);
    spool.commit().unwrap();
    let out = lease(&spool, ALL);
    assert_eq!(out.len(), 40);
    assert!(out.windows(2).all(|w| w[1] - w[0] <= 2), "every second one is still there: {out:?}");
}

#[test]
fn old_records_go_those_in_flight_stay_and_a_restart_forgets_no_age() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.lanes[2].max_age = Some(Duration::from_secs(1600));
    options.max_age = Some(Duration::from_secs(16_000));
    let at = |spool: &Spool, seconds| spool.expire(Duration::from_secs(1_000_000 + seconds)).unwrap();
    let (spool, _) = Spool::open(options.clone()).unwrap();
    for n in 0..10 {
        put(&spool, READING, n, 100);
        put(&spool, IMAGE, 100 + n, 5000);
        spool.commit().unwrap();
        assert_eq!(at(&spool, n * 150), 0);
    }
    assert_eq!(lease(&spool, LeaseLimit::new(1, 10_000)), [0]);
    spool.commit().unwrap();
    drop(spool);

    let (spool, _) = Spool::open(options).unwrap();
    // The clock is put back: nothing is old.
    assert_eq!(at(&spool, 0), 0);
    assert_eq!(lease(&spool, LeaseLimit::new(2, 10_000)), [0, 1]);
    assert_eq!(at(&spool, 1701), 8);
    assert_eq!(dropped(&spool, READING, Reason::Expired), 8);
    spool.commit().unwrap();
    spool.release_all();
    assert_eq!(at(&spool, 1702), 2);
    assert_eq!(spool.stats().lanes[3].records, 10);
    assert_eq!(at(&spool, 17_702), 10);
    spool.commit().unwrap();
    assert_eq!(spool.stats().records(), 0);
    assert_eq!(files_under(&dir.path().join("files")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_write_budget_stretches_the_interval_and_shows() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.write_budget = Some(24 << 20);
    let (spool, _) = Spool::open(options).unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(spool.pace(second, second), second);
    for n in 0..20 {
        put(&spool, IMAGE, n, 100_000);
    }
    spool.commit().unwrap();
    let stretched = spool.pace(second, 2 * second);
    assert!(stretched > second);
    let budget = spool.stats().budget.unwrap();
    assert_eq!((budget.per_day, budget.stretched), (24 << 20, Some(stretched)));
    assert!(budget.left < 0);
}
