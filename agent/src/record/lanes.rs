//! The spool's lanes as the agent uses them.

use crate::settings::Settings;
use edgeveil_spool::{
    Durability, Lane as Index, LaneOptions, OpenReport, Options, Payload, Spool, SpoolError, WhenFull,
    WhenLow,
};
use edgeveil_wire::Lane;

/// A lane's place in the spool: the most urgent first.
pub fn lane_index(lane: Lane) -> Index {
    Index(lane as u8)
}

/// Where records are kept that the broker refuses for good. Nothing is sent from here.
pub const REFUSED: Index = Index(Lane::ALL.len() as u8);

/// Opens the spool below the data folder. What is dropped first when it is full is an image, and alerts go last.
pub fn open(settings: &Settings) -> Result<(Spool, OpenReport), SpoolError> {
    let spool = &settings.spool;
    let lane = |lane: Lane, payload, durability| LaneOptions {
        max_bytes: spool.lanes[lane as usize].max_bytes,
        max_age: spool.lanes[lane as usize].max_age,
        ..LaneOptions::new(lane.as_str(), payload, durability, WhenFull::DropOldest)
    };
    // On a full disk too: alerts, and the events that tell of what was dropped.
    let insisting = |lane| LaneOptions { when_low: WhenLow::Insist, ..lane };
    let images = lane(Lane::Image, Payload::File, Durability::Group);
    let lanes = vec![
        insisting(lane(Lane::Alert, Payload::Inline, Durability::Immediate)),
        insisting(lane(Lane::Status, Payload::Inline, Durability::Group)),
        lane(Lane::Reading, Payload::Inline, Durability::Group),
        LaneOptions { when_full: spool.images_when_full, ..images },
        LaneOptions {
            max_bytes: spool.max_bytes / 16,
            ..LaneOptions::new("refused", Payload::Inline, Durability::Group, WhenFull::DropOldest)
        },
    ];
    Spool::open(Options {
        max_bytes: spool.max_bytes,
        min_free_bytes: spool.min_free_bytes,
        max_age: spool.max_age,
        write_budget: spool.write_budget,
        ..Options::new(&settings.device.data_dir.join("spool"), lanes)
    })
}
