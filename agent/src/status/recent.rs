//! What the parts did last. Times are the agent's uptime: the wall clock may be wrong.

use edgeveil_wire::Name;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// What the parts did last.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    /// Frames, by camera.
    pub cameras: BTreeMap<Name, Pace>,
    /// The last row of each sensor group.
    pub sensors: BTreeMap<Name, Row>,
    /// The connection.
    pub connection: Connection,
}

/// A row of a sensor group, without its values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// When it was read.
    pub at: Duration,
    /// How many values it has.
    pub values: usize,
    /// Its anomaly score, where rows are scored and the detector is warm.
    pub score: Option<f64>,
}

/// How the connection to the broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// The first one is still being made.
    #[default]
    Connecting,
    /// It stands.
    Connected,
    /// It was lost, or does not come about.
    Disconnected,
}

/// The connection to the broker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connection {
    /// How it is.
    pub state: LinkState,
    /// Since when.
    pub since: Duration,
}

impl Connection {
    /// It stands.
    pub fn made(&mut self, now: Duration) {
        *self = Self { state: LinkState::Connected, since: now };
    }

    /// It is lost, or did not come about; then it is so since the last one was lost.
    pub fn lost(&mut self, now: Duration) {
        if self.state == LinkState::Connected {
            self.since = now;
        }
        self.state = LinkState::Disconnected;
    }
}

/// When the newest frames of a camera came.
#[derive(Debug, Clone, Default)]
pub struct Pace(VecDeque<Duration>);

impl Pace {
    /// Enough for a steady figure.
    const FRAMES: usize = 16;

    /// A frame has come.
    pub fn frame(&mut self, now: Duration) {
        if self.0.len() == Self::FRAMES {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// The last one.
    pub fn last(&self) -> Option<Duration> {
        self.0.back().copied()
    }

    /// Frames a second. It falls while the next one is overdue.
    pub fn rate(&self, now: Duration) -> Option<f64> {
        let (first, last) = (*self.0.front()?, *self.0.back()?);
        let gaps = u32::try_from(self.0.len() - 1).ok().filter(|gaps| *gaps > 0)?;
        let due = (last - first) / gaps;
        let span = (last - first).max(now.saturating_sub(first + due));
        (!span.is_zero()).then(|| f64::from(gaps) / span.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_rate_is_that_of_the_newest_frames_and_falls_when_none_come() {
        let mut pace = Pace::default();
        assert_eq!((pace.last(), pace.rate(ms(0))), (None, None));
        pace.frame(ms(0));
        assert_eq!((pace.last(), pace.rate(ms(100))), (Some(ms(0)), None));
        // A slow start is forgotten.
        (0..100).for_each(|n| pace.frame(ms(60_000 + 200 * n)));
        let last = 60_000 + 200 * 99;
        assert_eq!(pace.last(), Some(ms(last)));
        for now in [last, last + 100, last + 200] {
            assert_eq!(pace.rate(ms(now)), Some(5.0), "{now}");
        }
        assert_eq!(pace.rate(ms(last + 200 + 3000)), Some(2.5));
    }

    #[test]
    fn a_connection_is_lost_once() {
        let mut connection = Connection::default();
        let is = |c: &Connection| (c.state, c.since);
        connection.lost(ms(3));
        assert_eq!(is(&connection), (LinkState::Disconnected, ms(0)), "there was none since the start");
        connection.made(ms(5));
        connection.lost(ms(7));
        connection.lost(ms(9));
        assert_eq!(is(&connection), (LinkState::Disconnected, ms(7)));
    }
}
