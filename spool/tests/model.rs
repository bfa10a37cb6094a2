//! The spool against a model of a few vectors, through restarts and crashes.
//!
//! A crash is a copy of the folder at that moment, opened instead of it: what was not committed is not in it.
//! Files are durable one by one, so images survive from their push on. Of the small records that had left, some may
//! be back, since the index is told of them late; how many is bounded. (Crashes and errors in the midst of an
//! operation are in `src/chaos.rs`.)

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use edgeveil_spool::{Kept, LeaseLimit, Options, Reason, Spool, WhenFull};
use proptest::prelude::*;
use support::*;

const MAX_BYTES: u64 = 40_000;
const LANE_MAX: [u64; 4] = [20_000, 2_000, 15_000, 25_000];

#[derive(Debug, Clone)]
enum Op {
    Push { lane: usize, len: usize },
    Commit,
    Lease { records: usize, bytes: u64, backlog: usize },
    Done { which: u64 },
    Release { which: u64 },
    ReleaseAll,
    Reject,
    MarkBacklog,
    Reopen,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (0..3usize, 0..1500usize).prop_map(|(lane, len)| Op::Push { lane, len }),
        1 => (0..3usize, 5000..8000usize).prop_map(|(lane, len)| Op::Push { lane, len }),
        4 => (0..9000usize).prop_map(|len| Op::Push { lane: 3, len }),
        4 => Just(Op::Commit),
        5 => (0..12usize, 0..12_000u64, 0..12usize)
            .prop_map(|(records, bytes, backlog)| Op::Lease { records, bytes, backlog }),
        2 => Just(Op::Lease { records: usize::MAX, bytes: u64::MAX, backlog: usize::MAX }),
        4 => any::<u64>().prop_map(|which| Op::Done { which }),
        2 => any::<u64>().prop_map(|which| Op::Release { which }),
        1 => Just(Op::ReleaseAll),
        1 => Just(Op::Reject),
        1 => Just(Op::MarkBacklog),
        1 => Just(Op::Reopen),
        2 => Just(Op::Crash),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Rec {
    n: u64,
    len: usize,
    cost: u64,
    file: bool,
    durable: bool,
    live: bool,
    leased: bool,
}

#[derive(Debug, Clone, Default)]
struct Model {
    lanes: [Vec<Rec>; 4],
    /// What an open after a crash finds, but for files.
    on_disk: [Vec<Rec>; 4],
    /// Small records that left since the spool was opened.
    left: [Vec<Rec>; 4],
    left_uncommitted: usize,
}

impl Model {
    fn bytes(&self, lane: usize) -> u64 {
        self.lanes[lane].iter().map(|r| r.cost).sum()
    }

    fn total(&self) -> u64 {
        (0..4).map(|l| self.bytes(l)).sum()
    }

    fn commit(&mut self) {
        self.lanes.iter_mut().flatten().for_each(|r| r.durable = true);
        self.on_disk = self.lanes.clone();
        self.left_uncommitted = 0;
    }

    fn remove(&mut self, lane: usize, at: usize) -> u64 {
        let rec = self.lanes[lane].remove(at);
        let n = rec.n;
        if !rec.file && rec.durable {
            self.left[lane].push(rec);
            self.left_uncommitted += 1;
        }
        n
    }

    fn restart(&mut self) {
        for r in self.lanes.iter_mut().flatten() {
            *r = Rec { durable: true, live: false, leased: false, ..r.clone() };
        }
        self.on_disk = self.lanes.clone();
        self.left = Default::default();
        self.left_uncommitted = 0;
    }

    /// `there` is what the spool has now, by lane.
    fn crash(&mut self, there: &[Vec<u64>]) {
        let mut back = 0;
        for (lane, there) in there.iter().enumerate() {
            let files = self.lanes[lane].iter().filter(|r| r.file && !r.durable).cloned().collect::<Vec<_>>();
            self.lanes[lane] = self.on_disk[lane].clone();
            self.lanes[lane].extend(files);
            for rec in std::mem::take(&mut self.left[lane]) {
                if there.contains(&rec.n) && self.lanes[lane].iter().all(|r| r.n != rec.n) {
                    self.lanes[lane].push(rec);
                    back += 1;
                }
            }
            self.lanes[lane].sort_by_key(|r| r.n);
            assert_eq!(*there, self.lanes[lane].iter().map(|r| r.n).collect::<Vec<_>>(), "lane {lane}");
        }
        assert!(back <= 512 + self.left_uncommitted, "{back} are back");
        self.restart();
    }

    /// Backlog before live, durable before pending, oldest first, nothing in flight.
    fn drop_oldest(&mut self, lane: usize) -> Option<u64> {
        let at = self.lanes[lane].iter().position(|r| !r.leased)?;
        Some(self.remove(lane, at))
    }

