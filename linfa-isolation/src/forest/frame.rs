//! The unit in which a forest holds a column: 0 at the smallest training value, 1 at the largest.
//!
//! Isolation does not depend on a column's offset and scale, and in this unit an f32 tells apart what a forest can tell apart, whatever the
//! magnitude of the values. So trees are of f32 for any element type, half as large, and quicker to walk.

use linfa::Float;
use ndarray::ArrayView2;

use crate::error::IsolationError;

/// Offset and scale of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) offset: f64,
    pub(super) scale: f64,
}

impl Frame {
    /// A value in this unit; NaN and infinity stay what they are.
    pub(super) fn take<F: Float>(&self, x: F) -> f32 {
        ((x.to_f64().unwrap_or(f64::NAN) - self.offset) * self.scale) as f32
    }
}

/// The frame of each column. A column without two different values gets the scale 1.
pub(super) fn frames<F: Float>(rows: &ArrayView2<F>) -> Result<Vec<Frame>, IsolationError> {
    let columns = rows.ncols();
    let (mut lows, mut highs) = (vec![F::infinity(); columns], vec![F::neg_infinity(); columns]);
    match rows.as_slice() {
        Some(flat) => {
            // Several rows at a time in long arrays, which the compiler makes vector instructions of.
            let stretch = columns * 64usize.div_ceil(columns);
            let (mut wide_lows, mut wide_highs) =
                (vec![F::infinity(); stretch], vec![F::neg_infinity(); stretch]);
            let chunks = flat.chunks_exact(stretch);
            let rest = chunks.remainder();
            chunks.for_each(|chunk| widen(&mut wide_lows, &mut wide_highs, chunk));
            rest.chunks_exact(columns).for_each(|row| widen(&mut lows, &mut highs, row));
            for (wide_lows, wide_highs) in
                wide_lows.chunks_exact(columns).zip(wide_highs.chunks_exact(columns))
            {
                for j in 0..columns {
                    lows[j] = if wide_lows[j] < lows[j] { wide_lows[j] } else { lows[j] };
                    highs[j] = if wide_highs[j] > highs[j] { wide_highs[j] } else { highs[j] };
                }
            }
        }
        None => rows.rows().into_iter().for_each(|row| {
            row.iter().enumerate().for_each(|(j, &x)| widen(&mut lows[j..=j], &mut highs[j..=j], &[x]));
        }),
    }
    let spans: Vec<(F, F)> = lows.into_iter().zip(highs).collect();
    let infinite = |x: F| x == F::infinity() || x == F::neg_infinity();
    let refused = spans.iter().position(|&(low, high)| low <= high && (infinite(low) || infinite(high)));
    if let Some(column) = refused {
        let row = rows.column(column).iter().position(|&x| infinite(x)).unwrap_or_default();
        return Err(IsolationError::Infinite { row, column });
    }
    Ok(spans
        .iter()
        .map(|&(low, high)| {
            let (low, high) = (low.to_f64().unwrap_or(0.0), high.to_f64().unwrap_or(0.0));
            if low < high {
                // Halved, so that the largest span there is does not overflow.
                let scale = 0.5 / (0.5 * high - 0.5 * low);
                Frame { offset: low, scale: if scale.is_finite() { scale } else { f64::MAX } }
            } else {
                Frame { offset: if low.is_finite() { low } else { 0.0 }, scale: 1.0 }
            }
        })
        .collect())
}

/// Widens each span by the value at its place. Comparisons with NaN are false, so what is missing changes nothing.
fn widen<F: Float>(lows: &mut [F], highs: &mut [F], values: &[F]) {
    for ((low, high), &x) in lows.iter_mut().zip(highs).zip(values) {
        *low = if x < *low { x } else { *low };
        *high = if x > *high { x } else { *high };
    }
}
