//! AWS IoT Core, by MQTT 5 over TLS with an X.509 certificate.
//!
//! Its bounds are kept here (docs.aws.amazon.com, "AWS IoT Core endpoints and quotas"): QoS 1, 100 publishes a second,
//! 100 without their PUBACK, one CONNECT a second. A row is done only after a PUBACK that says success. Rows are marked
//! in order: what stands behind one that has none is sent again after it, so a consumer never sees a device's alert for
//! the first time after a later one was final.

use crate::{
    backoff::Backoff,
    catalog::{CatalogError, Outbox, OutboxRow},
    metrics::{Metrics, TargetLabel},
    settings::AwsSettings,
    source::external::explain,
    tls,
};
use rumqttc::{
    Outgoing, TlsConfiguration, Transport,
    v5::{
        AsyncClient, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{Packet, PubAckReason},
        },
    },
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// A publish without its PUBACK for so long means that the connection is no good.
const PUBACK: Duration = Duration::from_secs(30);
/// A first look at the outbox, and the longest time between two, whoever forgot to wake us.
const LOOK: Duration = Duration::from_secs(30);

/// Drains the outbox to AWS IoT Core.
pub struct AwsForwarder {
    options: MqttOptions,
    settings: AwsSettings,
    outbox: Outbox,
    metrics: Arc<Metrics>,
}

/// Why a connection ended.
enum End {
    /// It broke, or never came to be.
    Broken(String),
    /// The other side does not want this row.
    Refused(i64, String),
    /// The catalog failed.
    Catalog(CatalogError),
}

