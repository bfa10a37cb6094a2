//! A topic of Kafka, or of whatever speaks like it.
//!
//! A record's key is the device, and its partition follows from the key as with Kafka's own clients (murmur2), so all
//! alerts of a device are in one partition, in order. A row is done when all replicas in sync have it (`acks=all`). A
//! record that was written and whose answer was lost is written again: the header `id` is the same, so that a consumer
//! can tell doubles.

use super::in_turn::{Answer, Target};
use crate::{
    catalog::OutboxRow,
    settings::{KafkaSettings, KafkaTls},
    tls::{self, TlsError},
};
use rskafka::{
    BackoffConfig,
    chrono::{DateTime, Utc},
    client::{
        Client, ClientBuilder, Credentials, SaslConfig,
        error::{Error, ProtocolError},
        partition::{Compression, PartitionClient, UnknownTopicHandling},
    },
    record::Record,
};
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::time::timeout;

/// What is taken of an answer at most. Answers to producers and lists of brokers are far smaller.
const LONGEST_ANSWER: usize = 16 << 20;
/// How long the client tries by itself before it says so.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long all of an attempt may take. What a server neither refuses nor answers would hold up the outbox for ever.
const ATTEMPT: Duration = Duration::from_secs(30);

/// Why Kafka cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// The certificates.
    #[error("forward.kafka: {0}")]
    Tls(#[from] TlsError),
    /// The password's file.
    #[error("forward.kafka.password_file {path}: {why}; write the password of forward.kafka.user into it", path = path.display())]
    Password {
        /// Where.
        path: PathBuf,
        /// What was seen.
        why: String,
    },
}

/// A topic.
pub struct Kafka {
    settings: KafkaSettings,
    topic: Option<Topic>,
}

/// The topic as it was found. It is looked up again after each failure.
struct Topic {
    client: Client,
    /// By their number; bounded by what the topic has.
    partitions: Vec<Option<PartitionClient>>,
}

impl Kafka {
    /// Reads certificates and password once, to tell what is wrong with them; connects only when there is something.
    pub fn new(settings: KafkaSettings) -> Result<Self, KafkaError> {
        config(&settings)?;
        Ok(Self { settings, topic: None })
    }

    async fn find(&self) -> Result<Topic, String> {
        // Certificates and password may have been renewed since the last time.
        let client = config(&self.settings).map_err(|error| error.to_string())?;
        let client = client.build().await.map_err(|error| explain(&error))?;
        let topics = client.list_topics().await.map_err(|error| explain(&error))?;
        let name = &self.settings.topic;
        let found = topics.into_iter().find(|topic| &topic.name == name);
        let partitions = found.map_or(0, |topic| topic.partitions.len());
        if partitions == 0 {
            return Err(format!(
                "the topic `{name}` is not there, or this client may not see it: make it, and let the client write to it"
            ));
        }
        Ok(Topic { client, partitions: (0..partitions).map(|_| None).collect() })
    }

    async fn attempt(&mut self, row: &OutboxRow) -> Result<(), Failure> {
        if self.topic.is_none() {
            self.topic = Some(self.find().await.map_err(Failure::Unavailable)?);
        }
        let Some(topic) = &mut self.topic else { unreachable!("it was found above") };
        let number = partition(row.device.as_bytes(), topic.partitions.len());
        let partition = match &mut topic.partitions[number] {
            Some(partition) => partition,
            none => {
                let index = i32::try_from(number).expect("Kafka counts partitions by 32 bits");
                let name = self.settings.topic.clone();
                let client = topic.client.partition_client(name, index, UnknownTopicHandling::Error);
                none.insert(client.await.map_err(|error| Failure::Unavailable(explain(&error)))?)
            }
        };
        let produced = partition.produce(vec![record(row)], Compression::NoCompression).await;
        produced.map(drop).map_err(|error| match &error {
            Error::ServerError {
                protocol_error:
                    ProtocolError::MessageTooLarge
                    | ProtocolError::RecordListTooLarge
                    | ProtocolError::InvalidRecord
                    | ProtocolError::InvalidTimestamp,
                ..
            } => Failure::Refused(explain(&error)),
            _ => Failure::Unavailable(explain(&error)),
        })
    }
}

enum Failure {
    Refused(String),
    Unavailable(String),
}

