//! Crashes and errors in the midst of every operation.
//!
//! At any place where the spool is about to touch the disk, the folder may be copied as it is then, and the end of
//! what was not fsynced cut off: that copy is the disk after a power cut. Or the disk gives errors there, one or a
//! few in a row. What must hold all the same: what was reported durable is there or was reported as gone, nothing
//! comes up that was never pushed, no lane has a gap, and few records come back that were done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use crate::disk::{Disk, Site};
use crate::segments::UNNOTED_MAX;
use crate::spool::lock;
use crate::support::{ALL, LANES, copy_dir, id, number, options, payload, quick_dir};
use crate::{Kept, NewRecord, Spool};

#[derive(Debug, Clone, Copy)]
enum Op {
    Push {
        lane: usize,
        len: usize,
    },
    Commit,
    Deliver {
        records: usize,
    },
    Release,
    Reopen,
    /// The disk fails at the next places it is touched, but for some.
    Fail {
        after: usize,
        times: usize,
    },
    /// The power goes at one of the next places, and some of what was not fsynced is there.
    Crash {
        after: usize,
        torn: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..3usize, 0..900usize).prop_map(|(lane, len)| Op::Push { lane, len }),
        1 => (0..3usize, 6000..9000usize).prop_map(|(lane, len)| Op::Push { lane, len }),
        4 => (0..9000usize).prop_map(|len| Op::Push { lane: 3, len }),
        5 => Just(Op::Commit),
        5 => (1..20usize).prop_map(|records| Op::Deliver { records }),
        1 => Just(Op::Release),
        1 => Just(Op::Reopen),
        3 => (0..6usize, 1..5usize).prop_map(|(after, times)| Op::Fail { after, times }),
        3 => (0..12usize, 0..4000usize).prop_map(|(after, torn)| Op::Crash { after, torn }),
    ]
}

/// What the disk is told to do.
#[derive(Default)]
struct Plan {
    fail_after: usize,
    fails: usize,
    crash_after: Option<usize>,
    torn: usize,
    /// Lengths of segments that are known to be fsynced.
    synced: BTreeMap<PathBuf, u64>,
    /// The disk after the power cut, and what was expected of it at that moment.
    crashed: Option<(tempfile::TempDir, Promises)>,
    promises: Promises,
}

/// What the spool has said so far, by lane.
#[derive(Debug, Default, Clone)]
struct Promises {
    pushed: [BTreeSet<u64>; 4],
    accepted: [BTreeSet<u64>; 4],
    durable: [BTreeSet<u64>; 4],
    left: [BTreeSet<u64>; 4],
    left_uncommitted: usize,
}

impl Plan {
    /// But between a write and its fsync, everything in a segment is fsynced: a write that failed is cut off again.
    fn note_synced(&mut self, dir: &Path) {
        for path in segments(dir) {
            let len = fs::metadata(&path).unwrap().len();
            self.synced.insert(path.strip_prefix(dir).unwrap().to_owned(), len);
        }
    }
}

type Shared = Arc<Mutex<Plan>>;

