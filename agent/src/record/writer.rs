//! The one thread that writes to the spool.

#[cfg(feature = "vision")]
use super::Receipt;
use super::lane_index;
use crate::{
    clock::{Clock, Moment, Trust},
    state::State,
    watchdog::{self, Part, Progress},
};
use edgeveil_spool::{Kept, NewRecord, Spool, SpoolError};
#[cfg(feature = "vision")]
use edgeveil_veil::VeiledJpeg;
use edgeveil_wire::{
    Alert, BootId, Event, EventKind, Lane, Name, Reading, RecordId, Severity, Stamp, Topic, Values,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};

/// One row of a sensor group, and what the detector said of it.
#[derive(Debug)]
pub struct Observation {
    /// The group.
    pub group: Name,
    /// When it was read.
    pub moment: Moment,
    /// The values.
    pub values: Values,
    /// Anomaly score in [0, 1], once the detector is warm.
    pub score: Option<f64>,
    /// There when the row stood out.
    pub alert: Option<AlertBody>,
}

/// What an alert says beyond its reading.
#[derive(Debug)]
pub struct AlertBody {
    /// Anomaly score in [0, 1]; 1 for what the settings have alerted.
    pub score: f64,
    /// What the score was held against.
    pub threshold: f64,
    /// Each value's share in the score.
    pub contributions: Values,
}

enum Item {
    Observation(Observation),
    #[cfg(feature = "vision")]
    Image {
        camera: Name,
        stamp: Stamp,
        jpeg: VeiledJpeg,
        receipt: Option<Receipt>,
    },
    Event {
        moment: Moment,
        kind: EventKind,
        subject: Option<String>,
        detail: String,
    },
    End,
}

/// Hands records to the writer. The queue holds 64 of them; when it is full, whoever brings one waits.
#[derive(Clone)]
pub struct Records {
    items: mpsc::Sender<Item>,
    clock: Arc<dyn Clock>,
}

/// Numbers the images of this boot. There is one, and the thread that veils has it: so the numbers are given in the
/// order in which images reach the spool.
#[cfg(feature = "vision")]
pub struct ImageNumbers {
    boot: BootId,
    next: u64,
}

#[cfg(feature = "vision")]
impl ImageNumbers {
    /// The stamp of the next image.
    pub fn stamp(&self, moment: Moment) -> Stamp {
        stamp(self.boot, Lane::Image, self.next, moment)
    }

    /// That image was handed on.
    pub fn advance(&mut self) {
        self.next += 1;
    }
}

fn stamp(boot: BootId, lane: Lane, seq: u64, moment: Moment) -> Stamp {
    let uptime_ms = u64::try_from(moment.uptime.as_millis()).unwrap_or(u64::MAX);
    Stamp::new(boot, lane, seq, moment.timestamp, moment.clock, uptime_ms)
}

impl Records {
    /// A row of a sensor group.
    pub async fn observation(&self, observation: Observation) {
        self.send(Item::Observation(observation)).await;
    }

    /// A veiled image, and whoever waits for it to be durable. Blocks: for threads that are none of the runtime's.
    ///
    /// A raw frame does not pass:
    ///
    /// ```
    /// # use edgeveil_agent::record::Records;
    /// # use edgeveil_wire::{Name, Stamp};
    /// fn send(records: &Records, camera: Name, stamp: Stamp, image: edgeveil_veil::VeiledJpeg) {
    ///     records.image(camera, stamp, image, None);
    /// }
    /// ```
    /// ```compile_fail,E0308
    /// # use edgeveil_agent::record::Records;
    /// # use edgeveil_wire::{Name, Stamp};
    /// fn send(records: &Records, camera: Name, stamp: Stamp, image: edgeveil_veil::Frame) {
    ///     records.image(camera, stamp, image, None);
    /// }
    /// ```
    #[cfg(feature = "vision")]
    pub fn image(&self, camera: Name, stamp: Stamp, jpeg: VeiledJpeg, receipt: Option<Receipt>) {
        self.send_blocking(Item::Image { camera, stamp, jpeg, receipt });
    }

