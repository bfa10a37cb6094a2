//! Trees as complete binary trees in arrays, and the walks over them.
//!
//! Node `i` has its children at `2 i + 1` and `2 i + 2`, and every tree reaches the full depth: a leaf that came early goes on
//! as cuts at infinity over leaves of one value. So a walk has no branch to mispredict and rows can be walked side by side.

use linfa::Float;

use super::hyperparams::PathRule;

/// Rows walked side by side: enough to hide the latency of a load, few enough for the registers.
const LANES: usize = 16;
/// Rows for which one tree is walked before the next, so that the tree stays in the first cache.
pub(super) const BLOCK: usize = 128;

/// One cut: a row goes right if its value (or projection) is at least the threshold. Infinite at a leaf.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Cut<F> {
    pub(super) threshold: F,
    /// The column; at an oblique cut, meaningless.
    pub(super) column: u32,
}

/// The directions of oblique cuts: `width` pairs of column and weight for each inner node.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Directions<F> {
    pub(super) width: usize,
    pub(super) terms: Vec<(u32, F)>,
    /// The median of each column, which stands in for missing values.
    pub(super) medians: Vec<F>,
}

impl<F: Float> Directions<F> {
    pub(super) fn terms(&self, node: usize) -> &[(u32, F)] {
        &self.terms[node * self.width..(node + 1) * self.width]
    }

    fn project(&self, node: usize, row: &[F]) -> F {
        self.terms(node).iter().fold(F::zero(), |sum, &(column, weight)| {
            let x = row[column as usize];
            sum + weight * if x.is_nan() { self.medians[column as usize] } else { x }
        })
    }
}

/// All trees of a forest.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Trees<F> {
    /// Edges from the root to a leaf.
    pub(super) depth: usize,
    /// 2^depth - 1 a tree.
    pub(super) cuts: Vec<Cut<F>>,
    /// Path lengths, 2^depth a tree.
    pub(super) leaves: Vec<f32>,
    /// Training rows at each node, 2^(depth+1) - 1 a tree.
    pub(super) sizes: Vec<u32>,
    /// Smallest and largest training value along each cut; empty unless the path rule needs it.
    pub(super) spans: Vec<(F, F)>,
    pub(super) directions: Option<Directions<F>>,
}

/// What a walk meets: the step from a node to where the row, or a share of it, goes on.
pub(super) struct Step {
    /// Share of the row that takes this step, 1 unless values are missing or the path rule is insertion.
    pub(super) share: f64,
    /// The inner node, counted over the forest.
    pub(super) node: usize,
    /// Training rows at the node and where the step leads.
    pub(super) from: u32,
    pub(super) to: u32,
}

impl<F: Float> Trees<F> {
    pub(super) fn inner(&self) -> usize {
        (1 << self.depth) - 1
    }

    pub(super) fn count(&self) -> usize {
        self.leaves.len() >> self.depth
    }

    /// Adds the path length of each row in each tree to `sums`. `rows` is row-major.
    pub(super) fn add_path_lengths(&self, rows: &[F], columns: usize, rule: PathRule, sums: &mut [f32]) {
        let mut tile = vec![F::zero(); columns * LANES];
        let fast = rule == PathRule::Leaf && self.directions.is_none();
        for (rows, sums) in rows.chunks(BLOCK * columns).zip(sums.chunks_mut(BLOCK)) {
            if fast && rows.iter().all(|x| !x.is_nan()) {
                for (rows, sums) in rows.chunks(LANES * columns).zip(sums.chunks_mut(LANES)) {
                    transpose(rows, columns, &mut tile);
                    for tree in 0..self.count() {
                        self.walk_lanes(tree, &tile, sums);
                    }
                }
            } else {
                for (row, sum) in rows.chunks_exact(columns).zip(sums.iter_mut()) {
                    *sum = (0..self.count())
                        .map(|tree| self.path_length(tree, row, rule, &mut |_| {}) as f32)
                        .sum();
                }
            }
        }
    }

    /// The branchless walk of up to [`LANES`] rows, held column by column in `tile`.
    fn walk_lanes(&self, tree: usize, tile: &[F], sums: &mut [f32]) {
        let inner = self.inner();
        let cuts = &self.cuts[tree * inner..(tree + 1) * inner];
        let leaves = &self.leaves[tree << self.depth..(tree + 1) << self.depth];
        let mut at = [0usize; LANES];
        for _ in 0..self.depth {
            for (lane, at) in at.iter_mut().enumerate() {
                let cut = cuts[*at];
                let right = tile[cut.column as usize * LANES + lane] >= cut.threshold;
                *at = 2 * *at + 1 + usize::from(right);
            }
        }
        for (sum, at) in sums.iter_mut().zip(at) {
            *sum += leaves[at - inner];
        }
    }

    /// The path length of one row in one tree by any rule, with every step shown to `visit`. Where the value at a cut is
    /// missing the walk goes both ways, weighted by the training rows on each side.
    pub(super) fn path_length(
        &self,
        tree: usize,
        row: &[F],
        rule: PathRule,
        visit: &mut impl FnMut(Step),
    ) -> f64 {
        let inner = self.inner();
        let nodes = 2 * inner + 1;
        // Depth-first with what remains to be walked; a row without missing values never holds more than one entry.
        let mut open = vec![(0usize, 1.0f64, 0u32)];
        let mut sum = 0.0;
        while let Some((at, share, depth)) = open.pop() {
            let size = self.sizes[tree * nodes + at];
            if at >= inner || self.cuts[tree * inner + at].threshold.is_infinite() {
                sum += share * (f64::from(depth) + crate::path_length::average_path_length(u64::from(size)));
                continue;
            }
            let node = tree * inner + at;
            let cut = self.cuts[node];
            let x = match &self.directions {
                Some(directions) => directions.project(node, row),
                None => row[cut.column as usize],
            };
            let child = |right: bool| 2 * at + 1 + usize::from(right);
            let size_of = |at: usize| self.sizes[tree * nodes + at];
            if x.is_nan() {
                for right in [false, true] {
                    let to = size_of(child(right));
                    let part = share * f64::from(to) / f64::from(size);
                    visit(Step { share: part, node, from: size, to });
                    open.push((child(right), part, depth + 1));
                }
                continue;
            }
            let mut rest = share;
            if rule == PathRule::Insertion {
                let (low, high) = self.spans[node];
                let cut_off = share * stretch(low, high, x);
                if cut_off > 0.0 {
                    visit(Step { share: cut_off, node, from: size, to: 0 });
                    sum += cut_off * f64::from(depth + 1);
                    rest -= cut_off;
                }
            }
            let next = child(x >= cut.threshold);
            visit(Step { share: rest, node, from: size, to: size_of(next) });
            open.push((next, rest, depth + 1));
        }
        sum
    }
}

/// The probability that a cut, uniform over the span stretched to hold `x`, parts `x` from the span.
fn stretch<F: Float>(low: F, high: F, x: F) -> f64 {
    let part = if x < low {
        (low - x) / (high - x)
    } else if x > high {
        (x - high) / (x - low)
    } else {
        return 0.0;
    };
    // Infinity over infinity: a value beyond all bounds is parted for certain.
    part.to_f64().filter(|p| !p.is_nan()).unwrap_or(1.0)
}

/// Row-major rows into columns of [`LANES`]; lanes without a row keep what they had, which no one reads.
fn transpose<F: Float>(rows: &[F], columns: usize, tile: &mut [F]) {
    for (lane, row) in rows.chunks_exact(columns).enumerate() {
        for (column, &x) in row.iter().enumerate() {
            tile[column * LANES + lane] = x;
        }
    }
}
