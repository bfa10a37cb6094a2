//! Trees as complete binary trees in arrays, and the walks over them.
//!
//! Node `i` has its children at `2 i` and `2 i + 1`, the root is node 1, and every tree reaches the full depth: a leaf that came
//! early goes on as cuts nowhere over leaves of one value. So a walk has no branch to mispredict, and rows are walked side by side.
//! A node takes eight bytes; the default forest, 300 KB.

use super::frame::Frame;
use super::hyperparams::PathRule;

/// Rows walked side by side: enough to hide the latency of a load, few enough for the registers.
const LANES: usize = 16;
/// Rows for which one tree is walked before the next, so that the tree stays in the first cache.
const BLOCK: usize = 256;

/// One cut: a row goes right if its value (or projection) is at least the threshold. The largest float at a leaf.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Cut {
    pub(super) threshold: f32,
    /// The column; at an oblique cut, meaningless.
    pub(super) column: u32,
}

/// What stands where no cut is.
pub(super) const NOWHERE: Cut = Cut { threshold: f32::MAX, column: 0 };

/// The directions of oblique cuts: `width` pairs of column and weight for each node.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Directions {
    pub(super) width: usize,
    pub(super) terms: Vec<(u32, f32)>,
    /// The median of each column, which stands in for missing values.
    pub(super) medians: Vec<f32>,
}

impl Directions {
    pub(super) fn terms(&self, node: usize) -> &[(u32, f32)] {
        &self.terms[node * self.width..(node + 1) * self.width]
    }

    fn project(&self, node: usize, row: &[f32]) -> f32 {
        self.terms(node).iter().fold(0.0, |sum, &(column, weight)| {
            let x = row[column as usize];
            sum + weight * if x.is_nan() { self.medians[column as usize] } else { x }
        })
    }
}

/// All trees of a forest. Each list has 2^depth entries a tree, `sizes` twice as many; node 0 is not used.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Trees {
    /// Edges from the root to a leaf.
    pub(super) depth: usize,
    pub(super) cuts: Vec<Cut>,
    /// Path lengths of the leaves.
    pub(super) leaves: Vec<f32>,
    /// Training rows at each node, inner nodes first.
    pub(super) sizes: Vec<u32>,
    /// Smallest and largest training value along each cut; empty unless the path rule needs it.
    pub(super) spans: Vec<(f32, f32)>,
    pub(super) directions: Option<Directions>,
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

impl Trees {
    /// Leaves of a tree, and one more than its inner nodes.
    pub(super) fn width(&self) -> usize {
        1 << self.depth
    }

    pub(super) fn count(&self) -> usize {
        self.leaves.len() >> self.depth
    }

    /// Whether a node of a tree is a leaf, be it that it came early: no training row went on.
    pub(super) fn is_leaf(&self, tree: usize, at: usize) -> bool {
        at >= self.width() || self.sizes[2 * (tree * self.width() + at)] == 0
    }

    /// Training rows at a node of a tree.
    pub(super) fn size(&self, tree: usize, at: usize) -> u32 {
        self.sizes[2 * tree * self.width() + at]
    }

    /// Adds the path length of each row in each tree to `sums`. `rows` is row-major, in the frame's unit.
    pub(super) fn add_path_lengths(&self, rows: &[f32], columns: usize, rule: PathRule, sums: &mut [f32]) {
        let plain = rule == PathRule::Leaf && self.directions.is_none();
        for (rows, sums) in rows.chunks(BLOCK * columns).zip(sums.chunks_mut(BLOCK)) {
            if plain && rows.iter().all(|x| !x.is_nan()) {
                self.add_block(rows, columns, sums);
            } else {
                for (row, sum) in rows.chunks_exact(columns).zip(sums.iter_mut()) {
                    *sum = (0..self.count())
                        .map(|tree| self.path_length(tree, row, rule, &mut |_| {}) as f32)
                        .sum();
                }
            }
        }
    }

    fn add_block(&self, rows: &[f32], columns: usize, sums: &mut [f32]) {
        match (columns, self.depth) {
            (..=8, ..=8) => self.walk_block::<8, 256>(rows, columns, sums),
            (9..=32, ..=8) => self.walk_block::<32, 256>(rows, columns, sums),
            (..=32, 9..=12) => self.walk_block::<32, 4096>(rows, columns, sums),
            _ => self.walk_any(rows, columns, sums),
        }
    }