impl From<CatalogError> for End {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

/// A row that was sent.
struct Sent {
    row: OutboxRow,
    /// Known once the event loop has sent it.
    packet: Option<u16>,
    confirmed: bool,
}

impl AwsForwarder {
    /// Reads the certificates; connects only in [`Self::run`].
    pub fn new(settings: AwsSettings, outbox: Outbox, metrics: Arc<Metrics>) -> Result<Self, tls::TlsError> {
        let config = tls::client(&settings.tls, settings.alpn.as_deref())?;
        let mut options = MqttOptions::new(&settings.client_id, &settings.endpoint, settings.port);
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))))
            .set_keep_alive(settings.keep_alive)
            // The outbox knows what is under way; a session over there would only send it once more.
            .set_clean_start(true);
        Ok(Self { options, settings, outbox, metrics })
    }

    /// Connects, sends, and connects again, until it is stopped. What is not confirmed then stays in the outbox.
    pub async fn run(mut self, stop: CancellationToken) {
        let label = TargetLabel { target: self.outbox.target() };
        let place = format!("{}:{}", self.settings.endpoint, self.settings.port);
        // One CONNECT a second is the most that AWS IoT Core takes.
        let mut broken = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
        let mut refused = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        let mut quiet = false;
        loop {
            let mut progress = false;
            let end = tokio::select! {
                () = stop.cancelled() => return,
                end = self.connection(&mut progress) => end,
            };
            if progress {
                broken.reset();
                refused.reset();
                quiet = false;
            }
            self.metrics.forward_errors.get_or_create(&label).inc();
            let wait = match end {
                End::Refused(number, reason) => {
                    tracing::error!(
                        place,
                        number,
                        reason,
                        "an alert was refused; it stays in the outbox and is tried again later"
                    );
                    self.note(number, &reason).await;
                    refused.wait()
                }
                End::Broken(reason) => {
                    if !std::mem::replace(&mut quiet, true) {
                        tracing::warn!(place, reason, "cannot forward alerts; they wait in the outbox");
                    }
                    if let Ok(rows) = self.outbox.open(0, 1).await
                        && let Some(oldest) = rows.first()
                    {
                        self.note(oldest.number, &reason).await;
                    }
                    broken.wait()
                }
                End::Catalog(error) => {
                    tracing::error!(%error, "cannot forward alerts");
                    broken.wait()
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    async fn note(&self, number: i64, reason: &str) {
        if let Err(error) = self.outbox.failed(number, reason).await {
            tracing::warn!(%error, "cannot note why an alert was not forwarded");
        }
    }

    /// One connection, until it ends.
    async fn connection(&mut self, progress: &mut bool) -> End {
        let window = usize::from(self.settings.max_in_flight);
        let (client, events) = AsyncClient::new(self.options.clone(), window);
        let (sender, mut events_in) = mpsc::channel(window);
        let _poller = AbortOnDropHandle::new(tokio::spawn(poll(events, sender, self.settings.tls.clone())));
        let pace = Duration::from_secs(1) / self.settings.rate;
        let mut session = Session { client, sent: VecDeque::new(), last: 0, next: Instant::now(), pace };
        let mut waiting: VecDeque<OutboxRow> = VecDeque::new();
        let mut connected = false;
        let (mut look, mut due) = (true, Instant::now());
        loop {
            if connected && waiting.is_empty() && look {
                // More than the window, so that the outbox is not asked for every row.
                match self.outbox.open(session.last, 4 * u32::from(self.settings.max_in_flight)).await {
                    Ok(rows) => waiting.extend(rows),
                    Err(error) => return error.into(),
                }
                look = !waiting.is_empty();
                due = Instant::now() + LOOK;
                self.measure().await;
            }
            let may_send = connected && !waiting.is_empty() && session.sent.len() < window;
            let overdue = session.next + PUBACK;
            tokio::select! {
                event = events_in.recv() => {
                    let step = match event {
                        Some(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                            connected = true;
                            tracing::info!(endpoint = self.settings.endpoint, "connected to AWS IoT Core");
                            Ok(())
                        }
                        Some(Ok(event)) => session.event(&event),
                        Some(Err(reason)) => Err(End::Broken(reason)),
                        None => Err(End::Broken("the connection's task ended".to_owned())),
                    };
                    // What was confirmed before the end counts.
                    match self.mark(&mut session).await {
                        Ok(marked) => *progress |= marked,
                        Err(error) => return error.into(),
                    }
                    if let Err(end) = step {
                        return end;
                    }
                }
                () = sleep_until(session.next), if may_send => {
                    if let Some(row) = waiting.pop_front()
                        && let Err(end) = session.send(&self.settings.topic, row)
                    {
                        return end;
                    }
                }
                () = self.outbox.changed() => look = true,
                () = sleep_until(due), if connected && waiting.is_empty() => look = true,
                () = sleep_until(overdue), if !session.sent.is_empty() && !may_send => {
                    return End::Broken(format!("no PUBACK within {} s", PUBACK.as_secs()));
                }
            }
        }
    }

    /// Marks what is confirmed at the head of the window.
    async fn mark(&self, session: &mut Session) -> Result<bool, CatalogError> {
        let numbers = session.confirmed();
        if numbers.is_empty() {
            return Ok(false);
        }
        self.outbox.done(&numbers, jiff::Timestamp::now().as_millisecond()).await?;
        let label = TargetLabel { target: self.outbox.target() };
        self.metrics.forwarded.get_or_create(&label).inc_by(numbers.len() as u64);
        session.sent.drain(..numbers.len());
        self.measure().await;
        Ok(true)
    }

    async fn measure(&self) {
        if let Ok(depth) = self.outbox.depth().await {
            let label = TargetLabel { target: self.outbox.target() };
            self.metrics.outbox_depth.get_or_create(&label).set(depth);
        }
    }
}

/// Polls in a task of its own, since a poll that is dropped half-way would lose what it had read.
async fn poll(
    mut events: EventLoop,
    sender: mpsc::Sender<Result<Event, String>>,
    files: crate::settings::TlsFiles,
) {
    loop {
        match events.poll().await {
            Ok(event) => {
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // What was read before the error counts.
                for event in std::mem::take(&mut events.state.events) {
                    if sender.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                let _ = sender.send(Err(explain(&error, &files))).await;
                return;
            }
        }
    }
}

/// What is under way on one connection.
struct Session {
    client: AsyncClient,
    sent: VecDeque<Sent>,
    /// The number of the last row that was sent.
    last: i64,
    /// When the next publish may go.
    next: Instant,
    pace: Duration,
}

impl Session {
    fn send(&mut self, topic: &str, row: OutboxRow) -> Result<(), End> {
        let sent = self.client.try_publish(topic, QoS::AtLeastOnce, false, row.payload.clone());
        sent.map_err(|error| End::Broken(error.to_string()))?;
        self.last = row.number;
        self.next = Instant::now() + self.pace;
        self.sent.push_back(Sent { row, packet: None, confirmed: false });
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), End> {
        match event {
            Event::Outgoing(Outgoing::Publish(packet)) => {
                // They leave in the order in which they were given.
                if let Some(sent) = self.sent.iter_mut().find(|sent| sent.packet.is_none()) {
                    sent.packet = Some(*packet);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                let Some(sent) = self.sent.iter_mut().find(|s| s.packet == Some(ack.pkid) && !s.confirmed)
                else {
                    return Ok(());
                };
                match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => sent.confirmed = true,
                    reason => {
                        return Err(End::Refused(
                            sent.row.number,
                            format!("PUBACK {reason:?}: {}", advice(reason)),
                        ));
                    }
                }
            }
            Event::Incoming(Packet::Disconnect(end)) => {
                return Err(End::Broken(format!("it ended the connection ({:?})", end.reason_code)));
            }
            _ => {}
        }
        Ok(())
    }

    fn confirmed(&self) -> Vec<i64> {
        self.sent.iter().take_while(|sent| sent.confirmed).map(|sent| sent.row.number).collect()
    }
}

fn advice(reason: PubAckReason) -> &'static str {
    match reason {
        PubAckReason::NotAuthorized => "let the certificate's policy allow iot:Publish on the topic",
        PubAckReason::TopicNameInvalid => "mend forward.aws.topic",
        PubAckReason::QuotaExceeded => "lower forward.aws.rate",
        _ => "see the endpoint's logs",
    }
}
