//! Trees as complete binary trees in arrays, and the walks over them.
//!
//! Node `i` has its children at `2 i` and `2 i + 1`, the root is node 1, and every tree reaches the full depth: a leaf that came
//! early goes on as cuts nowhere over leaves of one value. So a walk has no branch to mispredict, and rows are walked side by side.
//! A node takes eight bytes; the default forest, 300 KB.
//!
//! Thresholds are held as whole numbers of the same order ([`key`]): comparing and taking the outcome into the index are then two
//! instructions. The first two levels, where all rows meet the same three cuts, are walked column by column, which compilers make
//! vector instructions of. Together they cost a third less time than comparing floats all the way.

use super::frame::Frame;
use super::hyperparams::PathRule;

/// Rows walked side by side: enough to hide the latency of a load, few enough for the registers.
const LANES: usize = 8;
/// Rows for which one tree is walked before the next, so that the tree stays in the first cache.
const BLOCK: usize = 256;

/// A whole number that is ordered as the floats are. NaN has no place in that order.
fn key(x: f32) -> u32 {
    // The sum turns -0 into 0. Negative floats are ordered backwards, and before the others.
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// One cut: a row goes right if its value (or projection) is at least the threshold. The largest float at a leaf.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Cut {
    /// [`key`] of the threshold.
    key: u32,
    /// The column; at an oblique cut, meaningless.
    pub(super) column: u32,
}

impl Cut {
    pub(super) fn new(threshold: f32, column: u32) -> Self {
        Self { key: key(threshold), column }
    }

    pub(super) fn threshold(self) -> f32 {
        f32::from_bits(if self.key >> 31 == 1 { self.key & !(1 << 31) } else { !self.key })
    }
}

