//! Growing one tree on its sample.

use super::hyperparams::Cuts;
use super::layout::Cut;
use crate::path_length::average_path_length;
use crate::random::Draws;

/// Where a tree goes: its parts of the lists of [`Trees`](super::layout::Trees), with [`NOWHERE`](super::layout::NOWHERE) and zeros in
/// them.
pub(super) struct Plot<'a> {
    pub(super) cuts: &'a mut [Cut],
    pub(super) leaves: &'a mut [f32],
    pub(super) sizes: &'a mut [u32],
    /// Empty if spans are not kept.
    pub(super) spans: &'a mut [(f32, f32)],
    /// Empty without oblique cuts.
    pub(super) terms: &'a mut [(u32, f32)],
}

/// Grows on `sample` (row-major, `columns` wide) down to `depth` edges.
pub(super) struct Grower<'a> {
    pub(super) sample: &'a [f32],
    pub(super) columns: usize,
    pub(super) depth: usize,
    pub(super) cuts: Cuts,
}

/// A range of the row order that waits to be cut.
struct Pending {
    at: usize,
    depth: usize,
    start: usize,
    end: usize,
}

impl Grower<'_> {
    pub(super) fn grow(&self, tree: &mut Plot, draws: &mut Draws) {
        let rows = self.sample.len() / self.columns;
        let leaves = 1usize << self.depth;
        let width = self.width();
        // Where each row starts in the sample.
        let mut order: Vec<usize> = (0..self.sample.len()).step_by(self.columns).collect();
        let mut keys = vec![0.0; rows];
        let mut columns: Vec<u32> = (0..self.columns as u32).collect();
        let mut pending = vec![Pending { at: 1, depth: 0, start: 0, end: rows }];
        while let Some(Pending { at, depth, start, end }) = pending.pop() {
            tree.sizes[at] = (end - start) as u32;
            let cut = if end - start > 1 && depth < self.depth {
                let keys = &mut keys[start..end];
                match self.cuts {
                    Cuts::Axis => self.axis_cut(&order[start..end], keys, &mut columns, draws),
                    Cuts::Oblique { .. } => {
                        let terms = &mut tree.terms[at * width..(at + 1) * width];
                        self.oblique_cut(&order[start..end], keys, terms, &mut columns, draws)
                    }
                }
            } else {
                None
            };
            let Some((column, low, high)) = cut else {
                // The leaf's value goes to every place below it, whichever way a walk takes.
                let below = self.depth - depth;
                let first = (at << below) - leaves;
                let length = depth as f64 + average_path_length((end - start) as u64);
                tree.leaves[first..first + (1 << below)].fill(length as f32);
                continue;
            };
            let u = draws.unit() as f32;
            // Written so that neither the span nor the product can overflow.
            let drawn = low * (1.0 - u) + high * u;
            let threshold = if drawn > low && drawn <= high { drawn } else { high };
            tree.cuts[at] = Cut::new(threshold, column);
            if let Some(span) = tree.spans.get_mut(at) {
                *span = (low, high);
            }
            let middle = start + partition(&mut order[start..end], &mut keys[start..end], threshold, draws);
            pending.push(Pending { at: 2 * at + 1, depth: depth + 1, start: middle, end });
            pending.push(Pending { at: 2 * at, depth: depth + 1, start, end: middle });
        }
    }

    /// Pairs stored for each oblique cut; 0 for axis cuts.
    pub(super) fn width(&self) -> usize {
        match self.cuts {
            Cuts::Axis => 0,
            Cuts::Oblique { columns } => columns.min(self.columns),
        }
    }

    /// A column drawn evenly from those that are not constant here; its values go to `keys`.
    fn axis_cut(
        &self,
        order: &[usize],
        keys: &mut [f32],
        columns: &mut [u32],
        draws: &mut Draws,
    ) -> Option<(u32, f32, f32)> {
        for tried in 0..columns.len() {
            let pick = tried + draws.below(columns.len() - tried);
            columns.swap(tried, pick);
            let column = columns[tried] as usize;
            let (low, high) = gather(&self.sample[column..], order, keys);
            if low < high {
                return Some((column as u32, low, high));
            }
        }
        None
    }

    /// A random direction over columns that are not constant here, each scaled by its range so that units do not matter; the
    /// projections go to `keys`.
    fn oblique_cut(
        &self,
        order: &[usize],
        keys: &mut [f32],
        terms: &mut [(u32, f32)],
        columns: &mut [u32],
        draws: &mut Draws,
    ) -> Option<(u32, f32, f32)> {
        terms.fill((0, 0.0));
        let mut used = 0;
        for tried in 0..columns.len() {
            if used == terms.len() {
                break;
            }
            let pick = tried + draws.below(columns.len() - tried);
            columns.swap(tried, pick);
            let column = columns[tried] as usize;
            let (low, high) = gather(&self.sample[column..], order, keys);
            let range = high - low;
            if range > 0.0 && range.is_finite() {
                terms[used] = (column as u32, draws.normal() as f32 / range);
                used += 1;
            }
        }
        for (key, &row) in keys.iter_mut().zip(order) {
            let row = &self.sample[row..];
            *key = terms.iter().fold(0.0, |sum, &(column, weight)| sum + weight * row[column as usize]);
        }
        let (low, high) = span(keys);
        (low < high).then_some((0, low, high))
    }
}

/// Fetches a column of the rows that start at `order` into `keys`, and gives its span; (inf, -inf) if all of it is missing.
fn gather(column: &[f32], order: &[usize], keys: &mut [f32]) -> (f32, f32) {
    for (key, &row) in keys.iter_mut().zip(order) {
        *key = column[row];
    }
    span(keys)
}

/// Smallest and largest value that is not missing; (inf, -inf) if there is none.
fn span(keys: &[f32]) -> (f32, f32) {
    keys.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| {
        (if x < low { x } else { low }, if x > high { x } else { high })
    })
}

/// Moves the rows below the threshold to the front and says how many they are. A row whose value is missing takes a side at
/// random, in proportion to the rows that have one.
fn partition(order: &mut [usize], keys: &mut [f32], threshold: f32, draws: &mut Draws) -> usize {
    if keys.iter().any(|x| x.is_nan()) {
        let known = keys.iter().filter(|x| !x.is_nan()).count();
        let left = keys.iter().filter(|&&x| x < threshold).count();
        for key in keys.iter_mut().filter(|x| x.is_nan()) {
            *key = if draws.below(known) < left { f32::NEG_INFINITY } else { f32::INFINITY };
        }
    }
    let mut left = 0;
    for i in 0..order.len() {
        let goes_left = keys[i] < threshold;
        order.swap(left, i);
        keys.swap(left, i);
        left += usize::from(goes_left);
    }
    left
}
