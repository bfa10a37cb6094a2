//! Making things durable, and getting up again when the disk does not let us.

use crate::disk::Site;
use crate::files::Tidy;
use crate::format::{KEY_LEN, Key, Kind, Place};
use crate::index::Index;
use crate::meta::Meta;
use crate::pack::Pack;
use crate::queue::{EPOCH_BITS, EPOCH_MAX, Queue};
use crate::repair::{Trust, open_index};
use crate::segment::{SEGMENT_BYTES, SPAN_MAX};
use crate::segments::{Closing, Notes, remove_durably};
use crate::spool::{Inner, lock};
use crate::{Degraded, Repair, SpoolError};

/// sled writes whole pages, and a few of its own with every batch: measured.
const SLED_PAGE: usize = 4096;
const SLED_BATCH: usize = 4096;

/// What one batch holds; all of it is durable once the batch is.
struct Batch {
    index: Index,
    meta: Meta,
    inserted: Vec<Place>,
    removed: Vec<Key>,
    notes: Notes,
}

impl Inner {
    /// Makes everything durable that was accepted before the call. One at a time: who waits here finds, more
    /// often than not, that the one before has done its work.
    pub fn commit(&self) -> Result<(), SpoolError> {
        self.commit_and(Closing::No)
    }

    pub fn commit_and(&self, closing: Closing) -> Result<(), SpoolError> {
        let _one = lock(&self.committing);
        let mut result = self.commit_once(closing);
        if let Err(e) = &result {
            tracing::debug!(error = %e, "a commit failed; reopening the index");
            result = self.recover(e).and_then(|_| self.commit_once(closing));
        }
        let free = self.disk.free(&self.dir);
        let mut queue = lock(&self.queue);
        match &result {
            Ok(()) => {
                let min_free = queue.min_free_bytes;
                queue.ballast.restore(free, min_free);
                if queue.fault.take().is_some() {
                    tracing::info!("the spool works again");
                }
            }
            Err(e) => {
                let fault = match e {
                    SpoolError::DiskFull { why, .. } => Degraded::DiskFull(why.clone()),
                    e => Degraded::Fault(e.to_string()),
                };
                if queue.fault.replace(fault).is_none() {
                    tracing::error!(error = %e, waiting = queue.pending.len(), "the spool cannot write");
                }
            }
        }
        drop(queue);
        result
    }

    fn commit_once(&self, closing: Closing) -> Result<(), SpoolError> {
        // Removing goes on where adding fails: it makes room.
        let packed = self.write_packs();
        self.write_batch(closing)?;
        packed
    }

    /// Makes durable what waits to be packed, lane by lane and segment by segment.
    fn write_packs(&self) -> Result<(), SpoolError> {
        let ends: Vec<Place> = {
            let queue = lock(&self.queue);
            if !queue.is_loaded() {
                return queue.index().map(|_| ());
            }
            queue.lanes.iter().map(|l| Place { slot: l.slot, order: l.next }).collect()
        };
        for end in ends {
            loop {
                let mut queue = lock(&self.queue);
                let Some(pack) = queue.next_pack(end) else { break };
                let writer = queue.segments.writer(end.slot, &pack);
                drop(queue);
                let written = writer.write(&pack, &self.disk);
                let mut queue = lock(&self.queue);
                match written {
                    Ok(bytes) => {
                        queue.bytes_written += bytes;
                        queue.commits += 1;
                        queue.segments.wrote(end.slot, &writer, &pack);
                        queue.settle_pack(&pack);
                    }
                    Err(e) => {
                        queue.segments.seal(end.slot);
                        queue.take_back(&pack);
                        return Err(e);
                    }
                }
            }
        }
        Ok(())
    }

    fn write_batch(&self, closing: Closing) -> Result<(), SpoolError> {
        let Some(batch) = self.apply(&mut lock(&self.queue), closing)? else { return Ok(()) };
        batch.index.sync()?;
        let (files, emptied) = {
            let mut queue = lock(&self.queue);
            queue.settle(&batch);
            (queue.files.clone(), queue.segments.noted(&batch.notes))
        };
        // A crash here, and what is left is swept at the next open.
        if self.disk.at(Site::Remove).is_err() {
            return Ok(());
        }
        for key in batch.removed.iter().filter(|k| k.kind == Kind::File) {
            files.remove(key.place);
        }
        remove_durably(&emptied);
        Ok(())
    }

