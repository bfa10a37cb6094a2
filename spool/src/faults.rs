//! A disk that fails when the test says so.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use crate::disk::{BALLAST_BYTES, Disk, Site};
use crate::{
    Degraded, Dropped, Durability, Kept, Lane, LaneOptions, LeaseLimit, NewRecord, Options, Payload, Pushed,
    Reason, RecordId, Spool, SpoolError, WhenFull, WhenLow,
};

const ALERT: Lane = Lane(0);
const READING: Lane = Lane(1);
const IMAGE: Lane = Lane(2);
const MIN_FREE: u64 = 100 << 20;

#[derive(Clone, Default)]
struct Faults {
    commit: Arc<AtomicBool>,
    file: Arc<AtomicBool>,
    free: Arc<AtomicU64>,
}

impl Faults {
    fn open(&self, dir: &Path) -> Spool {
        let lane = |name, payload, durability| LaneOptions {
            max_bytes: 64 << 20,
            ..LaneOptions::new(name, payload, durability, WhenFull::DropOldest)
        };
        let options = Options {
            dir: dir.to_owned(),
            lanes: vec![
                LaneOptions {
                    when_low: WhenLow::Insist,
                    ..lane("alert", Payload::Inline, Durability::Immediate)
                },
                lane("reading", Payload::Inline, Durability::Group),
                lane("image", Payload::File, Durability::Group),
            ],
            max_bytes: 64 << 20,
            min_free_bytes: MIN_FREE,
            max_age: None,
            write_budget: None,
        };
        let (this, free) = (self.clone(), self.free.clone());
        let fault = move |site| {
            let fails = match site {
                Site::WriteFile => &this.file,
                _ => &this.commit,
            };
            if fails.load(SeqCst) { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
        };
        Spool::open_on(options, Disk::faked(move |_| Ok(free.load(SeqCst)), fault)).unwrap().0
    }
}

fn healthy() -> Faults {
    let faults = Faults::default();
    faults.free.store(1 << 30, SeqCst);
    faults
}

fn id(n: u32) -> RecordId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    RecordId(id)
}

fn push(spool: &Spool, lane: Lane, n: u32, len: usize) -> Result<Pushed, SpoolError> {
    spool.push(lane, NewRecord { id: id(n), header: b"h", payload: &vec![7; len] })
}

fn ids(spool: &Spool) -> Vec<RecordId> {
    spool.lease(LeaseLimit::new(usize::MAX, u64::MAX)).unwrap().iter().map(|r| r.id).collect()
}

#[test]
fn what_a_full_disk_does_not_take_waits_and_is_written_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let faults = healthy();
    let spool = faults.open(dir.path());
    assert_eq!(push(&spool, ALERT, 1, 10).unwrap().kept, Kept::Durable);
    faults.commit.store(true, SeqCst);
    assert_eq!(push(&spool, READING, 2, 10).unwrap().kept, Kept::NextCommit);
    assert_eq!(push(&spool, ALERT, 3, 10).unwrap().kept, Kept::NextCommit);
    assert!(spool.commit().unwrap_err().is_full());
    assert!(matches!(spool.stats().degraded, Some(Degraded::DiskFull(_))));
    assert!(!dir.path().join("ballast").exists(), "the ballast is thrown off");
    // What is durable can still be sent and removed.
    assert_eq!(ids(&spool), [id(1)]);
    assert_eq!(spool.done(&[id(1)]).unwrap(), 1);

    faults.commit.store(false, SeqCst);
    spool.commit().unwrap();
    assert_eq!(spool.stats().degraded, None);
    assert!(dir.path().join("ballast").exists(), "the ballast is taken in again");
    assert_eq!(ids(&spool), [id(3), id(2)]);
    drop(spool);
    assert_eq!(ids(&faults.open(dir.path())), [id(3), id(2)]);
}

#[test]
fn memory_stays_bounded_while_the_disk_is_full_and_every_loss_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let faults = healthy();
    let spool = faults.open(dir.path());
    faults.commit.store(true, SeqCst);
    let results: Vec<_> = (0..900).map(|n| push(&spool, READING, n, 6000)).collect();
    let accepted = results.iter().filter(|r| r.is_ok()).count();
    assert!((600..720).contains(&accepted), "4 MiB hold {accepted}");
    assert!(results.iter().flat_map(|r| r.as_ref().err()).all(SpoolError::is_full));
    let lane = &spool.stats().lanes[1];
    assert_eq!(lane.dropped_for(Reason::DiskFull), 900 - accepted as u64);
    assert_eq!((lane.pushed, lane.records), (accepted as u64, accepted as u64));
    // An alert still finds room, at the cost of the oldest reading that waits.
    let alert = push(&spool, ALERT, 9999, 6000).unwrap();
    assert_eq!(alert.kept, Kept::NextCommit);
    assert_eq!(
        alert.dropped.iter().map(|d| (d.id, d.reason)).collect::<Vec<_>>(),
        [(Some(id(0)), Reason::DiskFull)]
    );
    faults.commit.store(false, SeqCst);
    spool.commit().unwrap();
    assert_eq!(ids(&spool).len(), accepted);
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let faults = healthy();
    let spool = faults.open(dir.path());
    faults.file.store(true, SeqCst);
    assert!(push(&spool, IMAGE, 1, 9000).unwrap_err().is_full());
    assert_eq!(spool.stats().lanes[2].dropped_for(Reason::DiskFull), 1);
    assert_eq!(spool.stats().bytes, 0);
    faults.file.store(false, SeqCst);
    let _ = push(&spool, IMAGE, 2, 9000).unwrap();
    spool.commit().unwrap();
    assert_eq!(ids(&spool), [id(2)]);
}

