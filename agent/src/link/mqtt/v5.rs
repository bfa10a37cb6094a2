//! MQTT 5.

use super::{Answer, Event, Failure, Kind, MAX_INCOMING, Options, Refusal, SESSION_EXPIRY, Session};
use rumqttc::{
    NetworkOptions, Outgoing, TlsConfiguration, Transport,
    v5::{
        self, AsyncClient, ConnectionError, EventLoop, MqttOptions, StateError,
        mqttbytes::{
            self,
            v5::{
                ConnectProperties, ConnectReturnCode, DisconnectReasonCode, LastWill, Packet, PubAckReason,
                SubscribeReasonCode,
            },
        },
    },
};
use std::error::Error;

/// MQTT 5, 2.4: a packet was larger than the receiver takes. rumqttc does not know it as a reason of a PUBACK, though
/// mosquitto gives it there.
const PACKET_TOO_LARGE: u8 = 0x95;

pub fn qos(qos: super::QoS) -> mqttbytes::QoS {
    match qos {
        super::QoS::AtMostOnce => mqttbytes::QoS::AtMostOnce,
        super::QoS::AtLeastOnce => mqttbytes::QoS::AtLeastOnce,
    }
}

pub fn open(asked: Options<'_>) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(asked.client_id, asked.host, asked.port);
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(asked.tls)));
    // Else the last small packet of several waits for the other side's delayed acknowledgement, 40 ms each time.
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options.set_keep_alive(asked.keep_alive);
    options.set_clean_start(asked.session == Session::Clean);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = (asked.session == Session::Kept).then_some(SESSION_EXPIRY);
    properties.max_packet_size = Some(MAX_INCOMING);
    options.set_connect_properties(properties);
    options.set_outgoing_inflight_upper_limit(2 * asked.queue);
    if let Some((topic, payload)) = asked.will {
        options.set_last_will(LastWill::new(topic, payload, mqttbytes::QoS::AtLeastOnce, true, None));
    }
    AsyncClient::new(options, asked.queue.into())
}

pub fn event(event: v5::Event) -> Option<Event> {
    Some(match event {
        v5::Event::Outgoing(Outgoing::Publish(packet)) => Event::Sent(packet),
        v5::Event::Outgoing(_) => return None,
        v5::Event::Incoming(packet) => match packet {
            Packet::ConnAck(ack) => Event::Connected {
                max_packet: ack.properties.and_then(|properties| properties.max_packet_size),
            },
            Packet::PubAck(ack) => Event::Answered(ack.pkid, answer(ack.reason)),
            Packet::Publish(publish) => Event::Message { topic: publish.topic, payload: publish.payload },
            Packet::SubAck(ack) => {
                let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                Event::Subscribed { granted: ack.return_codes.iter().map(granted).collect() }
            }
            Packet::Disconnect(disconnect) => Event::Ended(format!("{:?}", disconnect.reason_code)),
            _ => return None,
        },
    })
}

fn answer(reason: PubAckReason) -> Answer {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Answer::Taken,
        PubAckReason::NotAuthorized => Answer::NotAuthorized,
        PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid => {
            Answer::Never(format!("{reason:?}"))
        }
        reason => Answer::NotNow(format!("{reason:?}")),
    }
}

pub fn failure(error: &ConnectionError) -> Failure {
    // rumqttc does not name this cause as a source. In TLS 1.3 a refused client certificate arrives here: the client's
    // side of the handshake is over before the server has looked at the certificate.
    let cause: &(dyn Error + 'static) = match error {
        ConnectionError::MqttState(StateError::Deserialization(cause)) => cause,
        other => other,
    };
    Failure::new(kind(error), cause, error.to_string())
}

fn kind(error: &ConnectionError) -> Kind {
    use mqttbytes::Error::{InsufficientBytes, InvalidConnectReturnCode, InvalidReason};
    match error {
        ConnectionError::ConnectionRefused(code) => refused(*code),
        ConnectionError::Timeout(_) => Kind::Silent,
        ConnectionError::MqttState(state) => match state {
            StateError::AwaitPingResp => Kind::MissedPing,
            StateError::ConnectionAborted => Kind::Closed,
            StateError::Deserialization(
                InvalidConnectReturnCode(PACKET_TOO_LARGE) | InvalidReason(PACKET_TOO_LARGE),
            )
            | StateError::ServerDisconnect { reason_code: DisconnectReasonCode::PacketTooLarge, .. } => {
                Kind::TooLarge
            }
            StateError::ServerDisconnect { reason_code, .. } => Kind::Ended(format!("{reason_code:?}")),
            // A CONNACK of 3.1.1 ends where that of 5 has its properties.
            StateError::Deserialization(InsufficientBytes(_)) => Kind::OtherVersion,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

fn refused(code: ConnectReturnCode) -> Kind {
    Kind::Refused(match code {
        ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword => Refusal::NotAuthorized,
        ConnectReturnCode::ClientIdentifierNotValid | ConnectReturnCode::BadClientId => Refusal::ClientId,
        ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
            return Kind::OtherVersion;
        }
        ConnectReturnCode::Banned | ConnectReturnCode::BadAuthenticationMethod => {
            Refusal::Never(format!("{code:?}"))
        }
        other => Refusal::NotNow(format!("{other:?}")),
    })
}
