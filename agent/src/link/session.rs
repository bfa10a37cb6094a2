//! One connection, from CONNECT to its end.

use super::{
    Identity, Link,
    explain::explain,
    identity::Version,
    limit::Limiter,
    restamp::restamp,
    window::{MAX_UNACKNOWLEDGED, Window},
};
use crate::{record::lane_index, settings::Acknowledgement};
use edgeveil_spool::{Record, RecordId};
use edgeveil_wire::{Ack, ClockState, DeviceState, Lane, Status, Topic};
use rumqttc::{
    Outgoing, TlsConfiguration, Transport,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{ConnectProperties, LastWill, Packet, PubAck, PubAckReason, SubscribeReasonCode},
        },
    },
};
use std::time::Duration;
use tokio::{
    sync::mpsc,
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
    /// It was lost, or never came about; and whether a record was delivered over it.
    Lost(String, Progress),
}

/// Whether a connection has delivered a record: such a one is worth coming back to soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// None was.
    None,
    /// At least one was.
    Some,
}

/// Time for the goodbye when the agent stops.
const GOODBYE: Duration = Duration::from_secs(2);
/// The broker keeps the subscription so long, in seconds: acknowledgements that come while a short outage lasts are kept.
const SESSION_EXPIRY: u32 = 3600;
/// The largest packet that is taken from the broker: acknowledgements are the longest, with 500 ids of 32 characters.
const MAX_INCOMING: u32 = 256 << 10;
/// Refused records are kept back in the window until the connection ends; with so many of them it ends.
const MAX_REFUSED: usize = 20;

/// Connects and works until the connection ends. Whatever was leased is the caller's to release.
pub async fn run(link: &Link, limiter: &mut Limiter, stop: &CancellationToken) -> End {
    let version = Version::of(&link.settings);
    let identity = match block_in_place(|| Identity::load(&link.settings)) {
        Ok(identity) => identity,
        Err(error) => return End::Lost(error.to_string(), Progress::None),
    };
    if let Err(error) = identity.check_time(link.clock.now().timestamp, &link.settings.cert) {
        return End::Lost(error.to_string(), Progress::None);
    }
    let (client, event_loop) = AsyncClient::new(options(link, &identity), MAX_UNACKNOWLEDGED);
    let (events, received) = mpsc::channel(64);
    let poll = tokio::spawn(poll(event_loop, events));
    let session = Session {
        link,
        limiter,
        version,
        client,
        received,
        poll,
        window: Window::new(link.settings.window),
        refused: Vec::new(),
        connected: false,
        progress: Progress::None,
    };
    session.work(stop).await
}

fn options(link: &Link, identity: &Identity) -> MqttOptions {
    let settings = &link.settings;
    let mut options = MqttOptions::new(link.device.as_str(), &settings.host, settings.port);
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(identity.tls.clone())));
    options.set_keep_alive(settings.keep_alive);
    options.set_clean_start(false);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(SESSION_EXPIRY);
    properties.max_packet_size = Some(MAX_INCOMING);
    options.set_connect_properties(properties);
    options.set_outgoing_inflight_upper_limit(2 * MAX_UNACKNOWLEDGED as u16);
    let will = status(link, DeviceState::Offline, Vec::new());
    let topic = settings.topics.of(&link.device, &Topic::Status);
    options.set_last_will(LastWill::new(topic, will.to_json(), QoS::AtLeastOnce, true, None));
    options
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

/// Polls until the connection fails, and gives the event loop back: acknowledgements that it has read and not yet
/// told are still in there. It is polled by nobody else and never dropped half-way, so no packet gets lost in it.
async fn poll(
    mut event_loop: EventLoop,
    events: mpsc::Sender<Event>,
) -> (EventLoop, Option<ConnectionError>) {
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
    /// Of the certificate files that this connection was made with.
    version: Version,
    client: AsyncClient,
    received: mpsc::Receiver<Event>,
    poll: JoinHandle<(EventLoop, Option<ConnectionError>)>,
    window: Window,
    /// Records that the broker refused on this connection.
    refused: Vec<RecordId>,
    connected: bool,
    progress: Progress,
}

