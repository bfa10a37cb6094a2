//! What a user of the spool relies on.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use edgeveil_spool::{Inspector, Kept, Lane, LeaseLimit, NewRecord, Reason, Spool, SpoolError, WhenFull};
use support::*;

#[test]
fn records_come_out_as_they_went_in_and_stay_until_they_are_done() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    put(&spool, READING, 1, 200);
    put(&spool, IMAGE, 2, 100_000);
    put(&spool, READING, 3, 0);
    put(&spool, READING, 4, 20_000);
    spool.commit().unwrap();
    assert_eq!(lease(&spool, ALL), [1, 3, 4, 2]);
    assert_eq!(lease(&spool, ALL), [0; 0]);
    drop(spool);

    let spool = open(dir.path());
    assert_eq!(lease(&spool, ALL), [1, 3, 4, 2]);
    assert_eq!(done(&spool, &[1, 3, 4, 2, 99]), 4);
    spool.commit().unwrap();
    assert_eq!((spool.stats().bytes, spool.stats().records()), (0, 0));
    assert_eq!(files_under(&dir.path().join("files")), Vec::<std::path::PathBuf>::new());
    drop(spool);
    assert_eq!(lease(&open(dir.path()), ALL), [0; 0]);
}

#[test]
fn only_durable_records_are_leased() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    assert_eq!(push(&spool, READING, 1, 10).kept, Kept::NextCommit);
    assert_eq!(push(&spool, IMAGE, 2, 10).kept, Kept::NextCommit);
    assert_eq!(lease(&spool, ALL), [0; 0]);
    assert_eq!(spool.stats().uncommitted, 2);
    // An immediate push takes what came before along.
    assert_eq!(push(&spool, ALERT, 3, 10).kept, Kept::Durable);
    assert_eq!(spool.stats().uncommitted, 0);
    put(&spool, READING, 4, 10);
    assert_eq!(lease(&spool, ALL), [3, 1, 2]);
    spool.commit().unwrap();
    assert_eq!(lease(&spool, ALL), [4]);
}

#[test]
fn a_released_record_goes_out_before_younger_ones() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    (1..=6).for_each(|n| put(&spool, READING, n, 10));
    spool.commit().unwrap();
    assert_eq!(lease(&spool, LeaseLimit::new(4, u64::MAX)), [1, 2, 3, 4]);
    spool.release(&[id(2), id(4), id(77)]);
    assert_eq!(lease(&spool, LeaseLimit::new(3, u64::MAX)), [2, 4, 5]);
    spool.release_all();
    // Acknowledged after it was given up: it must not go out again.
    assert_eq!(done(&spool, &[3]), 1);
    assert_eq!(lease(&spool, ALL), [1, 2, 4, 5, 6]);
}

#[test]
fn alerts_first_then_live_then_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let [a, s, r, i] = LANES;
    for (lane, n) in [(i, 1), (r, 2), (a, 3), (s, 4)] {
        put(&spool, lane, n, 10);
    }
    spool.commit().unwrap();
    spool.mark_backlog();
    for (lane, n) in [(i, 11), (r, 12), (a, 13), (s, 14)] {
        put(&spool, lane, n, 10);
    }
    spool.commit().unwrap();
    let live = |n: &edgeveil_spool::Record| n.live == (number(n.id) > 10);
    assert!(spool.lease(ALL).unwrap().iter().all(live));
    spool.release_all();
    assert_eq!(lease(&spool, ALL), [13, 3, 14, 12, 11, 4, 2, 1]);
    spool.release_all();
    assert_eq!(lease(&spool, ALL.with_backlog(0, 0)), [13, 3, 14, 12, 11]);
    assert_eq!(lease(&spool, ALL.with_backlog(1, 1000)), [4]);
    spool.release_all();
    // What was live when the link broke follows the older backlog.
    spool.mark_backlog();
    put(&spool, r, 22, 10);
    spool.commit().unwrap();
    assert_eq!(lease(&spool, ALL), [3, 13, 22, 4, 14, 2, 12, 1, 11]);
}

