//! The spool as its owner sees it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::disk::{Ballast, Disk, create_dir};
use crate::files::Files;
use crate::format::{
    Body, ENTRY_MAX, HEADER_MAX, INLINE_MAX, Key, Kind, PAYLOAD_MAX, Place, cost, encode, file_tail,
};
use crate::lanes::slots_for;
use crate::queue::{Pending, Queue};
use crate::repair::{self, Trust, open_index};
use crate::room::Room;
use crate::segments::{Closing, Segments};
use crate::{
    Degraded, Durability, Kept, Lane, LaneStats, LeaseLimit, NewRecord, OpenReport, Options, Payload, Pushed,
    Reason, Record, RecordId, SpoolError, Stats,
};

/// Waiting entries and removals beyond which an operation commits by itself.
const PENDING_SOFT: u64 = 1 << 20;
const GONE_SOFT: usize = 4096;
/// Waiting entries that memory takes while the disk takes none.
const PENDING_HARD: u64 = 4 << 20;

/// A store-and-forward queue. Clones share it; it closes with the last one.
///
/// All calls may block on the disk. Call them from threads that may wait.
#[derive(Clone)]
pub struct Spool(Arc<Inner>);

pub(crate) struct Inner {
    pub dir: PathBuf,
    pub disk: Disk,
    pub committing: Mutex<()>,
    /// By lane: a push holds its lane from the moment it has an order until its record waits for a commit, so
    /// that records reach the index in their order even while a large one is being written.
    pushing: Vec<Mutex<()>>,
    pub queue: Mutex<Queue>,
    /// Held, not read: the lock goes with it.
    _lock: File,
}

