//! One connection, from CONNECT to its end.

use super::{
    Identity, Link, explain,
    identity::{IdentityError, Version},
    limit::Limiter,
    mqtt::{self, Answer, Client, Event, EventLoop, Failure, Kind, QoS},
    restamp::Restamp,
    trial::Trial,
    window::{MAX_UNACKNOWLEDGED, Parcel, Window},
};
use crate::{
    record::{REFUSED, lane_index},
    settings::{self, Acknowledgement, MqttVersion},
    tuning::{Heard, Standing},
    watchdog::Part,
};
use bytes::Bytes;
use edgeveil_spool::{NewRecord, Record, RecordId};
use edgeveil_wire::{Ack, ClockState, DeviceState, Lane, Reported, Status, Topic};
use std::time::Duration;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, block_in_place},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// How a connection ended.
pub enum End {
    /// The agent stops.
    Stopped,
    /// There is another certificate to connect with.
    Renewed,
    /// The bridge has left so many rounds unanswered: perhaps the broker no longer passes on what it says.
    Silent(u32),
    /// It was lost, or never came about.
    Lost(Lost),
}

/// How a connection was lost.
pub struct Lost {
    /// For people.
    pub why: String,
    /// Whether the broker had said yes.
    pub had_connected: bool,
    /// Whether it, or this side, has found the certificate to be of no use.
    pub was_refused: bool,
    /// Whether it had delivered a record: such a one is worth coming back to soon.
    pub had_delivered: bool,
    /// Whether the broker's answer to a ping was missed while records were under way: on a slow link it has to wait
    /// behind them.
    pub was_slow: bool,
}

impl Lost {
    fn early(error: &IdentityError) -> Self {
        Self {
            why: error.to_string(),
            had_connected: false,
            was_refused: true,
            had_delivered: false,
            was_slow: false,
        }
    }
}

/// How a connection is to be made.
pub struct Setting<'a> {
    /// MQTT's.
    pub keep_alive: Duration,
    /// With the next identity: settings that name its files.
    pub next: Option<&'a settings::Link>,
    /// Whether the next one's time has come, and what comes of it.
    pub trial: &'a Trial,
    /// Rounds that the bridge had left unanswered when the connection before was ended for it.
    pub unanswered: u32,
}

/// Time for the goodbye when the agent stops.
const GOODBYE: Duration = Duration::from_secs(2);
/// What MQTT puts before a publish's topic and payload, at most: flags, lengths, packet id, no properties.
const PACKET_HEAD: usize = 16;
/// Refused records are kept back in the window until the connection ends; with so many of them it ends.
const MAX_REFUSED: usize = 20;

/// A record that was set aside is shown for so long at least: that others are taken says nothing about it.
const SHOWN: Duration = Duration::from_secs(10);

/// Connects and works until the connection ends. Whatever was leased is the caller's to release.
pub async fn run(
    link: &Link,
    limiter: &mut Limiter,
    restamp: &mut Restamp,
    setting: Setting<'_>,
    stop: &CancellationToken,
) -> End {
    let files = setting.next.unwrap_or(&link.settings);
    let version = Version::of(files);
    let loaded = block_in_place(|| Identity::load(files)).and_then(|identity| {
        if setting.next.is_some() {
            identity.check_name(Some(&link.device), &files.cert)?;
        }
        identity.check_time(link.clock.now().timestamp, &files.cert)?;
        Ok(identity)
    });
    let identity = match loaded {
        Ok(identity) => identity,
        Err(error) => return End::Lost(Lost::early(&error)),
    };
    let (client, event_loop) =
        mqtt::open(link.settings.mqtt_version, options(link, &identity, setting.keep_alive));
    let (events, received) = mpsc::channel(64);
    let poll = tokio::spawn(poll(event_loop, events));
    let session = Session {
        link,
        limiter,
        restamp,
        version,
        files,
        trial: setting.trial,
        tries: setting.next.is_some(),
        client,
        received,
        poll,
        window: Window::new(link.settings.window, link.settings.ack_timeout, setting.unanswered),
        max_packet: link.settings.max_packet,
        status_due: None,
        report_due: false,
        refused: Vec::new(),
        set_aside: None,
        connected: false,
        had_delivered: false,
    };
    session.work(stop).await
}

