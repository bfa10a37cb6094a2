//! Where messages come from, and how answers go back to devices.
//!
//! Ingest sees only [`Inbound`] and [`ToDevices`]: whether the broker runs in this process or elsewhere is decided once,
//! in `serve`.

pub mod amqp;
pub mod external;

use crate::broker;
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Messages to devices on their way to a connection. When it is full, the newest is dropped: the device will send its
/// records again, and will then be told.
const TO_DEVICES: usize = 4096;
/// Between two looks at the queue of those who can wait.
const LEISURE: Duration = Duration::from_millis(50);
/// How long RabbitMQ may take for each of our last acknowledgements and the end of the connection when the bridge stops.
const GOODBYE: Duration = Duration::from_secs(1);
/// Why a connection ended that was not lost.
const STOPPING: &str = "the bridge is stopping";

/// A message as it came.
#[derive(Debug)]
pub struct Inbound {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// What to do once its content is durable.
    pub receipt: Receipt,
    /// Whether it was sent before.
    pub again: bool,
    room: Room,
}

/// A share of the queue's memory, given back when it is dropped.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

impl Inbound {
    /// What is left of it once it has been read.
    pub fn settle(self) -> (Receipt, Room) {
        (self.receipt, self.room)
    }
}

/// The source's own acknowledgement.
#[derive(Debug)]
pub enum Receipt {
    /// The embedded broker has none: the device keeps its record until our `Ack` reaches it.
    None,
    /// A broker elsewhere keeps the message until its PUBACK.
    Mqtt(external::PubAck),
    /// A queue elsewhere keeps the message until its acknowledgement.
    Amqp(amqp::Ack),
}

impl Receipt {
    /// Tells the source that the message may be forgotten.
    pub fn done(self) {
        match self {
            Self::None => {}
            Self::Mqtt(puback) => puback.send(),
            Self::Amqp(ack) => ack.send(),
        }
    }
}

/// The way into ingest: bounded in messages and in bytes. Whoever sends waits while it is full, and that is what slows
/// devices down.
#[derive(Debug, Clone)]
pub struct Intake {
    queue: mpsc::Sender<Inbound>,
    room: Arc<Semaphore>,
    kib: u32,
}

/// Permits are KiB, so that 32 bits count any memory.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl Intake {
    /// Room for so many messages and bytes.
    pub fn new(messages: usize, bytes: u64) -> (Self, mpsc::Receiver<Inbound>) {
        let (queue, receiver) = mpsc::channel(messages);
        let kib = kib(usize::try_from(bytes).unwrap_or(usize::MAX));
        (Self { queue, room: Arc::new(Semaphore::new(kib as usize)), kib }, receiver)
    }

    /// Waits until there is room. False when ingest has ended.
    pub async fn send(&self, topic: String, payload: Bytes, receipt: Receipt, again: bool) -> bool {
        let share = kib(topic.len() + payload.len()).clamp(1, self.kib);
        let Ok(room) = self.room.clone().acquire_many_owned(share).await else { return false };
        self.queue.send(Inbound { topic, payload, receipt, again, room: Room(room) }).await.is_ok()
    }

    /// Does not wait: for messages that are worth nothing when they are late. False when there was no room.
    pub fn offer(&self, topic: String, payload: Bytes) -> bool {
        let share = kib(topic.len() + payload.len()).clamp(1, self.kib);
        let Ok(room) = self.room.clone().try_acquire_many_owned(share) else { return false };
        let (receipt, again) = (Receipt::None, false);
        let inbound = Inbound { topic, payload, receipt, again, room: Room(room) };
        self.queue.try_send(inbound).is_ok()
    }
}

/// How far a message to a device is assured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 1.
    AtLeastOnce,
    /// QoS 1, and kept for whoever subscribes later.
    Retained,
}

/// How a source elsewhere is stopped, so that what is committed is also acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    /// Take no more from the broker.
    pub intake: CancellationToken,
    /// Said by the source: ingest has all that it will get.
    pub handed_over: CancellationToken,
    /// Ingest has finished: send the acknowledgements that are left, and go.
    pub leave: CancellationToken,
}

/// A message to a device.
#[derive(Debug)]
struct ToSend {
    topic: String,
    payload: Vec<u8>,
    delivery: Delivery,
}

/// Publishes through whichever connection to a broker elsewhere there is.
#[derive(Debug, Clone)]
pub struct Publisher(mpsc::Sender<ToSend>);

impl Publisher {
    fn new() -> (Self, mpsc::Receiver<ToSend>) {
        let (sender, to_send) = mpsc::channel(TO_DEVICES);
        (Self(sender), to_send)
    }

    fn publish(&self, topic: String, payload: Vec<u8>, delivery: Delivery) {
        if self.0.try_send(ToSend { topic, payload, delivery }).is_err() {
            tracing::debug!("dropped a message to a device: too many wait for the broker");
        }
    }

    /// Waits until half of the queue is free, so that acknowledgements find room in it.
    async fn publish_at_leisure(&self, topic: String, payload: Vec<u8>, delivery: Delivery) {
        while self.0.capacity() < TO_DEVICES / 2 && !self.0.is_closed() {
            tokio::time::sleep(LEISURE).await;
        }
        self.publish(topic, payload, delivery);
    }
}

/// The way back to the devices.
#[derive(Debug, Clone)]
pub enum ToDevices {
    /// Through the broker in this process.
    Embedded(broker::Publisher),
    /// Through the connection to a broker elsewhere.
    External(Publisher),
}

impl ToDevices {
    /// Publishes. A device that is away gets it when its session is back, or never: it will then send its record again.
    pub async fn publish(&self, topic: String, payload: Vec<u8>, delivery: Delivery) {
        match self {
            Self::Embedded(broker) => broker.publish(topic, payload, delivery).await,
            Self::External(connection) => connection.publish(topic, payload, delivery),
        }
    }

    /// Publishes what is not urgent, behind what is.
    pub async fn publish_at_leisure(&self, topic: String, payload: Vec<u8>, delivery: Delivery) {
        match self {
            Self::Embedded(broker) => broker.publish(topic, payload, delivery).await,
            Self::External(connection) => connection.publish_at_leisure(topic, payload, delivery).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_offered_takes_its_share_of_the_memory() {
        let (intake, mut queue) = Intake::new(100, 64 << 10);
        let payload = Bytes::from(vec![0; 40 << 10]);
        assert!(intake.offer("a".to_owned(), payload.clone()));
        assert!(!intake.offer("a".to_owned(), payload.clone()));
        drop(queue.recv().await);
        assert!(intake.offer("a".to_owned(), payload));
    }
}
