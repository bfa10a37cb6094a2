//! Has anything changed since the frame that was last searched for faces? If not, what was covered there is covered again,
//! without a search.
//!
//! A frame is compared with the one that was *searched*, not with the one before: however slowly a face moves, the
//! difference grows until it counts. Two numbers of each cell of 1/80 of the frame's longer side are compared: how bright it
//! is on average, and how much neighbouring pixels differ in it, so that a face is noticed even before a wall of the same
//! brightness. Three cells that differ by a little or one that differs by more are a change, and any change means a search of
//! the whole frame. What gets past would have to be as bright and as rough as what was there before, within some percent and
//! nearly everywhere. Even so a frame is searched from time to time.

use crate::Frame;

/// Cells along the longer side.
const CELLS: u32 = 80;
/// Levels of 255 by which a cell differs a little, and by which it differs for certain.
const LITTLE: i32 = 4;
const MUCH: i32 = 10;
/// Cells that differ a little and make a change.
const FEW: usize = 3;

#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Size of the searched frame, and its cells.
    searched: Option<((u32, u32), Vec<u8>)>,
    /// Frames since then.
    since: u32,
    now: Vec<u8>,
}

impl Gate {
    /// Whether this frame must be searched. `every` is the longest distance of two searches in frames.
    pub fn opens(&mut self, frame: &Frame, every: u32) -> bool {
        cells(frame, &mut self.now);
        self.since += 1;
        let Some((size, searched)) = &self.searched else { return true };
        self.since >= every || *size != (frame.width(), frame.height()) || differ(searched, &self.now)
    }

    /// The frame that [`opens`](Self::opens) was last asked about has been searched.
    pub fn searched(&mut self, frame: (u32, u32)) {
        self.since = 0;
        let (size, cells) = self.searched.get_or_insert_default();
        *size = frame;
        std::mem::swap(cells, &mut self.now);
    }

    /// The next frame is searched whatever it shows.
    pub fn forget(&mut self) {
        self.searched = None;
    }
}

fn differ(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs());
    let mut few = 0;
    for d in differences {
        few += usize::from(d >= LITTLE);
        if d >= MUCH || few >= FEW {
            return true;
        }
    }
    false
}

/// Of each cell the mean green, which has most of the brightness, and the mean difference of green between neighbours in a
/// row. The latter counts double: it is a smaller number.
fn cells(frame: &Frame, out: &mut Vec<u8>) {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let side = (frame.width().max(frame.height()).div_ceil(CELLS)).max(1) as usize;
    let columns = width.div_ceil(side);
    out.clear();
    let mut sums = vec![(0u32, 0u32); columns];
    for rows in frame.pixels().chunks(3 * width * side) {
        sums.fill((0, 0));
        for row in rows.chunks_exact(3 * width) {
            for (cell, (light, rough)) in row.chunks(3 * side).zip(&mut sums) {
                let mut before = cell[1];
                for pixel in cell.as_chunks::<3>().0 {
                    *light += u32::from(pixel[1]);
                    *rough += u32::from(pixel[1].abs_diff(before));
                    before = pixel[1];
                }
            }
        }
        let high = rows.len() / (3 * width);
        for (i, (light, rough)) in sums.iter().enumerate() {
            let pixels = (side.min(width - i * side) * high).max(1) as u32;
            out.push((light / pixels) as u8);
            out.push((2 * rough / pixels).min(255) as u8);
        }
    }
    debug_assert_eq!(out.len(), 2 * columns * height.div_ceil(side));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grey frame with a patch.
    fn frame(x: usize, level: u8, side: usize) -> Frame {
        let mut pixels = vec![100; 3 * 320 * 240];
        for y in 100..100 + side {
            for x in x..x + side {
                pixels[3 * (y * 320 + x)..][..3].fill(level);
            }
        }
        Frame::from_rgb8(320, 240, pixels).unwrap()
    }

    fn look(gate: &mut Gate, frame: &Frame, every: u32) -> bool {
        let opens = gate.opens(frame, every);
        if opens {
            gate.searched((frame.width(), frame.height()));
        }
        opens
    }

    #[test]
    fn a_still_scene_is_searched_from_time_to_time() {
        let mut gate = Gate::default();
        let searched = (0..17).filter(|_| look(&mut gate, &frame(50, 180, 20), 8)).count();
        assert_eq!(searched, 3);
        gate.forget();
        assert!(look(&mut gate, &frame(50, 180, 20), 8));
    }

    #[test]
    fn whatever_comes_or_moves_opens_it() {
        for (level, side) in [(180, 20), (112, 10), (90, 8), (0, 4)] {
            let mut gate = Gate::default();
            assert!(look(&mut gate, &frame(50, 100, side), 100));
            assert!(!look(&mut gate, &frame(50, 100, side), 100));
            assert!(look(&mut gate, &frame(50, level, side), 100), "{level} {side}");
            assert!(look(&mut gate, &frame(54, level, side), 100), "{level} {side} moved");
        }
    }

    #[test]
    fn what_is_as_bright_as_the_wall_opens_it() {
        let mut gate = Gate::default();
        assert!(look(&mut gate, &frame(50, 100, 20), 100));
        // Stripes a pixel wide around the wall's brightness: each cell is as bright as before.
        let mut pixels = vec![100; 3 * 320 * 240];
        for y in 96..120 {
            for x in 48..72 {
                pixels[3 * (y * 320 + x)..][..3].fill(if x % 2 == 0 { 92 } else { 108 });
            }
        }
        assert!(look(&mut gate, &Frame::from_rgb8(320, 240, pixels).unwrap(), 100));
    }

    #[test]
    fn slow_motion_adds_up() {
        let mut gate = Gate::default();
        look(&mut gate, &frame(50, 120, 30), 1000);
        let mut covered = 50;
        for x in 51..150 {
            if look(&mut gate, &frame(x, 120, 30), 1000) {
                covered = x;
            }
            assert!(x - covered <= 2, "the patch is {} pixels from where it was searched", x - covered);
        }
    }

    #[test]
    fn slow_brightening_adds_up() {
        let mut gate = Gate::default();
        let searched =
            (100..160).filter(|&level| look(&mut gate, &frame(50, level, 240 - 100), 1000)).count();
        assert!(searched >= 10, "{searched}");
    }

    #[test]
    fn another_size_opens_it() {
        let mut gate = Gate::default();
        let of = |w: u32, h: u32| Frame::from_rgb8(w, h, vec![9; (3 * w * h) as usize]).unwrap();
        assert!(look(&mut gate, &of(64, 48), 8));
        assert!(look(&mut gate, &of(48, 64), 8));
        assert!(look(&mut gate, &of(1, 1), 8));
        assert!(!look(&mut gate, &of(1, 1), 8));
    }
}
