//! The detector on a thread of its own, so that whoever waits for it can stop waiting: a search that takes too long is an
//! error, and the frame is gone.
//!
//! There is room for one frame, the one at work. Cameras that share the detector take turns; the time that one waits for its
//! turn counts as its own, so that a detector which hangs fails all of them and holds none of them up for ever.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::detect::{Detector, Found};
use crate::geometry::Rect;
use crate::{Frame, VeilError};

struct Job {
    frame: Arc<Frame>,
    hints: Vec<Rect>,
    least: f32,
    deadline: Instant,
    answer: SyncSender<Result<Found, VeilError>>,
}

#[derive(Default)]
struct Desk {
    job: Option<Job>,
    /// A job lies on the desk or is at work.
    busy: bool,
    closed: bool,
}

/// The desk, and word of every change on it.
type Shared = (Mutex<Desk>, Condvar);

pub(crate) struct Worker {
    shared: Arc<Shared>,
}

fn desk(shared: &Shared) -> MutexGuard<'_, Desk> {
    // No panic can come between two of its changes.
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    pub fn start(detector: Detector) -> Result<Worker, VeilError> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        std::thread::Builder::new()
            .name("veil-detector".into())
            .spawn(move || work(&of_thread, detector))
            .map_err(|e| VeilError::Detection(format!("no thread for the detector: {e}")))?;
        Ok(Worker { shared })
    }

    /// Searches a frame and gives it back with what was found. After `limit` there is neither.
    pub fn detect(
        &self,
        frame: Frame,
        hints: Vec<Rect>,
        least: f32,
        limit: Duration,
    ) -> Result<(Frame, Found), VeilError> {
        let late = || VeilError::TimedOut { limit };
        let deadline = Instant::now() + limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        let frame = Arc::new(frame);
        let (answer, answered) = sync_channel(1);
        {
            let (mut desk, _) = self
                .shared
                .1
                .wait_timeout_while(desk(&self.shared), left(), |desk| desk.busy)
                .unwrap_or_else(PoisonError::into_inner);
            if desk.busy {
                return Err(late());
            }
            desk.busy = true;
            desk.job = Some(Job { frame: frame.clone(), hints, least, deadline, answer });
        }
        self.shared.1.notify_all();
        let found = match answered.recv_timeout(left()) {
            Ok(found) => found?,
            Err(RecvTimeoutError::Timeout) => return Err(late()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(VeilError::Detection("the detector's thread has ended".into()));
            }
        };
        let frame =
            Arc::into_inner(frame).ok_or_else(|| VeilError::Detection("the frame is in use".into()))?;
        Ok((frame, found))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        desk(&self.shared).closed = true;
        self.shared.1.notify_all();
    }
}

fn work(shared: &Shared, mut detector: Detector) {
    loop {
        let job = {
            let idle = |desk: &mut Desk| desk.job.is_none() && !desk.closed;
            let mut desk = shared.1.wait_while(desk(shared), idle).unwrap_or_else(PoisonError::into_inner);
            match desk.job.take() {
                Some(job) => job,
                None => return,
            }
        };
        let Job { frame, hints, least, deadline, answer } = job;
        let found = detector.detect(&frame, &hints, least, deadline);
        drop(frame);
        desk(shared).busy = false;
        shared.1.notify_all();
        // Nobody may be waiting any more.
        let _ = answer.send(found);
    }
}
