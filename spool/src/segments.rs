//! Small records, packed: `segments/<slot>/<order of the first record>`, in hex.
//!
//! A commit appends the records of a lane as one pack to the lane's newest segment and fsyncs it: a page or two
//! of disk for what waited, where a tree would rewrite its leaves. Which records are gone is a bit each in memory,
//! noted in the index now and then. A segment whose records are all gone is removed as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use crate::disk::{Disk, Site, create_dir, sync_dir};
use crate::files::Tidy;
use crate::format::{Key, Place};
use crate::pack::{self, Found, Pack};
use crate::segment::{SEGMENT_BYTES, SPAN_MAX, Segment};
use crate::{Reason, SpoolError};

/// Segments of a lane whose contents are known at once: one for its live records, one for its backlog.
const CACHED: usize = 2;
/// Records that may go out a second time after a crash: done, and not yet noted.
pub(crate) const UNNOTED_MAX: u32 = 512;
const PAGE: usize = 4096;

/// Records that are not there any more, though nobody took them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    pub slot: u8,
    pub reason: Reason,
    pub records: u64,
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Slot {
    segments: BTreeMap<u64, Segment>,
    /// First order of the segment that is being written.
    newest: Option<u64>,
}

/// Where the entries of one segment lie.
#[derive(Debug)]
struct Loaded {
    slot: u8,
    first: u64,
    len: u32,
    file: File,
    found: Vec<Found>,
}

/// All segments of a spool.
#[derive(Debug)]
pub(crate) struct Segments {
    root: PathBuf,
    slots: BTreeMap<u8, Slot>,
    /// The last used ones at the end.
    loaded: Vec<Arc<Loaded>>,
    damage: Vec<Damage>,
    /// Notes of segments that do not exist any more.
    stale: Vec<(u8, u64)>,
}

impl Segments {
    pub fn new(dir: &Path) -> Self {
        Self {
            root: dir.join("segments"),
            slots: BTreeMap::new(),
            loaded: Vec::new(),
            damage: Vec::new(),
            stale: Vec::new(),
        }
    }

    fn folder(&self, slot: u8) -> PathBuf {
        self.root.join(format!("{slot:02x}"))
    }

    fn path(&self, slot: u8, first: u64) -> PathBuf {
        self.folder(slot).join(format!("{first:016x}"))
    }

    /// Gets to know what is on disk, with the help of the index's notes; without one, a segment tells of itself.
    /// With `Tidy::Yes`, files in which nothing is are removed.
    pub fn load(&mut self, notes: Vec<(u8, Segment)>, tidy: Tidy) -> Result<(), SpoolError> {
        let mut notes: BTreeMap<(u8, u64), Segment> =
            notes.into_iter().map(|(slot, s)| ((slot, s.first), s)).collect();
        for slot in self.slots_on_disk()? {
            let folder = self.folder(slot);
            let names = firsts(&folder).map_err(|e| SpoolError::io("read the folder", &folder, e))?;
            let mut known = BTreeMap::new();
            for (i, &first) in names.iter().enumerate() {
                let end = names.get(i + 1).copied().unwrap_or(u64::MAX);
                let segment = self.get_to_know(slot, first, end, notes.remove(&(slot, first)))?;
                if tidy == Tidy::Yes {
                    trim(&self.path(slot, first));
                }
                if segment.live > 0 || segment.noted {
                    known.insert(first, segment);
                } else if tidy == Tidy::Yes {
                    remove(&self.path(slot, first));
                }
            }
            self.slots.insert(slot, Slot { segments: known, newest: None });
        }
        for ((slot, first), note) in notes {
            self.stale.push((slot, first));
            if note.live > 0 {
                self.damage.push(Damage {
                    slot,
                    reason: Reason::FileMissing,
                    records: note.live.into(),
                    bytes: note.live_bytes,
                });
            }
        }
        Ok(())
    }

    fn slots_on_disk(&self) -> Result<Vec<u8>, SpoolError> {
        let names = crate::files::folders(&self.root)
            .map_err(|e| SpoolError::io("read the folder", &self.root, e))?;
        let slot = |path: PathBuf| u8::from_str_radix(path.file_name()?.to_str()?, 16).ok();
        Ok(names.into_iter().filter_map(slot).collect())
    }

