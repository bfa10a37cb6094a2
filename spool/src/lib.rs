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
//! lanes.copy      the same
//! ballast         8 MiB of nothing, given back to a full disk so that it can be worked on
//! closed          the number of the last commit of the index when the spool was last closed in order
//! segments/<slot>/<order of the first record>              small records, packed, all numbers in hex
//! files/<slot>/<order without its low 10 bits>/<order>     payloads with a file of their own
//! db/             the index, a sled tree: the records of files, and notes of segments
//! db.broken-<n>/  an index that was found damaged; at most two are kept
//! ```
//!
//! # Records and their order
//!
//! A record's **order** is a 64-bit number: the upper 24 bits count the openings of the spool (its *epoch*), the
//! lower 40 the pushes to its lane since. So orders grow within a lane and none is given twice, whatever a
//! crash takes with it, and a file's name never comes to mean another record.
//!
//! Small records go into **segments**: a commit appends what waits in a lane to the lane's newest segment, as one
//! *pack*, and fsyncs it. A segment is full at 256 KiB, and a new one is begun at each opening. Which of its records
//! are gone (done or dropped) is a bit each in memory. The index has a *note* of a segment: how much of its file
//! it describes, how many records are stored, which are gone. Notes are written when a segment is full, when all its
//! records are gone, when 512 records are gone that no note tells of, and with whatever else the index is told. A
//! segment without a note, and what is in its file beyond the note, is read at open.
//!
//! Records with a file have a key each in the index.
//!
//! ```text
//! entry    "EvS" 0x01 | slot u8 | kind u8 (0 in the index, 1 file, 2 packed) | order u64 LE | id 16
//!          | header length u16 LE | payload length u32 LE | CRC-32 u32 LE of all the rest of the entry
//!          | header | payload, or the CRC-32 u32 LE of the file's
//! pack     "EvP" 0x01 | slot u8 | entries u16 LE | their bytes u32 LE | CRC-32 u32 LE of these | entries
//! segment  packs
//! file     payload | a copy of the entry | its length u32 LE | "EvSpoolF"
//!
//! in the index:
//! record   slot u8 | order u64 BE | kind u8 | cost u32 BE -> entry
//! note     0xfe | slot u8 | first order u64 BE
//!          -> "EvN" 0x01 | slot u8 | first u64 LE | last u64 LE | length u32 LE | records u32 LE | bytes u64 LE
//!          | length of the bits u32 LE | a bit for each order from the first on: gone | CRC-32 u32 LE of it all
//! ages     0xfd -> "EvA" 0x01 | any number of: slot u8, seconds since 1970 u64 LE, order u64 LE | CRC-32 u32 LE
//! counts   0xff -> "EvM" 0x01 | slots u8 | commit u64 LE | epoch u32 LE
//!          | by slot: records in the index u64 LE, their bytes u64 LE, next order u64 LE | CRC-32 u32 LE
//! ```
//!
//! An entry alone, wherever it is found, tells the whole record, and so does a file: this is what a damaged index
//! or segment is read from. A file begins with its payload as it is: a picture viewer opens it.
//!
//! 0x01 is the version of each. A later version reads this one. Small records in the index (kind 0) were written by
//! the first version; they are read and removed, and come before packed ones as their orders are lower.
//!
//! # Invariants
//!
//! 1. **One writer.** Segments and the index are written by commits only, one at a time: first packs, lane by lane,
//!    then one batch for the index, which is there after a crash as a whole or not at all. A pack that a crash cuts
//!    off is there up to some entry. Between commits, what was pushed and what is gone is in memory, bounded (a
//!    push or a done beyond the bound commits).
//! 2. **A commit is durable**: a pack and the folder of a new segment are fsynced; sled's `flush` hands its log to
//!    the system, and an fsync of the same file makes it survive a power cut. Before, every new file was written
//!    under a temporary name, fsynced, renamed, and its folder fsynced.
//! 3. **Only durable records are leased**, in the order of their lane: no receiver ever sees a record whose
//!    elder a power cut could still take. (So a large record of a lane of small ones commits its elders first: its
//!    file would survive them.)
//! 4. **Files and segments are removed after the index has been told, durably.** So an entry without a file, and a
//!    note of stored records without a segment, is damage. A file without an entry was pushed and not yet
//!    committed, or had just been removed: at open it is taken in, since to send twice is better than to lose.
//!    Unfinished ones are removed.
//! 5. **What is in flight is not dropped.** Bounds take from what is not leased, the least important lane first,
//!    and never from a lane more important than that of the record for which there is no room.
//! 6. **Pushed = stored + done + dropped**, by lane: every drop passes one function that counts it by reason.
//! 7. **Damage costs what is damaged.** A flipped byte in a segment costs the record in whose entry it is; notes and
//!    packs tell how many there should be, so that each one lost is counted. A record whose checksum or file fails is
//!    counted and skipped. An index that does not open, or does not read, is rebuilt while the spool runs on;
//!    opening never fails for it. sled takes a flipped bit in its log for the log's end, and forgets what was
//!    committed since, in silence: so each commit has a number, the log is read as a heap of bytes before sled opens
//!    it, and what a lost end held is put back: entries (the newest 4 MiB of them), files by their own account, and
//!    segments, which are read anew where a note is missing.
//! 8. **A segment that failed is left.** After a failed write or fsync a segment is cut back and nothing more goes
//!    into it: what the disk holds there is not known. Its records wait on, for the next one.
//! 9. **Memory is bounded** by what waits for a commit (about 4 MiB), removals that wait for a full disk (16,384,
//!    then nothing more is handed out or dropped), the leased records' keys, 8192 keys of records that were lately
//!    released, and the places of the entries of two segments a lane. Beyond that a stored segment costs about
//!    100 bytes and a bit for each record gone: 1 MB for 2 GiB.
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
//! important ones. Two things are let through all the same: 4 MiB in all, where the disk has them, so that records which
//! are delivered soon still pass; and lanes that insist ([`WhenLow`]), for which the ballast and then memory are used. Should the disk fill up all the same, through others, the ballast is given back to it, so that sled,
//! which needs room even to delete, can go on; the index is opened again (sled answers nothing else after a
//! fault), and what waited is written once more. What cannot be written waits in memory up to 4 MiB; beyond
//! that less important records make way, and then pushes fail with [`SpoolError::DiskFull`]. Each commit tries again; [`Stats::degraded`] tells.
//!
//! Thinning ([`WhenFull::Thin`]) drops every second record by its order, from the oldest to the newest, then every
//! second of those that are left: what stays is evenly spread over the outage.
//!
//! # What can come twice, and what cannot be promised
//!
//! Delivery is at least once. A record goes out again after a release, and after a crash between its `done` and the
//! next commit. Of small records, a crash brings back up to 512 more that were done and of which the index had not
//! been told; an orderly stop brings back none. A rebuilt index may bring back all that was done of segments that
//! are still there. The ids are the same.
//! sled 0.34 panics on some faults; such a panic is caught and handled as damage. It may also wait for ever
//! when one of its own threads dies: a watchdog is the remedy. A disk that lies about fsync loses what it loses,
//! and one that garbles the page it was writing when the power went can take small records with it that lie in that
//! page and had been durable before.
//!
//! # What it costs
//!
//! Measured on x86-64 and ext4 by `examples/measure.rs`, bytes by `/proc/self/io` for a byte of payload. 3,000
//! readings of 200 bytes with an outage, stored, delivered and removed: 1.8 at 10 a second with a commit every 5 s,
//! 1.4 at 100 a second, 3.4 at 10 a second with a commit every second. A commit rewrites the last page it finds half
//! full: of a few small records each, most of the disk's work is that page, and the file system's journal on top. So
//! the fewer commits, the longer a card lasts. Images of 100 KB, each with its own commit: 1.1. A spool with 100,000
//! readings and 1,000 images opens in some 10 to 70 ms, and the process stays at 13 MB.

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
pub use options::{Durability, LaneOptions, LeaseLimit, MAX_LANES, Options, Payload, WhenFull, WhenLow};
pub use pace::WriteBudget;
pub use record::{Dropped, Kept, Lane, Listed, NewRecord, Pushed, Reason, Record, RecordId};
pub use spool::Spool;
pub use stats::{Degraded, LaneStats, OpenReport, Repair, Stats, Verified};