/// The data behind our locks is consistent after every statement that can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Opens or creates a spool. What is stored is backlog; nothing is leased.
    ///
    /// # Errors
    /// Only for reasons outside of the spool's own files: settings, permissions, another process that has it
    /// open, a failing disk. Damage is mended as far as it goes, and told in the report; on a full disk the
    /// spool opens, and works once there is room.
    pub fn open(options: Options) -> Result<(Self, OpenReport), SpoolError> {
        Self::open_on(options, Disk::default())
    }

    pub(crate) fn open_on(options: Options, disk: Disk) -> Result<(Self, OpenReport), SpoolError> {
        options.check()?;
        let dir = options.dir.clone();
        create_dir(&dir)?;
        let lock_file = lock_dir(&dir)?;
        let (names, slots) = slots_for(&dir, options.lanes.iter().map(|l| l.name))?;
        let files = Files::new(&dir);
        let mut ballast = Ballast::at(&dir);
        ballast.restore(disk.free(&dir), options.min_free_bytes);
        let inner = Inner {
            queue: Mutex::new(Queue::new(&options, &slots, files, Segments::new(&dir), ballast)),
            disk,
            committing: Mutex::new(()),
            pushing: options.lanes.iter().map(|_| Mutex::new(())).collect(),
            _lock: lock_file,
            dir,
        };

        let mut report = OpenReport::default();
        let mut opened = inner.first_open();
        if let Err(e) = &opened
            && e.is_full()
        {
            opened = inner.recover(e);
        }
        match opened {
            Ok(repair) => report.repair = repair,
            Err(SpoolError::DiskFull { why, .. }) => {
                tracing::error!(error = why, "the disk is too full to open the spool; waiting for room");
                report.waiting_for_room = true;
                lock(&inner.queue).fault = Some(Degraded::DiskFull(why));
            }
            Err(e) => return Err(e),
        }
        if !report.waiting_for_room {
            (report.adopted, report.orphans_removed) = inner.adopt_orphans();
        }
        let queue = lock(&inner.queue);
        report.records = queue.lanes.iter().map(|l| l.records).collect();
        report.unknown_lanes = (0..)
            .zip(&names)
            .filter(|(slot, _)| queue.lane_of(*slot).is_none())
            .map(|(slot, name)| (name.clone(), queue.meta.slot(slot).records + queue.segments.count(slot).0))
            .filter(|(_, records)| *records > 0)
            .collect();
        drop(queue);
        Ok((Self(Arc::new(inner)), report))
    }

    /// Stores a record behind all others of its lane, at the cost of older or less important ones if there is
    /// no room: see [`Pushed`].
    ///
    /// # Errors
    /// The record was not stored and is counted as dropped, or the caller broke a rule of the API. A record of
    /// an `Immediate` lane that the disk did not take is kept in memory instead and is no error:
    /// [`Kept::NextCommit`].
    pub fn push(&self, lane: Lane, record: NewRecord<'_>) -> Result<Pushed, SpoolError> {
        let inner = &*self.0;
        let at = usize::from(lane.0);
        let pushing = inner.pushing.get(at).ok_or(SpoolError::NoSuchLane(lane.0))?;
        check_sizes(&record)?;
        self.relieve();
        let one_at_a_time = lock(pushing);
        let mut dropped = Vec::new();
        let mut queue = lock(&inner.queue);
        let options = queue.lanes[at].options.clone();
        let kind = match options.payload {
            Payload::Inline if record.header.len() + record.payload.len() <= INLINE_MAX => Kind::Packed,
            _ => Kind::File,
        };
        let cost = cost(kind, record.header.len(), record.payload.len());
        let waits = |queue: &Queue| queue.durable_end(at) < queue.lanes[at].next;
        if kind == Kind::File && options.payload == Payload::Inline && waits(&queue) {
            // A crash would keep the file, and not its elders that wait to be packed.
            drop(queue);
            let elders = inner.commit();
            queue = lock(&inner.queue);
            if let Err(e) = elders
                && waits(&queue)
            {
                queue.drop_record(at, Some(record.id), u64::from(cost), Reason::DiskFull);
                return Err(e);
            }
        }
        let refuse =
            |queue: &mut Queue, reason| queue.drop_record(at, Some(record.id), u64::from(cost), reason);

        if !queue.is_loaded() || !queue.make_memory(at, PENDING_HARD - ENTRY_MAX as u64, &mut dropped) {
            refuse(&mut queue, Reason::DiskFull);
            let why = "and so is the memory for what waits".into();
            return Err(queue
                .index()
                .err()
                .unwrap_or(SpoolError::DiskFull { action: "store a record", why }));
        }
        match queue.make_room(at, u64::from(cost), &inner.disk, &inner.dir, &mut dropped) {
            Ok(Room::Made) => {}
            Ok(Room::Refused(reason)) => {
                dropped.push(refuse(&mut queue, reason));
                return Ok(Pushed { kept: Kept::Refused, dropped });
            }
            Err(e) => {
                refuse(&mut queue, Reason::DiskFull);
                return Err(e);
            }
        }
        let state = &mut queue.lanes[at];
        let place = Place { slot: state.slot, order: state.next };
        let key = Key { place, kind, cost };
        state.next += 1;
        let encode = |body| encode(place, record.id, record.header, body, record.payload.len());
        let entry = match kind {
            Kind::Inline | Kind::Packed => encode(Body::Packed(record.payload)),
            Kind::File => {
                state.writing = Some(key);
                let files = queue.files.clone();
                drop(queue);
                let entry = encode(Body::File(crc32fast::hash(record.payload)));
                let tail = file_tail(&entry);
                let write = || files.write(place, record.payload, &tail, &inner.disk);
                let written = match write() {
                    // What was dropped for this one gives its room back with a commit.
                    Err(e) if e.is_full() => inner.commit().and_then(|()| write()).map_err(|_| e),
                    written => written,
                };
                queue = lock(&inner.queue);
                queue.lanes[at].writing = None;
                if let Err(e) = written {
                    refuse(&mut queue, Reason::DiskFull);
                    return Err(e);
                }
                queue.bytes_written += (record.payload.len() + tail.len()).next_multiple_of(4096) as u64;
                entry
            }
        };
        queue.insert_pending(at, Pending { key, id: record.id, entry, applied: false });
        queue.lanes[at].pushed += 1;
        drop(queue);
        drop(one_at_a_time);
        let kept = match options.durability {
            Durability::Group => Kept::NextCommit,
            // Why it failed is in the log and in `degraded`.
            Durability::Immediate => inner.commit().map_or(Kept::NextCommit, |()| Kept::Durable),
        };
        Ok(Pushed { kept, dropped })
    }

    /// Makes everything durable that was pushed or done before. Call it every second or so, and at the end.
    /// A commit without anything to do costs nothing.
    ///
    /// # Errors
    /// Nothing is lost by a failed commit: what waited still waits, in memory, for the next one.
    pub fn commit(&self) -> Result<(), SpoolError> {
        self.0.commit()
    }

    /// The next records to send, in the order the module documentation gives. They stay stored, and are not
    /// handed out again before they are released.
    ///
    /// # Errors
    /// None of the records is leased then.
    pub fn lease(&self, limit: LeaseLimit) -> Result<Vec<Record>, SpoolError> {
        lock(&self.0.queue).next_batch(limit)
    }

    /// The receiver has made these durable: they are removed, and their removal is durable with the next
    /// commit. Ids that were released a little while ago count as well. Returns how many ids were known; an
    /// unknown one is no fault (acknowledged twice, or leased by an earlier process: then it is sent again).
    ///
    /// # Errors
    /// None today.
    pub fn done(&self, ids: &[RecordId]) -> Result<usize, SpoolError> {
        let mut queue = lock(&self.0.queue);
        let mut known = 0;
        for &id in ids {
            let Some(key) = queue.take_known(id) else { continue };
            let Some(lane) = queue.lane_of(key.place.slot) else { continue };
            queue.forget(lane, key);
            queue.lanes[lane].done += 1;
            known += 1;
        }
        drop(queue);
        self.relieve();
        Ok(known)
    }

    /// These are to be sent again: no acknowledgement came. Unknown ids are no fault.
    pub fn release(&self, ids: &[RecordId]) {
        let mut queue = lock(&self.0.queue);
        for &id in ids {
            queue.release(id);
        }
    }

    /// Everything that is leased is to be sent again: the connection is lost.
    pub fn release_all(&self) {
        let mut queue = lock(&self.0.queue);
        let ids: Vec<RecordId> = queue.leased.keys().copied().collect();
        for id in ids {
            queue.release(id);
        }
    }

    /// Everything pushed up to now is backlog, everything pushed from now on is live.
    pub fn mark_backlog(&self) {
        lock(&self.0.queue).mark_backlog();
    }

    /// The receiver refuses a leased record for ever: it is dropped and counted. False if it is not known.
    ///
    /// # Errors
    /// None today.
    pub fn reject(&self, id: RecordId, reason: &str) -> Result<bool, SpoolError> {
        let mut queue = lock(&self.0.queue);
        let Some(key) = queue.take_known(id) else { return Ok(false) };
        let Some(lane) = queue.lane_of(key.place.slot) else { return Ok(false) };
        tracing::warn!(%id, lane = queue.lanes[lane].options.name, reason, "the receiver rejects a record");
        queue.drop_stored(lane, key, Some(id), Reason::Rejected);
        Ok(true)
    }

    /// Drops records that are older than their lane or the spool allows, not those in flight. Call it now and then,
    /// with the time since 1970, once the clock is known to be right: the spool has none of its own, and a record's
    /// age counts from the first call after its push. It is late by up to a sixteenth of the greatest age. Returns
    /// how many records were dropped; at most some thousand go at once.
    ///
    /// # Errors
    /// If the disk or the index cannot be read.
    pub fn expire(&self, now: Duration) -> Result<u64, SpoolError> {
        let expired = lock(&self.0.queue).expire(now);
        self.relieve();
        expired
    }

    /// How long to wait with the next commit: `interval`, or longer while the write budget is overdrawn. `now` is
    /// the time since any fixed moment, by a clock that is never put back. [`Stats::budget`] tells.
    pub fn pace(&self, interval: Duration, now: Duration) -> Duration {
        let mut queue = lock(&self.0.queue);
        let written = queue.bytes_written;
        queue.pace.next(interval, now, written)
    }

    /// How the spool is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let free_bytes = self.0.disk.free(&self.0.dir);
        let queue = lock(&self.0.queue);
        let mut leased = vec![0; queue.lanes.len()];
        for place in &queue.leased_places {
            if let Some(lane) = queue.lane_of(place.slot) {
                leased[lane] += 1;
            }
        }
        let lane = |(lane, leased): (&crate::queue::LaneState, u64)| LaneStats {
            name: lane.options.name,
            records: lane.records,
            bytes: lane.bytes,
            leased,
            pushed: lane.pushed,
            done: lane.done,
            dropped: lane.dropped,
        };
        let low = free_bytes.is_some_and(|free| free < queue.min_free_bytes);
        Stats {
            lanes: queue.lanes.iter().zip(leased).map(lane).collect(),
            bytes: queue.total_bytes(),
            uncommitted: queue.pending.len() as u64,
            bytes_written: queue.bytes_written,
            commits: queue.commits,
            budget: queue.pace.budget(),
            index_bytes: queue.index.as_ref().map_or(0, crate::index::Index::bytes_on_disk),
            free_bytes,
            degraded: queue.fault.clone().or_else(|| low.then_some(Degraded::DiskLow)),
        }
    }

    /// The stored records of a lane, oldest first, without their payloads. Records that are not yet durable
    /// are not among them. The listing may run beside everything else and then shows a mixture of before and
    /// after.
    ///
    /// # Errors
    /// If there is no such lane.
    pub fn iter(&self, lane: Lane) -> Result<crate::Listing<'_>, SpoolError> {
        let queue = lock(&self.0.queue);
        let slot = queue.lanes.get(usize::from(lane.0)).ok_or(SpoolError::NoSuchLane(lane.0))?.slot;
        drop(queue);
        let inner = &self.0;
        Ok(crate::Listing::new(move |from| {
            let mut queue = lock(&inner.queue);
            let mut page = Vec::new();
            let mut walk = queue.walk(slot, from, u64::MAX)?;
            while page.len() < crate::listing::PAGE
                && let Some(found) = queue.next_of(&mut walk)?
            {
                if !queue.is_leaving(found.0.place) && !queue.pending.contains_key(&found.0.place) {
                    page.push(found);
                }
            }
            Ok(page)
        }))
    }

    /// Commits if more waits than memory should hold. A failure shows at the next commit; until that one works,
    /// trying at every push would only wear the disk.
    fn relieve(&self) {
        let queue = lock(&self.0.queue);
        let much =
            queue.fault.is_none() && (queue.pending_bytes > PENDING_SOFT || queue.gone.len() > GONE_SOFT);
        drop(queue);
        if much {
            let _ = self.0.commit();
        }
    }
}