    fn get_to_know(
        &mut self,
        slot: u8,
        first: u64,
        end: u64,
        note: Option<Segment>,
    ) -> Result<Segment, SpoolError> {
        let path = self.path(slot, first);
        let mut segment = note.unwrap_or_else(|| Segment::new(first));
        let file = File::open(&path).map_err(|e| SpoolError::io("open", &path, e))?;
        let on_disk = file.metadata().map_err(|e| SpoolError::io("look at", &path, e))?.len();
        if on_disk <= u64::from(segment.len) {
            return Ok(segment);
        }
        // Written since the note: found by reading.
        let bytes = read_all(&file, on_disk).map_err(|e| SpoolError::io("read", &path, e))?;
        let contents = pack::read(&bytes, segment.len as usize, slot, end);
        for found in &contents.found {
            let order = found.key.place.order;
            if order - first.min(order) <= SPAN_MAX && order >= first {
                segment.add(order, found.key.cost);
            }
        }
        segment.len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if contents.lost > 0 {
            self.damage.push(Damage {
                slot,
                reason: Reason::Corrupt,
                records: contents.lost.into(),
                bytes: 0,
            });
        }
        Ok(segment)
    }

    /// What was found missing since it was last asked.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }

    /// Records and bytes stored in a slot.
    pub fn count(&self, slot: u8) -> (u64, u64) {
        let segments = self.slots.get(&slot).into_iter().flat_map(|s| s.segments.values());
        segments.fold((0, 0), |(n, bytes), s| (n + u64::from(s.live), bytes + s.live_bytes))
    }

    pub fn highest_order(&self) -> u64 {
        let last = |s: &Slot| s.segments.values().next_back().map(|s| s.last);
        self.slots.values().filter_map(last).max().unwrap_or(0)
    }

    fn segment_mut(&mut self, place: Place) -> Option<&mut Segment> {
        let segments = &mut self.slots.get_mut(&place.slot)?.segments;
        segments.range_mut(..=place.order).next_back().map(|(_, s)| s).filter(|s| s.spans(place))
    }

    /// True of a record that was in a segment and is done or dropped.
    pub fn is_gone(&self, place: Place) -> bool {
        let segments = self.slots.get(&place.slot).map(|s| &s.segments);
        let found = segments.and_then(|s| s.range(..=place.order).next_back());
        found.is_some_and(|(_, s)| s.spans(place) && s.is_gone(place.order))
    }

    /// A record is done or dropped.
    pub fn mark_gone(&mut self, key: Key) {
        if let Some(segment) = self.segment_mut(key.place) {
            segment.mark_gone(key.place.order, key.cost);
        }
    }

    /// The first stored record of a slot from one order up to and including another.
    pub fn next(&mut self, slot: u8, from: u64, to: u64) -> Result<Option<(Key, sled::IVec)>, SpoolError> {
        let mut from = from;
        while from <= to {
            let Some(first) = self.segment_at(slot, from).filter(|first| *first <= to) else { break };
            let loaded = self.loaded(slot, first)?;
            let segment = &self.slots[&slot].segments[&first];
            let start = loaded.found.partition_point(|f| f.key.place.order < from);
            let order = |f: &Found| f.key.place.order;
            let stored = loaded.found[start..].iter().find(|f| !segment.is_gone(order(f)));
            match stored {
                Some(found) if order(found) > to => break,
                Some(found) => {
                    let mut bytes = vec![0; found.len as usize];
                    if let Err(e) = loaded.file.read_exact_at(&mut bytes, found.at.into()) {
                        // What cannot be read is treated as what does not check out.
                        tracing::warn!(path = %self.path(slot, first).display(), error = %e, "cannot read a record");
                        bytes.clear();
                    }
                    return Ok(Some((found.key, bytes.into())));
                }
                None => from = segment.last.max(from).saturating_add(1),
            }
        }
        Ok(None)
    }

    /// The segment with records at or behind an order.
    fn segment_at(&self, slot: u8, order: u64) -> Option<u64> {
        let segments = &self.slots.get(&slot)?.segments;
        let before = segments.range(..=order).next_back().filter(|(_, s)| s.last >= order && s.live > 0);
        let found = before.or_else(|| segments.range(order..).find(|(_, s)| s.live > 0))?;
        Some(*found.0)
    }

    fn loaded(&mut self, slot: u8, first: u64) -> Result<Arc<Loaded>, SpoolError> {
        let len = self.slots[&slot].segments[&first].len;
        if let Some(at) = self.loaded.iter().position(|l| l.slot == slot && l.first == first && l.len == len)
        {
            let loaded = self.loaded.remove(at);
            self.loaded.push(loaded.clone());
            return Ok(loaded);
        }
        let end = self.slots[&slot].segments.range(first + 1..).next().map_or(u64::MAX, |(next, _)| *next);
        let path = self.path(slot, first);
        let (file, found, reason) = match File::open(&path) {
            Ok(file) => {
                let bytes = read_all(&file, len.into()).map_err(|e| SpoolError::io("read", &path, e))?;
                let found = pack::read(&bytes, 0, slot, end).found;
                (file, found, Reason::Corrupt)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let nothing = File::open("/dev/null").map_err(|e| SpoolError::io("open", &path, e))?;
                (nothing, Vec::new(), Reason::FileMissing)
            }
            Err(e) => return Err(SpoolError::io("open", &path, e)),
        };
        self.compare(slot, first, &found, reason);
        let loaded = Arc::new(Loaded { slot, first, len, file, found });
        self.loaded.retain(|l| l.slot != slot || l.first != first);
        if self.loaded.iter().filter(|l| l.slot == slot).count() >= CACHED {
            let oldest = self.loaded.iter().position(|l| l.slot == slot).expect("there are some");
            self.loaded.remove(oldest);
        }
        self.loaded.push(loaded.clone());
        Ok(loaded)
    }

