//! Every kind of damage that was met or thought of, one test each: the spool opens, says what it found, gives
//! what can be read, and works on.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use edgeveil_spool::{Inspector, OpenReport, Reason, Spool};
use support::*;

/// 40 readings and 5 images, in several commits, closed.
fn stored(dir: &Path) {
    let spool = open(dir);
    for n in 1..=40 {
        put(&spool, READING, n, 150);
        if n % 8 == 0 {
            put(&spool, IMAGE, 100 + n, 9000);
            spool.commit().unwrap();
        }
    }
}

fn all() -> Vec<u64> {
    (1..=40).chain([108, 116, 124, 132, 140]).collect()
}

/// Opens what is left, checks that it works, and returns what came out of it.
fn survivors(dir: &Path) -> (OpenReport, Vec<u64>) {
    let (spool, report) = Spool::open(options(dir)).unwrap();
    // A lease that meets damage in the index has it mended by the next commit.
    let mut out = Vec::new();
    for _ in 0..5 {
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
    assert!(out.iter().all(|n| all().contains(n)), "{out:?}");
    put(&spool, ALERT, 1000, 50);
    assert_eq!(lease(&spool, ALL), [1000]);
    let mut ids = out.clone();
    ids.push(1000);
    assert_eq!(done(&spool, &ids), ids.len());
    spool.commit().unwrap();
    assert_eq!(spool.stats().degraded, None);
    assert_eq!(spool.stats().records(), 0);
    drop(spool);
    assert_eq!(lease(&open(dir), ALL), [0; 0], "nothing comes back");
    (report, out)
}

fn snapshot(dir: &Path) -> PathBuf {
    let files = files_under(&dir.join("db"));
    files.into_iter().find(|f| f.file_name().unwrap().to_str().unwrap().starts_with("snap.")).unwrap()
}

#[test]
fn an_index_that_is_gone_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    let (report, out) = survivors(dir.path());
    assert_eq!((report.adopted, out), (5, all()));
}

#[test]
fn a_damaged_snapshot_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    drop(open(dir.path()));
    let snapshot = snapshot(dir.path());
    let mut bytes = fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&snapshot, &bytes).unwrap();
    let (report, out) = survivors(dir.path());
    assert!(report.repair.is_some());
    assert_eq!(out, all());
}

#[test]
fn an_empty_snapshot_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    drop(open(dir.path()));
    fs::write(snapshot(dir.path()), b"").unwrap();
    assert_eq!(survivors(dir.path()).1, all());
}

#[test]
fn settings_of_sled_that_cannot_be_read_cost_nothing() {
    for garbage in [&b""[..], b"segment_size: 1\nuse_compression: x\nversion: 0.34\n____", &[0xff; 64]] {
        let dir = tempfile::tempdir().unwrap();
        stored(dir.path());
        fs::write(dir.path().join("db/conf"), garbage).unwrap();
        assert_eq!(survivors(dir.path()).1, all(), "{garbage:?}");
    }
}

#[test]
fn a_lost_list_of_lanes_costs_nothing_while_the_settings_stay() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    fs::write(dir.path().join("lanes"), b"\0\0\0\0").unwrap();
    assert_eq!(survivors(dir.path()).1, all());
}

#[test]
fn an_index_cut_short_costs_nothing() {
    let whole = tempfile::tempdir().unwrap();
    stored(whole.path());
    let log = fs::read(whole.path().join("db/db")).unwrap();
    let used = log.iter().rposition(|b| *b != 0).unwrap();
    for tenth in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(whole.path(), dir.path());
        fs::write(dir.path().join("db/db"), &log[..used * tenth / 10]).unwrap();
        assert_eq!(survivors(dir.path()).1, all(), "cut to {tenth} tenths");
    }
}

#[test]
fn garbage_for_an_index_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    let log = dir.path().join("db/db");
    let len = fs::metadata(&log).unwrap().len() as usize;
    fs::write(&log, vec![0xa5; len]).unwrap();
    assert_eq!(survivors(dir.path()).1, all());
}

/// One byte in a hundred places of the index, each in a copy of its own.
#[test]
fn a_flipped_byte_in_the_index_costs_nothing() {
    let whole = tempfile::tempdir().unwrap();
    stored(whole.path());
    let log = fs::read(whole.path().join("db/db")).unwrap();
    let used = log.iter().rposition(|b| *b != 0).unwrap();
    for i in 0..100 {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(whole.path(), dir.path());
        let mut bytes = log.clone();
        bytes[used * i / 100 + i % 3] ^= 1 << (i % 8);
        fs::write(dir.path().join("db/db"), &bytes).unwrap();
        assert_eq!(survivors(dir.path()).1, all(), "flip {i}");
    }
}

