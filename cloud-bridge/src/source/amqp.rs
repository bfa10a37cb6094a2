//! RabbitMQ, by AMQP 0-9-1 over TLS. Devices speak MQTT to it; its plugin publishes what they send on a topic exchange, and
//! a quorum queue that is bound to it keeps the messages until this bridge, or another one on the same queue, has
//! committed them.
//!
//! Each connection is made of two: one consumes and one publishes, since a RabbitMQ that is short of memory or disk stops
//! reading from connections that publish, and acknowledgements are what makes room again. When either breaks both are made
//! anew, to the next node. What had no acknowledgement comes again; ingest knows it by its id.

pub(crate) mod connect;
pub(crate) mod transport;

use super::{GOODBYE, Intake, Publisher, Receipt, STOPPING, Stops, ToSend};
use crate::{
    backoff::Backoff,
    metrics::Metrics,
    readiness::{Part, Readiness},
    settings::{AmqpSettings, LegacySettings},
    tls,
};
use bytes::Bytes;
use connect::{Connections, explain, open, publishing_channel};
use edgeveil_wire::Topics;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Confirmation, Consumer, Event, PublisherConfirm,
    options::{BasicAckOptions, BasicCancelOptions, BasicPublishOptions},
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// Messages to devices that the broker has not confirmed. Further ones wait.
const UNCONFIRMED: usize = 1024;
/// Different lines about connections that did not come about, until there is one.
const REASONS: usize = 16;
/// A device's message as AMQP has it: kept on disk by queues that are.
const PERSISTENT: u8 = 2;
/// A channel publishes for so long, and then another one takes its place. RabbitMQ 3.10 may go on confirming what one publishes
/// and yet put nothing more of it into a quorum queue whose leader has changed, for as long as the channel lives: seen with
/// nodes killed one after the other.
const RENEWAL: Duration = Duration::from_secs(30);
const UNHEARD: &str = "it does not confirm what it was sent";
const CANCELLED: &str = "it ended the consumer: the queue was deleted, or its node is going";

/// The routing key that RabbitMQ's MQTT plugin makes of a topic, or the binding that it makes of a filter. Names have no
/// dots, so nothing is lost on the way back.
fn routing_key(topic: &str) -> String {
    topic.replace('/', ".").replace('+', "*")
}

fn topic(routing_key: &str) -> String {
    routing_key.replace('.', "/")
}

/// A message that waits for its acknowledgement.
#[derive(Debug)]
pub struct Ack {
    connection: mpsc::Sender<u64>,
    tag: u64,
}

impl Ack {
    pub(super) fn send(self) {
        // The connection it came by is gone: the broker will deliver it again.
        if self.connection.try_send(self.tag).is_err() {
            tracing::debug!("an acknowledgement came too late for its connection");
        }
    }
}

/// Delivery tags count from 1 on each channel. One acknowledgement stands for all up to its tag.
#[derive(Debug, Default)]
struct Tags {
    acknowledged: u64,
    /// Done before another one that came earlier; no more than the prefetch.
    done: BTreeSet<u64>,
}

impl Tags {
    fn done(&mut self, tag: u64) {
        self.done.insert(tag);
    }

    /// The last one of those that may be acknowledged now.
    fn next(&mut self) -> Option<u64> {
        let before = self.acknowledged;
        while self.done.remove(&(self.acknowledged + 1)) {
            self.acknowledged += 1;
        }
        (self.acknowledged > before).then_some(self.acknowledged)
    }
}

/// The connection, and what it needs to be made again.
pub struct Amqp {
    settings: AmqpSettings,
    filters: Vec<String>,
    intake: Intake,
    to_send: mpsc::Receiver<ToSend>,
    /// What a connection that broke had not confirmed; no more than `UNCONFIRMED`.
    again: VecDeque<ToSend>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    stops: Stops,
}

impl Amqp {
    /// Reads the certificates, as each connection does again; connects only in [`Self::run`].
    pub fn new(
        settings: &AmqpSettings,
        topics: &Topics,
        legacy: Option<&LegacySettings>,
        intake: Intake,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
        stops: Stops,
    ) -> Result<(Self, Publisher), tls::TlsError> {
        tls::client(&settings.tls, None)?;
        let (publisher, to_send) = Publisher::new();
        let theirs = legacy.map(|legacy| legacy.topic.filter().to_owned());
        let filters = topics.filters().into_iter().chain(theirs).collect();
        let (settings, again) = (settings.clone(), VecDeque::new());
        Ok((Self { settings, filters, intake, to_send, again, readiness, metrics, stops }, publisher))
    }

