//! One tree of a streaming head: grown on a sample of the reservoir, read by the insertion rule.

use crate::path_length::average_path_length;
use crate::random::Draws;

/// A cut with the span of the training rows along it. The threshold is infinite at a leaf.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    threshold: f32,
    low: f32,
    high: f32,
    column: u32,
}

const LEAF: Cut = Cut { threshold: f32::INFINITY, low: f32::NEG_INFINITY, high: f32::INFINITY, column: 0 };

/// A complete binary tree in arrays; node `i` has its children at `2 i + 1` and `2 i + 2`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree {
    cuts: Vec<Cut>,
    /// c(rows) of every node, the edges expected below it, in units of c(sample).
    promise: Vec<f32>,
    /// An edge in the same unit.
    edge: f32,
}

#[cfg(feature = "serde")]
impl Tree {
    /// Numbers of [`to_bits`](Self::to_bits) for a tree of this depth.
    pub(super) fn bits(depth: usize) -> usize {
        let inner = (1 << depth) - 1;
        4 * inner + 2 * inner + 1 + 1
    }

    /// The tree as plain numbers: column, threshold, low and high of each cut, then the promises, then the edge.
    pub(super) fn to_bits(&self) -> Vec<u32> {
        let cuts = self.cuts.iter();
        cuts.flat_map(|c| [c.column, c.threshold.to_bits(), c.low.to_bits(), c.high.to_bits()])
            .chain(self.promise.iter().chain([&self.edge]).map(|x| x.to_bits()))
            .collect()
    }

    /// The tree of [`to_bits`](Self::to_bits), if its numbers are those of a tree.
    pub(super) fn from_bits(bits: &[u32], depth: usize, columns: usize) -> Option<Self> {
        if bits.len() != Self::bits(depth) {
            return None;
        }
        let (cuts, rest) = bits.split_at(4 * ((1 << depth) - 1));
        let cuts: Vec<Cut> = cuts
            .chunks_exact(4)
            .map(|c| Cut {
                column: c[0],
                threshold: f32::from_bits(c[1]),
                low: f32::from_bits(c[2]),
                high: f32::from_bits(c[3]),
            })
            .collect();
        let sound = |cut: &Cut| {
            let inner =
                cut.low < cut.threshold && cut.threshold <= cut.high && (cut.high - cut.low).is_finite();
            let equal_rows = cut.threshold == f32::INFINITY && cut.low == cut.high && cut.low.is_finite();
            (cut.column as usize) < columns && (inner || equal_rows || *cut == LEAF)
        };
        let mut promise: Vec<f32> = rest.iter().map(|&b| f32::from_bits(b)).collect();
        let edge = promise.pop()?;
        let units = promise.iter().chain([&edge]).all(|x| (0.0..=1.0).contains(x));
        (cuts.iter().all(sound) && units).then_some(Self { cuts, promise, edge })
    }
}

/// Ranges that wait to be cut while a tree is grown: one a level, and one more at the level being cut.
const PENDING: usize = 16;

/// Working space for growing, kept so that steady state allocates nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Workspace {
    order: Vec<u32>,
    keys: Vec<f32>,
    pending: Vec<(usize, usize, usize)>,
}

impl Workspace {
    pub(super) fn memory(&self) -> usize {
        4 * (self.order.capacity() + self.keys.capacity())
            + size_of::<(usize, usize, usize)>() * self.pending.capacity()
    }

    /// The most that [`memory`](Self::memory) can become, for trees on `sample` of `reservoir` rows.
    pub(super) fn most_memory(reservoir: usize, sample: usize) -> usize {
        4 * (reservoir + sample) + size_of::<(usize, usize, usize)>() * PENDING
    }
}

impl Tree {
    pub(super) fn new(depth: usize) -> Self {
        let inner = (1 << depth) - 1;
        Self { cuts: vec![LEAF; inner], promise: vec![0.0; 2 * inner + 1], edge: 1.0 }
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + size_of::<Cut>() * self.cuts.capacity() + 4 * self.promise.capacity()
    }

    /// The most that [`memory`](Self::memory) is. A restored tree has room for one more promise.
    pub(super) fn most_memory(depth: usize) -> usize {
        let inner = (1 << depth) - 1;
        size_of::<Self>() + size_of::<Cut>() * inner + 4 * (2 * inner + 2)
    }

