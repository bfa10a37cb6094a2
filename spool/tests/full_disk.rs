//! A file system that is really full: the spool works on, recovers by itself, and starts on it.
//!
//! It needs a small tmpfs, mounted in a namespace of its own: as root, or where the kernel lets users have
//! namespaces. Where neither is given the test says so and ends; with CI set it fails.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use edgeveil_spool::{Degraded, Kept, NewRecord, Reason, Spool, WhenFull};
use support::*;

const INSIDE: &str = "SPOOL_FULL_DISK";

/// Runs the other tests of this file, each on a tmpfs of 32 MiB.
#[test]
fn a_full_disk_loses_nothing_and_is_recovered_from() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run = |program: &str| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .arg(format!("mount -t tmpfs -o size=32m none \"$1\" && exec {program}"))
            .arg("sh")
            .arg(dir.path())
            .arg(std::env::current_exe().unwrap())
            .env(INSIDE, dir.path())
            .status()
    };
    if !run("true").is_ok_and(|s| s.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "no namespace with a tmpfs can be had here, and CI must run this"
        );
        eprintln!("SKIPPED: no namespace with a tmpfs can be had here");
        return;
    }
    for inside in ["on_the_tmpfs", "thinning_on_the_tmpfs"] {
        assert!(run(&format!("\"$2\" --exact --nocapture {inside}")).unwrap().success(), "{inside}");
    }
}

/// Not a test of its own: what runs on the tmpfs.
#[test]
fn on_the_tmpfs() {
    let Ok(dir) = std::env::var(INSIDE) else { return };
    let disk = Path::new(&dir);
    let home = disk.join("spool");
    let spool = open(&home);
    for n in 0..2000 {
        put(&spool, READING, n, 300);
        if n % 100 == 99 {
            spool.commit().unwrap();
        }
    }
    for n in 2000..2010 {
        put(&spool, IMAGE, n, 100_000);
    }
    spool.commit().unwrap();

    // Somebody else fills the disk to the last byte.
    fill(&disk.join("filler"));
    assert_eq!(spool.stats().free_bytes, Some(0));

    // What is pushed now costs older records, waits in memory, or is refused; each is told.
    let mut alive: BTreeSet<u64> = (0..2010).collect();
    let mut refused = 0;
    for n in 10_000..60_000 {
        let bytes = payload(n, 300);
        let record = NewRecord { id: id(n), header: &n.to_le_bytes(), payload: &bytes };
        match spool.push(if n % 500 == 0 { ALERT } else { READING }, record) {
            Ok(pushed) => {
                alive.insert(n);
                for d in &pushed.dropped {
                    assert!(alive.remove(&number(d.id.unwrap())));
                }
            }
            Err(e) => {
                assert!(e.is_transient(), "{e}");
                refused += 1;
            }
        }
        if n % 2000 == 0 {
            let _ = spool.commit();
            // Whatever the spool gave back is taken by others at once.
            fill(&disk.join(format!("filler{n}")));
        }
    }
    let _ = spool.commit();

    // Sending and removing go on as far as the disk lets them, and fail in order where it does not.
    match spool.lease(edgeveil_spool::LeaseLimit::new(100, 1 << 20)) {
        Ok(records) => {
            let ids: Vec<_> = records.iter().map(|r| r.id).collect();
            assert_eq!(spool.done(&ids).unwrap(), ids.len());
            alive.retain(|n| !ids.contains(&id(*n)));
        }
        Err(e) => assert!(e.is_transient(), "{e}"),
    }
    let _ = spool.commit();
    let full = spool.stats();

    // A second spool starts on the full disk, or waits for room.
    match Spool::open(options(&disk.join("other"))) {
        Ok((other, _)) => drop(other.commit()),
        Err(e) => assert!(e.is_transient(), "{e}"),
    }

    // Room again: everything that was accepted is there and can be made durable.
    for file in fs::read_dir(disk).unwrap().map(|f| f.unwrap().path()).filter(|f| f.is_file()) {
        fs::remove_file(file).unwrap();
    }
    spool.commit().unwrap();
    let stats = spool.stats();
    assert_eq!((stats.degraded, stats.uncommitted), (None::<Degraded>, 0));
    put(&spool, ALERT, 99_999, 10);
    drop(spool);

    alive.insert(99_999);

    let spool = open(&home);
    let out: BTreeSet<u64> = lease(&spool, ALL).into_iter().collect();
    let (lost, too_many) = (alive.difference(&out).count(), out.difference(&alive).count());
    assert_eq!((lost, too_many), (0, 0), "of {}", alive.len());
    assert!(home.join("ballast").exists());
    println!("{} alive, {refused} refused with an error, on the full disk: {:?}", alive.len(), full.degraded);
}

/// Not a test of its own. The disk runs full while images come in: they are thinned, alerts pass and are durable
/// at once, the counts tell all of it, and when there is room again everything is as before.
#[test]
fn thinning_on_the_tmpfs() {
    let Ok(dir) = std::env::var(INSIDE) else { return };
    let disk = Path::new(&dir);
    let mut options = options(&disk.join("spool"));
    options.lanes[3].when_full = WhenFull::Thin;
    let (spool, _) = Spool::open(options.clone()).unwrap();
    let mut alive = BTreeSet::new();
    let mut put_all = |from: u64, to: u64| {
        for n in from..to {
            let pushed = push(&spool, IMAGE, 2 * n, 30_000);
            assert_ne!(pushed.kept, Kept::Refused);
            let alert = push(&spool, ALERT, 2 * n + 1, 200);
            assert_eq!(alert.kept, Kept::Durable, "{:?}", spool.stats().degraded);
            alive.extend([2 * n, 2 * n + 1]);
            for d in pushed.dropped.iter().chain(&alert.dropped) {
                assert_eq!((d.lane, d.reason), (IMAGE, Reason::DiskLow));
                assert!(alive.remove(&number(d.id.unwrap())));
            }
            spool.commit().unwrap();
        }
        alive.clone()
    };
    put_all(0, 300);
    // Somebody else takes the rest of the disk but 64 KiB.
    let free = spool.stats().free_bytes.unwrap();
    fs::write(disk.join("filler"), vec![0x5a; free as usize - (64 << 10)]).unwrap();
    put_all(300, 1500);
    let low = spool.stats();
    let thinned = dropped(&spool, IMAGE, Reason::DiskLow);
    assert_eq!(low.lanes[3].pushed, low.lanes[3].records + thinned);
    assert!(thinned > 1000, "{thinned}");
    fs::remove_file(disk.join("filler")).unwrap();
    let alive = put_all(1500, 1600);
    let stats = spool.stats();
    assert_eq!((dropped(&spool, IMAGE, Reason::DiskLow), stats.degraded.clone()), (thinned, None));
    drop(spool);

    let (spool, _) = Spool::open(options).unwrap();
    let out: BTreeSet<u64> = lease(&spool, ALL).into_iter().collect();
    assert_eq!(out, alive);
    let images: Vec<u64> = out.range(..3000).filter(|n| *n % 2 == 0).map(|n| n / 2).collect();
    let widest = images.windows(2).map(|w| w[1] - w[0]).max().unwrap();
    assert!(images[0] == 0 && widest <= 4 * 1500 / images.len() as u64, "{images:?}");
    println!(
        "1,600 alerts passed; of 1,500 images {} are left, no gap over {widest}; {thinned} thinned out, all counted",
        images.len()
    );
}

fn fill(path: &Path) {
    let Ok(mut file) = File::create(path) else { return };
    for size in [1 << 20, 4096, 1] {
        let block = vec![0x5a; size];
        while file.write_all(&block).is_ok() {}
    }
}