#[test]
fn a_damaged_file_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    let files = files_under(&dir.path().join("files"));
    let mut bytes = fs::read(&files[0]).unwrap();
    bytes[500] ^= 0x80;
    fs::write(&files[0], &bytes).unwrap();
    fs::write(&files[1], b"").unwrap();
    fs::remove_file(&files[2]).unwrap();
    let (spool, _) = Spool::open(options(dir.path())).unwrap();
    let out = lease(&spool, ALL);
    assert_eq!(out, (1..=40).chain([132, 140]).collect::<Vec<_>>());
    assert_eq!(dropped(&spool, IMAGE, Reason::Corrupt), 2);
    assert_eq!(dropped(&spool, IMAGE, Reason::FileMissing), 1);
    spool.commit().unwrap();
    assert_eq!(spool.stats().lanes[3].records, 2);
    assert_eq!(files_under(&dir.path().join("files")).len(), 2);
}

#[test]
fn files_that_a_crash_left_over_are_taken_in_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    let files = files_under(&dir.path().join("files"));
    fs::write(files[0].with_extension("part"), b"half").unwrap();
    fs::write(files[4].with_file_name("00000fffffffffff"), b"no tail").unwrap();
    fs::write(files[0].with_file_name("notes.txt"), b"somebody's").unwrap();
    let (spool, report) = Spool::open(options(dir.path())).unwrap();
    assert_eq!((report.orphans_removed, report.adopted), (1, 0));
    drop(spool);
    assert!(files[0].with_file_name("notes.txt").exists());
    assert!(!files[0].with_extension("part").exists());
}

#[test]
fn a_crash_between_the_two_renames_of_a_repair_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    fs::rename(dir.path().join("db"), dir.path().join("db.new")).unwrap();
    assert_eq!(survivors(dir.path()).1, all());
}

#[test]
fn only_two_broken_indexes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=4 {
        stored(dir.path());
        let log = dir.path().join("db/db");
        fs::write(&log, vec![0xa5; 700_000]).unwrap();
        fs::write(dir.path().join("db/conf"), [0xff; 64]).unwrap();
        let (report, _) = survivors(dir.path());
        let set_aside = report.repair.unwrap().set_aside.unwrap();
        assert_eq!(set_aside, dir.path().join(format!("db.broken-{round}")));
        assert!(set_aside.exists());
    }
    assert!(!dir.path().join("db.broken-2").exists());
}

#[test]
fn looking_at_a_damaged_spool_shows_what_is_left_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    let log = dir.path().join("db/db");
    let garbage = vec![0xa5; fs::metadata(&log).unwrap().len() as usize];
    fs::write(&log, &garbage).unwrap();
    let before = files_under(dir.path());
    let inspector = Inspector::open(dir.path()).unwrap();
    assert!(inspector.repair().is_some());
    let verified = inspector.verify().unwrap();
    assert_eq!((verified.sound, verified.uncommitted, verified.is_sound()), (45, 5, true));
    let image = inspector.iter(IMAGE).next().unwrap().unwrap();
    assert_eq!(inspector.read(IMAGE, image.order).unwrap().unwrap().payload, payload(108, 9000));
    drop(inspector);
    assert_eq!((files_under(dir.path()), fs::read(&log).unwrap()), (before, garbage));
    assert_eq!(survivors(dir.path()).1, all());
}

#[test]
fn a_segment_that_is_gone_is_counted_and_costs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    let segments = files_under(&dir.path().join("segments"));
    assert_eq!(segments.len(), 1);
    fs::remove_file(&segments[0]).unwrap();
    assert_eq!(Inspector::open(dir.path()).unwrap().verify().unwrap().lost, [(READING, 40)]);
    let (spool, report) = Spool::open(options(dir.path())).unwrap();
    assert_eq!((report.records, dropped(&spool, READING, Reason::FileMissing)), (vec![0, 0, 0, 5], 40));
    assert_eq!(lease(&spool, ALL), [108, 116, 124, 132, 140]);
}

/// While it runs, too: somebody tidies up.
#[test]
fn a_segment_that_goes_while_the_spool_is_open_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    let (spool, _) = Spool::open(options(dir.path())).unwrap();
    fs::remove_dir_all(dir.path().join("segments")).unwrap();
    assert_eq!(lease(&spool, ALL), [108, 116, 124, 132, 140]);
    assert_eq!(dropped(&spool, READING, Reason::FileMissing), 40);
    put(&spool, READING, 500, 10);
    spool.commit().unwrap();
    assert_eq!(lease(&spool, ALL), [500]);
    assert_eq!(spool.stats().lanes[2].records, 1);
}
