//! A queue of somebody else's: a message names a picture in a bucket, and its veiled copy goes into another bucket under the
//! same name. Only then the message is acknowledged.
//!
//! At least once, one message at a time. A store that is away holds the message, and so the queue, up; a message that cannot
//! be worked on goes to the dead-letter queue, or is rejected without being queued again.

use super::{
    Results,
    veiler::{Failure, Veiled, Veiler},
};
use crate::{
    backoff::Backoff,
    metrics::Metrics,
    objects::{self, Objects},
    readiness::{Part, Readiness},
    settings::{AmqpJobSettings, AnonymiseSettings},
    source::amqp::{connect::connect, transport::Transport},
    tls,
};
use anyhow::{Context, Result, ensure};
use lapin::{
    BasicProperties, Channel, Connection,
    message::{Delivery, DeliveryResult},
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
        BasicRejectOptions, ConfirmSelectOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a connection may take to come about, and a confirmation of the broker to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds after which each side hears from the other.
const HEARTBEAT: u16 = 30;
/// What the message in hand has, at the end, before it is given back.
const GRACE: Duration = Duration::from_secs(3);
/// A message is no longer.
const MAX_MESSAGE: usize = 64 << 10;
/// Keys in S3 are no longer.
const MAX_NAME: usize = 1024;

/// Consumes the queue.
pub struct Foreign {
    settings: AmqpJobSettings,
    attempts: u32,
    max_bytes: u64,
    input: Objects,
    output: Results,
    veiler: Veiler,
    metrics: Arc<Metrics>,
}

/// What a message has to say; what else it says is not asked for.
#[derive(Debug, Deserialize)]
struct Message {
    /// The sender's own: for the log.
    id: serde_json::Value,
    name: String,
}

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    Poison(String),
}

impl Foreign {
    /// Opens the buckets.
    pub async fn open(
        amqp: AmqpJobSettings,
        all: &AnonymiseSettings,
        veiler: Veiler,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let input = Objects::open_as(&amqp.input, "anonymise.amqp.input").await?;
        let output = Results::open(&amqp.output, "anonymise.amqp.output").await?;
        let (attempts, max_bytes) = (all.attempts, all.max_bytes.0);
        Ok(Self { settings: amqp, attempts, max_bytes, input, output, veiler, metrics })
    }

