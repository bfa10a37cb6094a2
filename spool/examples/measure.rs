//! Measures the spool on this machine: `cargo run --release --example measure -- DIR`.
//!
//! What the kernel says was written (`/proc/self/io`) is set against what was pushed.

#![allow(clippy::unwrap_used, reason = "it is run by hand")]

use std::path::Path;
use std::time::Instant;

use edgeveil_spool::{
    Durability, Lane, LaneOptions, LeaseLimit, NewRecord, Options, Payload, RecordId, Spool, WhenFull,
};

const READING: Lane = Lane(0);
const IMAGE: Lane = Lane(1);

fn options(dir: &Path) -> Options {
    let lane = |name, payload| LaneOptions {
        name,
        max_bytes: 1 << 30,
        payload,
        durability: Durability::Group,
        when_full: WhenFull::DropOldest,
    };
    Options {
        dir: dir.to_owned(),
        lanes: vec![lane("reading", Payload::Inline), lane("image", Payload::File)],
        max_bytes: 2 << 30,
        min_free_bytes: 0,
    }
}

fn proc(file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

struct Meter {
    what: &'static str,
    written: u64,
    start: Instant,
}

impl Meter {
    fn start(what: &'static str) -> Self {
        Self { what, written: proc("io", "write_bytes"), start: Instant::now() }
    }

    fn stop(self, pushed: u64, spool: Option<&Spool>) {
        let written = proc("io", "write_bytes") - self.written;
        let index = spool.map_or(0, |s| s.stats().index_bytes);
        println!(
            "{:55} {:8.1?} written {:6.2} MB = {:5.2} a byte, index {:6.2} MB, RSS {:5.1} MB",
            self.what,
            self.start.elapsed(),
            written as f64 / 1e6,
            written as f64 / pushed.max(1) as f64,
            index as f64 / 1e6,
            proc("status", "VmRSS") as f64 / 1e3,
        );
    }
}

fn id(n: u64) -> RecordId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    RecordId(id)
}

fn payload(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (n.wrapping_mul(0x9e37_79b9).wrapping_add(i * i) >> 5) as u8).collect()
}

fn push(spool: &Spool, lane: Lane, n: u64, len: usize) -> u64 {
    let _ = spool.push(lane, NewRecord { id: id(n), header: &[1; 24], payload: &payload(n, len) }).unwrap();
    len as u64 + 24
}

fn drain(spool: &Spool) -> u64 {
    let mut drained = 0;
    loop {
        let ids: Vec<RecordId> =
            spool.lease(LeaseLimit::new(100, 1 << 20)).unwrap().iter().map(|r| r.id).collect();
        if ids.is_empty() {
            return drained;
        }
        drained += spool.done(&ids).unwrap() as u64;
        spool.commit().unwrap();
    }
}

fn main() {
    let dir = std::env::args().nth(1).expect("the first argument is a folder to work in");
    let dir = Path::new(&dir);
    let open = || Spool::open(options(&dir.join("readings"))).unwrap().0;

    let meter = Meter::start("open an empty spool");
    let spool = open();
    meter.stop(0, Some(&spool));

    let meter = Meter::start("20,000 readings of 200 B, sent as they come, commit/100");
    let mut pushed = 0;
    for n in 0..20_000 {
        pushed += push(&spool, READING, n, 200);
        if n % 100 == 99 {
            spool.commit().unwrap();
            let ids: Vec<RecordId> =
                spool.lease(LeaseLimit::new(100, 1 << 20)).unwrap().iter().map(|r| r.id).collect();
            assert_eq!(spool.done(&ids).unwrap(), 100);
        }
    }
    spool.commit().unwrap();
    meter.stop(pushed, Some(&spool));

    let meter = Meter::start("100,000 readings of 200 B stored, commit/100");
    let mut pushed = 0;
    for n in 0..100_000 {
        pushed += push(&spool, READING, 1_000_000 + n, 200);
        if n % 100 == 99 {
            spool.commit().unwrap();
        }
    }
    meter.stop(pushed, Some(&spool));
    drop(spool);

    let meter = Meter::start("open with 100,000 readings");
    let spool = open();
    meter.stop(0, Some(&spool));
    let meter = Meter::start("the first lease of 100");
    assert_eq!(spool.lease(LeaseLimit::new(100, 1 << 20)).unwrap().len(), 100);
    spool.release_all();
    meter.stop(0, Some(&spool));
    let meter = Meter::start("drain 100,000 readings, commit/100");
    assert_eq!(drain(&spool), 100_000);
    meter.stop(pushed, Some(&spool));

    drop(spool);

    let spool = Spool::open(options(&dir.join("images"))).unwrap().0;
    let meter = Meter::start("1,000 images of 100 KB stored, commit each");
    let mut pushed = 0;
    for n in 0..1000 {
        pushed += push(&spool, IMAGE, 2_000_000 + n, 100_000);
        spool.commit().unwrap();
    }
    meter.stop(pushed, Some(&spool));
    let meter = Meter::start("drain 1,000 images, commit/10");
    assert_eq!(drain(&spool), 1000);
    meter.stop(pushed, Some(&spool));
}
