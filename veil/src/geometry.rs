//! Boxes in pixels of the frame.

/// An axis-aligned box; may reach over the frame's edges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rect {
    pub x: f32,
    pub y: f32,
    pub w: f32,
    pub h: f32,
}

impl Rect {
    pub fn centre(&self) -> (f32, f32) {
        (self.x + self.w / 2.0, self.y + self.h / 2.0)
    }

    fn overlap(&self, other: &Rect) -> f32 {
        let w = (self.x + self.w).min(other.x + other.w) - self.x.max(other.x);
        let h = (self.y + self.h).min(other.y + other.h) - self.y.max(other.y);
        w.max(0.0) * h.max(0.0)
    }

    /// Intersection over union.
    pub fn iou(&self, other: &Rect) -> f32 {
        let both = self.overlap(other);
        let union = self.w * self.h + other.w * other.h - both;
        if union > 0.0 { both / union } else { 0.0 }
    }

    fn contains(&self, (x, y): (f32, f32)) -> bool {
        x >= self.x && x <= self.x + self.w && y >= self.y && y <= self.y + self.h
    }

    /// Whether both are likely the same face in frames that follow each other.
    pub fn follows(&self, other: &Rect) -> bool {
        let (a, b) = (self.w * self.h, other.w * other.h);
        let alike = a <= 4.0 * b && b <= 4.0 * a;
        self.iou(other) >= 0.2 || (alike && (self.contains(other.centre()) || other.contains(self.centre())))
    }

    /// The smallest box around both.
    pub fn hull(&self, other: &Rect) -> Rect {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        Rect {
            x,
            y,
            w: (self.x + self.w).max(other.x + other.w) - x,
            h: (self.y + self.h).max(other.y + other.h) - y,
        }
    }

    pub fn shifted(&self, dx: f32, dy: f32) -> Rect {
        Rect { x: self.x + dx, y: self.y + dy, ..*self }
    }

    /// Grown about its centre; 1 leaves it as it is.
    pub fn grown(&self, factor: f32) -> Rect {
        let (w, h) = (self.w * factor, self.h * factor);
        Rect { x: self.x - (w - self.w) / 2.0, y: self.y - (h - self.h) / 2.0, w, h }
    }

    /// What of it lies in a frame of this size.
    pub fn clipped(&self, width: u32, height: u32) -> Rect {
        let (fw, fh) = (width as f32, height as f32);
        let (x0, y0) = (self.x.clamp(0.0, fw), self.y.clamp(0.0, fh));
        let (x1, y1) = ((self.x + self.w).clamp(0.0, fw), (self.y + self.h).clamp(0.0, fh));
        Rect { x: x0, y: y0, w: x1 - x0, h: y1 - y0 }
    }

    pub fn is_finite(&self) -> bool {
        [self.x, self.y, self.w, self.h].into_iter().all(f32::is_finite)
    }
}

/// A box that the detector takes for a face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Detection {
    pub rect: Rect,
    /// The network's own score, 0 to 1.
    pub score: f32,
    /// The score over what a box of this size needs: from 1 on it counts as a face.
    pub strength: f32,
}

impl Detection {
    pub fn new(rect: Rect, score: f32) -> Detection {
        Detection { rect, score, strength: score }
    }
}

/// Greedy non-maximum suppression: of boxes that overlap by more than `limit` (IoU), the strongest stays.
pub(crate) fn suppress(mut found: Vec<Detection>, limit: f32) -> Vec<Detection> {
    found.sort_by(|a, b| b.strength.total_cmp(&a.strength));
    let mut kept: Vec<Detection> = Vec::new();
    for d in found {
        if kept.iter().all(|k| k.rect.iou(&d.rect) <= limit) {
            kept.push(d);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: f32, y: f32, w: f32, h: f32) -> Rect {
        Rect { x, y, w, h }
    }

    #[test]
    fn suppression_keeps_the_best_of_each_pile() {
        let found = [(0.0, 0.5), (2.0, 0.9), (40.0, 0.3)]
            .map(|(x, score)| Detection::new(rect(x, 0.0, 20.0, 20.0), score))
            .to_vec();
        let kept = suppress(found, 0.3);
        assert_eq!(kept.iter().map(|d| d.score).collect::<Vec<_>>(), [0.9, 0.3]);
    }

    #[test]
    fn follows_needs_likeness_or_overlap() {
        let face = rect(0.0, 0.0, 20.0, 20.0);
        assert!(face.follows(&rect(9.0, 0.0, 20.0, 20.0)));
        assert!(!face.follows(&rect(60.0, 0.0, 20.0, 20.0)));
        assert!(!face.follows(&rect(8.0, 8.0, 4.0, 4.0)));
    }

    #[test]
    fn clipping_and_hull() {
        assert_eq!(rect(-5.0, 5.0, 20.0, 20.0).clipped(10, 20), rect(0.0, 5.0, 10.0, 15.0));
        assert_eq!(rect(0.0, 0.0, 2.0, 2.0).hull(&rect(4.0, 1.0, 2.0, 2.0)), rect(0.0, 0.0, 6.0, 3.0));
        assert_eq!(rect(10.0, 10.0, 10.0, 10.0).grown(2.0), rect(5.0, 5.0, 20.0, 20.0));
    }
}
