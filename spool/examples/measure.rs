//! Measures the spool on this machine: `cargo run --release -p edgeveil-spool --example measure -- DIR`.
//!
//! What was written is told twice: by `/proc/self/io`, and by the block device below DIR. The device's figure has
//! the file system's own writes in it, and those of everybody else: give it a DIR on a device of its own (a loop
//! device will do) to have it exact. Linux counts a whole folio in `/proc/self/io` when a byte of it is written;
//! where folios are large that is far more than the device sees.

#![allow(clippy::unwrap_used, reason = "it is run by hand")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use edgeveil_spool::{
    Durability, Lane, LaneOptions, LeaseLimit, NewRecord, Options, Payload, RecordId, Spool, WhenFull,
};

const ALERT: Lane = Lane(0);
const READING: Lane = Lane(1);
const IMAGE: Lane = Lane(2);
/// What the agent puts into a header: a topic.
const HEADER: &[u8] = b"reading/board";

fn options(dir: &Path) -> Options {
    let lane = |name, payload, durability| LaneOptions {
        max_bytes: 1 << 30,
        ..LaneOptions::new(name, payload, durability, WhenFull::DropOldest)
    };
    let lanes = vec![
        lane("alert", Payload::Inline, Durability::Immediate),
        lane("reading", Payload::Inline, Durability::Group),
        lane("image", Payload::File, Durability::Group),
    ];
    Options { max_bytes: 2 << 30, min_free_bytes: 0, ..Options::new(dir, lanes) }
}

fn proc(file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes that the block device of a folder has written.
fn device(dir: &Path) -> u64 {
    let id = fs::metadata(dir).unwrap().dev();
    let path = format!("/sys/dev/block/{}:{}/stat", (id >> 8) & 0xfff, (id & 0xff) | ((id >> 12) & 0xfff00));
    let sectors =
        fs::read_to_string(path).ok().and_then(|s| s.split_whitespace().nth(6)?.parse::<u64>().ok());
    sectors.unwrap_or(0) * 512
}

struct Meter<'a> {
    dir: &'a Path,
    written: u64,
    device: u64,
    start: Instant,
}

impl<'a> Meter<'a> {
    fn start(dir: &'a Path) -> Self {
        Self { dir, written: proc("io", "write_bytes"), device: device(dir), start: Instant::now() }
    }

