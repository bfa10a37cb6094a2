//! A thread for each sensor group: opens its source, reads it at its rate, and opens it again when it fails.
//!
//! A thread, because a 1-wire thermometer takes 0.75 s for a reading, a driver may hang, and a program takes up to a second to
//! end: the runtime's few threads are for what does not wait.

use super::{Sensor, SensorError, open};
use crate::{
    clock::{Clock, Moment},
    pause::Pause,
    settings,
};
use edgeveil_wire::{ValueName, Values};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// A sensor that fails is read again at its rate. After so many failures in a row, or so long, it counts as lost; after
/// so many it is opened again.
const FAILURES_BEFORE_REOPEN: u32 = 10;
const FAILING_TOO_LONG: Duration = Duration::from_secs(10);
const REOPEN: Duration = Duration::from_secs(10);

/// What a thread has to tell.
pub enum News {
    /// A row.
    Row {
        /// When it was measured.
        moment: Moment,
        /// Its values.
        values: Values,
        /// The value that is to be alerted whatever the detector says.
        alert: Option<ValueName>,
    },
    /// A row that could not be read, and whether the sensor counts as lost by now.
    Failed(SensorError, Standing),
    /// The source cannot be opened.
    NotOpened(SensorError),
}

/// Whether a sensor that has failed counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The next row may come.
    MayRecover,
    /// It is told.
    Lost,
}

/// A group's thread.
pub struct Reader {
    settings: settings::Sensor,
    clock: Arc<dyn Clock>,
    pause: Pause,
    /// Holds one; while that is scored and recorded, the thread waits.
    news: mpsc::Sender<News>,
}

impl Reader {
    /// Starts it. The channel closes when it has ended and the source is closed.
    pub fn start(
        settings: settings::Sensor,
        clock: Arc<dyn Clock>,
        pause: Pause,
    ) -> std::io::Result<mpsc::Receiver<News>> {
        let (news, received) = mpsc::channel(1);
        let reader = Self { settings, clock, pause, news };
        thread::Builder::new().name("sensor".to_owned()).spawn(move || reader.run())?;
        Ok(received)
    }

    fn run(self) {
        while !self.pause.is_over() {
            let went_on = match open(&self.settings) {
                Ok(mut sensor) => self.read_rows(sensor.as_mut()),
                Err(error) => self.tell(News::NotOpened(error)),
            };
            if went_on.is_none() || self.pause.wait(REOPEN) {
                return;
            }
        }
    }

    /// None when nobody listens any more.
    fn tell(&self, news: News) -> Option<()> {
        self.news.blocking_send(news).ok()
    }

    /// Reads until the source has to be opened anew. None when it is time to stop.
    fn read_rows(&self, sensor: &mut dyn Sensor) -> Option<()> {
        let period = Duration::from_secs_f64(1.0 / self.settings.rate);
        let mut next = Instant::now();
        let mut failures = 0;
        let mut failing_since = None;
        loop {
            if self.pause.wait(next.saturating_duration_since(Instant::now())) {
                return None;
            }
            next = (next + period).max(Instant::now());
            let moment = self.clock.now();
            if !sensor.is_ready() {
                continue;
            }
            match sensor.read() {
                Ok(values) => {
                    (failures, failing_since) = (0, None);
                    let moment = moment.earlier(sensor.age());
                    self.tell(News::Row { moment, values, alert: sensor.alert().cloned() })?;
                }
                Err(error) => {
                    failures += 1;
                    let since: Duration = *failing_since.get_or_insert(moment.uptime);
                    let is_over = error.is_gone() || failures >= FAILURES_BEFORE_REOPEN;
                    let too_long = moment.uptime.saturating_sub(since) >= FAILING_TOO_LONG;
                    let standing = if is_over || too_long { Standing::Lost } else { Standing::MayRecover };
                    self.tell(News::Failed(error, standing))?;
                    if is_over {
                        return Some(());
                    }
                }
            }
        }
    }
}