    /// What should be in a segment and is not is lost; what is in it and was not known counts.
    fn compare(&mut self, slot: u8, first: u64, found: &[Found], reason: Reason) {
        let segment = self.slots.get_mut(&slot).and_then(|s| s.segments.get_mut(&first));
        let segment = segment.expect("the caller found it");
        let stored = found.iter().filter(|f| !segment.is_gone(f.key.place.order));
        let (live, bytes) = stored.fold((0, 0), |(n, sum), f| (n + 1, sum + u64::from(f.key.cost)));
        if live != segment.live {
            self.damage.push(Damage {
                slot,
                reason,
                records: segment.live.saturating_sub(live).into(),
                bytes: segment.live_bytes.saturating_sub(bytes),
            });
            (segment.live, segment.live_bytes) = (live, bytes);
            segment.unnoted += 1;
        }
    }

    /// Where the next pack of a slot goes. At most one writer a slot at a time.
    pub fn writer(&mut self, slot: u8, pack: &Pack) -> Writer {
        let folder = self.folder(slot);
        let (order, last) = match (pack.keys.first(), pack.keys.last()) {
            (Some(first), Some(last)) => (first.place.order, last.place.order),
            _ => (0, 0),
        };
        let state = self.slots.entry(slot).or_default();
        let fits = |s: &&Segment| {
            s.len as usize + pack.bytes.len() <= SEGMENT_BYTES as usize && last - s.first < SPAN_MAX
        };
        let newest = state.newest.and_then(|first| state.segments.get(&first)).filter(fits);
        let (first, at) = newest.map_or((order, 0), |s| (s.first, s.len));
        Writer { path: folder.join(format!("{first:016x}")), folder, first, at }
    }

    /// A pack is durable.
    pub fn wrote(&mut self, slot: u8, writer: &Writer, pack: &Pack) {
        let state = self.slots.entry(slot).or_default();
        state.newest = Some(writer.first);
        let segment = state.segments.entry(writer.first).or_insert_with(|| Segment::new(writer.first));
        segment.len = writer.at + u32::try_from(pack.bytes.len()).expect("a segment is far below 4 GiB");
        for key in &pack.keys {
            segment.add(key.place.order, key.cost);
        }
    }

    /// After a failed write nothing more goes into that segment: what the disk holds behind its last good byte is
    /// not known.
    pub fn seal(&mut self, slot: u8) {
        if let Some(state) = self.slots.get_mut(&slot) {
            state.newest = None;
        }
    }

    /// Whether the index should be told of segments: some are full or empty, or much is gone that it does not know.
    pub fn notes_are_due(&self) -> bool {
        let mut unnoted = 0;
        for state in self.slots.values() {
            for s in state.segments.values().filter(|s| Some(s.first) != state.newest) {
                if !s.noted || s.live == 0 {
                    return true;
                }
                unnoted += s.unnoted;
            }
            unnoted += state.newest.and_then(|n| state.segments.get(&n)).map_or(0, |s| s.unnoted);
        }
        unnoted >= UNNOTED_MAX || self.stale.len() > 64
    }

    /// The index is a new one and has no notes.
    pub fn note_all_anew(&mut self) {
        self.stale.clear();
        for segment in self.slots.values_mut().flat_map(|s| s.segments.values_mut()) {
            segment.noted = false;
        }
    }

    /// All that the index does not know. With `all`, also of segments that are being written, and these are sealed.
    pub fn notes(&mut self, all: Closing) -> Notes {
        let mut notes = Notes { stale: self.stale.clone(), ..Notes::default() };
        for (&slot, state) in &mut self.slots {
            if all == Closing::Yes {
                state.newest = None;
            }
            for s in state.segments.values() {
                let newest = Some(s.first) == state.newest;
                if s.unnoted > 0 || (!newest && (!s.noted || s.live == 0)) {
                    notes.put.push((slot, s.clone()));
                }
            }
        }
        notes
    }