    fn push(&mut self, lane: usize, n: u64, len: usize) -> (bool, Vec<(u64, Reason)>) {
        let file = lane == 3 || len + 8 > edgeveil_spool::INLINE_MAX;
        let body = if file { (len as u64 + 8 + 64).div_ceil(4096) * 4096 } else { len as u64 };
        let cost = body + 8 + 64;
        // A file is durable by itself, so its elders have to be before it.
        if file && lane != 3 && self.lanes[lane].iter().any(|r| !r.durable) {
            self.commit();
        }
        let mut dropped = Vec::new();
        let refused = |mut dropped: Vec<_>, reason| {
            dropped.push((n, reason));
            (false, dropped)
        };
        if cost > LANE_MAX[lane] {
            return refused(dropped, Reason::LaneFull);
        }
        if cost > MAX_BYTES {
            return refused(dropped, Reason::SpoolFull);
        }
        while self.bytes(lane) + cost > LANE_MAX[lane] {
            match (lane != 1).then(|| self.drop_oldest(lane)).flatten() {
                Some(old) => dropped.push((old, Reason::LaneFull)),
                None => return refused(dropped, Reason::LaneFull),
            }
        }
        for victim in (lane..4).rev() {
            while self.total() + cost > MAX_BYTES {
                match (victim != lane || lane != 1).then(|| self.drop_oldest(victim)).flatten() {
                    Some(old) => dropped.push((old, Reason::SpoolFull)),
                    None => break,
                }
            }
        }
        if self.total() + cost > MAX_BYTES {
            return refused(dropped, Reason::SpoolFull);
        }
        self.lanes[lane].push(Rec { n, len, cost, file, durable: false, live: true, leased: false });
        if lane == 0 {
            self.commit();
        }
        (true, dropped)
    }

    /// What lease may give, by class, each oldest first: lane 0, then live, then backlog.
    fn leasable(&self, lane: usize, live: bool) -> Vec<u64> {
        let free = |r: &&Rec| r.durable && !r.leased && r.live == live;
        self.lanes[lane].iter().filter(free).map(|r| r.n).collect()
    }

    fn find(&mut self, n: u64) -> Option<(usize, usize)> {
        (0..4).find_map(|l| Some((l, self.lanes[l].iter().position(|r| r.n == n)?)))
    }

    fn leased(&self) -> Vec<u64> {
        self.lanes.iter().flatten().filter(|r| r.leased).map(|r| r.n).collect()
    }
}

fn check_lease(model: &Model, limit: LeaseLimit, got: &[edgeveil_spool::Record]) {
    let strict: Vec<u64> = [(0, true), (0, false), (1, true), (2, true), (3, true)]
        .into_iter()
        .flat_map(|(lane, live)| model.leasable(lane, live))
        .collect();
    let got_numbers = numbers(got);
    let strict_part = got_numbers.len().min(strict.len());
    assert_eq!(got_numbers[..strict_part], strict[..strict_part], "alerts, then live");
    let backlog = &got_numbers[strict_part..];
    for lane in 1..4 {
        let of_lane = model.leasable(lane, false);
        let given: Vec<u64> = backlog.iter().copied().filter(|n| of_lane.contains(n)).collect();
        assert_eq!(given[..], of_lane[..given.len()], "backlog of lane {lane}");
    }
    let backlog_len: usize = (1..4).map(|l| model.leasable(l, false).len()).sum();
    let sizes: Vec<u64> = got.iter().map(|r| (r.header.len() + r.payload.len()) as u64).collect();
    assert!(got.len() <= limit.records);
    assert!(backlog.len() <= limit.backlog_records.min(backlog_len));
    if let Some((last, others)) = sizes.split_last() {
        let others: u64 = others.iter().sum();
        assert!(others + last <= limit.bytes || *last > limit.bytes, "{sizes:?}");
        assert!(others <= limit.bytes);
    }
    if limit == ALL {
        assert_eq!(got.len(), strict.len() + backlog_len);
    } else if limit.records > 0 && limit.bytes > 0 && got.is_empty() {
        assert!(strict.is_empty());
        assert!(backlog_len == 0 || limit.backlog_records == 0);
    }
}

struct Run {
    options: Options,
    dir: tempfile::TempDir,
    spool: Option<Spool>,
    model: Model,
    next: u64,
    /// Records at open.
    base: [u64; 4],
}

impl Run {
    fn new() -> Self {
        let dir = quick_dir();
        let mut options = options(dir.path());
        options.max_bytes = MAX_BYTES;
        for (lane, max) in options.lanes.iter_mut().zip(LANE_MAX) {
            lane.max_bytes = max;
        }
        options.lanes[1].when_full = WhenFull::DropNewest;
        let spool = Some(Spool::open(options.clone()).unwrap().0);
        Self { options, dir, spool, model: Model::default(), next: 0, base: [0; 4] }
    }

    fn reopen(&mut self) {
        let (spool, report) = Spool::open(self.options.clone()).unwrap();
        assert_eq!(report.repair, None);
        let expected: Vec<u64> = self.model.lanes.iter().map(|l| l.len() as u64).collect();
        assert_eq!(report.records, expected);
        self.base = expected.try_into().unwrap();
        self.spool = Some(spool);
    }

