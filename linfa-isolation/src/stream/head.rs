//! A forest over a reservoir of the past, one tree of which is grown anew at a time.

use super::ring::push;
use super::tree::{Tree, Workspace};
use crate::math::exp2;
use crate::random::Draws;

/// The fewest rows a tree is grown on.
pub(super) const FIRST: usize = 32;

/// Which rows are kept once the reservoir is full. A kept row takes the place of a random other one, so that in the end the age of
/// the kept rows falls off exponentially, with `reservoir * one_in` rows as its mean (Aggarwal 2006).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Keep {
    /// One in so many. The first rows are held on to for as long as that takes.
    OneIn(usize),
    /// At first as many as make the reservoir an even sample of all rows so far (Vitter's algorithm R), then one in so many.
    EvenlyThenOneIn(usize),
}

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
    pub(super) keep: Keep,
    /// Rows between the regrowing of one tree and of the next, as long as every row is kept.
    pub(super) regrow_every: u64,
}

impl Shape {
    /// The bounds of a draw that keeps the `seen`-th row if it is below the first: its odds are the first in the second.
    fn odds(&self, seen: u64) -> (u64, u64) {
        match self.keep {
            Keep::OneIn(rows) => (1, rows as u64),
            Keep::EvenlyThenOneIn(rows) => {
                let reservoir = self.reservoir as u64;
                (reservoir, seen.clamp(reservoir, reservoir * rows as u64))
            }
        }
    }

    /// Trees are grown anew in step with the reservoir they are grown on.
    fn regrow_after(&self, seen: u64) -> u64 {
        match self.keep {
            Keep::OneIn(_) => self.regrow_every,
            Keep::EvenlyThenOneIn(_) => {
                let (kept, of) = self.odds(seen);
                self.regrow_every * (of / kept)
            }
        }
    }

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
        4 * self.rows.capacity()
            + self.trees.iter().map(Tree::memory).sum::<usize>()
            + size_of::<Tree>() * (self.trees.capacity() - self.trees.len())
    }

    /// The most that [`memory`](Self::memory) can become.
    pub(super) fn most_memory(shape: &Shape) -> usize {
        4 * shape.reservoir * shape.columns + shape.trees * Tree::most_memory(shape.depth())
    }

    /// The score of the insertion rule, in [0, 1]; 0 before there are trees. What each column adds goes to `credits`.
    pub(super) fn score(&self, row: &[f32], credits: &mut [f32]) -> f64 {
        if self.trees.is_empty() {
            return 0.0;
        }
        let saved: f32 = self.trees.iter().map(|tree| tree.saved(row, credits)).sum();
        exp2(f64::from(saved) / self.trees.len() as f64 - 1.0).clamp(0.0, 1.0)
    }

    pub(super) fn learn(&mut self, row: &[f32], work: &mut Workspace, draws: &mut Draws) {
        let Shape { columns, trees, sample, reservoir, .. } = self.shape;
        self.seen += 1;
        let (kept, of) = self.shape.odds(self.seen);
        let regrow_every = self.shape.regrow_after(self.seen);
        let filling = self.held() < reservoir;
        if filling {
            push(&mut self.rows, row, reservoir * columns);
        } else if (draws.below(of as usize) as u64) < kept {
            let at = draws.below(reservoir) * columns;
            self.rows[at..at + columns].copy_from_slice(row);
        }
        let held = self.held();
        // While the first rows come in, all trees are grown anew each time their number has doubled.
        if filling && (FIRST..=256).contains(&held) && held.is_power_of_two() {
            self.trees.reserve_exact(trees - self.trees.len());
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