fn touch(plan: &Shared, dir: &Path, site: Site) -> io::Result<()> {
    let mut plan = lock(plan);
    if site != Site::SyncSegment {
        plan.note_synced(dir);
    }
    if let Some(after) = plan.crash_after {
        plan.crash_after = after.checked_sub(1);
        if after == 0 {
            let copy = quick_dir();
            copy_dir(dir, copy.path());
            tear(copy.path(), &plan);
            plan.crashed = Some((copy, plan.promises.clone()));
        }
    }
    if plan.fails > 0 && site != Site::Remove {
        if plan.fail_after > 0 {
            plan.fail_after -= 1;
        } else {
            plan.fails -= 1;
            let kind =
                if plan.fails.is_multiple_of(2) { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
            return Err(kind.into());
        }
    }
    Ok(())
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    crate::support::files_under(&dir.join("segments"))
}

/// Leaves of each segment what was fsynced and so many bytes more.
fn tear(copy: &Path, plan: &Plan) {
    for path in segments(copy) {
        let synced = plan.synced.get(path.strip_prefix(copy).unwrap()).copied().unwrap_or(0);
        let len = fs::metadata(&path).unwrap().len();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(len.min(synced + plan.torn as u64)).unwrap();
    }
}

struct Run {
    dir: tempfile::TempDir,
    plan: Shared,
    spool: Option<Spool>,
    next: u64,
}

fn open(dir: &Path, plan: &Shared) -> Spool {
    let (plan, home) = (plan.clone(), dir.to_owned());
    let disk = Disk::faked(|_| Ok(1 << 40), move |site| touch(&plan, &home, site));
    Spool::open_on(options(dir), disk).unwrap().0
}

fn stored(spool: &Spool) -> [Vec<u64>; 4] {
    LANES.map(|lane| spool.iter(lane).unwrap().map(|r| number(r.unwrap().id.unwrap())).collect())
}

impl Run {
    fn new() -> Self {
        let dir = quick_dir();
        let plan = Shared::default();
        let spool = Some(open(dir.path(), &plan));
        Self { dir, plan, spool, next: 0 }
    }

    /// All that was accepted is durable.
    fn committed(&self) {
        let mut plan = lock(&self.plan);
        plan.promises.durable = plan.promises.accepted.clone();
        plan.promises.left_uncommitted = 0;
    }

    fn push(&mut self, lane: usize, len: usize) {
        self.next += 1;
        let n = self.next;
        lock(&self.plan).promises.pushed[lane].insert(n);
        let record = NewRecord { id: id(n), header: &n.to_le_bytes(), payload: &payload(n, len) };
        match self.spool.as_ref().unwrap().push(LANES[lane], record) {
            Ok(pushed) => {
                assert_eq!(pushed.dropped, []);
                assert_ne!(pushed.kept, Kept::Refused);
                lock(&self.plan).promises.accepted[lane].insert(n);
                if pushed.kept == Kept::Durable {
                    self.committed();
                }
            }
            Err(e) => assert!(e.is_transient(), "{e}"),
        }
    }

    fn deliver(&self, records: usize) {
        let spool = self.spool.as_ref().unwrap();
        let records = match spool.lease(crate::LeaseLimit::new(records, u64::MAX)) {
            Ok(records) => records,
            Err(e) => return assert!(e.is_transient(), "{e}"),
        };
        for r in &records {
            let n = number(r.id);
            assert_eq!(r.payload, payload(n, r.payload.len()));
            let mut plan = lock(&self.plan);
            let lane = usize::from(r.lane.0);
            // A commit that failed may have made it durable; that it is leased is a promise.
            plan.promises.durable[lane].insert(n);
            plan.promises.left[lane].insert(n);
            plan.promises.left_uncommitted += 1;
        }
        let ids: Vec<_> = records.iter().map(|r| r.id).collect();
        assert_eq!(spool.done(&ids).unwrap(), ids.len());
    }

    /// The spool comes up from what a crash, or a stop, has left.
    fn check(&mut self, dir: tempfile::TempDir, promises: Promises) {
        *lock(&self.plan) = Plan::default();
        let spool = open(dir.path(), &self.plan);
        let mut back = 0;
        for (lane, there) in stored(&spool).into_iter().enumerate() {
            assert!(there.is_sorted_by(|a, b| a < b), "lane {lane}: {there:?}");
            let there: BTreeSet<u64> = there.into_iter().collect();
            let left = &promises.left[lane];
            assert!(there.is_subset(&promises.pushed[lane]), "lane {lane}: who pushed {there:?}?");
            let lost: Vec<_> =
                promises.durable[lane].iter().filter(|n| !there.contains(n) && !left.contains(n)).collect();
            assert!(lost.is_empty(), "lane {lane} has lost {lost:?}");
            // No gap: below the newest that is there, everything accepted is there.
            let newest = there.last().copied().unwrap_or(0);
            let gap: Vec<_> = promises.accepted[lane]
                .range(..newest)
                .filter(|n| !there.contains(n) && !left.contains(n))
                .collect();
            assert!(gap.is_empty(), "lane {lane} has a gap below {newest}: {gap:?}");
            back += there.intersection(left).count();
        }
        assert!(back <= UNNOTED_MAX as usize + promises.left_uncommitted, "{back} are back");
        // From here on it is as if nothing had been.
        let mut fresh = Promises { pushed: promises.pushed, ..Promises::default() };
        fresh.accepted = stored(&spool).map(|lane| lane.into_iter().collect());
        lock(&self.plan).promises = fresh;
        self.dir = dir;
        self.spool = Some(spool);
        self.committed();
        let stats = self.spool.as_ref().unwrap().stats();
        assert_eq!(stats.lanes.iter().flat_map(|l| l.dropped).sum::<u64>(), 0);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Push { lane, len } => self.push(lane, len),
            Op::Commit => match self.spool.as_ref().unwrap().commit() {
                Ok(()) => self.committed(),
                Err(e) => assert!(e.is_transient(), "{e}"),
            },
            Op::Deliver { records } => self.deliver(records),
            Op::Release => self.spool.as_ref().unwrap().release_all(),
            Op::Reopen => {
                // The last commit may fail like any other: then this is a crash after it.
                self.spool = None;
                let promises = lock(&self.plan).promises.clone();
                let copy = quick_dir();
                copy_dir(self.dir.path(), copy.path());
                self.check(copy, promises);
            }
            Op::Fail { after, times } => {
                let mut plan = lock(&self.plan);
                (plan.fail_after, plan.fails) = (after, times);
            }
            Op::Crash { after, torn } => {
                let mut plan = lock(&self.plan);
                (plan.crash_after, plan.torn) = (Some(after), torn);
            }
        }
        let crashed = lock(&self.plan).crashed.take();
        if let Some((dir, promises)) = crashed {
            lock(&self.plan).fails = 0;
            self.spool = None;
            self.check(dir, promises);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_crash_and_no_error_breaks_a_promise(ops in proptest::collection::vec(op(), 1..150)) {
        let mut run = Run::new();
        for op in ops {
            run.apply(op);
        }
        // The disk is well again: everything comes out, and nothing is left.
        let promises = lock(&run.plan).promises.clone();
        *lock(&run.plan) = Plan { promises, ..Plan::default() };
        run.spool.as_ref().unwrap().commit().unwrap();
        run.committed();
        let spool = run.spool.as_ref().unwrap();
        spool.release_all();
        let out: BTreeSet<u64> = spool.lease(ALL).unwrap().iter().map(|r| number(r.id)).collect();
        let promises = lock(&run.plan).promises.clone();
        for lane in 0..4 {
            let owed: Vec<_> = promises.accepted[lane].difference(&promises.left[lane]).collect();
            assert!(owed.iter().all(|n| out.contains(n)), "lane {lane}");
        }
        spool.done(&out.iter().map(|n| id(*n)).collect::<Vec<_>>()).unwrap();
        spool.commit().unwrap();
        assert_eq!((spool.stats().records(), spool.stats().bytes), (0, 0));
        run.spool = None;
        assert_eq!(segments(run.dir.path()), Vec::<PathBuf>::new());
    }
}

/// More by SPOOL_CASES, for the night.
fn cases() -> u32 {
    std::env::var("SPOOL_CASES").ok().map_or(60, |n| n.parse().unwrap())
}