impl Session<'_> {
    async fn work(mut self, stop: &CancellationToken) -> End {
        let mut problems = self.link.state.problems();
        let mut health = self.link.health.clone();
        health.mark_unchanged();
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
                            self.poll.abort();
                            return End::Lost(why, self.progress);
                        }
                    }
                    None => return self.lost().await,
                },
                () = self.link.committed.notified() => {}
                Ok(()) = problems.changed(), if self.connected => self.say_status(DeviceState::Online),
                Ok(()) = health.changed(), if self.connected => {
                    let payload = health.borrow_and_update().clone();
                    self.publish_other(&Topic::Health, QoS::AtMostOnce, false, payload);
                }
                _ = ticks.tick() => {
                    if let Some(why) = self.tick() {
                        self.poll.abort();
                        return End::Lost(why, self.progress);
                    }
                    if self.has_new_identity() {
                        return self.renew().await;
                    }
                }
            }
        }
    }

    /// Sends what the window has room for.
    fn fill(&mut self) {
        let Some(limit) = self.window.room() else { return };
        let moment = self.link.clock.now();
        let limit = self.limiter.narrow(limit, Instant::now(), moment.timestamp);
        let records = match block_in_place(|| self.link.spool.lease(limit)) {
            Ok(records) => records,
            Err(error) => {
                if self.link.state.problem("spool", &error.to_string()) {
                    tracing::error!(%error, "cannot read the spool");
                }
                return;
            }
        };
        let now = Instant::now();
        for Record { id, header, payload, live, lane } in records {
            let rest = String::from_utf8_lossy(&header);
            let topic = format!("{}/{}/{rest}", self.link.settings.topics.prefix(), self.link.device);
            let payload = restamp(&rest, payload, self.link.boot, moment);
            let bytes = (header.len() + payload.len()) as u64;
            if self.client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_err() {
                self.link.spool.release(&[id]);
                continue;
            }
            self.window.queue(id, bytes, now);
            self.limiter.sent(bytes, !live && lane != lane_index(Lane::Alert), moment.timestamp);
            self.link.state.link(|health| health.published += 1);
        }
    }

    /// Handles what came; a reason to end the connection comes back.
    fn event(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => self.connected(),
            Event::Outgoing(Outgoing::Publish(packet)) => self.window.sent(packet, Instant::now()),
            Event::Incoming(Packet::PubAck(ack)) => return self.puback(&ack),
            Event::Incoming(Packet::Publish(publish)) => self.acknowledged(&publish.topic, &publish.payload),
            Event::Incoming(Packet::SubAck(ack)) => {
                let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                if !ack.return_codes.iter().all(granted) {
                    let topic = self.link.settings.topics.of(&self.link.device, &Topic::Ack);
                    return Some(format!(
                        "the broker's ACL does not let {} subscribe to {topic}; allow it, or set link.acknowledgement to \"broker\"",
                        self.link.device
                    ));
                }
            }
            Event::Incoming(Packet::Disconnect(disconnect)) => {
                return Some(format!("the broker ended the connection: {:?}", disconnect.reason_code));
            }
            _ => {}
        }
        None
    }

    fn connected(&mut self) {
        let link = self.link;
        self.connected = true;
        link.spool.mark_backlog();
        link.state.link(|health| health.connections += 1);
        link.state.solved("link");
        tracing::info!(broker = %link.settings.host, port = link.settings.port, device = %link.device, "connected");
        if link.settings.acknowledgement == Acknowledgement::Bridge {
            let topic = link.settings.topics.of(&link.device, &Topic::Ack);
            if let Err(error) = self.client.try_subscribe(topic, QoS::AtLeastOnce) {
                tracing::warn!(%error, "cannot ask for acknowledgements; the next connection will");
            }
        }
        self.say_status(DeviceState::Online);
    }

    fn say_status(&mut self, state: DeviceState) {
        let problems = self.link.state.problems();
        let problems = problems.borrow().iter().map(|(part, what)| format!("{part}: {what}")).collect();
        let status = status(self.link, state, problems);
        self.publish_other(&Topic::Status, QoS::AtLeastOnce, true, status.to_json());
    }

    fn publish_other(&mut self, topic: &Topic, qos: QoS, retain: bool, payload: Vec<u8>) {
        let topic = self.link.settings.topics.of(&self.link.device, topic);
        match self.client.try_publish(topic, qos, retain, payload) {
            Ok(()) => self.window.queue_other(),
            Err(error) => tracing::debug!(%error, "left out: the link is busy"),
        }
    }

    fn puback(&mut self, ack: &PubAck) -> Option<String> {
        let id = self.window.acknowledged_by_broker(ack.pkid)?;
        let good = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
        if !good {
            return self.refused(id, ack.reason);
        }
        if self.link.settings.acknowledgement == Acknowledgement::Broker {
            self.done(&[id]);
        }
        None
    }

    /// A refused record is not lost: it stays in the spool, is shown as a problem and tried again with the next connection.
    fn refused(&mut self, id: RecordId, reason: PubAckReason) -> Option<String> {
        self.link.state.link(|health| health.refused += 1);
        let what = format!(
            "the broker refuses records: {reason:?}; its ACL must let {} write below {}/{}/",
            self.link.device,
            self.link.settings.topics.prefix(),
            self.link.device
        );
        if self.link.state.problem("broker", &what) {
            tracing::error!(record = %id, ?reason, "the broker refuses a record; it is kept and tried again later");
        }
        self.refused.push(id);
        (self.refused.len() >= MAX_REFUSED).then_some(what)
    }

    fn acknowledged(&mut self, topic: &[u8], payload: &[u8]) {
        let expected = self.link.settings.topics.of(&self.link.device, &Topic::Ack);
        if topic != expected.as_bytes() {
            return;
        }
        match Ack::from_json(payload) {
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
        self.window.leave(ids);
        self.progress = Progress::Some;
        if let Err(error) = block_in_place(|| self.link.spool.done(ids)) {
            // They stay in the spool, go out once more, and are recognised by their ids.
            tracing::warn!(%error, "delivered records could not be removed from the spool");
        }
        self.link.state.solved("bridge");
        if self.refused.is_empty() {
            self.link.state.solved("broker");
        }
    }

    fn tick(&mut self) -> Option<String> {
        self.tell_budget();
        let (now, patience) = (Instant::now(), self.link.settings.ack_timeout);
        if self.window.is_wedged(now, patience) {
            return Some(format!("the broker left a packet unacknowledged for {} s", patience.as_secs()));
        }
        let mut overdue = self.window.overdue(now, patience);
        overdue.retain(|id| !self.refused.contains(id));
        if !overdue.is_empty() {
            self.link.state.link(|health| health.repeated += overdue.len() as u64);
            self.link.spool.release(&overdue);
            let what = format!(
                "no acknowledgement from the bridge for {} s; is it running? records wait on disk",
                patience.as_secs()
            );
            if self.link.state.problem("bridge", &what) {
                tracing::warn!(records = overdue.len(), "no acknowledgement from the bridge; sent again");
            }
        }
        None
    }

    fn tell_budget(&mut self) {
        let link = self.link;
        let used = self.limiter.used_today();
        link.state.link(|health| health.bytes_today = used);
        if !self.limiter.is_spent(link.clock.now().timestamp) {
            return link.state.solved("link budget");
        }
        let what = "today's link.daily_bytes are used: readings and images wait on disk until midnight UTC, alerts are sent";
        if link.state.problem("link budget", what) {
            tracing::warn!(used, "{what}");
        }
    }

    /// Whether the certificate files have changed, to something that can be used.
    fn has_new_identity(&mut self) -> bool {
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
    async fn renew(mut self) -> End {
        let _ = self.client.try_disconnect();
        self.hear_out().await;
        End::Renewed
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

    async fn lost(self) -> End {
        let Self { link, poll, progress, .. } = self;
        match poll.await {
            Ok((event_loop, error)) => {
                let why = error.map_or_else(
                    || "the connection ended".to_owned(),
                    |error| explain(&error, &link.settings),
                );
                harvest(link, self.window, event_loop);
                End::Lost(why, progress)
            }
            Err(error) => End::Lost(format!("the connection's task failed: {error}"), progress),
        }
    }

    async fn goodbye(mut self) -> End {
        if self.connected {
            self.say_status(DeviceState::Stopped);
            let _ = self.client.try_disconnect();
            self.hear_out().await;
        }
        self.poll.abort();
        End::Stopped
    }
}

/// Takes the acknowledgements that rumqttc had read when the connection broke.
fn harvest(link: &Link, mut window: Window, mut event_loop: EventLoop) {
    let mut ids = Vec::new();
    for event in event_loop.state.events.drain(..) {
        match (event, link.settings.acknowledgement) {
            (Event::Incoming(Packet::PubAck(ack)), Acknowledgement::Broker)
                if matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) =>
            {
                ids.extend(window.acknowledged_by_broker(ack.pkid));
            }
            (Event::Outgoing(Outgoing::Publish(packet)), _) => window.sent(packet, Instant::now()),
            _ => {}
        }
    }
    let ids = window.leave(&ids);
    if let Err(error) = block_in_place(|| link.spool.done(&ids)) {
        tracing::debug!(%error, "delivered records could not be removed from the spool; they go out once more");
    }
}
