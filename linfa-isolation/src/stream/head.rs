//! A forest over a reservoir of the past, one tree of which is grown anew at a time.

use super::tree::{Tree, Workspace};
use crate::random::Draws;

/// The fewest rows a tree is grown on.
pub(super) const FIRST: usize = 32;

/// What distinguishes the heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    /// Features of a row.
    pub(super) columns: usize,
    pub(super) trees: usize,
    /// Rows a tree is grown on, at most.
    pub(super) sample: usize,
    /// Rows kept.
    pub(super) reservoir: usize,
    /// A row is kept with probability one in this many, in the place of a random other one. The age of the kept rows falls off
    /// exponentially, with `reservoir * keep_one_in` rows as its mean (Aggarwal 2006).
    pub(super) keep_one_in: usize,
    /// Rows between the regrowing of one tree and of the next.
    pub(super) regrow_every: u64,
}

impl Shape {
    /// The cuts that matter for anomalies lie near the root, so trees on large samples need not be deep.
    pub(super) fn depth(&self) -> usize {
        (self.sample.next_power_of_two().trailing_zeros() as usize).min(8)
    }
}

/// A head.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) shape: Shape,
    /// Kept rows, one after the other.
    pub(super) rows: Vec<f32>,
    /// Rows learned.
    pub(super) seen: u64,
    /// Empty until enough rows are kept.
    pub(super) trees: Vec<Tree>,
}

impl Head {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, rows: Vec::new(), seen: 0, trees: Vec::new() }
    }

    /// Kept rows.
    pub(super) fn held(&self) -> usize {
        self.rows.len() / self.shape.columns
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        4 * self.rows.capacity() + self.trees.iter().map(Tree::memory).sum::<usize>()
    }

    /// The score of the insertion rule, in [0, 1]; 0 before there are trees. What each column adds goes to `credits`.
    pub(super) fn score(&self, row: &[f32], credits: &mut [f32]) -> f64 {
        if self.trees.is_empty() {
            return 0.0;
        }
        let saved: f32 = self.trees.iter().map(|tree| tree.saved(row, credits)).sum();
        (f64::from(saved) / self.trees.len() as f64 - 1.0).exp2().clamp(0.0, 1.0)
    }

    pub(super) fn learn(&mut self, row: &[f32], work: &mut Workspace, draws: &mut Draws) {
        let Shape { columns, trees, sample, reservoir, keep_one_in, regrow_every } = self.shape;
        self.seen += 1;
        let filling = self.held() < reservoir;
        if filling {
            self.rows.extend_from_slice(row);
        } else if draws.below(keep_one_in) == 0 {
            let at = draws.below(reservoir) * columns;
            self.rows[at..at + columns].copy_from_slice(row);
        }
        let held = self.held();
        // While the first rows come in, all trees are grown anew each time their number has doubled.
        if filling && (FIRST..=256).contains(&held) && held.is_power_of_two() {
            self.trees.resize_with(trees, || Tree::new(self.shape.depth()));
            for tree in &mut self.trees {
                tree.grow(&self.rows, columns, sample, work, draws);
            }
        } else if !self.trees.is_empty() && self.seen.is_multiple_of(regrow_every) {
            let turn = (self.seen / regrow_every) as usize % trees;
            self.trees[turn].grow(&self.rows, columns, sample, work, draws);
        }
    }
}
