//! A second look at what the first left open: a box whose score is near what it needs is looked at in more pixels, and the
//! mean of both scores decides. Two looks err less alike than one look errs by itself: on the development photos the
//! coverage of `fast` rises from 96.2 to 97.6 % and that of `balanced` from 98.0 to 98.6 %, with fewer false veils.

use std::ops::Range;

use super::SAME;
use super::regions::Look;
use crate::geometry::Detection;

/// Strengths that ask for a second look.
const UNSURE: Range<f32> = 0.7..1.3;

/// YuNet's score from which on it need not be asked for again whether there is a face: both said yes.
const AGREED: f32 = 0.5;

/// The second look. A larger or smaller zoom gains less, and so does less of what lies around; a mirrored look of the same
/// size gains half as much.
pub(super) const LOOK: Look = Look { zoom: 1.5, around: (1.2, 24.0) };

/// The strength that a look stands for in which the box does not show: under what it reports, half of what is needed.
const UNSEEN: f32 = 0.25;

/// Which boxes are to be looked at again.
pub(super) fn unsure(seen: &[Detection], proposed: &[Detection]) -> Vec<bool> {
    let agreed = |d: &Detection| {
        let yes = |p: &Detection| p.score >= AGREED && p.rect.iou(&d.rect) >= SAME;
        d.strength >= 1.0 && proposed.iter().any(yes)
    };
    seen.iter().map(|d| UNSURE.contains(&d.strength) && !agreed(d)).collect()
}

/// What both looks say together; `unsure` are those of the first that were looked at again. The second may keep a new face
/// from being one, but no face that is known from the frames before (those need less than 1) is lost by it.
pub(super) fn mean(first: Vec<Detection>, unsure: &[bool], second: Vec<Detection>) -> Vec<Detection> {
    let mut taken = vec![false; second.len()];
    let mut joined = first;
    for (d, &unsure) in joined.iter_mut().zip(unsure) {
        let same = |(i, s): &(usize, &Detection)| !taken[*i] && s.rect.iou(&d.rect) >= SAME;
        let best = second.iter().enumerate().filter(same).max_by(|a, b| a.1.score.total_cmp(&b.1.score));
        let own = d.strength;
        if let Some((i, other)) = best {
            taken[i] = true;
            // Seen by chance in a look that was meant for a neighbour, and perhaps only half of it.
            if own >= 1.0 && !unsure {
                continue;
            }
            d.rect = d.rect.hull(&other.rect);
            d.score = (d.score + other.score) / 2.0;
            d.strength = (own + other.strength) / 2.0;
        } else if unsure {
            d.strength = (own + UNSEEN) / 2.0;
        }
        if d.strength < 1.0 {
            d.strength = d.strength.max(own.min(0.99));
        }
    }
    let new = second.into_iter().zip(taken).filter(|(_, taken)| !taken);
    joined.extend(new.map(|(d, _)| Detection { strength: (d.strength + UNSEEN) / 2.0, ..d }));
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Rect;

    fn at(x: f32, strength: f32) -> Detection {
        let rect = Rect { x, y: 0.0, w: 20.0, h: 20.0 };
        Detection { strength, ..Detection::new(rect, strength / 4.0) }
    }

    fn strengths(first: &[Detection], second: &[Detection]) -> Vec<f32> {
        mean(first.to_vec(), &unsure(first, &[]), second.to_vec()).iter().map(|d| d.strength).collect()
    }

    #[test]
    fn only_the_doubtful_are_looked_at_again() {
        let seen = [at(0.0, 0.5), at(50.0, 0.8), at(100.0, 1.2), at(150.0, 2.0)];
        assert_eq!(unsure(&seen, &[]), [false, true, true, false]);
        // YuNet has said yes to the second of them.
        let proposed = [50.0, 100.0].map(|x| Detection { score: 0.6, ..at(x, 0.0) });
        assert_eq!(unsure(&seen, &proposed), [false, true, false, false]);
        let both = mean(seen.to_vec(), &unsure(&seen, &proposed), vec![at(50.0, 1.4)]);
        assert_eq!(both.iter().map(|d| d.strength).collect::<Vec<_>>(), [0.5, 1.1, 1.2, 2.0]);
        // What a look that was meant for a neighbour shows of it takes nothing from it.
        let both = mean(seen.to_vec(), &unsure(&seen, &proposed), vec![at(102.0, 0.6), at(50.0, 1.4)]);
        assert_eq!(both.iter().map(|d| d.strength).collect::<Vec<_>>(), [0.5, 1.1, 1.2, 2.0]);
    }

    #[test]
    fn the_mean_decides() {
        assert_eq!(strengths(&[at(0.0, 0.8)], &[at(2.0, 1.4)]), [1.1]);
        // Nothing there when looked at again: no face, but enough to keep one that was there before.
        assert_eq!(strengths(&[at(0.0, 1.2)], &[]), [0.99]);
        assert_eq!(strengths(&[at(0.0, 0.8)], &[at(0.0, 0.6)]), [0.8]);
        // A sure one stays as it is, whatever the second look says.
        assert_eq!(strengths(&[at(0.0, 2.0)], &[]), [2.0]);
        assert_eq!(strengths(&[at(0.0, 2.0)], &[at(0.0, 0.6)]), [2.0]);
        // One that only the second look saw must be strong.
        assert_eq!(strengths(&[], &[at(0.0, 1.5), at(90.0, 2.0)]), [0.875, 1.125]);
    }

    #[test]
    fn each_box_of_the_second_look_counts_once() {
        let joined = strengths(&[at(0.0, 1.0), at(4.0, 0.9)], &[at(0.0, 1.6)]);
        assert_eq!(joined, [1.3, 0.9]);
    }
}