impl Target for Kafka {
    fn place(&self) -> String {
        format!("{} of {}", self.settings.topic, self.settings.brokers.join(", "))
    }

    fn rate(&self) -> u32 {
        self.settings.rate
    }

    async fn send(&mut self, row: &OutboxRow) -> Answer {
        let attempt = timeout(ATTEMPT, self.attempt(row)).await;
        match attempt {
            Ok(Ok(())) => Answer::Taken,
            Ok(Err(Failure::Refused(reason))) => Answer::Refused(reason),
            Ok(Err(Failure::Unavailable(reason))) => {
                self.topic = None;
                Answer::Unavailable { reason, wait: None }
            }
            Err(_) => {
                self.topic = None;
                let reason = format!("no answer within {} s", ATTEMPT.as_secs());
                Answer::Unavailable { reason, wait: None }
            }
        }
    }
}

/// A client as the settings name it.
pub fn config(settings: &KafkaSettings) -> Result<ClientBuilder, KafkaError> {
    let mut client = ClientBuilder::new(settings.brokers.clone())
        .client_id(settings.client_id.as_str())
        .max_message_size(LONGEST_ANSWER)
        .backoff_config(BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
            deadline: Some(PATIENCE),
        });
    match &settings.tls {
        KafkaTls::None => {}
        KafkaTls::Server(ca) => client = client.tls_config(Arc::new(tls::anonymous_client(ca)?)),
        KafkaTls::Mutual(files) => client = client.tls_config(Arc::new(tls::client(files, None)?)),
    }
    if let Some((user, file)) = &settings.login {
        let bad = |why: String| KafkaError::Password { path: file.clone(), why };
        let password = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(bad("is empty".to_owned()));
        }
        let credentials = Credentials::new(user.clone(), password.to_owned());
        client = client.sasl_config(match settings.mechanism {
            crate::settings::KafkaMechanism::Plain => SaslConfig::Plain(credentials),
            crate::settings::KafkaMechanism::Scram256 => SaslConfig::ScramSha256(credentials),
            crate::settings::KafkaMechanism::Scram512 => SaslConfig::ScramSha512(credentials),
        });
    }
    Ok(client)
}

fn record(row: &OutboxRow) -> Record {
    /// When the alert was, by which Kafka keeps and finds records.
    #[derive(Deserialize)]
    struct When {
        timestamp: jiff::Timestamp,
    }
    let when = serde_json::from_str(&row.payload).map(|When { timestamp }| timestamp.as_millisecond());
    let when = when.ok().and_then(DateTime::from_timestamp_millis).unwrap_or_else(Utc::now);
    let headers = [("id", row.record.as_str()), ("content-type", "application/json")];
    Record {
        key: Some(row.device.clone().into_bytes()),
        value: Some(row.payload.clone().into_bytes()),
        headers: BTreeMap::from(headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))),
        timestamp: when,
    }
}

/// A key's partition, as Kafka's own clients choose it.
fn partition(key: &[u8], of: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % of
}

/// MurmurHash2 of 32 bits with Kafka's seed.
fn murmur2(bytes: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    let length = u32::try_from(bytes.len()).expect("a key is short");
    let mut hash = 0x9747_b28c ^ length;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(MIX);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MIX) ^ word.wrapping_mul(MIX);
    }
    for (at, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

/// What went wrong, and what to do about it where that is known.
fn explain(error: &Error) -> String {
    let Error::ServerError { protocol_error, error_message, .. } = error else {
        return error.to_string();
    };
    let advice = match protocol_error {
        ProtocolError::UnknownTopicOrPartition => "make the topic of forward.kafka.topic",
        ProtocolError::TopicAuthorizationFailed | ProtocolError::ClusterAuthorizationFailed => {
            "let this client write to the topic of forward.kafka.topic"
        }
        ProtocolError::SaslAuthenticationFailed => "mend forward.kafka.user and its password_file",
        ProtocolError::MessageTooLarge | ProtocolError::RecordListTooLarge => {
            "let the topic take 128 KiB (max.message.bytes)"
        }
        _ => "see the brokers' logs",
    };
    match error_message {
        Some(said) if !said.is_empty() => format!("{protocol_error} ({said}); {advice}"),
        _ => format!("{protocol_error}; {advice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kafka's own test of its hash has these.
    #[test]
    fn keys_are_hashed_as_kafkas_clients_do_it() {
        let known: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }
}
