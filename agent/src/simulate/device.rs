//! One simulated device: makes records when they are due, sends what the link's window has room for, and keeps each
//! until the bridge has acknowledged it.

use super::{
    Kind, MAX_OPEN, Shared,
    record::{Author, Record, Schedule},
};
use crate::{
    link::{
        mqtt::{self, Answer, Client, Event, EventLoop, Failure, QoS},
        window::{MAX_UNACKNOWLEDGED, Parcel, Window},
    },
    random_share,
};
use edgeveil_spool::RecordId;
use edgeveil_wire::{Ack, BootId, ClockState, DeviceState, Lane, Status, Topic};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// As the agent waits; it goes up to a minute, which would outlast a run.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(8);
/// For the goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a connection is over.
enum End {
    /// All is delivered, or the patience is over.
    Done,
    Storm,
    Lost,
    Failed,
}

struct Device {
    shared: Arc<Shared>,
    member: usize,
    author: Author,
    schedules: Vec<Schedule>,
    /// The next number of each kind.
    seq: [u64; 3],
    /// Alerts that are due, in parts of one.
    alerts: f64,
    open: HashMap<RecordId, Record>,
    /// Those of them that are to be sent, in order.
    waiting: VecDeque<RecordId>,
    window: Window,
    ack_topic: String,
    connected: bool,
}

/// Connects at its time, and works until all is delivered or it is over.
pub async fn run(member: usize, start: Instant, shared: Arc<Shared>) {
    let fleet = &shared.fleet;
    let name = fleet.members[member].name.clone();
    let mut random = [0; 10];
    if getrandom::fill(&mut random).is_err() {
        shared.stats.trouble(|| "the system gives no random numbers for a boot id".to_owned());
        return;
    }
    let count = fleet.members.len();
    // Evenly over all devices, so that the load is even however few or many there are.
    let phase = (member as f64 + 0.5) / count as f64;
    let schedules = [(Kind::Reading, fleet.readings), (Kind::Image, fleet.images)];
    let device = Device {
        ack_topic: fleet.topics.of(&name, &Topic::Ack),
        author: Author::new(name, BootId::from_random(random)),
        schedules: schedules
            .into_iter()
            .filter_map(|(kind, rate)| Schedule::new(kind, rate, count, phase))
            .collect(),
        seq: [0; 3],
        alerts: random_share(),
        open: HashMap::new(),
        waiting: VecDeque::new(),
        window: Window::new(fleet.window, fleet.ack_timeout, 0),
        connected: false,
        member,
        shared: shared.clone(),
    };
    tokio::select! {
        () = sleep_until(start) => {}
        () = shared.over.cancelled() => return,
    }
    device.live().await;
}

/// Hands the event loop back with the event, so that a call that has begun is never dropped half-way.
async fn step(mut events: EventLoop) -> (EventLoop, Result<Event, Failure>) {
    let result = events.poll().await;
    (events, result)
}

impl Device {
    async fn live(mut self) {
        let mut retry = FIRST_RETRY;
        let mut storms = self.shared.storms.clone();
        loop {
            storms.mark_unchanged();
            let end = self.connection(&mut storms).await;
            let stats = &self.shared.stats;
            match end {
                End::Done => return,
                End::Failed => _ = stats.failed.fetch_add(1, Relaxed),
                End::Storm | End::Lost => {
                    stats.lost.fetch_add(1, Relaxed);
                    retry = FIRST_RETRY;
                }
            }
            self.take_back();
            let wait = retry.mul_f64(0.5 + 0.5 * random_share());
            retry = (retry * 2).min(LAST_RETRY);
            let back = Instant::now() + wait;
            // What is due meanwhile is made.
            while Instant::now() < back && !self.shared.over.is_cancelled() {
                self.make();
                sleep(Duration::from_millis(100).min(back.saturating_duration_since(Instant::now()))).await;
            }
            if self.shared.over.is_cancelled() {
                return;
            }
        }
    }

    /// What was under way goes back, in the order in which it was made.
    fn take_back(&mut self) {
        let fleet = &self.shared.fleet;
        self.connected = false;
        self.window = Window::new(fleet.window, fleet.ack_timeout, 0);
        let before = self.waiting.len();
        let mut all: Vec<_> =
            self.open.iter().map(|(id, record)| (record.due, record.kind as u8, *id)).collect();
        all.sort_unstable_by_key(|(due, kind, id)| (*due, *kind, id.0));
        self.waiting = all.into_iter().map(|(_, _, id)| id).collect();
        let again = self.waiting.len().saturating_sub(before);
        self.shared.stats.repeated.fetch_add(again as u64, Relaxed);
    }