    /// `payload` is what the user gave: neither headers nor anything else of ours counts.
    fn stop(self, what: &str, payload: u64, spool: Option<&Spool>) {
        let took = self.start.elapsed();
        let written = (proc("io", "write_bytes") - self.written) as f64;
        let device = (device(self.dir) - self.device) as f64;
        let own = spool.map_or(0.0, |s| s.stats().bytes_written as f64);
        let per = |n: f64| if payload == 0 { String::new() } else { format!("={:5.2}x", n / payload as f64) };
        println!(
            "{what:58} {took:8.1?}  proc/io {:7.2} MB{:7}  device {:7.2} MB{:7}  own count {:7.2} MB",
            written / 1e6,
            per(written),
            device / 1e6,
            per(device),
            own / 1e6,
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
    let _ = spool.push(lane, NewRecord { id: id(n), header: HEADER, payload: &payload(n, len) }).unwrap();
    len as u64
}

/// Delivers everything, with a commit every so many records.
fn drain(spool: &Spool, commit: u64) -> u64 {
    let (mut drained, mut waiting) = (0, 0);
    loop {
        let ids: Vec<RecordId> =
            spool.lease(LeaseLimit::new(100, 1 << 20)).unwrap().iter().map(|r| r.id).collect();
        if ids.is_empty() {
            spool.commit().unwrap();
            return drained;
        }
        waiting += spool.done(&ids).unwrap() as u64;
        if waiting >= commit {
            drained += std::mem::take(&mut waiting);
            spool.commit().unwrap();
        }
        if ids.len() < 100 {
            drained += std::mem::take(&mut waiting);
        }
    }
}

/// 3,000 readings; the link is lost at 1,000 and comes back at the end.
fn outage(dir: &Path, rate: u64, interval: u64, alerts: u64) {
    let meter = Meter::start(dir);
    let spool = Spool::open(options(&dir.join(format!("outage-{rate}-{interval}-{alerts}")))).unwrap().0;
    let mut pushed = 0;
    for n in 0..3000 {
        pushed += push(&spool, READING, n, 200);
        if alerts > 0 && n % alerts == alerts - 1 {
            pushed += push(&spool, ALERT, 100_000 + n, 200);
        }
        if n % (rate * interval) == rate * interval - 1 {
            spool.commit().unwrap();
            if n < 1000 {
                let ids: Vec<_> =
                    spool.lease(LeaseLimit::new(5000, 1 << 20)).unwrap().iter().map(|r| r.id).collect();
                let _ = spool.done(&ids).unwrap();
            } else {
                spool.mark_backlog();
            }
        }
    }
    spool.commit().unwrap();
    drain(&spool, rate * interval);
    let stats = spool.stats();
    assert_eq!(stats.records(), 0);
    let what = match alerts {
        0 => format!("outage, {rate}/s, commit every {interval} s"),
        n => format!("outage, {rate}/s, commit every {interval} s, 1 durable alert in {n}"),
    };
    meter.stop(&what, pushed, Some(&spool));
}

fn images(dir: &Path, restart: bool) {
    let home = dir.join(format!("images-{restart}"));
    let mut spool = Spool::open(options(&home)).unwrap().0;
    if restart {
        push(&spool, IMAGE, 1, 100_000);
        drop(spool);
        spool = Spool::open(options(&home)).unwrap().0;
    }
    let meter = Meter::start(dir);
    let mut pushed = 0;
    for n in 0..1000 {
        pushed += push(&spool, IMAGE, 2_000_000 + n, 100_000);
        spool.commit().unwrap();
    }
    let after = if restart { ", after a restart" } else { "" };
    meter.stop(&format!("1,000 images of 100 KB, a commit each{after}"), pushed, Some(&spool));
    let meter = Meter::start(dir);
    drain(&spool, 10);
    meter.stop("  their delivery, a commit every 10", pushed, None);
}

fn backlog(dir: &Path) {
    let home = dir.join("backlog");
    let spool = Spool::open(options(&home)).unwrap().0;
    let meter = Meter::start(dir);
    let mut pushed = 0;
    for n in 0..100_000 {
        pushed += push(&spool, READING, n, 200);
        if n % 100 == 99 {
            pushed += push(&spool, IMAGE, 1_000_000 + n, 100_000);
            spool.commit().unwrap();
        }
    }
    meter.stop("100,000 readings and 1,000 images, 1,000 commits", pushed, Some(&spool));
    drop(spool);
    // What was written long ago is no longer in the cache, if we may say so.
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
    for _ in 0..2 {
        let me = std::env::current_exe().unwrap();
        assert!(Command::new(me).arg("--open").arg(&home).status().unwrap().success());
    }
    let me = std::env::current_exe().unwrap();
    assert!(Command::new(me).arg("--drain").arg(&home).status().unwrap().success());
}

fn memory() -> String {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let pss = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).map_or("?", str::trim).to_owned();
    format!("PSS {pss}, highest RSS {:.1} MB", proc("status", "VmHWM") as f64 / 1e3)
}

fn open(home: &Path) -> Spool {
    let start = Instant::now();
    let (spool, report) = Spool::open(options(home)).unwrap();
    let opened = start.elapsed();
    let first = spool.lease(LeaseLimit::new(100, 1 << 20)).unwrap().len();
    println!(
        "  open with {:?} records: {opened:.1?}, the first {first} after {:.1?}; {}",
        report.records,
        start.elapsed(),
        memory()
    );
    spool.release_all();
    spool
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--open", home] => drop(open(home.as_ref())),
        ["--drain", home] => {
            let home = PathBuf::from(home);
            let spool = open(&home);
            let meter = Meter::start(&home);
            let drained = drain(&spool, 100);
            meter.stop(&format!("  delivery of {drained}, a commit every 100"), 0, Some(&spool));
            println!("  {}", memory());
        }
        ["--outage", dir, rate, interval] => {
            outage(dir.as_ref(), rate.parse().unwrap(), interval.parse().unwrap(), 0);
        }
        [dir] => {
            let dir: &Path = dir.as_ref();
            for (rate, interval, alerts) in
                [(10, 5, 0), (100, 5, 0), (10, 1, 0), (10, 1, 100), (10, 5, 100), (2, 1, 0), (1, 1, 0)]
            {
                outage(dir, rate, interval, alerts);
            }
            images(dir, false);
            images(dir, true);
            backlog(dir);
        }
        _ => eprintln!("measure DIR | --outage DIR RATE SECONDS"),
    }
}
