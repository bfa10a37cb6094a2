//! The spool's lanes as the agent uses them.

use crate::settings::Settings;
use edgeveil_spool::{
    Durability, Lane as Index, LaneOptions, OpenReport, Options, Payload, Spool, SpoolError, WhenFull,
};
use edgeveil_wire::Lane;

/// A lane's place in the spool: the most urgent first.
pub fn lane_index(lane: Lane) -> Index {
    Index(lane as u8)
}

/// Where records are kept that the broker refuses for good. Nothing is sent from here.
pub const REFUSED: Index = Index(Lane::ALL.len() as u8);

/// Opens the spool below the data folder. Alerts may take a quarter of it, events a sixteenth, and readings and images
/// all of it: what is dropped first when it is full is the oldest image, and alerts go last.
pub fn open(settings: &Settings) -> Result<(Spool, OpenReport), SpoolError> {
    let all = settings.spool.max_bytes;
    let lane = |lane: Lane, max_bytes, payload, durability| LaneOptions {
        name: lane.as_str(),
        max_bytes,
        payload,
        durability,
        when_full: WhenFull::DropOldest,
    };
    Spool::open(Options {
        dir: settings.device.data_dir.join("spool"),
        lanes: vec![
            lane(Lane::Alert, all / 4, Payload::Inline, Durability::Immediate),
            lane(Lane::Status, all / 16, Payload::Inline, Durability::Group),
            lane(Lane::Reading, all, Payload::Inline, Durability::Group),
            lane(Lane::Image, all, Payload::File, Durability::Group),
            LaneOptions {
                name: "refused",
                ..lane(Lane::Status, all / 16, Payload::Inline, Durability::Group)
            },
        ],
        max_bytes: all,
        min_free_bytes: settings.spool.min_free_bytes,
    })
}