    /// Hands all that the index is to know to sled, as one batch. None if that is nothing.
    fn apply(&self, queue: &mut Queue, closing: Closing) -> Result<Option<Batch>, SpoolError> {
        if let Some(what) = queue.suspect.clone() {
            return Err(SpoolError::Damaged { what });
        }
        let index = queue.index()?.clone();
        let news = queue.pending.values().any(|p| p.key.kind != Kind::Packed)
            || !queue.gone.is_empty()
            || queue.ages.news;
        let mut notes = Notes::default();
        if news || closing == Closing::Yes || queue.segments.notes_are_due() {
            notes = queue.segments.notes(closing);
        }
        if !news && notes.is_empty() {
            return Ok(None);
        }
        if !index.reserve() {
            queue.ballast.release();
            if !index.reserve() {
                let why = "sled is not given what it could not write".into();
                return Err(SpoolError::DiskFull { action: "write to the index", why });
            }
        }
        self.disk.at(Site::Commit).map_err(|e| SpoolError::io("write to", &self.dir, e))?;
        let mut batch = sled::Batch::default();
        let mut written = 0;
        for (place, key) in &queue.gone {
            debug_assert!(!queue.pending.contains_key(place), "forget takes a record out of pending");
            batch.remove(&key.encode()[..]);
            written += KEY_LEN;
        }
        let mut inserted = Vec::new();
        for pending in queue.pending.values_mut().filter(|p| p.key.kind != Kind::Packed) {
            pending.applied = true;
            inserted.push(pending.key.place);
            batch.insert(&pending.key.encode()[..], &pending.entry[..]);
            written += KEY_LEN + pending.entry.len();
        }
        Index::put_notes(&mut batch, &notes);
        let ages = std::mem::take(&mut queue.ages.news);
        if ages {
            Index::put_ages(&mut batch, &queue.ages);
        }
        let meta = queue.counts();
        Index::put_meta(&mut batch, &meta);
        index.apply(batch).inspect_err(|_| queue.ages.news |= ages)?;
        queue.bytes_written += (written.div_ceil(SLED_PAGE) * SLED_PAGE + SLED_BATCH) as u64;
        Ok(Some(Batch { index, meta, inserted, removed: queue.gone.values().copied().collect(), notes }))
    }

    /// Opens the index again after a fault: sled answers nothing else once it has met one. Called with the
    /// commit lock held and no other handle on the index in use.
    pub fn recover(&self, fault: &SpoolError) -> Result<Option<Repair>, SpoolError> {
        let mut queue = lock(&self.queue);
        if fault.is_full() {
            queue.ballast.release();
            // It was a segment, or there was no room to give to sled: which goes on where it is.
            if queue.suspect.is_none() && queue.index.as_ref().is_some_and(Index::is_sound) {
                return Ok(None);
            }
        }
        queue.index = None;
        let trust = match queue.suspect.clone() {
            Some(found) => Trust::No(found),
            None => Trust::AsItIs,
        };
        let (index, meta, repair) = open_index(&self.dir, &queue.files, &trust)?;
        queue.suspect = None;
        if !queue.is_loaded() {
            self.start_epoch(&mut queue, index, meta)?;
        } else {
            queue.index = Some(index);
            queue.meta.commit = queue.meta.commit.max(meta.commit);
            if repair.is_some() {
                queue.segments.note_all_anew();
                queue.ages.news = true;
                queue.recount()?;
            }
        }
        Ok(repair)
    }

    /// Takes over an index that was just opened for the first time: from here on orders are of a new epoch.
    pub fn start_epoch(&self, queue: &mut Queue, index: Index, mut meta: Meta) -> Result<(), SpoolError> {
        queue.ages = index.ages()?;
        queue.segments.load(index.notes()?, Tidy::Yes)?;
        let highest = queue.files.highest_order()?.max(queue.segments.highest_order());
        let by_files = highest >> EPOCH_BITS;
        meta.epoch = meta.epoch.max(u32::try_from(by_files).unwrap_or(EPOCH_MAX)).min(EPOCH_MAX - 1) + 1;
        meta.commit += 1;
        let mut batch = sled::Batch::default();
        Index::put_meta(&mut batch, &meta);
        index.apply(batch)?;
        index.sync()?;
        queue.load(index, meta);
        queue.count_damage();
        Ok(())
    }
}

impl Queue {
    /// The next records of a lane that wait to be packed, as many as a segment takes.
    fn next_pack(&mut self, end: Place) -> Option<Pack> {
        let mut pack = Pack::default();
        let mut first = None;
        let waiting = self.pending.range_mut(Place { order: 0, ..end }..end).map(|(_, p)| p);
        for p in waiting.filter(|p| p.key.kind == Kind::Packed) {
            let order = p.key.place.order;
            let first = *first.get_or_insert(order);
            let full = pack.bytes.len() + p.entry.len() > SEGMENT_BYTES as usize;
            if !pack.is_empty() && (full || order - first >= SPAN_MAX) {
                break;
            }
            p.applied = true;
            pack.add(p.key, &p.entry);
        }
        pack.finish(end.slot);
        (!pack.is_empty()).then_some(pack)
    }

    /// A pack is durable. What was dropped meanwhile is gone from the segment too.
    fn settle_pack(&mut self, pack: &Pack) {
        for key in &pack.keys {
            match self.pending.remove(&key.place) {
                Some(p) => self.pending_bytes -= p.entry.len() as u64,
                None => {
                    self.gone.remove(&key.place);
                    self.segments.mark_gone(*key);
                }
            }
        }
    }

    /// A pack could not be written: its records wait on.
    fn take_back(&mut self, pack: &Pack) {
        for key in &pack.keys {
            match self.pending.get_mut(&key.place) {
                Some(p) => p.applied = false,
                None => drop(self.gone.remove(&key.place)),
            }
        }
    }

    /// A batch is durable. What was dropped meanwhile is in `gone` again, for the next one.
    fn settle(&mut self, batch: &Batch) {
        for place in &batch.inserted {
            if let Some(p) = self.pending.remove(place) {
                self.pending_bytes -= p.entry.len() as u64;
            }
        }
        for key in &batch.removed {
            self.gone.remove(&key.place);
        }
        self.meta = batch.meta.clone();
        self.commits += 1;
    }
}
