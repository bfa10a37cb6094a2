//! A bounded, crash-safe store-and-forward queue with priority lanes.
//!
//! Records go in by [`push`](Spool::push), come out by [`lease`](Spool::lease), and stay stored until
//! [`done`](Spool::done) says that their receiver has made them durable. The spool knows nothing of what it
//! carries, nor of networks; it is synchronous and has no thread of its own.
//!
//! # The folder
//!
//! ```text
//! lock            held (flock) by the one process that has the spool open
//! lanes           the lanes' names, one a line; the line's number is the lane's slot on disk
//! ballast         8 MiB of nothing, given back to a full disk so that it can be worked on
//! closed          the number of the last commit when the spool was last closed in order
//! db/             the index: a sled tree
//! db.broken-<n>/  an index that was found damaged; at most two are kept
//! files/<slot>/<order without its low 10 bits>/<order>     payloads, all numbers in hex
//! ```
//!
//! # Records and their order
//!
//! A record's **order** is a 64-bit number: the upper 24 bits count the openings of the spool (its *epoch*), the
//! lower 40 the pushes to its lane since. So orders grow within a lane and none is given twice, whatever a
//! crash takes with it, and a file's name never comes to mean another record.
//!
//! The index has one key a record, and one more:
//!
//! ```text
//! key    slot u8 | order u64 BE | kind u8 (0 inline, 1 file) | cost u32 BE
//! entry  "EvS" 0x01 | slot u8 | kind u8 | order u64 LE | id 16 | header length u16 LE | payload length u32 LE
//!        | CRC-32 u32 LE of all the rest of the entry | header | payload, or the CRC-32 u32 LE of the file's
//! meta   key 0xff: "EvM" 0x01 | slots u8 | commit u64 LE | epoch u32 LE
//!        | by slot: records u64 LE, bytes u64 LE, next order u64 LE | CRC-32 u32 LE of it all
//! file   payload | a copy of the entry | its length u32 LE | "EvSpoolF"
//! ```
//!
//! The key alone tells what bounds, counting and deleting need. The entry alone, wherever it is found, tells the
//! whole record, and so does the file: this is what a damaged index is rebuilt from. A file begins with its
//! payload as it is: a picture viewer opens it.
//!
//! 0x01 is the version of the entry. A later version reads this one.
//!
//! # Invariants
//!
//! 1. **One writer, one batch.** The index is written by commits only, each one sled batch, which is there after
//!    a crash as a whole or not at all: insertions, removals and the counts that fit them. Between commits,
//!    what was pushed and what is gone is in memory, bounded (a push or a done beyond the bound commits).
//! 2. **A commit is durable**: `flush` hands sled's log to the system, an fsync of the same file makes it
//!    survive a power cut. Before, every new file was written under a temporary name, fsynced, renamed, and its
//!    folder fsynced.
//! 3. **Only durable records are leased**, in the order of their lane: no receiver ever sees a record whose
//!    elder a power cut could still take.
//! 4. **A file is removed after the removal of its entry is durable.** So an entry without a file is damage. A
//!    file without an entry was pushed and not yet committed, or had just been removed: at open it is taken in,
//!    since to send twice is better than to lose. Unfinished ones are removed.
//! 5. **What is in flight is not dropped.** Bounds take from what is not leased, the least important lane first,
//!    and never from a lane more important than that of the record for which there is no room.
//! 6. **Pushed = stored + done + dropped**, by lane: every drop passes one function that counts it by reason.
//! 7. **Damage costs what is damaged.** A record whose checksum or file fails is counted and skipped. An index
//!    that does not open, or does not read, is rebuilt while the spool runs on; opening never fails for it.
//!    sled takes a flipped bit in its log for the log's end, and forgets what was committed since, in silence:
//!    so each commit has a number, the log is read as a heap of bytes before sled opens it, and if sled comes up
//!    with an earlier commit, the newest entries (4 MiB of them) are put back.
//! 8. **Memory is bounded** by what waits for a commit (about 4 MiB), the leased records' keys, and 8192 keys
//!    of records that were lately released. It does not grow with what is stored.
//!
//! # Which record is next
//!
//! Lane 0: its live records, then its backlog. Then the live records of the other lanes by priority, then
//! their backlog by priority. Each backlog is owed an eighth of what the backlogs above it are given, and goes
//! first once that pays for its next record: images move on behind a long backlog of readings. A
//! [`LeaseLimit`] can bound the backlog by itself. Within a lane and a class, first in is first out, and a
//! released record comes before younger ones. Live is what was pushed since the last
//! [`mark_backlog`](Spool::mark_backlog).
//!
//! # When the disk is full
//!
//! The spool stops growing when less than `min_free_bytes` is free: new records then cost older or less
//! important ones. Should the disk fill up all the same, through others, the ballast is given back to it, so that sled,
//! which needs room even to delete, can go on; the index is opened again (sled answers nothing else after a
//! fault), and what waited is written once more. What cannot be written waits in memory up to 4 MiB; beyond
//! that less important records make way, and then pushes fail with [`SpoolError::DiskFull`]. Each commit tries again; [`Stats::degraded`] tells.
//!
//! # What can come twice, and what cannot be promised
//!
//! Delivery is at least once. A record goes out again after a release, after a crash between its `done` and the
//! next commit, and after a rebuilt index, in which removed entries may be found as well. Its id is the same.
//! sled 0.34 panics on some faults; such a panic is caught and handled as damage. It may also wait for ever
//! when one of its own threads dies: a watchdog is the remedy. A disk that lies about fsync loses what it loses.
//!
//! # What it costs
//!
//! Measured on x86-64 and ext4 by `examples/measure.rs`; times from a busy machine. Records of 200 bytes with a
//! header of 24, committed by the hundred: 8 bytes are written for a byte pushed, and 100,000 of them take 52 MB
//! of index, whose room is used again, but not given back. Images of 100 KB, each with its own commit: 1.11
//! bytes for a byte. A spool with 100,000 records opens in 0.16 s (the log is read once), and the process stays
//! at 11 to 21 MB.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by it"))]

#[cfg(test)]
extern crate self as edgeveil_spool;

mod adopt;
mod ages;
mod carve;
#[cfg(test)]
mod chaos;
mod commit;
mod disk;
mod error;
#[cfg(test)]
mod faults;
mod files;
mod format;
mod index;
mod inspect;
mod lanes;
mod lease;
mod listing;
mod meta;
mod options;
mod pace;
mod pack;
mod queue;
mod record;
mod repair;
mod room;
mod segment;
mod segments;
mod spool;
mod stats;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
mod thin;
mod walk;

pub use disk::BALLAST_BYTES;
pub use error::SpoolError;
pub use format::{HEADER_MAX, INLINE_MAX, PAYLOAD_MAX};
pub use inspect::Inspector;
pub use listing::Listing;
pub use options::{Durability, LaneOptions, LeaseLimit, MAX_LANES, Options, Payload, WhenFull};
pub use pace::WriteBudget;
pub use record::{Dropped, Kept, Lane, Listed, NewRecord, Pushed, Reason, Record, RecordId};
pub use spool::Spool;
pub use stats::{Degraded, LaneStats, OpenReport, Repair, Stats, Verified};
