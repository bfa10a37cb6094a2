//! AWS IoT Core, by MQTT 5 over TLS with an X.509 certificate.
//!
//! Its bounds are kept here (docs.aws.amazon.com, "AWS IoT Core endpoints and quotas"): QoS 1, 100 publishes a second,
//! 100 without their PUBACK, one CONNECT a second. A row is done only after a PUBACK that says success. Rows are marked
//! in order: what stands behind one that has none is sent again after it, so a consumer never sees a device's alert for
//! the first time after a later one was final.
//!
//! A row that is refused holds up those behind it, since most often everything is refused and has to wait. From its
//! first refusal on rows go one by one. Once it was refused five times, the next one is tried: when that is taken, the
//! refused one is to blame, and is set aside.

mod session;
mod topic;

pub use topic::TopicTemplate;

use super::rows::Rows;
use crate::{
    backoff::Backoff,
    catalog::{Blame, CatalogError, OutboxRow},
    settings::AwsSettings,
    source::external::explain,
    tls,
};
use rumqttc::{
    TlsConfiguration, Transport,
    v5::{AsyncClient, Event, EventLoop, MqttOptions, mqttbytes::v5::Packet},
};
use session::{Session, Step};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// A publish without its PUBACK for so long means that the connection is no good.
const PUBACK: Duration = Duration::from_secs(30);

/// The longest payload that AWS IoT Core takes.
const MAX_PAYLOAD: usize = 128 << 10;

/// Drains the outbox to AWS IoT Core.
pub struct AwsForwarder {
    options: MqttOptions,
    settings: AwsSettings,
    rows: Rows,
    /// Rows over which the last connection was ended, to be tried by another row on the next one.
    suspects: Vec<(OutboxRow, String)>,
}

/// Why a connection ended.
enum End {
    /// It broke, or never came to be.
    Broken(String),
    /// The other side does not want a row, which was noted.
    Refused,
    /// The catalog failed.
    Catalog(CatalogError),
}

