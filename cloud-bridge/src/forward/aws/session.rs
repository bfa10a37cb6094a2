//! What is under way on one connection.

use super::topic::TopicTemplate;
use crate::catalog::{Blame, OutboxRow};
use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, Event,
        mqttbytes::{
            QoS,
            v5::{DisconnectReasonCode, Packet, PubAckReason},
        },
    },
};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// What an event means for the rows that were sent.
pub enum Step {
    /// Nothing that has to be done at once.
    On,
    /// This one was refused, and is no longer among them.
    Refused(OutboxRow, String, Blame),
    /// The connection was ended over this one.
    Cut(OutboxRow, String),
    /// The connection is no good any more.
    Broken(String),
}

/// A row that was sent.
struct Sent {
    row: OutboxRow,
    /// Known once the event loop has sent it.
    packet: Option<u16>,
    confirmed: bool,
    /// Ends with it.
    _span: tracing::Span,
}

/// The rows of one connection.
pub struct Session {
    client: AsyncClient,
    sent: VecDeque<Sent>,
    /// Rows that were refused, with the reasons. Those that were sent since stand behind them.
    pub suspects: Vec<(OutboxRow, String)>,
    /// When the next publish may go.
    pub next: Instant,
    pace: Duration,
}

impl Session {
    /// `suspects` are those of the connection before, when it was ended over them.
    pub fn new(client: AsyncClient, pace: Duration, suspects: Vec<(OutboxRow, String)>) -> Self {
        Self { client, sent: VecDeque::new(), suspects, next: Instant::now(), pace }
    }

    /// Rows without their answer.
    pub fn under_way(&self) -> usize {
        self.sent.len()
    }

    /// Whether rows go one by one, so that it is clear which one an answer is about.
    pub fn is_careful(&self, next: Option<&OutboxRow>) -> bool {
        !self.suspects.is_empty()
            || self.sent.front().map(|sent| &sent.row).or(next).is_some_and(|row| row.refusals > 0)
    }

    pub fn send(&mut self, topic: &TopicTemplate, row: OutboxRow) -> Result<(), String> {
        let sent = self.client.try_publish(topic.of(&row), QoS::AtLeastOnce, false, row.payload.clone());
        sent.map_err(|error| error.to_string())?;
        self.next = Instant::now() + self.pace;
        let span = crate::forward::span(crate::forward::AWS, &row);
        self.sent.push_back(Sent { row, packet: None, confirmed: false, _span: span });
        Ok(())
    }

    pub fn event(&mut self, event: &Event) -> Step {
        match event {
            Event::Outgoing(Outgoing::Publish(packet)) => {
                // They leave in the order in which they were given.
                if let Some(sent) = self.sent.iter_mut().find(|sent| sent.packet.is_none()) {
                    sent.packet = Some(*packet);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                let mine = |sent: &Sent| sent.packet == Some(ack.pkid) && !sent.confirmed;
                let Some(at) = self.sent.iter().position(mine) else { return Step::On };
                match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
                        self.sent[at].confirmed = true;
                    }
                    reason => return self.refused(at, reason),
                }
            }
            Event::Incoming(Packet::Disconnect(end)) => {
                let reason = end.reason_code;
                let text = format!("it ended the connection ({reason:?})");
                // AWS IoT Core ends the connection over what it finds malformed. While rows go one by one it is clear
                // which one that was; else the oldest one is suspected, and from then on they do go one by one.
                if let (true, Some(sent)) = (is_of_a_row(reason), self.sent.pop_front()) {
                    self.sent.clear();
                    return Step::Cut(sent.row, text);
                }
                return Step::Broken(text);
            }
            _ => {}
        }
        Step::On
    }

    fn refused(&mut self, at: usize, reason: PubAckReason) -> Step {
        let Some(sent) = self.sent.remove(at) else { return Step::On };
        let blame = match reason {
            PubAckReason::NotAuthorized
            | PubAckReason::QuotaExceeded
            | PubAckReason::PacketIdentifierInUse => Blame::Target,
            _ => Blame::Row,
        };
        Step::Refused(sent.row, format!("PUBACK {reason:?}: {}", advice(reason)), blame)
    }

    /// The numbers at the head that are confirmed.
    pub fn confirmed(&self) -> Vec<i64> {
        self.sent.iter().take_while(|sent| sent.confirmed).map(|sent| sent.row.number).collect()
    }

    /// Forgets so many at the head.
    pub fn forget(&mut self, rows: usize) {
        self.sent.drain(..rows);
    }
}

/// Whether a connection is ended so over one publish, and not over the whole of it.
fn is_of_a_row(reason: DisconnectReasonCode) -> bool {
    matches!(
        reason,
        DisconnectReasonCode::MalformedPacket
            | DisconnectReasonCode::TopicNameInvalid
            | DisconnectReasonCode::PacketTooLarge
            | DisconnectReasonCode::PayloadFormatInvalid
    )
}

fn advice(reason: PubAckReason) -> &'static str {
    match reason {
        PubAckReason::NotAuthorized => "let the certificate's policy allow iot:Publish on the topic",
        PubAckReason::TopicNameInvalid => "mend forward.aws.topic",
        PubAckReason::QuotaExceeded => "lower forward.aws.rate",
        _ => "see the endpoint's logs",
    }
}
