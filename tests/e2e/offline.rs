//! Three days without a network, by a simulated clock that starts unset, leaps ahead and goes back: what the agent then
//! has on disk is all there, but for images that were thinned and counted; and the real agent delivers it to a real bridge.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_agent::{
    clock::{Clock, Moment},
    record::{self, AlertBody, Observation, Writer},
    settings,
    state::State,
};
use edgeveil_spool::Reason;
use edgeveil_tests::{Lab, free_port};
use edgeveil_veil::VeiledImage;
use edgeveil_wire::{BootId, ClockState, ImageMeta};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tokio::sync::Notify;

/// A reading every ten seconds, an image every five minutes, an alert every half hour.
const STEPS: u64 = 3 * 24 * 360;
const IMAGE: u64 = 30;
const ALERT: u64 = 180;

struct Simulated(Mutex<Moment>);

impl Clock for Simulated {
    fn now(&self) -> Moment {
        *self.0.lock().unwrap()
    }
}

fn moment(step: u64, start: Timestamp) -> Moment {
    let uptime = Duration::from_secs(10 * step);
    let right = start + SignedDuration::try_from(uptime).unwrap();
    let hours = |n| SignedDuration::from_hours(n);
    let (timestamp, clock) = match step {
        0..60 => (Timestamp::UNIX_EPOCH + SignedDuration::try_from(uptime).unwrap(), ClockState::Unsynced),
        9_000..9_050 => (right + hours(365 * 24), ClockState::Synced),
        15_000..15_060 => (right - hours(48), ClockState::Synced),
        _ => (right, ClockState::Synced),
    };
    Moment { timestamp, clock, uptime }
}

#[test]
fn three_days_offline_are_delivered() {
    let lab = Lab::in_memory(&["edge-001"]);
    let spool = "[spool]\nmin_free = \"0 B\"\nmax_age = \"30 d\"\n[spool.image]\nmax_bytes = \"2 MiB\"\nwhen_full = \"thin\"\n";
    let text = lab.agent_settings("edge-001", free_port(), spool);
    let settings = settings::parse(Path::new("agent.toml"), &text).unwrap();
    let device = "edge-001".parse().unwrap();
    record::claim(&settings.device.data_dir, &device).unwrap();
    let (spool, _) = record::open(&settings).unwrap();
    let start = Timestamp::now() - SignedDuration::from_hours(3 * 24);
    let clock = Arc::new(Simulated(Mutex::new(moment(0, start))));
    let boot = BootId::from_random([3; 10]);
    let (writer, records) = Writer::new(
        spool.clone(),
        boot,
        Duration::from_millis(50),
        clock.clone(),
        Arc::new(Notify::new()),
        Arc::new(State::default()),
        Arc::default(),
    );
    let mut numbers = writer.image_numbers();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let writer = thread::spawn(move || writer.run(&handle));
    for step in 0..STEPS {
        let moment = moment(step, start);
        *clock.0.lock().unwrap() = moment;
        let body = || AlertBody { score: 0.7, threshold: 0.6, contributions: Default::default() };
        runtime.block_on(records.observation(Observation {
            group: "env".parse().unwrap(),
            moment,
            values: [("t".parse().unwrap(), step as f64)].into(),
            score: Some(0.5),
            alert: (step % ALERT == 0).then(body),
        }));
        if step % IMAGE == 0 {
            let meta = ImageMeta {
                stamp: numbers.stamp(moment),
                device: device.clone(),
                camera: "desk".parse().unwrap(),
                faces: 0,
                cover: "all".to_owned(),
                software: "three days".to_owned(),
            };
            let jpeg = VeiledImage::blank(320, 240).to_jpeg(80, Some(&meta.to_exif())).unwrap();
            numbers.advance();
            records.image("desk".parse().unwrap(), meta.stamp, jpeg, None);
        }
    }
    runtime.block_on(records.end());
    writer.join().unwrap();
    let stats = spool.stats();
    for lane in &stats.lanes {
        assert_eq!(lane.dropped_for(Reason::Expired), 0, "the clock had leapt ahead: {lane:?}");
        assert_eq!(lane.pushed, lane.records + lane.dropped.iter().sum::<u64>(), "{lane:?}");
    }
    let thinned: u64 = stats.lanes[3].dropped.iter().sum();
    drop((spool, records, runtime));

    let port = free_port();
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    lab.drain("edge-001", port);
    assert!(bridge.stop().success());
    let stored = lab.stored();
    let seqs = |lane: &str| -> BTreeSet<u64> {
        let of_lane = stored.iter().filter(|id| id[..22] == format!("{boot}{lane}"));
        of_lane.map(|id| u64::from_str_radix(&id[22..], 16).unwrap()).collect()
    };
    assert_eq!(seqs("00"), (0..STEPS / ALERT).collect(), "alerts");
    assert_eq!(seqs("02"), (0..STEPS).collect(), "readings");
    let images = seqs("03");
    assert_eq!(images.len() as u64, STEPS / IMAGE - thinned, "images");
    assert!(thinned > STEPS / IMAGE / 4, "{thinned}");
    let list: Vec<u64> = images.into_iter().collect();
    let widest = list.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    println!("{} images of {} are left, at most {widest} places apart", list.len(), STEPS / IMAGE);
    assert!(widest <= 4 * (STEPS / IMAGE) / list.len() as u64, "{list:?}");
}