    /// For rows of at most `WIDTH` columns and trees of at most `NODES` cuts, both powers of two: with sizes that are known at
    /// compile time, and indices masked to them, no access in the inner loop needs a check.
    fn walk_block<const WIDTH: usize, const NODES: usize>(
        &self,
        rows: &[f32],
        columns: usize,
        sums: &mut [f32],
    ) {
        let mut padded_rows = [[0.0f32; WIDTH]; BLOCK];
        for (padded, row) in padded_rows.iter_mut().zip(rows.chunks_exact(columns)) {
            padded[..columns].copy_from_slice(row);
        }
        let mut cuts = [NOWHERE; NODES];
        let width = self.width();
        for tree in 0..self.count() {
            cuts[..width].copy_from_slice(&self.cuts[tree * width..(tree + 1) * width]);
            let leaves = &self.leaves[tree * width..(tree + 1) * width];
            for (lanes, sums) in padded_rows.as_chunks::<LANES>().0.iter().zip(sums.chunks_mut(LANES)) {
                let mut at = [1u32; LANES];
                for _ in 0..self.depth {
                    for (row, at) in lanes.iter().zip(&mut at) {
                        let cut = cuts[*at as usize & (NODES - 1)];
                        let value = row[cut.column as usize & (WIDTH - 1)];
                        *at = *at << 1 | u32::from(value >= cut.threshold);
                    }
                }
                for (sum, at) in sums.iter_mut().zip(at) {
                    *sum += leaves[at as usize - width];
                }
            }
        }
    }

    /// For wider rows and larger trees.
    fn walk_any(&self, rows: &[f32], columns: usize, sums: &mut [f32]) {
        let width = self.width();
        for tree in 0..self.count() {
            let cuts = &self.cuts[tree * width..(tree + 1) * width];
            let leaves = &self.leaves[tree * width..(tree + 1) * width];
            for (rows, sums) in rows.chunks(LANES * columns).zip(sums.chunks_mut(LANES)) {
                let mut at = [1usize; LANES];
                for _ in 0..self.depth {
                    for (row, at) in rows.chunks_exact(columns).zip(&mut at) {
                        let cut = cuts[*at];
                        *at = *at << 1 | usize::from(row[cut.column as usize] >= cut.threshold);
                    }
                }
                for (sum, at) in sums.iter_mut().zip(at) {
                    *sum += leaves[at - width];
                }
            }
        }
    }

    /// The path length of one row in one tree by any rule, with every step shown to `visit`. Where the value at a cut is
    /// missing the walk goes both ways, weighted by the training rows on each side.
    pub(super) fn path_length(
        &self,
        tree: usize,
        row: &[f32],
        rule: PathRule,
        visit: &mut impl FnMut(Step),
    ) -> f64 {
        // Depth-first with what remains to be walked; a row without missing values never holds more than one entry.
        let mut open = vec![(1usize, 1.0f64, 0u32)];
        let mut sum = 0.0;
        while let Some((at, share, depth)) = open.pop() {
            let from = self.size(tree, at);
            if self.is_leaf(tree, at) {
                sum += share * (f64::from(depth) + crate::path_length::average_path_length(u64::from(from)));
                continue;
            }
            let node = tree * self.width() + at;
            let cut = self.cuts[node];
            let x = match &self.directions {
                Some(directions) => directions.project(node, row),
                None => row[cut.column as usize],
            };
            if x.is_nan() {
                for next in [2 * at, 2 * at + 1] {
                    let to = self.size(tree, next);
                    let part = share * f64::from(to) / f64::from(from);
                    visit(Step { share: part, node, from, to });
                    open.push((next, part, depth + 1));
                }
                continue;
            }
            let mut rest = share;
            if rule == PathRule::Insertion {
                let (low, high) = self.spans[node];
                let cut_off = share * stretch(low, high, x);
                if cut_off > 0.0 {
                    visit(Step { share: cut_off, node, from, to: 0 });
                    sum += cut_off * f64::from(depth + 1);
                    rest -= cut_off;
                }
            }
            let next = 2 * at + usize::from(x >= cut.threshold);
            visit(Step { share: rest, node, from, to: self.size(tree, next) });
            open.push((next, rest, depth + 1));
        }
        sum
    }
}

/// The probability that a cut, uniform over the span stretched to hold `x`, parts `x` from the span.
fn stretch(low: f32, high: f32, x: f32) -> f64 {
    let beyond = f64::from((low - x).max(x - high).max(0.0));
    // Infinity over infinity: a value beyond all bounds is parted for certain.
    if beyond.is_finite() { beyond / (beyond + f64::from(high - low)) } else { 1.0 }
}

/// Rows in the frame's unit, for [`Trees::add_path_lengths`].
pub(super) fn framed<F: linfa::Float>(rows: ndarray::ArrayView2<F>, frames: &[Frame]) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len());
    for row in rows.rows() {
        out.extend(row.iter().zip(frames).map(|(&x, frame)| frame.take(x)));
    }
    out
}