impl From<CatalogError> for End {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

impl AwsForwarder {
    /// Reads the certificates; connects only in [`Self::run`].
    pub fn new(settings: AwsSettings, rows: Rows) -> Result<Self, tls::TlsError> {
        let config = tls::client(&settings.tls, settings.alpn.as_deref())?;
        let mut options = MqttOptions::new(&settings.client_id, &settings.endpoint, settings.port);
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))))
            .set_keep_alive(settings.keep_alive)
            // The outbox knows what is under way; a session over there would only send it once more.
            .set_clean_start(true);
        Ok(Self { options, settings, rows, suspects: Vec::new() })
    }

    /// Connects, sends, and connects again, until it is stopped. What is not confirmed then stays in the outbox.
    pub async fn run(mut self, stop: CancellationToken) {
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
            self.rows.count_error();
            let wait = match end {
                End::Refused => refused.wait(),
                End::Broken(reason) => {
                    if !std::mem::replace(&mut quiet, true) {
                        tracing::warn!(place, reason, "cannot forward alerts; they wait in the outbox");
                    }
                    if let Ok(rows) = self.rows.outbox.open(0, 1).await
                        && let Some(oldest) = rows.first()
                    {
                        self.rows.note(oldest.number, &reason, Blame::Target).await;
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

    /// One connection, until it ends.
    async fn connection(&mut self, progress: &mut bool) -> End {
        let window = usize::from(self.settings.max_in_flight);
        let (client, events) = AsyncClient::new(self.options.clone(), window);
        let (sender, mut events_in) = mpsc::channel(window);
        let _poller = AbortOnDropHandle::new(tokio::spawn(poll(events, sender, self.settings.tls.clone())));
        let pace = Duration::from_secs(1) / self.settings.rate;
        let suspects: Vec<i64> = self.suspects.iter().map(|(row, _)| row.number).collect();
        if let Err(error) = self.rows.outbox.give_back(&suspects).await {
            return error.into();
        }
        let mut session = Session::new(client, pace, std::mem::take(&mut self.suspects));
        let mut waiting: VecDeque<OutboxRow> = VecDeque::new();
        let mut connected = false;
        let (mut look, mut due) = (true, Instant::now());
        loop {
            if connected && waiting.is_empty() && look {
                // More than the window, so that the outbox is not asked for every row.
                match self.rows.outbox.take(4 * u32::from(self.settings.max_in_flight)).await {
                    Ok(rows) => {
                        look = !rows.is_empty();
                        if let Err(error) = self.sort(rows, &mut waiting).await {
                            return error.into();
                        }
                    }
                    Err(error) => return error.into(),
                }
                if waiting.is_empty() && session.under_way() == 0 && !session.suspects.is_empty() {
                    // Nobody is there to be tried in their place.
                    return End::Refused;
                }
                due = Instant::now() + self.rows.outbox.patience();
                self.rows.measure().await;
            }
            let window = if session.is_careful(waiting.front()) { 1 } else { window };
            let may_send = connected && !waiting.is_empty() && session.under_way() < window;
            let overdue = session.next + PUBACK;
            tokio::select! {
                event = events_in.recv() => {
                    let step = match event {
                        Some(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                            connected = true;
                            tracing::info!(endpoint = self.settings.endpoint, "connected to AWS IoT Core");
                            Step::On
                        }
                        Some(Ok(event)) => session.event(&event),
                        Some(Err(reason)) => Step::Broken(reason),
                        None => Step::Broken("the connection's task ended".to_owned()),
                    };
                    match step {
                        Step::On => match self.mark(&mut session).await {
                            Ok(marked) => *progress |= marked,
                            Err(error) => return error.into(),
                        },
                        Step::Broken(reason) => return End::Broken(reason),
                        Step::Refused(row, reason, blame) => {
                            if !self.refused(&mut session, row, reason, blame).await {
                                return End::Refused;
                            }
                            look = true;
                        }
                        Step::Cut(row, reason) => {
                            if !self.refused(&mut session, row, reason.clone(), Blame::Row).await {
                                return End::Refused;
                            }
                            self.suspects = session.suspects;
                            return End::Broken(reason);
                        }
                    }
                }
                () = sleep_until(session.next), if may_send => {
                    if let Some(row) = waiting.pop_front()
                        && let Err(reason) = session.send(&self.settings.topic, row)
                    {
                        return End::Broken(reason);
                    }
                }
                () = self.rows.outbox.changed() => look = true,
                () = sleep_until(due), if connected && waiting.is_empty() => look = true,
                () = sleep_until(overdue), if session.under_way() > 0 && !may_send => {
                    return End::Broken(format!("no PUBACK within {} s", PUBACK.as_secs()));
                }
            }
        }
    }

    /// Lets those rows wait that can go, and sets aside those that are too long for AWS.
    async fn sort(
        &self,
        rows: Vec<OutboxRow>,
        waiting: &mut VecDeque<OutboxRow>,
    ) -> Result<(), CatalogError> {
        for row in rows {
            let bytes = row.payload.len();
            if bytes <= MAX_PAYLOAD {
                waiting.push_back(row);
            } else {
                let reason = format!("its {bytes} bytes are over AWS's bound of {MAX_PAYLOAD}");
                self.rows.set_aside(&row, &reason).await?;
            }
        }
        Ok(())
    }

    /// Notes a refusal. Whether another row may be tried in its place.
    async fn refused(&self, session: &mut Session, row: OutboxRow, reason: String, blame: Blame) -> bool {
        let others = self.rows.refused(&row, &reason, blame).await;
        let alone = session.under_way() == 0;
        session.suspects.push((row, reason));
        alone && others
    }

    /// Marks what is confirmed at the head of the window.
    async fn mark(&self, session: &mut Session) -> Result<bool, CatalogError> {
        let numbers = session.confirmed();
        if numbers.is_empty() {
            return Ok(false);
        }
        self.rows.done(&numbers, &mut session.suspects).await?;
        session.forget(numbers.len());
        self.rows.measure().await;
        Ok(true)
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
