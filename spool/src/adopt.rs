//! Files that the index does not know, as a crash leaves them.

use std::fs;

use crate::files::{Found, Tidy};
use crate::format::{Kind, Place, decode_prefix};
use crate::queue::Pending;
use crate::spool::{Inner, lock};

/// Files taken in by one commit.
const CHUNK: usize = 500;

impl Inner {
    /// Takes in what is whole, and removes what is not. Returns how many of each. Only at open: nothing is being
    /// written. What fails here shows again at the next open.
    pub fn adopt_orphans(&self) -> (u64, u64) {
        let (orphans, mut removed) = self.find_orphans();
        let mut adopted = 0;
        for chunk in orphans.chunks(CHUNK) {
            let mut queue = lock(&self.queue);
            for &place in chunk {
                // A lane without a place in the settings stays as it is.
                let Some(lane) = queue.lane_of(place.slot) else { continue };
                let entry = queue.files.entry(place);
                let known = entry.as_deref().and_then(decode_prefix).map(|(e, _)| (e.key, e.id));
                match (entry, known) {
                    (Some(entry), Some((key, id))) if key.place == place => {
                        queue.insert_pending(lane, Pending { key, id, entry, applied: false });
                        adopted += 1;
                    }
                    _ => {
                        queue.files.remove(place);
                        removed += 1;
                    }
                }
            }
            drop(queue);
            // A failure is in the log, and what was taken in waits with the rest.
            let _ = self.commit();
        }
        (adopted, removed)
    }

    fn find_orphans(&self) -> (Vec<Place>, u64) {
        let mut queue = lock(&self.queue);
        let Some(index) = queue.index.clone() else { return (Vec::new(), 0) };
        let mut orphans = Vec::new();
        let mut removed = 0;
        let mut fault = None;
        let walked = queue.files.walk(Tidy::Yes, |found| match found {
            Found::Unfinished(path) => removed += u64::from(fs::remove_file(path).is_ok()),
            Found::Payload(place) => match index.scan(place.slot, place.order, place.order).next() {
                Ok(Some((key, _))) if key.kind == Kind::File => {}
                Ok(_) => orphans.push(place),
                Err(e) => fault = Some(e.to_string()),
            },
        });
        if let Err(e) = walked {
            tracing::warn!(error = %e, "could not look for files without a record");
        }
        if queue.suspect.is_none() {
            queue.suspect = fault;
        }
        orphans.sort();
        (orphans, removed)
    }
}