    /// The index knows now. Returns the files of segments that are of no use any more.
    pub fn noted(&mut self, notes: &Notes) -> Vec<PathBuf> {
        self.stale.retain(|s| !notes.stale.contains(s));
        let mut removed = Vec::new();
        for (slot, note) in &notes.put {
            let path = self.path(*slot, note.first);
            let Some(state) = self.slots.get_mut(slot) else { continue };
            let newest = state.newest == Some(note.first);
            let Some(s) = state.segments.get_mut(&note.first) else { continue };
            s.noted = true;
            s.unnoted = s.unnoted.saturating_sub(note.unnoted);
            if note.live == 0 && !newest {
                state.segments.remove(&note.first);
                self.stale.push((*slot, note.first));
                self.loaded.retain(|l| l.slot != *slot || l.first != note.first);
                removed.push(path);
            }
        }
        removed
    }
}

/// Whether the spool closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    Yes,
    No,
}

/// Notes to be written with one batch.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub put: Vec<(u8, Segment)>,
    pub stale: Vec<(u8, u64)>,
}

impl Notes {
    pub const fn is_empty(&self) -> bool {
        self.put.is_empty() && self.stale.is_empty()
    }
}

/// Removes the files of segments, durably: a power cut must not bring them back without the note that says that
/// they are empty.
pub(crate) fn remove_durably(paths: &[PathBuf]) {
    let mut folders: Vec<&Path> = paths.iter().filter_map(|p| p.parent()).collect();
    paths.iter().for_each(|p| remove(p));
    folders.dedup();
    for folder in folders {
        if let Err(e) = sync_dir(folder) {
            tracing::warn!(error = %e, "removed segments may come back after a power cut");
        }
    }
}

fn remove(path: &Path) {
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), error = %e, "could not remove a segment");
    }
}

/// Gives back the blocks that were allocated beyond a segment's end.
fn trim(path: &Path) {
    let Ok(meta) = fs::metadata(path) else { return };
    if meta.blocks() * 512 > meta.len().next_multiple_of(2 * PAGE as u64) {
        let _ = File::options().write(true).open(path).and_then(|file| file.set_len(meta.len()));
    }
}

/// Appends one pack.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    folder: PathBuf,
    first: u64,
    at: u32,
}

impl Writer {
    /// Returns once the pack is durable, with the bytes of the pages that were touched. If it fails, the segment
    /// is cut back to what it was, as far as the disk lets us.
    pub fn write(&self, pack: &Pack, disk: &Disk) -> Result<u64, SpoolError> {
        let write = || {
            disk.at(Site::Append)?;
            let new = self.at == 0;
            let file = File::options().write(true).create(new).truncate(new).open(&self.path)?;
            if new {
                // Blocks that are there already need no writes of the file system's own later. It is no fault if
                // it cannot.
                let all = SEGMENT_BYTES.into();
                let _ = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, all);
            }
            let written = (|| {
                file.write_all_at(&pack.bytes, self.at.into())?;
                disk.at(Site::SyncSegment)?;
                file.sync_data()
            })();
            if written.is_err() {
                let _ = file.set_len(self.at.into());
            }
            written
        };
        let io = |e| SpoolError::io("write", &self.path, e);
        let root = self.folder.parent().expect("a slot's folder lies in the root");
        create_dir(root).and_then(|()| create_dir(&self.folder))?;
        let written =
            write().map_err(io).and_then(|()| if self.at == 0 { sync_dir(&self.folder) } else { Ok(()) });
        if written.is_err() && self.at == 0 {
            let _ = fs::remove_file(&self.path);
        }
        let (from, to) = (self.at as usize / PAGE, (self.at as usize + pack.bytes.len()).div_ceil(PAGE));
        written.map(|()| ((to - from) * PAGE) as u64)
    }
}

fn firsts(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let first = name.to_str().filter(|n| n.len() == 16).and_then(|n| u64::from_str_radix(n, 16).ok());
        found.extend(first);
    }
    found.sort_unstable();
    Ok(found)
}

/// The first `len` bytes of a file, or all if it is shorter. Pages that the disk does not give are zeros: they cost
/// the records that lie in them.
fn read_all(file: &File, len: u64) -> io::Result<Vec<u8>> {
    let len = len.min(file.metadata()?.len()).min(2 * u64::from(SEGMENT_BYTES));
    let mut bytes = vec![0; usize::try_from(len).expect("bounded by the size of segments")];
    if let Err(e) = file.read_exact_at(&mut bytes, 0) {
        if e.raw_os_error() != Some(rustix::io::Errno::IO.raw_os_error()) {
            return Err(e);
        }
        for (page, at) in bytes.chunks_mut(PAGE).zip((0..).step_by(PAGE)) {
            if file.read_exact_at(page, at).is_err() {
                page.fill(0);
            }
        }
    }
    Ok(bytes)
}
