//! A byte of the spool is not what it was when the agent starts: it starts, reports, and delivers every record that the
//! flip did not touch, or says how many were lost to it.
//!
//! `EDGEVEIL_LONG=1` takes a hundred flips. The spool's own test, `spool/tests/flips.rs`, takes a thousand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Dice, Lab, PATIENT, files_below, free_port, long, models, run, stderr, wait_for};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let output = run(Command::new("cp").arg("-a").arg(from).arg(to));
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Numbers before a word: `lost: 3`, `2 corrupt`.
fn sum(pattern: impl Fn(&str) -> Option<u64>, texts: &[String]) -> u64 {
    texts.iter().filter_map(|text| pattern(text)).sum()
}

/// What the agent's events say was lost to damage.
fn told(lab: &Lab) -> (u64, Vec<String>) {
    const ASK: &str = "import sqlite3, sys\nfor k, s, d in sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True).execute(\"SELECT event, subject, detail FROM event WHERE event IN ('dropped', 'spool-damaged')\"): print(k, s, d)";
    let output = run(Command::new("python3").args(["-c", ASK]).arg(lab.path("bridge/catalog.sqlite")));
    assert!(output.status.success(), "{}", stderr(&output));
    let lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    let after = |text: &str| {
        text.split_once("lost: ")
            .and_then(|(_, n)| n.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
    };
    let before = |text: &str| {
        let words: Vec<_> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let counts = words.windows(2).filter(|w| matches!(w[1], "corrupt" | "file_missing"));
        Some(counts.filter_map(|w| w[0].parse::<u64>().ok()).sum())
    };
    (sum(after, &lines) + sum(before, &lines), lines)
}

/// Starts a bridge with nothing and lets the agent deliver the spool. Gives what arrived.
fn deliver(lab: &Lab) -> BTreeSet<String> {
    let _ = fs::remove_dir_all(lab.path("bridge"));
    let port = free_port();
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    lab.drain("edge-001", port);
    // Once more for the events of what the first one has found.
    lab.drain("edge-001", port);
    assert!(bridge.stop().success());
    lab.stored()
}

#[test]
fn a_flipped_byte_costs_what_it_touches_and_that_is_told() {
    let seed = Dice::seed(11);
    let flips = if long() { 100 } else { 8 };
    println!("{flips} flips with EDGEVEIL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let lab = Lab::in_memory(&["edge-001"]);
    let sources = format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 100\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 4\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    );
    // Nobody listens there.
    let settings = lab.agent_settings("edge-001", free_port(), &format!("{PATIENT}{sources}"));
    let data = lab.path("agent-edge-001");
    let mut agent = lab.agent("agent", &settings);
    wait_for("images in the spool", || {
        agent.assert_running();
        (files_below(&data.join("spool/files")).len() > 10).then_some(())
    });
    sleep(Duration::from_secs(5));
    agent.kill();
    let whole = lab.path("whole");
    copy(&data, &whole);
    let all = deliver(&lab);
    // Of the boot that is in the spool, not of the one that has delivered it.
    let ours: BTreeSet<String> =
        all.iter().filter(|id| id[20..22] == *"03").map(|id| id[..20].to_owned()).collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    let all: BTreeSet<String> = all.into_iter().filter(|id| ours.contains(&id[..20])).collect();

    let (mut lost_in_all, mut untouched) = (0, 0);
    for flip in 0..flips {
        let files: Vec<PathBuf> = files_below(&whole.join("spool"))
            .into_iter()
            .filter(|file| !file.ends_with("ballast") && !file.ends_with("lock"))
            .collect();
        // Of a hundred files nearly all are images: each kind has its turn.
        let (images, others): (Vec<_>, Vec<_>) =
            files.iter().partition(|file| file.starts_with(whole.join("spool/files")));
        let kind = if flip % 3 == 0 { images } else { others };
        let file = kind[dice.below(kind.len() as u64) as usize];
        let mut bytes = fs::read(file).unwrap();
        // The log of the index is mostly empty.
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at as u64 + 1);
        if used == 0 {
            continue;
        }
        let at = dice.below(used) as usize;
        bytes[at] ^= 1 << dice.below(8);
        copy(&whole, &data);
        fs::write(data.join(file.strip_prefix(&whole).unwrap()), &bytes).unwrap();

        let arrived = deliver(&lab);
        let lost: Vec<_> = all.difference(&arrived).collect();
        let (told, events) = told(&lab);
        let what = format!(
            "flip {flip}: byte {at} of {}: lost {lost:?}, told {told}: {events:?}",
            file.strip_prefix(&whole).unwrap().display()
        );
        println!("{what}");
        assert!(lost.len() as u64 <= told && lost.len() <= 1, "{what}");
        lost_in_all += lost.len();
        untouched += usize::from(lost.is_empty());
    }
    println!(
        "{flips} flips: {untouched} cost nothing, {lost_in_all} of {} records lost in all, all told",
        all.len()
    );
}
