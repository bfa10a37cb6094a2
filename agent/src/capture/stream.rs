//! The newest picture of a stream that comes at its own pace. There is room for one: a stream that is faster than it is
//! asked for is read on, so that the picture that is taken was made a moment ago and not when the pipe was filled.

use super::{
    BAD_IN_A_ROW, CaptureError, LIMITS,
    encoded::{Encoded, Piece, Splitter},
};
use crate::pause::Pause;
use edgeveil_veil::Frame;
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A picture that has waited longer is not what the camera sees now.
const FRESH: Duration = Duration::from_secs(1);
/// The first picture of a stream may take longer than the following ones.
const FIRST_PICTURE: Duration = Duration::from_secs(20);
/// How often a waiting thread looks whether it should stop.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Where the newest picture waits.
pub struct Newest {
    place: Mutex<Place>,
    told: Condvar,
}

struct Place {
    picture: Option<(Encoded, Instant)>,
    /// When anything like a picture came.
    heard: Instant,
    first: bool,
    bytes: u64,
    bad: Option<&'static str>,
    bad_in_a_row: u32,
    end: Option<String>,
}

impl Newest {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream is over.
    pub fn end(&self, how: String) {
        self.place().end = Some(how);
        self.told.notify_all();
    }
}

/// Brings the stream's bytes.
pub struct Feed {
    splitter: Splitter,
    newest: Arc<Newest>,
}

impl Feed {
    /// The next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        self.newest.place().bytes += bytes.len() as u64;
        let newest = &self.newest;
        self.splitter.take(bytes, |piece| {
            let mut place = newest.place();
            let now = Instant::now();
            match piece {
                Piece::Picture(picture) => {
                    (place.heard, place.first) = (now, false);
                    place.picture = Some((picture, now));
                }
                Piece::Bad(why) => {
                    place.bad = Some(why);
                    place.bad_in_a_row += 1;
                }
            }
            drop(place);
            newest.told.notify_all();
        });
    }

    /// The stream is over.
    pub fn end(&self, how: String) {
        self.newest.end(how);
    }
}

/// Gives the newest picture of a stream.
pub struct Stream {
    what: String,
    newest: Arc<Newest>,
    silence: Duration,
    pause: Pause,
}

impl Stream {
    /// A stream that must not be silent for longer than that; `what` it is called in messages.
    pub fn new(what: &str, silence: Duration, pause: &Pause) -> (Self, Feed) {
        let place = Place {
            picture: None,
            heard: Instant::now(),
            first: true,
            bytes: 0,
            bad: None,
            bad_in_a_row: 0,
            end: None,
        };
        let newest = Arc::new(Newest { place: Mutex::new(place), told: Condvar::new() });
        let feed = Feed { splitter: Splitter::new(LIMITS.max_bytes), newest: newest.clone() };
        (Self { what: what.to_owned(), newest, silence, pause: pause.clone() }, feed)
    }

    /// Waits for a picture that was made just now. [`CaptureError::Ended`] when the stream is over.
    pub fn next(&mut self) -> Result<Frame, CaptureError> {
        let picture = self.wait()?;
        let frame = picture.decode(&self.what);
        let mut place = self.newest.place();
        match &frame {
            Ok(_) => place.bad_in_a_row = 0,
            Err(_) => place.bad_in_a_row += 1,
        }
        match frame {
            Err(error) if place.bad_in_a_row >= BAD_IN_A_ROW => {
                Err(CaptureError::NoPictures { what: self.what.clone(), why: error.to_string() })
            }
            frame => frame,
        }
    }

    fn wait(&self) -> Result<Encoded, CaptureError> {
        let mut place = self.newest.place();
        loop {
            let what = || self.what.clone();
            if self.pause.is_over() {
                return Err(CaptureError::Stopped);
            }
            if let Some((picture, came)) = place.picture.take()
                && came.elapsed() <= FRESH
            {
                return Ok(picture);
            }
            if let Some(why) = place.bad.take() {
                return Err(if place.bad_in_a_row >= BAD_IN_A_ROW {
                    CaptureError::NoPictures { what: what(), why: why.to_owned() }
                } else {
                    CaptureError::Garbled { what: what(), why }
                });
            }
            if let Some(how) = place.end.take() {
                return Err(CaptureError::Ended { what: what(), how });
            }
            let patience = if place.first { self.silence.max(FIRST_PICTURE) } else { self.silence };
            if place.heard.elapsed() > patience {
                let (seconds, bytes) = (patience.as_secs_f64(), place.bytes);
                return Err(CaptureError::Silent { what: what(), seconds, bytes });
            }
            place = self.newest.told.wait_timeout(place, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::encoded::tests::jpeg;
    use tokio_util::sync::CancellationToken;

    fn stream(silence: Duration) -> (Stream, Feed, CancellationToken, tokio::runtime::Runtime) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let pause = Pause::until(stop.clone(), runtime.handle().clone());
        let (stream, feed) = Stream::new("a test", silence, &pause);
        (stream, feed, stop, runtime)
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn the_newest_picture_wins() {
        let (mut stream, mut feed, ..) = stream(LONG);
        feed.take(&[jpeg(16, 16), jpeg(32, 16), jpeg(48, 16)].concat());
        assert_eq!(stream.next().unwrap().width(), 48);
        feed.take(&jpeg(64, 16));
        feed.end("it is over".to_owned());
        assert_eq!(stream.next().unwrap().width(), 64, "what came before the end is given");
        assert!(matches!(stream.next(), Err(CaptureError::Ended { how, .. }) if how == "it is over"));
    }

    #[test]
    fn one_bad_picture_is_left_out_and_many_end_the_stream() {
        let (mut stream, mut feed, ..) = stream(LONG);
        // Ones only are no Huffman code.
        let mut damaged = jpeg(48, 48);
        let middle = damaged.len() / 2;
        damaged.splice(middle..middle + 64, [0xff, 0].repeat(32));
        for round in 0..3 {
            for bad in 1..BAD_IN_A_ROW {
                feed.take(&damaged);
                let error = stream.next().unwrap_err();
                assert!(error.is_one_frame_only(), "{round} {bad}: {error}");
            }
            feed.take(&jpeg(16, 16));
            assert!(stream.next().is_ok());
        }
        for bad in 1..=BAD_IN_A_ROW {
            feed.take(&damaged);
            assert_eq!(stream.next().unwrap_err().is_one_frame_only(), bad < BAD_IN_A_ROW);
        }
        // Something else than MJPEG.
        feed.take(&vec![7; (BAD_IN_A_ROW as usize + 1) << 20]);
        let error = stream.next().unwrap_err();
        assert!(!error.is_one_frame_only() && error.to_string().contains("MJPEG"), "{error}");
    }

    #[test]
    fn silence_and_the_stop_end_the_wait() {
        let (mut stream, mut feed, stop, _runtime) = stream(Duration::from_millis(1));
        feed.take(&jpeg(16, 16));
        assert!(stream.next().is_ok());
        feed.take(b"--frame\r\n");
        assert!(matches!(stream.next(), Err(CaptureError::Silent { bytes, .. }) if bytes > 600));
        stop.cancel();
        assert!(matches!(stream.next(), Err(CaptureError::Stopped)));
    }
}