    fn apply(&mut self, op: &Op) {
        let spool = self.spool.clone().unwrap();
        match *op {
            Op::Push { lane, len } => {
                self.next += 1;
                let pushed = push(&spool, LANES[lane], self.next, len);
                let (kept, dropped) = self.model.push(lane, self.next, len);
                let expected = match (kept, lane) {
                    (false, _) => Kept::Refused,
                    (true, 0) => Kept::Durable,
                    (true, _) => Kept::NextCommit,
                };
                assert_eq!(pushed.kept, expected);
                let got: Vec<_> = pushed.dropped.iter().map(|d| (number(d.id.unwrap()), d.reason)).collect();
                assert_eq!(got, dropped);
            }
            Op::Commit => {
                spool.commit().unwrap();
                self.model.commit();
            }
            Op::Lease { records, bytes, backlog } => {
                let limit = LeaseLimit::new(records, bytes).with_backlog(backlog, u64::MAX);
                let got = spool.lease(limit).unwrap();
                check_lease(&self.model, limit, &got);
                for r in got {
                    let n = number(r.id);
                    let (lane, at) = self.model.find(n).unwrap();
                    let rec = &mut self.model.lanes[lane][at];
                    assert_eq!((r.lane, r.live, &r.payload), (LANES[lane], rec.live, &payload(n, rec.len)));
                    rec.leased = true;
                }
            }
            Op::Done { which } => {
                for n in pick(&self.model.leased(), which) {
                    assert_eq!(done(&spool, &[n, n]), 1);
                    let (lane, at) = self.model.find(n).unwrap();
                    self.model.remove(lane, at);
                }
            }
            Op::Release { which } => {
                for n in pick(&self.model.leased(), which) {
                    spool.release(&[id(n)]);
                    let (lane, at) = self.model.find(n).unwrap();
                    self.model.lanes[lane][at].leased = false;
                }
            }
            Op::ReleaseAll => {
                spool.release_all();
                self.model.lanes.iter_mut().flatten().for_each(|r| r.leased = false);
            }
            Op::Reject => {
                if let Some(&n) = self.model.leased().first() {
                    assert!(spool.reject(id(n), "by the model").unwrap());
                    let (lane, at) = self.model.find(n).unwrap();
                    self.model.remove(lane, at);
                }
            }
            Op::MarkBacklog => {
                spool.mark_backlog();
                self.model.lanes.iter_mut().flatten().for_each(|r| r.live = false);
            }
            Op::Reopen => {
                drop(spool);
                self.spool = None;
                self.model.restart();
                self.reopen();
            }
            Op::Crash => {
                let copy = quick_dir();
                copy_dir(self.dir.path(), copy.path());
                drop(spool);
                self.spool = None;
                self.dir = copy;
                self.options.dir = self.dir.path().to_owned();
                let spool = Spool::open(self.options.clone()).unwrap().0;
                let there = LANES.map(|lane| {
                    spool.iter(lane).unwrap().map(|r| number(r.unwrap().id.unwrap())).collect::<Vec<_>>()
                });
                self.model.crash(&there);
                drop(spool);
                self.reopen();
            }
        }
        self.check();
    }

    fn check(&self) {
        let stats = self.spool.as_ref().unwrap().stats();
        for (i, lane) in stats.lanes.iter().enumerate() {
            let recs = &self.model.lanes[i];
            assert_eq!((lane.records, lane.bytes), (recs.len() as u64, self.model.bytes(i)), "lane {i}");
            assert_eq!(lane.leased, recs.iter().filter(|r| r.leased).count() as u64);
            let refused_and_dropped: u64 = lane.dropped.iter().sum();
            assert!(self.base[i] + lane.pushed >= lane.records + lane.done);
            assert!(self.base[i] + lane.pushed <= lane.records + lane.done + refused_and_dropped);
        }
        assert_eq!(stats.degraded, None);
        let uncommitted = self.model.lanes.iter().flatten().filter(|r| !r.durable).count();
        assert_eq!(stats.uncommitted, uncommitted as u64);
    }
}

/// Some of them, chosen by the bits of a number.
fn pick(from: &[u64], bits: u64) -> Vec<u64> {
    from.iter().enumerate().filter(|(i, _)| bits >> (i % 64) & 1 == 1).map(|(_, n)| *n).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_does_what_the_model_does(ops in proptest::collection::vec(op(), 1..120)) {
        let mut run = Run::new();
        for op in &ops {
            run.apply(op);
        }
        // At the end everything can be had, and nothing is left on disk once it is done.
        for op in [Op::Commit, Op::ReleaseAll, Op::Lease { records: usize::MAX, bytes: u64::MAX, backlog: usize::MAX },
            Op::Done { which: u64::MAX }, Op::Commit] {
            run.apply(&op);
        }
        assert_eq!(run.spool.as_ref().unwrap().stats().bytes, 0);
        assert_eq!(files_under(&run.dir.path().join("files")), Vec::<std::path::PathBuf>::new());
    }
}

/// More by SPOOL_CASES, for the night.
fn cases() -> u32 {
    std::env::var("SPOOL_CASES").ok().map_or(60, |n| n.parse().unwrap())
}
