//! Making things durable, and getting up again when the disk does not let us.

use crate::files::Files;
use crate::format::{Key, Place};
use crate::index::Index;
use crate::meta::Meta;
use crate::queue::{EPOCH_BITS, EPOCH_MAX, Queue};
use crate::repair::{Trust, open_index};
use crate::spool::{Inner, lock};
use crate::{Degraded, Payload, Repair, SpoolError};

/// What one batch holds; all of it is durable once the batch is.
struct Batch {
    index: Index,
    meta: Meta,
    inserted: Vec<Place>,
    removed: Vec<Key>,
}

impl Inner {
    /// Makes everything durable that was accepted before the call. One at a time: who waits here finds, more
    /// often than not, that the one before has done its work.
    pub fn commit(&self) -> Result<(), SpoolError> {
        let _one = lock(&self.committing);
        let mut result = self.commit_once();
        if let Err(e) = &result {
            tracing::debug!(error = %e, "a commit failed; reopening the index");
            result = self.recover(e).and_then(|_| self.commit_once());
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

    fn commit_once(&self) -> Result<(), SpoolError> {
        let Some(batch) = self.apply(&mut lock(&self.queue))? else { return Ok(()) };
        batch.index.sync()?;
        let files = lock(&self.queue).settle(&batch);
        for key in batch.removed.iter().filter(|k| k.payload == Payload::File) {
            files.remove(key.place);
        }
        Ok(())
    }

    /// Hands all that waits to sled, as one batch. None if nothing does.
    fn apply(&self, queue: &mut Queue) -> Result<Option<Batch>, SpoolError> {
        if let Some(what) = queue.suspect.clone() {
            return Err(SpoolError::Damaged { what });
        }
        let index = queue.index()?.clone();
        if queue.pending.is_empty() && queue.gone.is_empty() {
            return Ok(None);
        }
        self.disk.at(crate::disk::Site::Commit).map_err(|e| SpoolError::io("write to", &self.dir, e))?;
        let mut batch = sled::Batch::default();
        let mut written = 0;
        for (place, key) in &queue.gone {
            debug_assert!(!queue.pending.contains_key(place), "forget takes a record out of pending");
            batch.remove(&key.encode()[..]);
            written += crate::format::KEY_LEN;
        }
        for pending in queue.pending.values_mut() {
            pending.applied = true;
            batch.insert(&pending.key.encode()[..], &pending.entry[..]);
            written += crate::format::KEY_LEN + pending.entry.len();
        }
        let meta = queue.counts();
        Index::put_meta(&mut batch, &meta);
        index.apply(batch)?;
        queue.bytes_written += written as u64;
        Ok(Some(Batch {
            index,
            meta,
            inserted: queue.pending.keys().copied().collect(),
            removed: queue.gone.values().copied().collect(),
        }))
    }

    /// Opens the index again after a fault: sled answers nothing else once it has met one. Called with the
    /// commit lock held and no other handle on the index in use.
    pub fn recover(&self, fault: &SpoolError) -> Result<Option<Repair>, SpoolError> {
        let mut queue = lock(&self.queue);
        queue.index = None;
        if fault.is_full() {
            queue.ballast.release();
        }
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
                queue.recount()?;
            }
        }
        Ok(repair)
    }

    /// Takes over an index that was just opened for the first time: from here on orders are of a new epoch.
    pub fn start_epoch(&self, queue: &mut Queue, index: Index, mut meta: Meta) -> Result<(), SpoolError> {
        let by_files = queue.files.highest_order()? >> EPOCH_BITS;
        meta.epoch = meta.epoch.max(u32::try_from(by_files).unwrap_or(EPOCH_MAX)).min(EPOCH_MAX - 1) + 1;
        meta.commit += 1;
        let mut batch = sled::Batch::default();
        Index::put_meta(&mut batch, &meta);
        index.apply(batch)?;
        index.sync()?;
        queue.load(index, meta);
        Ok(())
    }
}

impl Queue {
    /// A batch is durable. What was dropped meanwhile is in `gone` again, for the next one.
    fn settle(&mut self, batch: &Batch) -> Files {
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
        self.files.clone()
    }
}
