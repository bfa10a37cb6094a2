//! MQTT 3.1.1.

use super::{Answer, Event, Failure, Kind, MAX_INCOMING, MAX_OUTGOING, Options, Refusal, Session};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, EventLoop, LastWill, MqttOptions, NetworkOptions,
    Outgoing, Packet, StateError, SubscribeReasonCode, TlsConfiguration, Transport,
};

pub fn qos(qos: super::QoS) -> rumqttc::QoS {
    match qos {
        super::QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        super::QoS::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
    }
}

pub fn open(asked: Options<'_>) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(asked.client_id, asked.host, asked.port);
    options
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(asked.tls)))
        .set_keep_alive(asked.keep_alive)
        .set_clean_session(asked.session == Session::Clean)
        .set_max_packet_size(MAX_INCOMING as usize, MAX_OUTGOING)
        .set_inflight(2 * asked.queue);
    if let Some((topic, payload)) = asked.will {
        options.set_last_will(LastWill::new(topic, payload, rumqttc::QoS::AtLeastOnce, true));
    }
    let (client, mut events) = AsyncClient::new(options, asked.queue.into());
    // As with MQTT 5.
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    (client, events)
}

pub fn event(event: rumqttc::Event) -> Option<Event> {
    Some(match event {
        rumqttc::Event::Outgoing(Outgoing::Publish(packet)) => Event::Sent(packet),
        rumqttc::Event::Outgoing(_) => return None,
        rumqttc::Event::Incoming(packet) => match packet {
            Packet::ConnAck(_) => Event::Connected { max_packet: None },
            Packet::PubAck(ack) => Event::Answered(ack.pkid, Answer::Taken),
            Packet::Publish(publish) => {
                Event::Message { topic: publish.topic.into_bytes().into(), payload: publish.payload }
            }
            Packet::SubAck(ack) => {
                let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                Event::Subscribed { granted: ack.return_codes.iter().map(granted).collect() }
            }
            _ => return None,
        },
    })
}

pub fn failure(error: &ConnectionError) -> Failure {
    Failure::new(kind(error), error, error.to_string())
}

fn kind(error: &ConnectionError) -> Kind {
    match error {
        ConnectionError::ConnectionRefused(code) => refused(*code),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => Kind::Silent,
        ConnectionError::MqttState(StateError::AwaitPingResp) => Kind::MissedPing,
        ConnectionError::MqttState(StateError::ConnectionAborted) => Kind::Closed,
        _ => Kind::Other,
    }
}

fn refused(code: ConnectReturnCode) -> Kind {
    Kind::Refused(match code {
        ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword => Refusal::NotAuthorized,
        ConnectReturnCode::BadClientId => Refusal::ClientId,
        ConnectReturnCode::RefusedProtocolVersion => return Kind::OtherVersion,
        other => Refusal::NotNow(format!("{other:?}")),
    })
}
