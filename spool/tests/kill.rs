//! A process that uses the spool is killed (SIGKILL) again and again. What it was told to be durable is there
//! afterwards, what it was told to be removed is not, and no lane has a gap.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use edgeveil_spool::LeaseLimit;
use support::*;

const DIR: &str = "SPOOL_KILL_DIR";
const START: &str = "SPOOL_KILL_START";
const PER_LANE: u64 = 1_000_000;
const USED: [edgeveil_spool::Lane; 3] = [ALERT, READING, IMAGE];

/// Not a test of its own: the process that is killed.
#[test]
fn the_process_that_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let mut n: u64 = std::env::var(START).unwrap().parse().unwrap();
    let spool = open(dir.as_ref());
    let mut told = std::io::stdout().lock();
    let mut removed = Vec::new();
    loop {
        n += 1;
        for (i, lane) in USED.into_iter().enumerate() {
            let len = if lane == IMAGE { 20_000 } else { 200 };
            put(&spool, lane, i as u64 * PER_LANE + n, len);
            if lane == ALERT {
                writeln!(told, "stored 0 {n}").unwrap();
            }
        }
        if n.is_multiple_of(7) {
            spool.commit().unwrap();
            writeln!(told, "stored 1 {n}\nstored 2 {n}").unwrap();
            for id in removed.drain(..) {
                writeln!(told, "removed {id}").unwrap();
            }
        }
        if n.is_multiple_of(5) {
            let batch = lease(&spool, LeaseLimit::new(12, 200_000));
            assert_eq!(done(&spool, &batch), batch.len());
            // Told before it is durable: may or may not be there.
            batch.iter().for_each(|id| writeln!(told, "leaving {id}").unwrap());
            removed.extend(batch);
        }
        if n.is_multiple_of(11) {
            spool.release_all();
            spool.mark_backlog();
        }
    }
}

#[derive(Default)]
struct Told {
    stored: [u64; 3],
    leaving: BTreeMap<u64, Leaving>,
}

#[derive(PartialEq, Eq, Clone, Copy, Debug)]
enum Leaving {
    Perhaps,
    Certainly,
}

/// Runs the process until it has told so many lines, kills it, and reads what it had told by then.
fn run_and_kill(dir: &std::path::Path, start: u64, lines: usize, told: &mut Told) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed", "--nocapture"])
        .env(DIR, dir)
        .env(START, start.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let reader = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut understood = 0;
    let mut killed = false;
    for line in reader {
        // The last line may be torn.
        let words: Vec<String> = line.unwrap().split(' ').map(str::to_owned).collect();
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["stored", lane, n] => {
                let lane: usize = lane.parse().unwrap();
                told.stored[lane] = told.stored[lane].max(n.parse().unwrap_or(0));
            }
            ["leaving", id] => {
                told.leaving.insert(id.parse().unwrap(), Leaving::Perhaps);
            }
            ["removed", id] => {
                told.leaving.insert(id.parse().unwrap(), Leaving::Certainly);
            }
            _ => continue,
        }
        understood += 1;
        if understood >= lines && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    let status = child.wait().unwrap();
    assert!(killed, "it ended by itself: {status}");
}

#[test]
fn nothing_durable_is_lost_and_no_lane_has_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let mut start = 0;
    for round in 0..rounds() {
        run_and_kill(dir.path(), start, 1 + (round * 37) % 400, &mut told);
        let spool = open(dir.path());
        let mut back = 0;
        for (i, lane) in USED.into_iter().enumerate() {
            let base = i as u64 * PER_LANE;
            let stored: Vec<u64> =
                spool.iter(lane).unwrap().map(|r| number(r.unwrap().id.unwrap())).collect();
            assert!(stored.is_sorted(), "round {round}, lane {i}: {stored:?}");
            let last = stored.last().copied().unwrap_or(base);
            let leaving = |n: &u64| told.leaving.get(n).copied();
            assert!(
                last >= base + told.stored[i] || leaving(&(base + told.stored[i])).is_some(),
                "round {round}, lane {i}: {} was durable, {last} is the last",
                told.stored[i]
            );
            let end = last.max(base + told.stored[i]);
            for n in base + 1..=end {
                let there = stored.binary_search(&n).is_ok();
                match leaving(&n) {
                    None => assert!(there, "round {round}, lane {i}: {n} of {end} is lost"),
                    // Of small records the index is told late: see the crate's documentation.
                    Some(Leaving::Certainly) if lane != IMAGE => back += usize::from(there),
                    Some(Leaving::Certainly) => assert!(!there, "round {round}, lane {i}: {n} came back"),
                    Some(Leaving::Perhaps) => {}
                }
            }
            start = start.max(end - base);
        }
        assert!(back <= 512, "round {round}: {back} came back");
        // Everything can be read; then it goes, so that all lanes begin anew behind `start`.
        loop {
            let batch = lease(&spool, LeaseLimit::new(1000, 1 << 20));
            if batch.is_empty() {
                break;
            }
            done(&spool, &batch);
            told.leaving.extend(batch.iter().map(|n| (*n, Leaving::Certainly)));
        }
        spool.commit().unwrap();
        assert_eq!(spool.stats().records(), 0);
        for (i, _) in USED.iter().enumerate() {
            // The numbers that a lane had not come to are not missing.
            for n in told.stored[i] + 1..=start {
                told.leaving.entry(i as u64 * PER_LANE + n).or_insert(Leaving::Certainly);
            }
            told.stored[i] = start;
        }
    }
}

/// More by SPOOL_KILLS, for the night.
fn rounds() -> usize {
    std::env::var("SPOOL_KILLS").ok().map_or(20, |n| n.parse().unwrap())
}
