//! Word to the source of a frame that its image is durable, for sources that keep the original until then.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// What became of a frame. There is no word of one that was lost: its [`Receipt`] was dropped on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its veiled image is durable.
    Kept,
    /// A wholly covered image is durable in its place.
    Covered,
}

/// Goes with a frame until its image is durable.
#[derive(Debug)]
pub struct Receipt {
    fate: Fate,
    sender: SyncSender<Fate>,
}

impl Receipt {
    /// One, and where its word arrives.
    pub fn new() -> (Self, Receiver<Fate>) {
        let (sender, receiver) = sync_channel(1);
        (Self { fate: Fate::Kept, sender }, receiver)
    }

    /// The image shows nothing of the frame.
    pub fn of_a_cover(self) -> Self {
        Self { fate: Fate::Covered, ..self }
    }

    /// The image is durable.
    pub fn done(self) {
        // A source that has gone meanwhile does not ask.
        let _ = self.sender.try_send(self.fate);
    }
}