impl Inner {
    fn first_open(&self) -> Result<Option<crate::Repair>, SpoolError> {
        let mut queue = lock(&self.queue);
        let (index, meta, repair) = open_index(&self.dir, &queue.files, &Trust::AsItIs)?;
        self.start_epoch(&mut queue, index, meta)?;
        Ok(repair)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match self.commit_and(Closing::Yes) {
            Ok(()) => repair::note_closed(&self.dir, lock(&self.queue).meta.commit),
            Err(e) => tracing::error!(error = %e, "the spool's last commit failed"),
        }
    }
}

fn check_sizes(record: &NewRecord<'_>) -> Result<(), SpoolError> {
    const { assert!(INLINE_MAX < PAYLOAD_MAX) };
    for (what, len, max) in
        [("its header", record.header.len(), HEADER_MAX), ("its payload", record.payload.len(), PAYLOAD_MAX)]
    {
        if len > max {
            return Err(SpoolError::TooLarge { id: record.id, what, len, max });
        }
    }
    Ok(())
}

/// One process at a time, told apart by a lock that ends with the process, however it ends.
pub(crate) fn lock_dir(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join("lock");
    let fail = |e| SpoolError::io("open", &path, e);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(e)) => Err(SpoolError::io("lock", &path, e)),
    }
}