#[test]
fn on_a_low_disk_the_spool_does_not_grow_and_alerts_still_find_room() {
    let dir = tempfile::tempdir().unwrap();
    let faults = healthy();
    let spool = faults.open(dir.path());
    for n in 0..3 {
        let _ = push(&spool, IMAGE, n, 4000).unwrap();
    }
    spool.commit().unwrap();
    let before = spool.stats().bytes;
    faults.free.store(MIN_FREE - 1, SeqCst);
    assert_eq!(spool.stats().degraded, Some(Degraded::DiskLow));
    let pushed = push(&spool, ALERT, 10, 1000).unwrap();
    assert_eq!(pushed.kept, Kept::Durable);
    assert_eq!(
        pushed.dropped.iter().map(|d| (d.id, d.reason)).collect::<Vec<_>>(),
        [(Some(id(0)), Reason::DiskLow)]
    );
    assert!(spool.stats().bytes <= before);
    // An image costs an older image; a reading may not cost an alert.
    assert_eq!(push(&spool, IMAGE, 3, 4000).unwrap().dropped.len(), 1);
    faults.free.store(MIN_FREE + 100_000, SeqCst);
    assert_eq!(push(&spool, IMAGE, 4, 4000).unwrap().dropped, []);
    assert_eq!(spool.stats().degraded, None);
}

#[test]
fn an_alert_is_not_refused_for_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let faults = healthy();
    let spool = faults.open(dir.path());
    // Others have taken all there is, and there is nothing that could give way.
    faults.free.store(0, SeqCst);
    assert_eq!(push(&spool, READING, 1, 100).unwrap().kept, Kept::Refused);
    assert_eq!(push(&spool, ALERT, 2, 100).unwrap().kept, Kept::Durable);
    // Where the disk does not even take it, it waits in memory.
    faults.commit.store(true, SeqCst);
    assert_eq!(push(&spool, ALERT, 3, 100).unwrap().kept, Kept::NextCommit);
    assert_eq!(spool.stats().lanes[0].dropped, [0; Reason::ALL.len()]);
    faults.commit.store(false, SeqCst);
    spool.commit().unwrap();
    assert_eq!(ids(&spool), [id(2), id(3)]);
}

#[test]
fn a_missing_ballast_is_only_taken_in_when_the_disk_can_spare_it() {
    let dir = tempfile::tempdir().unwrap();
    let faults = healthy();
    faults.free.store(MIN_FREE + BALLAST_BYTES, SeqCst);
    let spool = faults.open(dir.path());
    assert!(!dir.path().join("ballast").exists());
    // What is delivered soon finds room; beyond that the oldest gives way.
    assert_eq!(push(&spool, READING, 1, 6000).unwrap().dropped, []);
    let dropped = push(&spool, READING, 2, 3000).unwrap().dropped;
    assert!(matches!(dropped[..], [Dropped { reason: Reason::DiskLow, .. }]), "{dropped:?}");
    faults.free.store(MIN_FREE + 2 * BALLAST_BYTES, SeqCst);
    spool.commit().unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("ballast")).unwrap().len(), BALLAST_BYTES);
    assert_eq!(push(&spool, READING, 3, 100).unwrap().kept, Kept::NextCommit);
}

#[test]
fn the_list_of_removals_is_bounded_while_the_disk_takes_none() {
    let dir = tempfile::tempdir().unwrap();
    let faults = healthy();
    let spool = faults.open(dir.path());
    for n in 0..200 {
        let _ = push(&spool, IMAGE, n, 100).unwrap();
    }
    spool.commit().unwrap();
    faults.commit.store(true, SeqCst);
    let deliver = || {
        let ids: Vec<RecordId> =
            spool.lease(LeaseLimit::new(10, u64::MAX)).unwrap().iter().map(|r| r.id).collect();
        spool.done(&ids).unwrap()
    };
    let delivered: usize = (0..20).map(|_| deliver()).sum();
    assert_eq!(delivered, 70, "64 removals wait, and what was in flight");
    assert!(spool.commit().is_err());
    assert_eq!(deliver(), 0);
    // Small records need no room in that list.
    assert_eq!(push(&spool, ALERT, 1000, 10).unwrap().kept, Kept::NextCommit);
    faults.commit.store(false, SeqCst);
    spool.commit().unwrap();
    let mut delivered = 0;
    while spool.stats().records() > 0 {
        delivered += deliver();
        spool.commit().unwrap();
    }
    assert_eq!(delivered, 131);
}
