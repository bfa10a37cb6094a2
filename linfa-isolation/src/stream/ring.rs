//! Lists that grow to a bound and not beyond: a `Vec` left to itself may take room for twice as many.

/// Appends a row to a list that holds `bound` values in the end.
pub(super) fn push(list: &mut Vec<f32>, row: &[f32], bound: usize) {
    let length = list.len() + row.len();
    if length > list.capacity() {
        let room = (2 * list.capacity()).min(bound).max(length);
        list.reserve_exact(room - list.len());
    }
    list.extend_from_slice(row);
}

/// Appends the `n`-th row to a ring of `rows` rows, or puts it in the place of the oldest.
pub(super) fn put(ring: &mut Vec<f32>, row: &[f32], n: u64, rows: usize) {
    let bound = rows * row.len();
    if ring.len() < bound {
        push(ring, row, bound);
    } else {
        let at = (n % rows as u64) as usize * row.len();
        ring[at..at + row.len()].copy_from_slice(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_row_makes_room_and_no_room_is_wasted() {
        let mut ring = Vec::new();
        for n in 0..25u8 {
            put(&mut ring, &[f32::from(n), 0.5, -1.0], n.into(), 10);
            assert!(ring.capacity() <= 30);
        }
        let first: Vec<f32> = ring.iter().step_by(3).copied().collect();
        assert_eq!(first, [20.0, 21.0, 22.0, 23.0, 24.0, 15.0, 16.0, 17.0, 18.0, 19.0]);
    }
}
