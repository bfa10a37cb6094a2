//! The newest frame of each camera. There is room for one: when the veil is slower than the camera, the newest wins.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A place for each camera.
pub struct Slots<T> {
    places: Mutex<Places<T>>,
    filled: Condvar,
}

struct Places<T> {
    frames: Vec<Option<T>>,
    /// Where the next look begins, so that no camera starves another.
    turn: usize,
}

impl<T> Slots<T> {
    /// Room for so many cameras.
    pub fn new(cameras: usize) -> Self {
        let frames = (0..cameras).map(|_| None).collect();
        Self { places: Mutex::new(Places { frames, turn: 0 }), filled: Condvar::new() }
    }

    fn places(&self) -> MutexGuard<'_, Places<T>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a camera's newest frame; tells whether an older one gave way to it.
    pub fn put(&self, camera: usize, frame: T) -> bool {
        let replaced = self.places().frames[camera].replace(frame).is_some();
        self.filled.notify_one();
        replaced
    }

    /// Takes the next camera's frame, or nothing when none comes in time.
    pub fn take(&self, patience: Duration) -> Option<(usize, T)> {
        let empty = |places: &mut Places<T>| places.frames.iter().all(Option::is_none);
        let (mut places, _) = self
            .filled
            .wait_timeout_while(self.places(), patience, empty)
            .unwrap_or_else(PoisonError::into_inner);
        let cameras = places.frames.len();
        let camera =
            (0..cameras).map(|i| (places.turn + i) % cameras).find(|i| places.frames[*i].is_some())?;
        places.turn = camera + 1;
        places.frames[camera].take().map(|frame| (camera, frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_wins_and_cameras_take_turns() {
        let slots = Slots::new(2);
        assert!(!slots.put(0, "a1"));
        assert!(slots.put(0, "a2"));
        assert!(!slots.put(1, "b1"));
        let now = Duration::ZERO;
        assert_eq!(slots.take(now), Some((0, "a2")));
        assert!(!slots.put(0, "a3"));
        assert_eq!(slots.take(now), Some((1, "b1")));
        assert_eq!(slots.take(now), Some((0, "a3")));
        assert_eq!(slots.take(now), None);
    }
}