    /// Until it is stopped.
    pub async fn run(self, readiness: &Readiness, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        loop {
            let since = Instant::now();
            let Err(error) = self.session(readiness, &stop).await else { return };
            if since.elapsed() > PATIENCE {
                backoff.reset();
            }
            let why = format!("{error:#}");
            // One line until it is well again.
            if readiness.down(Part::Source, why.clone()) {
                tracing::warn!(error = why, "the queue of pictures does not answer; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(backoff.wait()) => {}
            }
        }
    }

    /// One connection. Ends well only when it is stopped.
    async fn session(&self, readiness: &Readiness, stop: &CancellationToken) -> Result<()> {
        let place = format!("AMQP broker {}:{}", self.settings.host, self.settings.port);
        let connection = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            connected = timeout(PATIENCE, self.connect()) => connected
                .with_context(|| format!("{place}: no connection within {} s", PATIENCE.as_secs()))?
                .with_context(|| place.clone())?,
        };
        let queue = self.settings.queue.as_str();
        for name in [Some(queue), self.settings.dead_letter.as_deref()].into_iter().flatten() {
            declare(&connection, name).await.with_context(|| format!("{place}: queue {name}"))?;
        }
        let channel = connection.create_channel().await?;
        channel.basic_qos(1, BasicQosOptions::default()).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let consumer = channel
            .basic_consume(
                queue.into(),
                "edgeveil-bridge".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .with_context(|| format!("{place}: consuming queue {queue}"))?;
        // The broker gives one message, and the next one after its acknowledgement; the end of the consumer takes two more.
        let (sender, mut deliveries) = mpsc::channel(4);
        consumer.set_delegate(move |delivery: DeliveryResult| {
            let sender = sender.clone();
            async move {
                let _ = sender.send(delivery).await;
            }
        });
        if readiness.up(Part::Source) {
            tracing::info!(queue, "the queue of pictures answers");
        }
        loop {
            let delivery = tokio::select! {
                () = stop.cancelled() => break,
                delivery = deliveries.recv() => delivery,
            };
            match delivery {
                Some(Ok(Some(delivery))) => self.handle(&channel, delivery, stop).await?,
                Some(Err(error)) => return Err(error).with_context(|| place.clone()),
                Some(Ok(None)) | None => anyhow::bail!("{place}: the queue {queue} was taken away"),
            }
        }
        // The broker would find out by itself.
        let _ = timeout(Duration::from_secs(1), connection.close(200, "end".into())).await;
        Ok(())
    }

    async fn connect(&self) -> Result<Connection> {
        let settings = &self.settings;
        // Both are read with each connection, so that they can be changed.
        let password = tokio::fs::read_to_string(&settings.password_file)
            .await
            .with_context(|| format!("anonymise.amqp.password_file {}", settings.password_file.display()))?;
        let transport = match &settings.ca {
            Some(ca) => {
                Transport::new(tls::anonymous_client(ca)?, &settings.host).map_err(anyhow::Error::msg)?
            }
            None => Transport::plain(),
        };
        let uri = AMQPUri {
            // TLS is the transport's own.
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: settings.user.clone(),
                    password: password.trim_end_matches(['\r', '\n']).to_owned(),
                },
                host: settings.host.clone(),
                port: settings.port,
            },
            vhost: settings.vhost.clone(),
            query: AMQPQueryString { heartbeat: Some(HEARTBEAT), ..AMQPQueryString::default() },
        };
        Ok(connect(uri, transport, "edgeveil-bridge worker").await?)
    }

    async fn handle(&self, channel: &Channel, delivery: Delivery, stop: &CancellationToken) -> Result<()> {
        let began = Instant::now();
        let verdict = tokio::select! {
            verdict = self.work(&delivery) => verdict,
            () = async { stop.cancelled().await; sleep(GRACE).await } => {
                delivery.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
                return Ok(());
            }
        };
        match verdict {
            Verdict::Done => {
                delivery.ack(BasicAckOptions::default()).await?;
                self.metrics.anonymise_done.inc();
                self.metrics.anonymise_seconds.observe(began.elapsed().as_secs_f64());
            }
            Verdict::Poison(reason) => {
                self.metrics.anonymise_failed.inc();
                match &self.settings.dead_letter {
                    None => {
                        tracing::warn!(
                            reason,
                            "a message is dropped (anonymise.amqp.dead_letter would keep it)"
                        );
                        delivery.reject(BasicRejectOptions { requeue: false }).await?;
                    }
                    Some(queue) => {
                        tracing::warn!(reason, queue, "a message goes to the dead-letter queue");
                        set_aside(channel, queue, &delivery, &reason).await?;
                        delivery.ack(BasicAckOptions::default()).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn work(&self, delivery: &Delivery) -> Verdict {
        let name = match name(&delivery.data) {
            Ok(name) => name,
            Err(error) => return Verdict::Poison(format!("{error:#}")),
        };
        // Quorum queues count; with others a picture that ends its worker comes again.
        let delivered = deliveries(&delivery.properties);
        if delivered >= i64::from(self.attempts) {
            return Verdict::Poison(format!("{name}: given up after {delivered} deliveries"));
        }
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        let mut searches = 0;
        let mut told = false;
        loop {
            let away = match self.try_once(&name, &mut searches).await {
                Ok(Some(verdict)) => return verdict,
                Ok(None) => None,
                Err(error) => Some(error),
            };
            // One line for each message.
            if let (Some(error), false) = (away, told) {
                told = true;
                tracing::warn!(error = %error, name, "a bucket does not answer; trying again, nothing is lost");
            }
            sleep(backoff.wait()).await;
        }
    }

    /// None: it may work another time. An error: a bucket is away.
    async fn try_once(
        &self,
        name: &str,
        searches: &mut u32,
    ) -> Result<Option<Verdict>, objects::ObjectError> {
        let poison = |why: String| Ok(Some(Verdict::Poison(format!("{name}: {why}"))));
        let raw = match self.input.get_up_to(name, self.max_bytes).await {
            Ok(Some(raw)) => raw,
            Ok(None) => return poison(format!("larger than {} bytes", self.max_bytes)),
            Err(error) if error.missing => {
                return poison("there is no such picture in the input bucket".to_owned());
            }
            Err(error) => return Err(error),
        };
        match self.veiler.veil(raw).await {
            Ok(Veiled { picture, .. }) => self.output.put(name, picture).await.map(|()| Some(Verdict::Done)),
            Err(Failure::Picture(why)) => poison(why),
            Err(Failure::Search(why)) => {
                *searches += 1;
                if *searches < self.attempts { Ok(None) } else { poison(why) }
            }
        }
    }
}

/// The name of the picture, when it can be one in both buckets.
fn name(message: &[u8]) -> Result<String> {
    ensure!(message.len() <= MAX_MESSAGE, "a message of more than 64 KiB");
    let Message { id, name } = serde_json::from_slice(message).context("no valid message")?;
    ensure!(!name.is_empty() && name.len() <= MAX_NAME, "message {id}: a name wants 1 to {MAX_NAME} bytes");
    ensure!(objects::is_key(&name), "message {id}: the name {name:?} cannot be that of an object");
    Ok(name)
}

/// How often a quorum queue has given a message before.
fn deliveries(properties: &BasicProperties) -> i64 {
    let headers = properties.headers().as_ref().map(FieldTable::inner);
    match headers.and_then(|headers| headers.get("x-delivery-count")) {
        Some(AMQPValue::LongLongInt(count)) => *count,
        Some(AMQPValue::LongInt(count)) => i64::from(*count),
        _ => 0,
    }
}

/// As it is, when it is there, of whichever kind; else a durable one.
async fn declare(connection: &Connection, name: &str) -> lapin::Result<()> {
    let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    // The broker closes the channel on which something is asked for that is not there.
    let channel = connection.create_channel().await?;
    if channel.queue_declare(name.into(), look, FieldTable::default()).await.is_ok() {
        return channel.close(200, "looked".into()).await;
    }
    let channel = connection.create_channel().await?;
    channel.queue_declare(name.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    channel.close(200, "declared".into()).await
}

/// Durably, before the message is acknowledged.
async fn set_aside(channel: &Channel, queue: &str, delivery: &Delivery, reason: &str) -> Result<()> {
    let mut headers = FieldTable::default();
    headers.insert("x-edgeveil-reason".into(), AMQPValue::LongString(reason.into()));
    let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let published =
        channel.basic_publish("".into(), queue.into(), options, &delivery.data, properties).await?;
    let confirmed = timeout(PATIENCE, published).await.context("no confirmation of a dead letter")??;
    ensure!(
        matches!(confirmed, lapin::Confirmation::Ack(None)),
        "the broker did not take a dead letter for the queue {queue}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_an_object_or_is_poison() {
        let good = br#"{"id":7,"name":"a b/photo.jpg","storage_location":"s3://infiles","more":1}"#;
        assert_eq!(name(good).unwrap(), "a b/photo.jpg");
        for bad in [
            &b"no JSON"[..],
            br#"{"id":1}"#,
            br#"{"name":"x.jpg"}"#,
            br#"{"id":1,"name":""}"#,
            br#"{"id":1,"name":"../../etc/passwd"}"#,
            br#"{"id":1,"name":"a//b.jpg"}"#,
            br#"{"id":1,"name":"/a.jpg"}"#,
            br#"{"id":1,"name":"a.jpg#1"}"#,
            br#"{"id":1,"name":5}"#,
        ] {
            assert!(name(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(name(&vec![b' '; MAX_MESSAGE + 1]).is_err());
        assert!(name(format!(r#"{{"id":1,"name":"{}"}}"#, "x".repeat(1025)).as_bytes()).is_err());
    }

    #[test]
    fn only_quorum_queues_count_deliveries() {
        let mut headers = FieldTable::default();
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(4));
        assert_eq!(deliveries(&BasicProperties::default().with_headers(headers)), 4);
        assert_eq!(deliveries(&BasicProperties::default()), 0);
    }
}