fn options<'a>(link: &'a Link, identity: &Identity, keep_alive: Duration) -> mqtt::Options<'a> {
    let settings = &link.settings;
    let will = status(link, DeviceState::Offline, Vec::new());
    mqtt::Options {
        client_id: link.device.to_string(),
        host: &settings.host,
        port: settings.port,
        tls: identity.tls.clone(),
        keep_alive,
        session: mqtt::Session::Kept,
        will: Some((settings.topics.of(&link.device, &Topic::Status), will.to_json())),
        queue: MAX_UNACKNOWLEDGED as u16,
    }
}

fn status(link: &Link, state: DeviceState, problems: Vec<String>) -> Status {
    let now = link.clock.now();
    let timestamp = (state != DeviceState::Offline).then_some(now.timestamp);
    let timestamp = timestamp.and_then(|t| jiff::Timestamp::from_millisecond(t.as_millisecond()).ok());
    let clock = if state == DeviceState::Offline { ClockState::Unsynced } else { now.clock };
    Status {
        state,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot: link.boot,
        timestamp,
        clock,
        problems,
    }
}

/// Never, where there is nothing that could.
async fn changed<T>(watched: &mut Option<watch::Receiver<T>>) -> Result<(), watch::error::RecvError> {
    match watched {
        Some(watched) => watched.changed().await,
        None => std::future::pending().await,
    }
}

/// Polls until the connection fails, and gives the event loop back: acknowledgements that it has read and not yet
/// told are still in there. It is polled by nobody else and never dropped half-way, so no packet gets lost in it.
async fn poll(mut event_loop: EventLoop, events: mpsc::Sender<Event>) -> (EventLoop, Option<Failure>) {
    loop {
        match event_loop.poll().await {
            Ok(event) => {
                if events.send(event).await.is_err() {
                    return (event_loop, None);
                }
            }
            Err(error) => return (event_loop, Some(error)),
        }
    }
}

struct Session<'a> {
    link: &'a Link,
    limiter: &'a mut Limiter,
    restamp: &'a mut Restamp,
    /// Of the certificate files that this connection was made with.
    version: Version,
    /// Settings that name them.
    files: &'a settings::Link,
    trial: &'a Trial,
    /// Whether they are the next identity's, which is not the current one yet.
    tries: bool,
    client: Client,
    received: mpsc::Receiver<Event>,
    poll: JoinHandle<(EventLoop, Option<Failure>)>,
    window: Window,
    /// Records that the broker refused on this connection.
    refused: Vec<RecordId>,
    /// When one was last set aside.
    set_aside: Option<Instant>,
    connected: bool,
    had_delivered: bool,
    /// The largest packet that the broker takes.
    max_packet: u32,
    /// A status that rumqttc had no room for.
    status_due: Option<DeviceState>,
    /// Likewise the settings that run.
    report_due: bool,
}

