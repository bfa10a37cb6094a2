//! One client for both versions of MQTT: what the agent needs of rumqttc, in one set of words.
//!
//! rumqttc has two clients of the same make and of different types. Everything that differs between the versions is
//! decided in [`v5`] and [`v311`]; who uses this module sees which version it is by [`Answer`] alone: a PUBACK of
//! 3.1.1 is always [`Answer::Taken`], because it cannot say anything else.

mod v311;
mod v5;

use crate::settings::MqttVersion;
use bytes::Bytes;
use rustls::ClientConfig;
use std::{error::Error, io, sync::Arc, time::Duration};

/// The largest packet that is taken from the broker: acknowledgements are the longest, with 500 ids of 32 characters.
const MAX_INCOMING: u32 = 256 << 10;
/// The largest packet of MQTT, but for its fixed header: rumqttc wants a bound for what it sends, and the broker's is
/// seen to before.
const MAX_OUTGOING: usize = 268_435_455;
/// The broker keeps the subscription so long, in seconds: acknowledgements that come while a short outage lasts are kept.
/// 3.1.1 cannot say so: there it is the broker's own setting.
const SESSION_EXPIRY: u32 = 3600;

/// How to connect.
pub struct Options<'a> {
    /// Of MQTT.
    pub client_id: String,
    /// Name or address.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// With the device's certificate.
    pub tls: Arc<ClientConfig>,
    /// MQTT's.
    pub keep_alive: Duration,
    /// Whether the broker keeps the subscription over a short outage.
    pub session: Session,
    /// What the broker publishes, retained and at QoS 1, when the connection breaks.
    pub will: Option<(String, Vec<u8>)>,
    /// Publishes that wait in the client, at most; twice as many may be without their PUBACK.
    pub queue: u16,
}

/// What is left at the broker between two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// The subscription, and what comes for it.
    Kept,
    /// Nothing.
    Clean,
}

/// Of MQTT; 2 is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QoS {
    AtMostOnce,
    AtLeastOnce,
}

/// The client has no room for another packet, or the topic is none.
#[derive(Debug, thiserror::Error)]
#[error("the MQTT client takes no more now")]
pub struct Full;

/// What happens on a connection.
#[derive(Debug)]
pub enum Event {
    /// CONNACK, which said yes.
    Connected {
        /// The largest packet that the broker takes, where it says so.
        max_packet: Option<u32>,
    },
    /// A publish is on the wire under this packet id; 0 is QoS 0.
    Sent(u16),
    /// PUBACK.
    Answered(u16, Answer),
    /// A message has come.
    Message {
        /// Its topic.
        topic: Bytes,
        /// What is in it.
        payload: Bytes,
    },
    /// SUBACK.
    Subscribed {
        /// Whether each of the filters was granted, in their order.
        granted: Vec<bool>,
    },
    /// DISCONNECT from the broker, and its reason.
    Ended(String),
}

/// What a PUBACK says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With 3.1.1 it may have been thrown away all the same.
    Taken,
    /// The ACL does not allow it.
    NotAuthorized,
    /// Not this record, whenever it is sent.
    Never(String),
    /// Not now.
    NotNow(String),
}

/// Why there is no connection, or no longer.
#[derive(Debug)]
pub struct Failure {
    /// What matters for what is done next.
    pub kind: Kind,
    /// What TLS has said.
    pub tls: Option<rustls::Error>,
    /// What the system has said.
    pub io: Option<io::ErrorKind>,
    /// As rumqttc has it.
    pub text: String,
}

/// Kinds of [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// CONNACK said no.
    Refused(Refusal),
    /// It speaks another version of MQTT than it was addressed in.
    OtherVersion,
    /// Nothing comes back.
    Silent,
    /// The answer to a ping did not come in time.
    MissedPing,
    /// The broker has closed the connection without a word.
    Closed,
    /// It has said why it ended it.
    Ended(String),
    /// It has found a packet too large.
    TooLarge,
    /// See the rest.
    Other,
}

/// Why CONNACK said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    NotAuthorized,
    ClientId,
    /// Anything else that another try will not change.
    Never(String),
    /// It may say yes another time.
    NotNow(String),
}

impl Failure {
    /// `cause` is where the chain of causes begins; rumqttc leaves some links out.
    fn new(kind: Kind, cause: &(dyn Error + 'static), text: String) -> Self {
        let tls = super::find::<rustls::Error>(cause).cloned();
        let io = super::find::<io::Error>(cause).map(io::Error::kind);
        Self { kind, tls, io, text }
    }
}

/// Hands packets to an [`EventLoop`].
#[derive(Clone)]
pub enum Client {
    V5(rumqttc::v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

/// Moves packets. It connects when it is first asked for an event.
pub enum EventLoop {
    V5(Box<rumqttc::v5::EventLoop>),
    V311(Box<rumqttc::EventLoop>),
}

/// A client and its event loop. Nothing is sent before the latter is asked.
pub fn open(version: MqttVersion, options: Options<'_>) -> (Client, EventLoop) {
    match version {
        MqttVersion::V5 => {
            let (client, events) = v5::open(options);
            (Client::V5(client), EventLoop::V5(Box::new(events)))
        }
        MqttVersion::V311 => {
            let (client, events) = v311::open(options);
            (Client::V311(client), EventLoop::V311(Box::new(events)))
        }
    }
}

impl Client {
    /// PUBLISH.
    pub fn publish(&self, topic: String, qos: QoS, retain: bool, payload: Bytes) -> Result<(), Full> {
        match self {
            Self::V5(client) => client.try_publish(topic, v5::qos(qos), retain, payload).map_err(|_| Full),
            Self::V311(client) => {
                client.try_publish(topic, v311::qos(qos), retain, payload).map_err(|_| Full)
            }
        }
    }

    /// SUBSCRIBE at QoS 1, in one packet.
    pub fn subscribe(&self, filters: Vec<String>) -> Result<(), Full> {
        match self {
            Self::V5(client) => {
                let filter =
                    |filter| rumqttc::v5::mqttbytes::v5::Filter::new(filter, v5::qos(QoS::AtLeastOnce));
                client.try_subscribe_many(filters.into_iter().map(filter)).map_err(|_| Full)
            }
            Self::V311(client) => {
                let filter = |filter| rumqttc::SubscribeFilter::new(filter, v311::qos(QoS::AtLeastOnce));
                client.try_subscribe_many(filters.into_iter().map(filter)).map_err(|_| Full)
            }
        }
    }

    /// DISCONNECT: the last will stays unsaid.
    pub fn disconnect(&self) -> Result<(), Full> {
        match self {
            Self::V5(client) => client.try_disconnect().map_err(|_| Full),
            Self::V311(client) => client.try_disconnect().map_err(|_| Full),
        }
    }
}

impl EventLoop {
    /// The next event. After a failure it would connect anew; a dropped call may lose what it has read.
    pub async fn poll(&mut self) -> Result<Event, Failure> {
        loop {
            let event = match self {
                Self::V5(events) => v5::event(events.poll().await.map_err(|error| v5::failure(&error))?),
                Self::V311(events) => {
                    v311::event(events.poll().await.map_err(|error| v311::failure(&error))?)
                }
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    /// What had been read when the connection broke, and was not given out yet.
    pub fn left(&mut self) -> Vec<Event> {
        match self {
            Self::V5(events) => events.state.events.drain(..).filter_map(v5::event).collect(),
            Self::V311(events) => events.state.events.drain(..).filter_map(v311::event).collect(),
        }
    }
}