    /// Something happened to the agent. Blocks: for threads that are none of the runtime's.
    #[cfg(feature = "vision")]
    pub fn event(&self, kind: EventKind, subject: Option<String>, detail: String) {
        self.send_blocking(Item::Event { moment: self.clock.now(), kind, subject, detail });
    }

    /// Something happened to the agent.
    pub async fn event_async(&self, kind: EventKind, subject: Option<String>, detail: String) {
        self.send(Item::Event { moment: self.clock.now(), kind, subject, detail }).await;
    }

    /// What comes after this is not written: a camera that hangs in its driver may still hold a way here.
    pub async fn end(&self) {
        let _ = self.items.send(Item::End).await;
    }

    async fn send(&self, item: Item) {
        if self.items.send(item).await.is_err() {
            tracing::error!("a record came after the writer had ended: it is lost");
        }
    }

    #[cfg(feature = "vision")]
    fn send_blocking(&self, item: Item) {
        if self.items.blocking_send(item).is_err() {
            tracing::error!("a record came after the writer had ended: it is lost");
        }
    }
}

/// Writes to the spool until every [`Records`] is gone.
pub struct Writer {
    items: mpsc::Receiver<Item>,
    spool: Spool,
    boot: BootId,
    /// Next number of each lane; of the images', which come with theirs, how many came.
    next: [u64; 4],
    commit_interval: Duration,
    /// The interval now: longer than the setting while the write budget is overdrawn.
    wait: Duration,
    /// Of images that the next commit makes durable: at most one for each watched folder.
    #[cfg(feature = "vision")]
    receipts: Vec<(edgeveil_spool::RecordId, Receipt)>,
    clock: Arc<dyn Clock>,
    trust: Trust,
    committed: Arc<Notify>,
    state: Arc<State>,
    progress: Arc<Progress>,
}

/// With nothing to write, old records are looked for so often.
const IDLE: Duration = Duration::from_secs(60);

impl Writer {
    /// A writer and the way to it. `committed` is told when there is something to send.
    pub fn new(
        spool: Spool,
        boot: BootId,
        commit_interval: Duration,
        clock: Arc<dyn Clock>,
        committed: Arc<Notify>,
        state: Arc<State>,
        progress: Arc<Progress>,
    ) -> (Self, Records) {
        let (sender, items) = mpsc::channel(64);
        let writer = Self {
            items,
            spool,
            boot,
            next: [0; 4],
            commit_interval,
            wait: commit_interval,
            #[cfg(feature = "vision")]
            receipts: Vec::new(),
            clock: clock.clone(),
            trust: Trust::default(),
            committed,
            state,
            progress,
        };
        (writer, Records { items: sender, clock })
    }

    /// The numbers for its images: to be asked for once.
    #[cfg(feature = "vision")]
    pub fn image_numbers(&self) -> ImageNumbers {
        ImageNumbers { boot: self.boot, next: 0 }
    }

    /// Runs on a thread of its own.
    pub fn run(mut self, runtime: &Handle) {
        let mut due = Instant::now() + IDLE;
        let mut is_clean = true;
        loop {
            self.progress.beat(Part::Writer);
            let wake = due.min(Instant::now() + watchdog::BEAT);
            match runtime.block_on(async { timeout_at(wake, self.items.recv()).await.ok() }) {
                Some(None | Some(Item::End)) => break,
                Some(Some(item)) => {
                    self.write(item);
                    if std::mem::replace(&mut is_clean, false) {
                        due = Instant::now() + self.wait;
                    }
                    // Somebody waits.
                    #[cfg(feature = "vision")]
                    if !self.receipts.is_empty() {
                        due = Instant::now();
                    }
                }
                None => {}
            }
            if due <= Instant::now() {
                self.commit();
                (due, is_clean) = (Instant::now() + IDLE, true);
            }
        }
        self.commit();
    }