/// The key of what stands where no cut is: the largest float.
const NOWHERE_KEY: u32 = f32::MAX.to_bits() | 1 << 31;
/// What stands where no cut is.
pub(super) const NOWHERE: Cut = Cut { key: NOWHERE_KEY, column: 0 };

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
            // Without a way out of the loop, this is made of vector instructions.
            let missing = rows.iter().fold(false, |missing, x| missing | x.is_nan());
            if plain && !missing {
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
            // Not worth the setting up.
            _ if sums.len() < 4 * LANES => self.walk_any(rows, columns, sums),
            (..=8, 2..=8) => self.walk_block::<8, 256>(rows, columns, sums),
            (9..=32, 2..=8) => self.walk_block::<32, 256>(rows, columns, sums),
            (..=32, 9..=12) => self.walk_block::<32, 4096>(rows, columns, sums),
            _ => self.walk_any(rows, columns, sums),
        }
    }

    /// For at most [`BLOCK`] rows of at most `WIDTH` columns, and trees of two levels or more with at most `NODES` cuts; both are powers
    /// of two: with sizes that are known at compile time, and indices masked to them, no access in the inner loop needs a check.
    fn walk_block<const WIDTH: usize, const NODES: usize>(
        &self,
        rows: &[f32],
        columns: usize,
        sums: &mut [f32],
    ) {
        let mut by_column = [[0.0f32; BLOCK]; WIDTH];
        let mut keys = [[0u32; WIDTH]; BLOCK];
        for (i, (keys, row)) in keys.iter_mut().zip(rows.chunks_exact(columns)).enumerate() {
            for (j, (place, &x)) in keys.iter_mut().zip(row).enumerate() {
                *place = key(x);
                by_column[j][i] = x;
            }
        }
        // On the stack, these are read by constant addresses, which spares the registers.
        let (mut cuts, mut leaves) = ([NOWHERE; NODES], [0.0f32; NODES]);
        let (mut third_level, mut totals) = ([0u32; BLOCK], [0.0f32; BLOCK]);
        let (width, groups) = (self.width(), sums.len().div_ceil(LANES));
        for tree in 0..self.count() {
            cuts[..width].copy_from_slice(&self.cuts[tree * width..(tree + 1) * width]);
            // Leaf 0 is node `width`, which the mask of the walk makes 0 if it is `NODES`.
            leaves[width & (NODES - 1)..][..width]
                .copy_from_slice(&self.leaves[tree * width..(tree + 1) * width]);
            walk_two_levels(&cuts, &by_column, &mut third_level);
            let starts = third_level.as_chunks::<LANES>().0;
            let lanes = keys.as_chunks::<LANES>().0.iter().zip(starts).zip(totals.as_chunks_mut::<LANES>().0);
            for ((rows, start), totals) in lanes.take(groups) {
                let mut at = *start;
                for _ in 2..self.depth {
                    for (row, at) in rows.iter().zip(&mut at) {
                        let cut = cuts[*at as usize & (NODES - 1)];
                        let left = row[cut.column as usize & (WIDTH - 1)] < cut.key;
                        // Twice and one, less one for left: compilers make this a subtraction with borrow.
                        *at = (*at << 1 | 1).wrapping_sub(u32::from(left));
                    }
                }
                for (total, at) in totals.iter_mut().zip(at) {
                    *total += leaves[at as usize & (NODES - 1)];
                }
            }
        }
        sums.iter_mut().zip(totals).for_each(|(sum, total)| *sum += total);
    }

    /// For few rows, wider rows and larger trees.
    fn walk_any(&self, rows: &[f32], columns: usize, sums: &mut [f32]) {
        let width = self.width();
        let keys: Vec<u32> = rows.iter().map(|&x| key(x)).collect();
        for tree in 0..self.count() {
            let cuts = &self.cuts[tree * width..(tree + 1) * width];
            let leaves = &self.leaves[tree * width..(tree + 1) * width];
            for (rows, sums) in keys.chunks(LANES * columns).zip(sums.chunks_mut(LANES)) {
                let mut at = [1usize; LANES];
                for _ in 0..self.depth {
                    for (row, at) in rows.chunks_exact(columns).zip(&mut at) {
                        let cut = cuts[*at];
                        *at = *at << 1 | usize::from(row[cut.column as usize] >= cut.key);
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
            let next = 2 * at + usize::from(x >= cut.threshold());
            visit(Step { share: rest, node, from, to: self.size(tree, next) });
            open.push((next, rest, depth + 1));
        }
        sum
    }
}

/// Where each row of a block stands after two steps: nodes 4 to 7.
fn walk_two_levels<const WIDTH: usize>(
    cuts: &[Cut],
    by_column: &[[f32; BLOCK]; WIDTH],
    third_level: &mut [u32; BLOCK],
) {
    let column = |at: usize| (&by_column[cuts[at].column as usize & (WIDTH - 1)], cuts[at].threshold());
    let [(x1, t1), (x2, t2), (x3, t3)] = [column(1), column(2), column(3)];
    for (i, at) in third_level.iter_mut().enumerate() {
        let (below_left, below_right) = (4 + u32::from(x2[i] >= t2), 6 + u32::from(x3[i] >= t3));
        // All ones if the row goes right: a choice without a branch.
        let right = u32::from(x1[i] >= t1).wrapping_neg();
        *at = below_left & !right | below_right & right;
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
    let mut out = vec![0.0; rows.len()];
    for (out, row) in out.chunks_exact_mut(frames.len()).zip(rows.rows()) {
        for ((out, &x), frame) in out.iter_mut().zip(row).zip(frames) {
            *out = frame.take(x);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_floats() {
        let floats =
            [f32::NEG_INFINITY, f32::MIN, -1.5, -1e-45, 0.0, 1e-45, 0.25, 1.0, f32::MAX, f32::INFINITY];
        for pair in floats.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
        assert_eq!(key(-0.0), key(0.0));
        assert!(floats.iter().all(|&x| Cut::new(x, 0).threshold() == x));
        assert_eq!(NOWHERE, Cut::new(f32::MAX, 0));
    }
}