    fn options(&self) -> mqtt::Options<'_> {
        let (fleet, member) = (&self.shared.fleet, &self.shared.fleet.members[self.member]);
        mqtt::Options {
            client_id: member.name.to_string(),
            host: &fleet.host,
            port: fleet.port,
            tls: member.tls.clone(),
            keep_alive: KEEP_ALIVE,
            session: mqtt::Session::Kept,
            will: Some((self.topic(&Topic::Status), self.status(DeviceState::Offline))),
            queue: MAX_UNACKNOWLEDGED as u16,
        }
    }

    fn topic(&self, topic: &Topic) -> String {
        self.shared.fleet.topics.of(&self.author.device, topic)
    }

    fn status(&self, state: DeviceState) -> Vec<u8> {
        let is_known = state != DeviceState::Offline;
        let status = Status {
            state,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: self.author.boot,
            timestamp: is_known.then(jiff::Timestamp::now),
            clock: if is_known { ClockState::Synced } else { ClockState::Unsynced },
            problems: Vec::new(),
        };
        status.to_json()
    }

    fn say(&mut self, client: &Client, state: DeviceState) {
        let (topic, status) = (self.topic(&Topic::Status), self.status(state));
        if client.publish(topic, QoS::AtLeastOnce, true, status.into()).is_ok() {
            self.window.queue_other();
        }
    }

    async fn connection(&mut self, storms: &mut tokio::sync::watch::Receiver<u64>) -> End {
        let (client, events) = mqtt::open(self.shared.fleet.mqtt_version, self.options());
        let shared = self.shared.clone();
        let mut next = Box::pin(step(events));
        let second = Duration::from_secs(1);
        let mut ticks = interval_at(Instant::now() + second, second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.make();
            if self.connected {
                self.fill(&client);
                if shared.made.is_cancelled() && self.open.is_empty() {
                    break;
                }
            }
            let is_made = shared.made.is_cancelled();
            let due = self.schedules.iter().map(|schedule| schedule.due(shared.begin)).min();
            let due = due.unwrap_or_else(|| Instant::now() + second);
            tokio::select! {
                biased;
                () = shared.over.cancelled() => break,
                Ok(()) = storms.changed(), if self.connected => return End::Storm,
                (events, result) = &mut next => match result {
                    Ok(event) => {
                        self.event(event, &client);
                        next.set(step(events));
                    }
                    Err(failure) => return self.lost(events, failure),
                },
                () = shared.made.cancelled(), if !is_made => {}
                () = sleep_until(due), if !is_made => {}
                _ = ticks.tick() => {
                    let now = Instant::now();
                    if self.window.is_wedged(now) {
                        shared.stats.trouble(|| "the broker has left a packet without its PUBACK".to_owned());
                        return End::Lost;
                    }
                    let overdue = self.window.overdue(now);
                    shared.stats.repeated.fetch_add(overdue.len() as u64, Relaxed);
                    self.waiting.extend(overdue);
                }
            }
        }
        if self.connected {
            self.say(&client, DeviceState::Stopped);
            let _ = client.disconnect();
            let goodbye = async {
                loop {
                    let (events, result) = next.as_mut().await;
                    match result {
                        Ok(event) => self.event(event, &client),
                        Err(_) => return,
                    }
                    next.set(step(events));
                }
            };
            let _ = timeout(GOODBYE, goodbye).await;
        }
        End::Done
    }

    fn lost(&mut self, mut events: EventLoop, failure: Failure) -> End {
        for event in events.left() {
            if let Event::Message { topic, payload } = event {
                self.acknowledged(&topic, &payload);
            }
        }
        let name = &self.author.device;
        self.shared.stats.trouble(|| format!("{name}: {}", failure.text));
        if self.connected { End::Lost } else { End::Failed }
    }

    fn event(&mut self, event: Event, client: &Client) {
        let shared = self.shared.clone();
        let stats = &shared.stats;
        match event {
            Event::Connected { .. } => {
                stats.connections.fetch_add(1, Relaxed);
                self.connected = true;
                if client.subscribe(vec![self.ack_topic.clone()]).is_err() {
                    stats.trouble(|| "no room for a subscription".to_owned());
                }
                self.say(client, DeviceState::Online);
            }
            Event::Sent(packet) => self.window.sent(packet, Instant::now()),
            Event::Answered(packet, answer) => {
                let _ = self.window.acknowledged_by_broker(packet, Instant::now());
                if answer != Answer::Taken {
                    stats.refused.fetch_add(1, Relaxed);
                    stats.trouble(|| {
                        format!("the broker refuses what {} publishes: {answer:?}", self.author.device)
                    });
                }
            }
            Event::Message { topic, payload } => self.acknowledged(&topic, &payload),
            Event::Subscribed { granted } if granted.iter().all(|granted| *granted) => {}
            Event::Subscribed { .. } => {
                stats
                    .trouble(|| format!("the broker does not grant {}; allow it in its ACL", self.ack_topic));
            }
            Event::Ended(why) => stats.trouble(|| format!("the broker ended the connection: {why}")),
        }
    }

    fn acknowledged(&mut self, topic: &[u8], payload: &[u8]) {
        if topic != self.ack_topic.as_bytes() {
            return;
        }
        let Ok(ack) = Ack::from_json(payload) else {
            return self.shared.stats.trouble(|| "an acknowledgement cannot be read".to_owned());
        };
        let now = Instant::now();
        let ids: Vec<_> = ack.ids.iter().map(|id| RecordId(id.to_bytes())).collect();
        self.window.delivered(&ids, now);
        for id in ids {
            // Some are acknowledged twice.
            if let Some(record) = self.open.remove(&id) {
                let took = now.saturating_duration_since(self.shared.begin + record.due);
                self.shared.stats.delivered(record.kind, took);
            }
        }
    }

    /// Makes what is due.
    fn make(&mut self) {
        let now = Instant::now();
        if now < self.shared.begin || self.shared.made.is_cancelled() {
            return;
        }
        let passed = now - self.shared.begin;
        for n in 0..self.schedules.len() {
            while let Some(due) = self.schedules[n].take(passed) {
                let kind = self.schedules[n].kind;
                let Some(reading) = self.add(kind, 0, due) else { continue };
                if kind == Kind::Reading {
                    self.alerts += self.shared.fleet.alerts;
                    if self.alerts >= 1.0 {
                        self.alerts -= 1.0;
                        self.add(Kind::Alert, reading, due);
                    }
                }
            }
        }
    }

    /// One more record, and its number.
    fn add(&mut self, kind: Kind, reading: u64, due: Duration) -> Option<u64> {
        let shared = self.shared.clone();
        let stats = &shared.stats;
        if self.open.len() >= MAX_OPEN {
            stats.held_back.fetch_add(1, Relaxed);
            return None;
        }
        if !stats.make(kind) {
            self.shared.made.cancel();
            return None;
        }
        let seq = self.seq[kind as usize];
        self.seq[kind as usize] += 1;
        let record = Record { kind, seq, reading, due };
        let id = RecordId(self.author.id(&record).to_bytes());
        if kind.lane() == Lane::Alert {
            stats.alert(id.0, self.shared.begin + due);
            // Alerts go first, as the spool's lanes have it.
            self.waiting.push_front(id);
        } else {
            self.waiting.push_back(id);
        }
        self.open.insert(id, record);
        Some(seq)
    }

    /// Sends what the window has room for.
    fn fill(&mut self, client: &Client) {
        while let Some(limit) = self.window.room(Instant::now()) {
            let mut left = (limit.records, limit.bytes);
            while left.0 > 0 && left.1 > 0 {
                let Some(id) = self.waiting.pop_front() else { return };
                // It may have been acknowledged since.
                let Some(record) = self.open.get(&id) else { continue };
                let (below, payload) = self.author.publish(record, &self.shared);
                left = (left.0 - 1, left.1.saturating_sub(payload.len() as u64));
                let topic = self.topic(&below);
                if client.publish(topic, QoS::AtLeastOnce, false, payload.clone()).is_err() {
                    self.waiting.push_front(id);
                    return;
                }
                self.window.queue(Parcel { id, header: Vec::new(), payload });
            }
        }
    }
}