    /// Grows the tree anew on `sample` distinct rows of `rows` (row-major, `columns` wide).
    pub(super) fn grow(
        &mut self,
        rows: &[f32],
        columns: usize,
        sample: usize,
        work: &mut Workspace,
        draws: &mut Draws,
    ) {
        let Workspace { order, keys, pending } = work;
        let total = rows.len() / columns;
        let sample = sample.min(total);
        // Where the sampled rows start.
        order.clear();
        order.reserve_exact(total);
        order.extend((0..rows.len() as u32).step_by(columns));
        for i in 0..sample {
            let j = i + draws.below(total - i);
            order.swap(i, j);
        }
        keys.clear();
        keys.reserve_exact(sample);
        keys.resize(sample, 0.0);
        let inner = self.cuts.len();
        self.cuts.fill(LEAF);
        let full = average_path_length(sample.max(2) as u64);
        self.edge = (1.0 / full) as f32;
        pending.clear();
        pending.reserve_exact(PENDING);
        pending.push((0, 0, sample));
        while let Some((at, start, end)) = pending.pop() {
            self.promise[at] = (average_path_length((end - start) as u64) / full) as f32;
            if at >= inner || end - start < 2 {
                continue;
            }
            let (order, keys) = (&mut order[start..end], &mut keys[start..end]);
            let first = draws.below(columns);
            let mut found = None;
            for turn in 0..columns {
                let column = (first + turn) % columns;
                let (low, high) = gather(&rows[column..], order, keys);
                if low < high {
                    found = Some((column, low, high));
                    break;
                }
            }
            let Some((column, low, high)) = found else {
                // Equal rows: whatever differs from them is cut off at once.
                let all = rows[order[0] as usize + first];
                if !all.is_nan() {
                    self.cuts[at] = Cut { low: all, high: all, column: first as u32, ..LEAF };
                }
                continue;
            };
            let u = draws.unit() as f32;
            let drawn = low * (1.0 - u) + high * u;
            let threshold = if drawn > low && drawn <= high { drawn } else { high };
            self.cuts[at] = Cut { threshold, low, high, column: column as u32 };
            let mut left = 0;
            for i in 0..order.len() {
                let x = keys[i];
                // A missing value takes a side by chance, as far along the span as the threshold.
                let x = if x.is_nan() { low + (high - low) * (draws.unit() as f32) } else { x };
                order.swap(left, i);
                keys.swap(left, i);
                left += usize::from(x < threshold);
            }
            pending.push((2 * at + 2, start + left, end));
            pending.push((2 * at + 1, start, start + left));
        }
    }

    /// How much shorter than average the path of `row` would be had it been among the sample, 1 - E[h] / c(sample); what each
    /// column adds to that goes to `credits`.
    pub(super) fn saved(&self, row: &[f32], credits: &mut [f32]) -> f32 {
        self.walk(0, 1.0, row, credits)
    }

    /// The part below node `at`, for the `share` of the row that comes so far.
    fn walk(&self, mut at: usize, mut share: f32, row: &[f32], credits: &mut [f32]) -> f32 {
        let mut saved = 0.0;
        while let Some(cut) = self.cuts.get(at) {
            let column = cut.column as usize;
            let x = row[column];
            // One edge is paid for every step; what the node promised beyond what the next one promises is saved.
            let here = share * (self.promise[at] - self.edge);
            let beyond = (cut.low - x).max(x - cut.high);
            if cut.threshold == f32::INFINITY {
                if beyond > 0.0 {
                    credits[column] += here;
                    saved += here;
                }
                break;
            }
            if x.is_nan() {
                let left = share * ((cut.threshold - cut.low) / (cut.high - cut.low));
                let right = share - left;
                let credit = here - left * self.promise[2 * at + 1] - right * self.promise[2 * at + 2];
                credits[column] += credit;
                return saved
                    + credit
                    + self.walk(2 * at + 1, left, row, credits)
                    + self.walk(2 * at + 2, right, row, credits);
            }
            if beyond > 0.0 {
                share -= share * (beyond / (beyond + cut.high - cut.low));
            }
            at = 2 * at + 1 + usize::from(x >= cut.threshold);
            let credit = here - share * self.promise[at];
            credits[column] += credit;
            saved += credit;
        }
        saved
    }
}

/// Fetches a column of the rows that start at `order` into `keys`, and gives its span; (inf, -inf) if all of it is missing.
fn gather(column: &[f32], order: &[u32], keys: &mut [f32]) -> (f32, f32) {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for (key, &row) in keys.iter_mut().zip(order) {
        let x = column[row as usize];
        low = if x < low { x } else { low };
        high = if x > high { x } else { high };
        *key = x;
    }
    (low, high)
}