#[test]
fn a_backlog_of_images_moves_behind_one_of_readings() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    (0..4000).for_each(|n| put(&spool, READING, n, 200));
    (10_000..10_004).for_each(|n| put(&spool, IMAGE, n, 10_000));
    spool.commit().unwrap();
    spool.mark_backlog();
    let mut out = Vec::new();
    loop {
        let batch = lease(&spool, LeaseLimit::new(50, 100_000));
        if batch.is_empty() {
            break;
        }
        done(&spool, &batch);
        out.extend(batch);
    }
    let images: Vec<usize> = (10_000..10_004).map(|n| out.iter().position(|m| *m == n).unwrap()).collect();
    assert!(images.is_sorted());
    // 12 KB of image are owed after 100 KB of readings, at 272 bytes each.
    assert!((300..450).contains(&images[0]), "{images:?}");
    assert!(images[3] < 2000, "{images:?}");
    assert!(out.iter().filter(|n| **n < 10_000).is_sorted());
    assert_eq!(out.len(), 4004);
}

#[test]
fn a_lease_keeps_to_its_limit_and_a_record_over_it_is_not_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    put(&spool, READING, 1, 92);
    put(&spool, READING, 2, 92);
    put(&spool, IMAGE, 3, 5000);
    put(&spool, IMAGE, 4, 5);
    spool.commit().unwrap();
    assert_eq!(lease(&spool, LeaseLimit::new(9, 150)), [1]);
    assert_eq!(lease(&spool, LeaseLimit::new(9, 1000)), [2, 3]);
    assert_eq!(lease(&spool, LeaseLimit::new(0, 1000)), [0; 0]);
    assert_eq!(lease(&spool, LeaseLimit::new(9, 0)), [0; 0]);
    assert_eq!(lease(&spool, LeaseLimit::new(9, 1000)), [4]);
}

#[test]
fn a_full_lane_drops_its_oldest_or_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.lanes[1].max_bytes = 1720;
    options.lanes[2].max_bytes = 1720;
    options.lanes[2].when_full = WhenFull::DropNewest;
    let (spool, _) = Spool::open(options).unwrap();
    // Ten records of 100 + 8 + 64 bytes.
    for lane in [STATUS, READING] {
        let first = u64::from(lane.0) * 100;
        (first..first + 10).for_each(|n| put(&spool, lane, n, 100));
    }
    let pushed = push(&spool, STATUS, 110, 100);
    assert_eq!(pushed.kept, Kept::NextCommit);
    assert_eq!(
        pushed.dropped.iter().map(|d| (d.id, d.reason)).collect::<Vec<_>>(),
        [(Some(id(100)), Reason::LaneFull)]
    );
    let pushed = push(&spool, READING, 210, 100);
    assert_eq!(pushed.kept, Kept::Refused);
    assert_eq!(pushed.dropped[0].id, Some(id(210)));
    spool.commit().unwrap();
    // In flight: not dropped.
    assert_eq!(lease(&spool, LeaseLimit::new(1, 1000)), [101]);
    assert_eq!(
        push(&spool, STATUS, 111, 200).dropped.iter().map(|d| number(d.id.unwrap())).collect::<Vec<_>>(),
        [102, 103]
    );
    assert_eq!(dropped(&spool, STATUS, Reason::LaneFull), 3);
    assert_eq!(push(&spool, STATUS, 112, 5000).kept, Kept::Refused);
    assert_eq!(spool.stats().lanes[1].bytes, 9 * 172 + 100);
}

#[test]
fn a_full_spool_drops_from_the_least_important_lane_and_never_upwards() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.max_bytes = 30_000;
    let (spool, _) = Spool::open(options).unwrap();
    (0..3).for_each(|n| put(&spool, IMAGE, n, 4000));
    spool.commit().unwrap();
    (100..110).for_each(|n| put(&spool, READING, n, 1000));
    let lost =
        |p: edgeveil_spool::Pushed| p.dropped.iter().map(|d| number(d.id.unwrap())).collect::<Vec<_>>();
    put(&spool, ALERT, 200, 1000);
    // A file counts in blocks of 4 KiB, an entry for 64 bytes.
    assert_eq!(spool.stats().bytes, 3 * (4096 + 8 + 64) + 11 * (1000 + 8 + 64));
    for (n, gone) in [(201, 0), (202, 1), (203, 2)] {
        assert_eq!(lost(push(&spool, ALERT, n, 5900)), [gone]);
    }
    assert_eq!(push(&spool, IMAGE, 3, 4000).kept, Kept::Refused);
    assert_eq!(lost(push(&spool, ALERT, 204, 5900)), [100, 101, 102, 103, 104, 105]);
    spool.commit().unwrap();
    assert_eq!(files_under(&dir.path().join("files")), Vec::<std::path::PathBuf>::new());
    assert_eq!(dropped(&spool, READING, Reason::SpoolFull), 6);
    assert_eq!(dropped(&spool, IMAGE, Reason::SpoolFull), 4);
    assert_eq!(dropped(&spool, ALERT, Reason::SpoolFull), 0);
}

