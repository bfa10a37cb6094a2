//! A broker and a network that do everything wrong: afterwards every record of every lane has arrived.
//!
//! `EDGEVEIL_LONG=1` goes on for ten minutes with each seed; without it the form is short.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Deed, Lab, Script, Seen, Unruly, wait_for};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

const SETTINGS: &str = "ack_timeout = \"1 s\"\nacknowledgement = \"broker\"\n[spool]\ncommit_interval = \"100 ms\"\nmin_free = \"0 B\"\n[health]\ninterval = \"1 s\"\n";
const SENSOR: &str = "[[sensor]]\ngroup = \"env\"\nsource = { simulate = {} }\nrate = 300\n";

fn kind() -> Script {
    Box::new(|_, _| Deed::Acknowledge)
}

/// Steele and Vigna's xorshift64: the same seed gives the same broker.
fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn is_empty(seen: &Seen) -> bool {
    let health: serde_json::Value = serde_json::from_str(&seen.health).unwrap_or_default();
    health["spool"].as_object().is_some_and(|lanes| lanes.values().all(|lane| lane["records"] == 0))
}

/// Lets the broker be kind, stops the agent, empties the spool, and looks for gaps.
fn conserve(lab: &Lab, broker: &Unruly, agent: edgeveil_tests::Process) -> Seen {
    broker.follow(kind());
    assert!(agent.stop().success());
    let drain = lab.agent("drain", &lab.agent_settings("edge-001", broker.port, SETTINGS));
    let before = broker.seen().connections;
    wait_for("an empty spool", || {
        let seen = broker.seen();
        (seen.connections > before && is_empty(&seen)).then_some(())
    });
    assert!(drain.stop().success());
    let seen = broker.seen();
    for ((boot, lane), numbers) in &seen.safe {
        let missing: Vec<_> = (0..numbers.last().unwrap() + 1).filter(|n| !numbers.contains(n)).collect();
        assert!(missing.is_empty(), "boot {boot}, lane {lane}: {missing:?} never arrived");
    }
    seen
}

#[test]
fn nothing_is_lost_to_an_unruly_broker() {
    for seed in [1, 2, 3] {
        let lab = Lab::new(&["edge-001"]);
        let mut dice = dice(seed);
        let broker = Unruly::start(
            &lab,
            Box::new(move |_, _| match dice() % 1000 {
                0..2 => Deed::Cut,
                2..4 => Deed::CutWithin,
                4..6 => Deed::AcknowledgeTwice,
                6..8 => Deed::Withhold,
                8..10 => Deed::Delay,
                10..200 => Deed::AcknowledgeLater,
                _ => Deed::Acknowledge,
            }),
        );
        let mut agent =
            lab.agent("agent", &lab.agent_settings("edge-001", broker.port, &format!("{SETTINGS}{SENSOR}")));
        let long = std::env::var_os("EDGEVEIL_LONG").is_some();
        let end = Instant::now() + Duration::from_secs(if long { 600 } else { 10 });
        while Instant::now() < end {
            agent.assert_running();
            sleep(Duration::from_millis(200));
        }
        let seen = conserve(&lab, &broker, agent);
        assert!(seen.connections > 3, "the broker was kind: {seen:?}");
        println!("seed {seed}: {} connections, {} publishes", seen.connections, seen.publishes);
    }
}

/// rumqttc stops for ever when a packet id comes round that the broker has never acknowledged
/// (bytebeamio/rumqtt #1056).
#[test]
fn a_packet_that_is_never_acknowledged_does_not_wedge_the_link() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Unruly::start(
        &lab,
        Box::new(|n, kind| if n == 3 && kind == "reading" { Deed::Withhold } else { Deed::Acknowledge }),
    );
    let settings = format!("{SETTINGS}{SENSOR}");
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", broker.port, &settings));
    wait_for("a thousand publishes over several connections", || {
        agent.assert_running();
        let seen = broker.seen();
        (seen.publishes > 1000 && seen.connections > 2).then_some(())
    });
    conserve(&lab, &broker, agent);
}
