//! Memory between frames: a face that the detector misses for a moment stays covered.
//!
//! Each face is a track. A detection that overlaps a track renews it; a track without one is kept for a number of
//! frames, over a region that reaches from where the face was last seen to where its motion would have taken it, and
//! that grows with every frame. A detection below the threshold is not enough to start a track, but enough to renew
//! one (as in ByteTrack, Zhang et al. 2022): a face that was there a moment ago is the likelier explanation.

use crate::geometry::{Detection, Rect};

/// Growth of a held box a frame, and the most it grows to.
const GROWTH: f32 = 0.04;
const MAX_GROWTH: f32 = 1.3;

/// The strength that suffices to renew a track.
pub(crate) const RENEWAL: f32 = 0.6;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Held {
    /// What has to be covered.
    pub rect: Rect,
    pub score: f32,
    /// Not found in this frame.
    pub held: bool,
}

#[derive(Debug)]
struct Track {
    rect: Rect,
    score: f32,
    /// Motion of the centre in pixels a frame.
    velocity: (f32, f32),
    missed: u32,
}

#[derive(Debug)]
pub(crate) struct Hold {
    tracks: Vec<Track>,
    hold_frames: u32,
    size: (u32, u32),
}

impl Hold {
    pub fn new(hold_frames: u32) -> Hold {
        Hold { tracks: Vec::new(), hold_frames, size: (0, 0) }
    }

    pub fn forget(&mut self) {
        self.tracks.clear();
    }

    /// Where the faces of the frames before are likely to be in the next one.
    pub fn expected(&mut self, width: u32, height: u32) -> Vec<Rect> {
        self.rescale(width, height);
        self.tracks.iter().map(|track| Track { missed: track.missed + 1, ..*track }.reach()).collect()
    }

    /// Takes what was found in the next frame, weak detections included, and gives what to cover in it.
    pub fn step(&mut self, mut found: Vec<Detection>, width: u32, height: u32) -> Vec<Held> {
        self.rescale(width, height);
        found.sort_by(|a, b| b.strength.total_cmp(&a.strength));
        let mut renewed = vec![false; self.tracks.len()];
        let mut cover = Vec::with_capacity(found.len());
        for d in found {
            let best = (0..renewed.len())
                .filter(|&i| !renewed[i] && self.tracks[i].reach().follows(&d.rect))
                .max_by(|&a, &b| self.tracks[a].closeness(&d).total_cmp(&self.tracks[b].closeness(&d)));
            match best {
                Some(i) => {
                    renewed[i] = true;
                    self.tracks[i].renew(&d);
                }
                None if d.strength >= 1.0 => {
                    self.tracks.push(Track { rect: d.rect, score: d.score, velocity: (0.0, 0.0), missed: 0 });
                }
                None => continue,
            }
            cover.push(Held { rect: d.rect, score: d.score, held: false });
        }
        for (track, _) in self.tracks.iter_mut().zip(&renewed).filter(|(_, renewed)| !**renewed) {
            track.missed += 1;
        }
        self.tracks.retain(|track| track.missed <= self.hold_frames);
        let held = self.tracks.iter().filter(|track| track.missed > 0);
        cover.extend(held.map(|track| Held { rect: track.reach(), score: track.score, held: true }));
        cover
    }

    /// A camera that changes its resolution still sees the same faces.
    fn rescale(&mut self, width: u32, height: u32) {
        let (old_w, old_h) = std::mem::replace(&mut self.size, (width, height));
        if (old_w, old_h) == (width, height) || old_w == 0 || old_h == 0 {
            return;
        }
        let (sx, sy) = (width as f32 / old_w as f32, height as f32 / old_h as f32);
        for track in &mut self.tracks {
            let r = track.rect;
            track.rect = Rect { x: r.x * sx, y: r.y * sy, w: r.w * sx, h: r.h * sy };
            track.velocity = (track.velocity.0 * sx, track.velocity.1 * sy);
        }
    }
}

impl Track {
    fn renew(&mut self, d: &Detection) {
        let ((x0, y0), (x1, y1)) = (self.rect.centre(), d.rect.centre());
        let frames = (self.missed + 1) as f32;
        // A jump of more than half a face a frame is another face or a slip of the detector.
        let limit = |v: f32, side: f32| v.clamp(-side / 2.0, side / 2.0);
        self.velocity = (limit((x1 - x0) / frames, d.rect.w), limit((y1 - y0) / frames, d.rect.h));
        *self = Track { rect: d.rect, score: d.score, missed: 0, velocity: self.velocity };
    }