#[test]
fn a_rejected_record_is_gone_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    put(&spool, ALERT, 1, 10);
    put(&spool, ALERT, 2, 10);
    assert!(!spool.reject(id(1), "not leased").unwrap());
    assert_eq!(lease(&spool, ALL), [1, 2]);
    assert!(spool.reject(id(1), "no such topic").unwrap());
    spool.release_all();
    assert_eq!(lease(&spool, ALL), [2]);
    assert_eq!(dropped(&spool, ALERT, Reason::Rejected), 1);
}

#[test]
fn the_same_id_twice_in_flight_is_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    put(&spool, ALERT, 1, 10);
    put(&spool, ALERT, 1, 10);
    assert_eq!(lease(&spool, ALL), [1]);
    assert_eq!(dropped(&spool, ALERT, Reason::Duplicate), 1);
}

#[test]
fn only_one_may_open_a_spool_and_the_other_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let error = Spool::open(options(dir.path())).err().unwrap();
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    assert!(matches!(Inspector::open(dir.path()), Err(SpoolError::Locked { .. })));
    let clone = spool.clone();
    drop(spool);
    put(&clone, ALERT, 1, 10);
    drop(clone);
    open(dir.path());
}

#[test]
fn lanes_may_be_reordered_and_removed_between_starts() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    put(&spool, READING, 1, 10);
    put(&spool, STATUS, 2, 10);
    drop(spool);
    let mut fewer = options(dir.path());
    fewer.lanes.remove(1);
    fewer.lanes.swap(0, 1);
    let (spool, report) = Spool::open(fewer).unwrap();
    assert_eq!(report.records, [1, 0, 0]);
    assert_eq!(report.unknown_lanes, [("status".to_owned(), 1)]);
    assert_eq!(spool.lease(ALL).unwrap()[0].lane, Lane(0));
    drop(spool);
    assert_eq!(lease(&open(dir.path()), ALL), [2, 1]);
}

#[test]
fn what_no_spool_takes_is_an_error_of_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let header = vec![0; edgeveil_spool::HEADER_MAX + 1];
    let record = NewRecord { id: id(1), header: &header, payload: b"" };
    assert!(matches!(spool.push(ALERT, record), Err(SpoolError::TooLarge { .. })));
    let record = NewRecord { id: id(1), header: &header[1..], payload: b"" };
    assert!(matches!(spool.push(Lane(4), record), Err(SpoolError::NoSuchLane(4))));
    let _ = spool.push(ALERT, record).unwrap();
    assert_eq!(spool.lease(ALL).unwrap()[0].header.len(), edgeveil_spool::HEADER_MAX);
}

#[test]
fn a_listing_and_an_inspection_show_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    (0..600).for_each(|n| put(&spool, READING, n, 50));
    put(&spool, IMAGE, 1000, 5000);
    spool.commit().unwrap();
    let listed: Vec<_> = spool.iter(READING).unwrap().map(|l| number(l.unwrap().id.unwrap())).collect();
    assert_eq!(listed, (0..600).collect::<Vec<_>>());
    drop(spool);

    let inspector = Inspector::open(dir.path()).unwrap();
    assert_eq!(inspector.lanes(), ["alert", "status", "reading", "image"]);
    let image = inspector.iter(IMAGE).next().unwrap().unwrap();
    assert_eq!((image.payload_len, image.header), (5000, 1000u64.to_le_bytes().to_vec()));
    assert_eq!(inspector.read(IMAGE, image.order).unwrap().unwrap().payload, payload(1000, 5000));
    assert_eq!(inspector.verify().unwrap().sound, 601);
    let file = &files_under(&dir.path().join("files"))[0];
    let mut bytes = std::fs::read(file).unwrap();
    assert_eq!(&bytes[..5000], payload(1000, 5000), "a file begins with its payload as it is");
    bytes[77] ^= 4;
    std::fs::write(file, &bytes).unwrap();
    assert_eq!(inspector.verify().unwrap().corrupt, [(IMAGE, image.order)]);
    std::fs::rename(file, file.with_extension("part")).unwrap();
    let verified = inspector.verify().unwrap();
    assert_eq!((verified.missing, verified.unfinished), (vec![(IMAGE, image.order)], 1));
}