impl Session<'_> {
    async fn work(mut self, stop: &CancellationToken) -> End {
        let mut problems = self.link.state.problems();
        let mut health = self.link.health.clone();
        health.mark_unchanged();
        let mut standing = self.link.afar.as_ref().map(|afar| afar.standing.clone());
        // It is told with the connection.
        standing.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.connected {
                self.fill();
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.goodbye().await,
                event = self.received.recv() => match event {
                    Some(event) => {
                        if let Some(why) = self.event(event) {
                            return self.give_up(why);
                        }
                    }
                    None => return self.lost().await,
                },
                () = self.link.committed.notified() => {}
                Ok(()) = problems.changed(), if self.connected => self.say_status(DeviceState::Online),
                Ok(()) = changed(&mut standing), if self.connected => self.report(),
                Ok(()) = health.changed(), if self.connected => {
                    let payload = health.borrow_and_update().clone();
                    // The next one comes soon.
                    let _ = self.publish_other(&Topic::Health, QoS::AtMostOnce, false, payload);
                }
                _ = ticks.tick() => {
                    if let Some(why) = self.tick() {
                        return self.give_up(why);
                    }
                    if self.has_new_identity() {
                        return self.renew(End::Renewed).await;
                    }
                    if let Some(unanswered) = self.window.silence() {
                        return self.renew(End::Silent(unanswered)).await;
                    }
                }
            }
        }
    }

    /// Sends what the window has room for.
    fn fill(&mut self) {
        let Some(limit) = self.window.room(Instant::now()) else { return };
        let moment = self.link.clock.now();
        let limit = self.limiter.narrow(limit, Instant::now(), moment);
        let records = match block_in_place(|| self.link.spool.lease(limit)) {
            Ok(records) => records,
            Err(error) => {
                if self.link.state.problem("spool", &error.to_string()) {
                    tracing::error!(%error, "cannot read the spool");
                }
                return;
            }
        };
        for Record { id, header, payload, live, lane } in records {
            let rest = String::from_utf8_lossy(&header);
            let topic = format!("{}/{}/{rest}", self.link.settings.topics.prefix(), self.link.device);
            let payload = Bytes::from(self.restamp.restamp(id, &rest, payload, moment));
            if payload.len() + topic.len() + PACKET_HEAD > self.max_packet as usize {
                let why = format!(
                    "{} bytes are more than the broker takes ({}); lower camera.quality or the camera's size, or raise the broker's bound",
                    payload.len(),
                    self.max_packet
                );
                self.set_aside(Parcel { id, header, payload }, &why);
                continue;
            }
            let sent = self.client.publish(topic, QoS::AtLeastOnce, false, payload.clone());
            if sent.is_err() {
                self.link.spool.release(&[id]);
                continue;
            }
            let bytes = (header.len() + payload.len()) as u64;
            self.window.queue(Parcel { id, header, payload });
            self.limiter.sent(bytes, !live && lane != lane_index(Lane::Alert), moment);
            self.link.state.link(|health| health.published += 1);
        }
    }

    /// Handles what came; a reason to end the connection comes back.
    fn event(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Connected { max_packet } => {
                self.max_packet = max_packet.unwrap_or(u32::MAX).min(self.link.settings.max_packet);
                self.connected();
            }
            Event::Sent(packet) => self.window.sent(packet, Instant::now()),
            Event::Answered(packet, answer) => return self.answered(packet, answer),
            Event::Message { topic, payload } => self.heard(&topic, &payload),
            Event::Subscribed { granted } => return self.subscribed(&granted),
            Event::Ended(why) => return Some(format!("the broker ended the connection: {why}")),
        }
        None
    }

    fn connected(&mut self) {
        let link = self.link;
        self.connected = true;
        link.spool.mark_backlog();
        link.state.link(|health| health.connections += 1);
        link.state.connected(link.clock.now().uptime);
        link.state.solved("link");
        self.take_over();
        tracing::info!(broker = %link.settings.host, port = link.settings.port, device = %link.device, "connected");
        let filters =
            self.subscriptions().into_iter().map(|topic| link.settings.topics.of(&link.device, &topic));
        let filters: Vec<_> = filters.collect();
        if !filters.is_empty()
            && let Err(error) = self.client.subscribe(filters)
        {
            tracing::warn!(%error, "cannot ask for acknowledgements; the next connection will");
        }
        self.say_status(DeviceState::Online);
        if let Some(afar) = &link.afar {
            afar.hear(Heard::Connected);
            self.report();
        }
    }

    /// What is asked for, in this order.
    fn subscriptions(&self) -> Vec<Topic> {
        let acks = self.link.settings.acknowledgement == Acknowledgement::Bridge;
        let wishes = self.link.afar.is_some();
        [(Topic::Ack, acks), (Topic::Desired, wishes)]
            .into_iter()
            .filter_map(|(topic, wanted)| wanted.then_some(topic))
            .collect()
    }

    /// A reason to end the connection comes back.
    fn subscribed(&mut self, granted: &[bool]) -> Option<String> {
        let link = self.link;
        for (topic, granted) in self.subscriptions().iter().zip(granted) {
            let filter = link.settings.topics.of(&link.device, topic);
            let denied = format!("the broker's ACL does not let {} subscribe to {filter}", link.device);
            match (topic, granted) {
                (Topic::Ack, false) => {
                    return Some(format!("{denied}; allow it, or set link.acknowledgement to \"broker\""));
                }
                (Topic::Desired, false) => {
                    let what = format!("{denied}; allow it, or set link.remote_settings to false");
                    if link.state.problem("remote settings", &what) {
                        tracing::warn!("{what}");
                    }
                }
                (Topic::Desired, true) => link.state.solved("remote settings"),
                _ => {}
            }
        }
        None
    }

    /// Tells which settings run.
    fn report(&mut self) {
        let Some(afar) = &self.link.afar else { return };
        let Standing { settings, desired } = afar.standing.borrow().clone();
        let now = self.link.clock.now();
        let Ok(timestamp) = jiff::Timestamp::from_millisecond(now.timestamp.as_millisecond()) else { return };
        let reported = Reported { boot: self.link.boot, timestamp, clock: now.clock, settings, desired };
        self.report_due = !self.publish_other(&Topic::Reported, QoS::AtLeastOnce, true, reported.to_json());
    }

    /// The next identity has connected, so it is the current one from now on.
    fn take_over(&mut self) {
        if !self.tries {
            return;
        }
        match block_in_place(|| self.trial.accept(&self.link.state)) {
            Ok(()) => {
                // The same files by another path.
                (self.tries, self.files) = (false, &self.link.settings);
            }
            Err(error) => {
                if self.link.state.problem("certificate", &error.to_string()) {
                    tracing::warn!(%error, "the new certificate cannot be put in place; trying again");
                }
            }
        }
    }

    fn say_status(&mut self, state: DeviceState) {
        let problems = self.link.state.problems();
        let problems = problems.borrow().iter().map(|(part, what)| format!("{part}: {what}")).collect();
        let status = status(self.link, state, problems);
        let said = self.publish_other(&Topic::Status, QoS::AtLeastOnce, true, status.to_json());
        self.status_due = (!said).then_some(state);
    }

    /// Whether rumqttc had room for it.
    fn publish_other(&mut self, topic: &Topic, qos: QoS, retain: bool, payload: Vec<u8>) -> bool {
        let topic = self.link.settings.topics.of(&self.link.device, topic);
        if self.client.publish(topic, qos, retain, payload.into()).is_err() {
            return false;
        }
        self.window.queue_other();
        true
    }

    /// A PUBACK has come.
    fn answered(&mut self, packet: u16, answer: Answer) -> Option<String> {
        let parcel = self.window.acknowledged_by_broker(packet, Instant::now())?;
        let why = match answer {
            Answer::Taken => {
                if self.link.settings.acknowledgement == Acknowledgement::Broker {
                    self.done(&[parcel.id]);
                }
                return None;
            }
            Answer::NotNow(why) => return self.refused(parcel.id, &why),
            Answer::Never(why) => why,
            Answer::NotAuthorized => format!(
                "NotAuthorized; its ACL must let {0} write below {1}/{0}/",
                self.link.device,
                self.link.settings.topics.prefix()
            ),
        };
        self.set_aside(parcel, &why);
        None
    }

    /// What the broker will not take however often it is asked leaves its lane for that of refused records, from where
    /// people can fetch it. Else it would be sent for ever, and hold up what comes after it.
    fn set_aside(&mut self, parcel: Parcel, why: &str) {
        let link = self.link;
        link.state.link(|health| health.refused += 1);
        let Parcel { id, header, payload } = parcel;
        self.window.leave(&[id]);
        let copy = NewRecord { id, header: &header, payload: &payload };
        let moved = block_in_place(|| {
            // Where there is no room for it, it is dropped and counted like any other.
            let _ = link.spool.push(REFUSED, copy)?;
            link.spool.reject(id, why)
        });
        let topic = String::from_utf8_lossy(&header).into_owned();
        match moved {
            Ok(_) => {
                let what = format!(
                    "the broker refuses {topic}: {why}. Refused records are kept apart: see `edgeveil-agent spool`"
                );
                self.set_aside = Some(Instant::now());
                if link.state.problem("broker", &what) {
                    tracing::error!(record = %id, topic, why, "the broker refuses a record; it is kept apart");
                }
            }
            Err(error) => {
                link.spool.release(&[id]);
                tracing::warn!(%error, record = %id, "a refused record could not be kept apart; it is sent again");
            }
        }
    }

    /// It may take the record another time: that is tried with the next connection.
    fn refused(&mut self, id: RecordId, why: &str) -> Option<String> {
        self.link.state.link(|health| health.refused += 1);
        let what = format!("the broker does not take records now: {why}; its log says why");
        if self.link.state.problem("broker", &what) {
            tracing::error!(record = %id, why, "the broker refuses a record; it is kept and tried again later");
        }
        self.refused.push(id);
        (self.refused.len() >= MAX_REFUSED).then_some(what)
    }

    fn heard(&mut self, topic: &[u8], payload: &[u8]) {
        let is = |known: &Topic| topic == self.link.settings.topics.of(&self.link.device, known).as_bytes();
        if let (Some(afar), true) = (&self.link.afar, is(&Topic::Desired)) {
            afar.hear(Heard::Desired(payload.to_vec()));
        } else if is(&Topic::Ack) {
            self.acknowledged(payload);
        }
    }

    fn acknowledged(&mut self, payload: &[u8]) {
        match Ack::from_json(payload) {
            // `doctor` asks the broker whether one may be published.
            Ok(ack) if ack.ids.is_empty() => {}
            Ok(ack) => {
                let ids: Vec<_> = ack.ids.into_iter().map(|id| RecordId(id.to_bytes())).collect();
                self.done(&ids);
            }
            Err(error) => tracing::warn!(%error, "an acknowledgement cannot be read"),
        }
    }

    /// These are delivered. An acknowledgement that comes late, after its record was put back, counts as well: else a
    /// bridge that is slower than the patience would be sent the same records for ever.
    fn done(&mut self, ids: &[RecordId]) {
        self.window.delivered(ids, Instant::now());
        self.restamp.delivered(ids);
        self.had_delivered = true;
        if let Err(error) = block_in_place(|| self.link.spool.done(ids)) {
            // They stay in the spool, go out once more, and are recognised by their ids.
            tracing::warn!(%error, "delivered records could not be removed from the spool");
        }
        self.link.state.solved("bridge");
        let shown = self.set_aside.is_none_or(|at| at.elapsed() >= SHOWN);
        if self.refused.is_empty() && shown {
            self.link.state.solved("broker");
        }
    }

    fn tick(&mut self) -> Option<String> {
        self.link.progress.beat(Part::Link);
        if self.connected {
            self.take_over();
        }
        self.tell_budget();
        if let Some(state) = self.status_due {
            self.say_status(state);
        }
        if self.connected && self.report_due {
            self.report();
        }
        let now = Instant::now();
        if self.window.is_wedged(now) {
            return Some(
                "the broker does not acknowledge a packet, though the link has had the time for it"
                    .to_owned(),
            );
        }
        let mut overdue = self.window.overdue(now);
        overdue.retain(|id| !self.refused.contains(id));
        match self.window.passed_over() {
            0 => self.link.state.solved("records"),
            count => {
                let what = format!(
                    "the bridge acknowledges others, but not {count} records: they wait on disk; its log says why, or it is older than this agent{}",
                    self.or_unsaid()
                );
                if self.link.state.problem("records", &what) {
                    tracing::warn!(count, "the bridge does not acknowledge some records; they are kept");
                }
            }
        }
        if !overdue.is_empty() {
            self.link.state.link(|health| health.repeated += overdue.len() as u64);
            self.link.spool.release(&overdue);
            let what = format!(
                "the broker has records that the bridge does not acknowledge; is it running? they wait on disk{}",
                self.or_unsaid()
            );
            if self.link.state.problem("bridge", &what) {
                tracing::warn!(records = overdue.len(), "no acknowledgement from the bridge; sent again");
            }
        }
        None
    }

    /// What else may be behind a missing acknowledgement.
    fn or_unsaid(&self) -> &'static str {
        match self.link.settings.mqtt_version {
            MqttVersion::V5 => "",
            MqttVersion::V311 => {
                "; or the broker has thrown them away, which MQTT 3.1.1 does not say: see its ACL and its bounds"
            }
        }
    }

    fn tell_budget(&mut self) {
        let link = self.link;
        let used = self.limiter.used_today();
        link.state.link(|health| health.bytes_today = used);
        if !self.limiter.is_spent(link.clock.now()) {
            return link.state.solved("link budget");
        }
        let what = "today's link.daily_bytes are used: readings and images wait on disk until midnight UTC, alerts are sent";
        if link.state.problem("link budget", what) {
            tracing::warn!(used, "{what}");
        }
    }

    /// Whether the certificate files have changed, to something that can be used.
    fn has_new_identity(&mut self) -> bool {
        if self.tries {
            return false;
        }
        if self.trial.is_due() {
            return true;
        }
        let (link, version) = (self.link, Version::of(&self.link.settings));
        if version == self.version {
            return false;
        }
        let loaded = block_in_place(|| Identity::load(&link.settings)).and_then(|identity| {
            identity.check_name(Some(&link.device), &link.settings.cert)?;
            identity.check_time(link.clock.now().timestamp, &link.settings.cert)
        });
        match loaded {
            Ok(()) => {
                link.state.solved("certificate");
                true
            }
            // Half of them may be written yet. The connection stays as it is; the next look may find them whole.
            Err(error) => {
                if link.state.problem("certificate", &error.to_string()) {
                    tracing::warn!(%error, "certificate files have changed and cannot be used");
                }
                false
            }
        }
    }

    /// Ends the connection in order, so that the last will stays unsaid, for another one right after it.
    async fn renew(mut self, end: End) -> End {
        let _ = self.client.disconnect();
        self.hear_out().await;
        end
    }

    /// Takes what still comes after the goodbye.
    async fn hear_out(&mut self) {
        let last = async {
            while let Some(event) = self.received.recv().await {
                let _ = self.event(event);
            }
        };
        let _ = timeout(GOODBYE, last).await;
        self.poll.abort();
    }

    fn give_up(self, why: String) -> End {
        self.poll.abort();
        End::Lost(Lost {
            why,
            had_connected: self.connected,
            was_refused: false,
            had_delivered: self.had_delivered,
            was_slow: false,
        })
    }

    async fn lost(mut self) -> End {
        let mut lost = Lost {
            why: "the connection ended".to_owned(),
            had_connected: self.connected,
            was_refused: false,
            had_delivered: self.had_delivered,
            was_slow: false,
        };
        match (&mut self.poll).await {
            Ok((mut event_loop, failure)) => {
                self.harvest(&mut event_loop);
                if let Some(failure) = failure {
                    lost.was_slow = self.window.is_waiting() && failure.kind == Kind::MissedPing;
                    if failure.kind == Kind::TooLarge
                        && let Some(parcel) = self.window.take_largest()
                    {
                        let why = format!("{} bytes are more than it takes", parcel.payload.len());
                        self.set_aside(parcel, &why);
                    }
                    lost.was_refused = !self.connected && explain::is_refused(&failure);
                    lost.why = explain::explain(&failure, self.files);
                }
                lost.had_delivered |= self.had_delivered;
            }
            Err(error) => lost.why = format!("the connection's task failed: {error}"),
        }
        End::Lost(lost)
    }

    /// Takes the acknowledgements that rumqttc had read when the connection broke.
    fn harvest(&mut self, event_loop: &mut EventLoop) {
        for event in event_loop.left() {
            if matches!(event, Event::Answered(..) | Event::Sent(_) | Event::Message { .. }) {
                let _ = self.event(event);
            }
        }
    }

    async fn goodbye(mut self) -> End {
        if self.connected {
            self.say_status(DeviceState::Stopped);
            let _ = self.client.disconnect();
            self.hear_out().await;
        }
        self.poll.abort();
        End::Stopped
    }
}