    /// Where the face may be after the frames in which it was missed.
    fn reach(&self) -> Rect {
        let frames = self.missed as f32;
        let moved = self.rect.shifted(self.velocity.0 * frames.min(4.0), self.velocity.1 * frames.min(4.0));
        self.rect.hull(&moved).grown((1.0 + GROWTH * frames).min(MAX_GROWTH))
    }

    fn closeness(&self, d: &Detection) -> f32 {
        self.reach().iou(&d.rect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(x: f32, score: f32) -> Detection {
        Detection { strength: score / 0.5, ..Detection::new(Rect { x, y: 50.0, w: 40.0, h: 40.0 }, score) }
    }

    fn covers(held: &[Held], (x, y): (f32, f32)) -> bool {
        held.iter()
            .any(|h| x >= h.rect.x && x <= h.rect.x + h.rect.w && y >= h.rect.y && y <= h.rect.y + h.rect.h)
    }

    #[test]
    fn a_missed_face_is_held_for_the_set_number_of_frames() {
        let mut hold = Hold::new(3);
        assert_eq!(hold.step(vec![face(100.0, 0.9)], 640, 480).len(), 1);
        for _ in 0..3 {
            let cover = hold.step(vec![], 640, 480);
            assert_eq!(cover.len(), 1);
            assert!(cover[0].held && cover[0].rect.w > 40.0);
        }
        assert!(hold.step(vec![], 640, 480).is_empty());
    }

    #[test]
    fn a_found_face_is_covered_where_it_was_found() {
        let mut hold = Hold::new(3);
        hold.step(vec![face(100.0, 0.9)], 640, 480);
        let cover = hold.step(vec![face(110.0, 0.8)], 640, 480);
        assert_eq!(cover, [Held { rect: face(110.0, 0.8).rect, score: 0.8, held: false }]);
    }

    #[test]
    fn a_moving_face_stays_covered_while_it_is_missed() {
        let mut hold = Hold::new(4);
        for i in 0..4 {
            hold.step(vec![face(100.0 + 12.0 * i as f32, 0.9)], 640, 480);
        }
        for i in 4..8 {
            let cover = hold.step(vec![], 640, 480);
            let x = 100.0 + 12.0 * i as f32;
            assert!(covers(&cover, (x, 50.0)) && covers(&cover, (x + 40.0, 90.0)), "frame {i}: {cover:?}");
            assert!(covers(&cover, (136.0, 50.0)), "it may as well have stopped");
        }
    }

    #[test]
    fn weak_detections_renew_but_do_not_start() {
        let mut hold = Hold::new(1);
        assert!(hold.step(vec![face(100.0, 0.4)], 640, 480).is_empty());
        hold.step(vec![face(100.0, 0.6)], 640, 480);
        for _ in 0..10 {
            let cover = hold.step(vec![face(102.0, 0.4), face(400.0, 0.4)], 640, 480);
            assert_eq!(cover, [Held { rect: face(102.0, 0.4).rect, score: 0.4, held: false }]);
        }
    }

    #[test]
    fn faces_do_not_take_each_others_tracks() {
        let mut hold = Hold::new(2);
        hold.step(vec![face(100.0, 0.9), face(130.0, 0.8)], 640, 480);
        // One of two neighbours is missed: the other one renews its own track only.
        let cover = hold.step(vec![face(131.0, 0.8)], 640, 480);
        assert_eq!(cover.len(), 2);
        assert!(cover.iter().any(|h| h.held && covers(&[*h], (105.0, 70.0))));
    }

    #[test]
    fn forgetting_and_other_resolutions() {
        let mut hold = Hold::new(5);
        hold.step(vec![face(100.0, 0.9)], 640, 480);
        let cover = hold.step(vec![], 1280, 960);
        assert!(covers(&cover, (240.0, 140.0)));
        hold.forget();
        assert!(hold.step(vec![], 1280, 960).is_empty());
    }

    #[test]
    fn without_hold_nothing_is_remembered() {
        let mut hold = Hold::new(0);
        hold.step(vec![face(100.0, 0.9)], 640, 480);
        assert!(hold.step(vec![], 640, 480).is_empty());
    }
}