    /// Connects again and again until it is stopped.
    pub async fn run(mut self) {
        let stops = self.stops.clone();
        // However it ends, nobody waits for more from here.
        let _handed_over = stops.handed_over.clone().drop_guard();
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let nodes = self.settings.hosts.clone();
        let mut told = BTreeSet::new();
        self.readiness.down(Part::Source, format!("connecting to {}", nodes.first()));
        for node in nodes.in_turn() {
            let opened = tokio::select! {
                () = stops.intake.cancelled() => return,
                opened = open(&self.settings, node, &self.filters) => opened,
            };
            let (was_up, reason) = match opened {
                Err(reason) => (false, reason),
                Ok(connections) => {
                    self.readiness.up(Part::Source);
                    tracing::info!(broker = %node, queue = self.settings.queue, "consuming");
                    (true, self.serve(connections).await)
                }
            };
            if stops.intake.is_cancelled() {
                return;
            }
            if was_up {
                backoff.reset();
                tracing::warn!(broker = %node, reason, "lost the broker; trying again");
            }
            let reason = format!("broker {node}: {reason}");
            self.readiness.down(Part::Source, reason.clone());
            if was_up {
                told.clear();
            } else if told.len() < REASONS && told.insert(reason.clone()) {
                tracing::warn!(reason, "no connection to the broker; trying again");
            }
            tokio::select! {
                () = stops.intake.cancelled() => return,
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
    }

    /// One pair of connections, until one of them breaks or they are left; then why.
    async fn serve(&mut self, mut connections: Connections) -> String {
        let mut unconfirmed = VecDeque::new();
        let reason = self.pass(&mut connections, &mut unconfirmed).await;
        if self.stops.leave.is_cancelled() {
            let confirmed = async {
                while let Some(Ok(_)) = first(&mut unconfirmed).await {
                    unconfirmed.pop_front();
                }
            };
            let _ = timeout(GOODBYE, confirmed).await;
        }
        // Published again by the next connection, before what has come since.
        self.again.extend(unconfirmed.into_iter().map(|(message, _)| message));
        let goodbye = async {
            let _ = connections.consuming.close(200, "goodbye".into()).await;
            let _ = connections.publishing.close(200, "goodbye".into()).await;
        };
        let _ = timeout(GOODBYE, goodbye).await;
        reason
    }

    async fn pass(
        &mut self,
        connections: &mut Connections,
        unconfirmed: &mut VecDeque<(ToSend, PublisherConfirm)>,
    ) -> String {
        let stops = self.stops.clone();
        let mut events = Box::pin(connections.publishing.events_listener());
        let prefetch = usize::from(self.settings.prefetch);
        let (sender, mut done) = mpsc::channel(prefetch);
        let feed = feed(connections.consumer.clone(), self.intake.clone(), sender, self.metrics.clone());
        let mut feeder = AbortOnDropHandle::new(tokio::spawn(feed));
        let (mut feeding, mut stopping) = (true, false);
        let mut tags = Tags::default();
        let mut renewal = interval_at(Instant::now() + RENEWAL, RENEWAL);
        let (mut renews, mut blocked) = (false, false);
        loop {
            if renews && unconfirmed.is_empty() {
                let renewed = timeout(GOODBYE, publishing_channel(&connections.publishing)).await;
                match renewed {
                    Ok(Ok(fresh)) => {
                        let old = std::mem::replace(&mut connections.published, fresh);
                        tokio::spawn(async move { old.close(200, "renewed".into()).await });
                        renews = false;
                    }
                    Ok(Err(error)) => return explain(&error, &self.settings),
                    Err(_) => return UNHEARD.to_owned(),
                }
            }
            let published = tokio::select! {
                biased;
                end = &mut feeder, if feeding => match end {
                    Ok(Ok(())) if stopping => {
                        feeding = false;
                        stops.handed_over.cancel();
                        Ok(())
                    }
                    Ok(Ok(())) => return CANCELLED.to_owned(),
                    Ok(Err(error)) => Err(error),
                    Err(error) => return error.to_string(),
                },
                Some(event) = events.next() => match event {
                    Event::Error(error) => Err(error),
                    Event::ConnectionBlocked(reason) => {
                        tracing::warn!(reason, "the broker takes nothing at present: see its memory and disk alarms");
                        blocked = true;
                        Ok(())
                    }
                    Event::ConnectionUnblocked => {
                        blocked = false;
                        Ok(())
                    }
                    _ => Ok(()),
                },
                () = stops.intake.cancelled(), if !stopping => {
                    stopping = true;
                    // What has been delivered still goes to ingest, up to the end of the consumer.
                    let tag = connections.consumer.tag();
                    connections.consumed.basic_cancel(tag, BasicCancelOptions::default()).await
                }
                Some(tag) = done.recv() => {
                    tags.done(tag);
                    while let Ok(tag) = done.try_recv() {
                        tags.done(tag);
                    }
                    match tags.next() {
                        Some(tag) => {
                            let all_up_to = BasicAckOptions { multiple: true };
                            connections.consumed.basic_ack(tag, all_up_to).await
                        }
                        None => Ok(()),
                    }
                }
                Some(confirmed) = first(unconfirmed) => confirmed.map(|confirmation| {
                    unconfirmed.pop_front();
                    if let Confirmation::Nack(_) = confirmation {
                        tracing::debug!("the broker could not keep a message to a device");
                    }
                }),
                _ = renewal.tick(), if !blocked => {
                    if std::mem::replace(&mut renews, true) {
                        return UNHEARD.to_owned();
                    }
                    Ok(())
                }
                Some(message) = next(&mut self.again, &mut self.to_send), if unconfirmed.len() < UNCONFIRMED && !renews => {
                    publish(connections, &self.settings.exchange, message, unconfirmed).await
                }
                // Last, so that nothing is left to be sent when it is its turn.
                () = stops.leave.cancelled() => return STOPPING.to_owned(),
            };
            if let Err(error) = published {
                return explain(&error, &self.settings);
            }
        }
    }
}

/// Hands deliveries to ingest, which slows the broker down: no more than the prefetch are under way.
async fn feed(
    mut consumer: Consumer,
    intake: Intake,
    done: mpsc::Sender<u64>,
    metrics: Arc<Metrics>,
) -> Result<(), lapin::Error> {
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        if delivery.redelivered {
            metrics.redelivered.inc();
        }
        let receipt = Receipt::Amqp(Ack { connection: done.clone(), tag: delivery.delivery_tag });
        let (topic, payload) = (topic(delivery.routing_key.as_str()), Bytes::from(delivery.data));
        if !intake.send(topic, payload, receipt, delivery.redelivered).await {
            break;
        }
    }
    Ok(())
}

/// The oldest confirmation, when there is one to come.
async fn first(
    unconfirmed: &mut VecDeque<(ToSend, PublisherConfirm)>,
) -> Option<Result<Confirmation, lapin::Error>> {
    Some((&mut unconfirmed.front_mut()?.1).await)
}

async fn next(again: &mut VecDeque<ToSend>, to_send: &mut mpsc::Receiver<ToSend>) -> Option<ToSend> {
    match again.pop_front() {
        Some(message) => Some(message),
        None => to_send.recv().await,
    }
}

async fn publish(
    connections: &Connections,
    exchange: &str,
    message: ToSend,
    unconfirmed: &mut VecDeque<(ToSend, PublisherConfirm)>,
) -> Result<(), lapin::Error> {
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into());
    let sent = connections.published.basic_publish(
        exchange.into(),
        routing_key(&message.topic).into(),
        BasicPublishOptions::default(),
        &message.payload,
        properties,
    );
    let confirm = sent.await?;
    unconfirmed.push_back((message, confirm));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_become_routing_keys_and_come_back() {
        for filter in Topics::new("site/edgeveil").unwrap().filters() {
            assert!(!routing_key(&filter).contains(['/', '+']), "{filter}");
        }
        assert_eq!(routing_key("edgeveil/+/reading/+"), "edgeveil.*.reading.*");
        let reading = "edgeveil/edge-001/reading/env_2";
        assert_eq!(topic(&routing_key(reading)), reading);
    }

    #[test]
    fn one_acknowledgement_stands_for_all_that_are_done_without_a_gap() {
        let mut tags = Tags::default();
        assert_eq!(tags.next(), None);
        [1, 2, 4].into_iter().for_each(|tag| tags.done(tag));
        assert_eq!((tags.next(), tags.next()), (Some(2), None));
        tags.done(3);
        assert_eq!((tags.next(), tags.next()), (Some(4), None));
    }
}
