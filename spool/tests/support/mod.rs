//! A spool with the agent's lanes, and short words for what tests do with one.
#![allow(dead_code, reason = "every test binary uses its own part of it")]

use std::path::Path;

use edgeveil_spool::{
    Durability, Kept, Lane, LaneOptions, LeaseLimit, NewRecord, Options, Payload, Pushed, Reason, Record,
    RecordId, Spool, WhenFull,
};

pub const ALERT: Lane = Lane(0);
pub const STATUS: Lane = Lane(1);
pub const READING: Lane = Lane(2);
pub const IMAGE: Lane = Lane(3);
pub const LANES: [Lane; 4] = [ALERT, STATUS, READING, IMAGE];
pub const ALL: LeaseLimit = LeaseLimit::new(usize::MAX, u64::MAX);

pub fn options(dir: &Path) -> Options {
    let lane = |name, payload, durability| LaneOptions {
        max_bytes: 64 << 20,
        ..LaneOptions::new(name, payload, durability, WhenFull::DropOldest)
    };
    Options {
        dir: dir.to_owned(),
        lanes: vec![
            lane("alert", Payload::Inline, Durability::Immediate),
            lane("status", Payload::Inline, Durability::Group),
            lane("reading", Payload::Inline, Durability::Group),
            lane("image", Payload::File, Durability::Group),
        ],
        max_bytes: 128 << 20,
        min_free_bytes: 0,
        max_age: None,
        write_budget: None,
    }
}

/// A folder for tests that kill no machine: in memory where that is possible, since an fsync there costs nothing.
pub fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn open(dir: &Path) -> Spool {
    let (spool, report) = Spool::open(options(dir)).unwrap();
    assert_eq!(report.repair, None);
    spool
}

pub const fn id(n: u64) -> RecordId {
    let n = n.to_be_bytes();
    RecordId([0, 0, 0, 0, 0, 0, 0, 0, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]])
}

pub fn number(id: RecordId) -> u64 {
    u64::from_be_bytes(id.0[8..].try_into().unwrap())
}

pub fn payload(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (n.wrapping_mul(31) ^ i.wrapping_mul(7)) as u8).collect()
}

pub fn push(spool: &Spool, lane: Lane, n: u64, len: usize) -> Pushed {
    let record = NewRecord { id: id(n), header: &n.to_le_bytes(), payload: &payload(n, len) };
    spool.push(lane, record).unwrap()
}

/// Pushes what must find room.
pub fn put(spool: &Spool, lane: Lane, n: u64, len: usize) {
    let pushed = push(spool, lane, n, len);
    assert_eq!(pushed.dropped, []);
    assert_ne!(pushed.kept, Kept::Refused);
}

pub fn numbers(records: &[Record]) -> Vec<u64> {
    records.iter().map(|r| number(r.id)).collect()
}

pub fn lease(spool: &Spool, limit: LeaseLimit) -> Vec<u64> {
    let records = spool.lease(limit).unwrap();
    for r in &records {
        let n = number(r.id);
        assert_eq!(r.header, n.to_le_bytes(), "header of {n}");
        assert_eq!(r.payload, payload(n, r.payload.len()), "payload of {n}");
    }
    numbers(&records)
}

pub fn done(spool: &Spool, ids: &[u64]) -> usize {
    spool.done(&ids.iter().map(|n| id(*n)).collect::<Vec<_>>()).unwrap()
}

pub fn dropped(spool: &Spool, lane: Lane, reason: Reason) -> u64 {
    spool.stats().lanes[usize::from(lane.0)].dropped_for(reason)
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if entry.file_name() != "ballast" {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn files_under(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let Ok(listing) = std::fs::read_dir(dir) else { return found };
    for entry in listing {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_under(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