    fn commit(&mut self) {
        let now = self.clock.now();
        // A clock that may be wrong must not make records look old.
        if self.trust.is_due(now) {
            let since_1970 = Duration::from_secs(u64::try_from(now.timestamp.as_second()).unwrap_or(0));
            if let Err(error) = self.spool.expire(since_1970) {
                self.failed("look for old records", &error);
            }
        }
        self.wait = self.spool.pace(self.commit_interval, now.uptime);
        match self.spool.commit() {
            Ok(()) => {
                let [alerts, events, readings, images] = self.next;
                tracing::debug!(boot = %self.boot, alerts, events, readings, images, "durable so far");
                self.state.solved("spool");
                #[cfg(feature = "vision")]
                self.receipts.drain(..).for_each(|(_, receipt)| receipt.done());
                self.committed.notify_one();
            }
            Err(error) => self.failed("commit", &error),
        }
    }

    fn failed(&self, action: &str, error: &SpoolError) {
        if self.state.problem("spool", &error.to_string()) {
            tracing::error!(%error, action, "the spool does not work; it is tried again");
        }
    }

    fn write(&mut self, item: Item) {
        match item {
            Item::Observation(observation) => self.observation(observation),
            #[cfg(feature = "vision")]
            Item::Image { camera, stamp, jpeg, receipt } => {
                self.next[Lane::Image as usize] += 1;
                if self.push(Lane::Image, stamp.id, &Topic::Image(camera), jpeg.as_bytes()) {
                    let id = edgeveil_spool::RecordId(stamp.id.to_bytes());
                    self.receipts.extend(receipt.map(|receipt| (id, receipt)));
                }
            }
            Item::Event { moment, kind, subject, detail } => {
                let stamp = self.number(Lane::Status, moment);
                let event = Event { stamp, event: kind, subject, detail };
                self.push(Lane::Status, event.stamp.id, &Topic::Event, &event.to_json());
            }
            Item::End => {}
        }
    }

    fn observation(&mut self, observation: Observation) {
        let Observation { group, moment, values, score, alert } = observation;
        let reading = Reading { stamp: self.number(Lane::Reading, moment), score, values };
        self.push(Lane::Reading, reading.stamp.id, &Topic::Reading(group.clone()), &reading.to_json());
        let Some(AlertBody { score, threshold, contributions }) = alert else { return };
        let alert = Alert {
            stamp: self.number(Lane::Alert, moment),
            reading: reading.stamp.id,
            anomaly: true,
            score,
            threshold,
            contributions,
            severity: Severity::of(score, threshold),
            values: reading.values,
        };
        self.push(Lane::Alert, alert.stamp.id, &Topic::Alert(group), &alert.to_json());
        self.committed.notify_one();
    }

    fn number(&mut self, lane: Lane, moment: Moment) -> Stamp {
        let next = &mut self.next[lane as usize];
        let stamp = stamp(self.boot, lane, *next, moment);
        *next += 1;
        stamp
    }

    /// Tells whether the spool has it. A record that the disk does not take is lost: its number is used up, so the gap shows, and it is counted once: by
    /// the spool, but for what it takes for a mistake of ours.
    fn push(&mut self, lane: Lane, id: RecordId, topic: &Topic, payload: &[u8]) -> bool {
        let (id, header) = (edgeveil_spool::RecordId(id.to_bytes()), topic.to_string());
        let record = NewRecord { id, header: header.as_bytes(), payload };
        // What the spool drops to make room, or for want of it, it counts and logs itself; `health` and an event tell.
        match self.spool.push(lane_index(lane), record) {
            Ok(pushed) => {
                // Dropped while it waited to be durable: its source keeps the original.
                #[cfg(feature = "vision")]
                self.receipts.retain(|(id, _)| !pushed.dropped.iter().any(|gone| gone.id == Some(*id)));
                if pushed.kept == Kept::Durable {
                    tracing::debug!(record = %id, "durable");
                }
                pushed.kept != Kept::Refused
            }
            Err(error) => {
                if matches!(error, SpoolError::TooLarge { .. } | SpoolError::NoSuchLane(_)) {
                    self.state.dropped(lane);
                }
                self.failed("push", &error);
                false
            }
        }
    }
}
