//! From addresses and certificates to a queue that is bound, and what is wrong when it does not come to that.

use super::{routing_key, transport::Transport};
use crate::{
    settings::{AmqpLogin, AmqpSettings, HostPort},
    tls,
};
use async_rs::{Runtime, Tokio, util::RuntimeParts};
use lapin::{
    Channel, Connection, ConnectionProperties, Consumer, Error, ErrorKind,
    options::{
        BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    },
    protocol::{AMQPErrorKind, AMQPSoftError},
    tcp::AsyncTcpStream,
    types::{AMQPValue, FieldTable},
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism},
};
use std::{fs, net::SocketAddr, time::Duration};
use tokio::time::timeout;

/// Until a node has answered all that is asked at the beginning. A quorum queue that has just lost a node needs its
/// time.
const SET_UP: Duration = Duration::from_secs(30);

/// What consumes and what publishes, ready for both.
pub struct Connections {
    pub consuming: Connection,
    pub consumed: Channel,
    pub consumer: Consumer,
    pub publishing: Connection,
    pub published: Channel,
}

/// Connects to a node, and sees to it that the queue is there. An error says why not.
pub async fn open(
    settings: &AmqpSettings,
    node: &HostPort,
    filters: &[String],
) -> Result<Connections, String> {
    // They may have been renewed since the last time.
    let tls = tls::client(&settings.tls, None).map_err(|error| error.to_string())?;
    let transport = Transport::new(tls, &node.host)?;
    let uri = uri(settings, node)?;
    let opened = async {
        let consuming = connect(uri.clone(), transport.clone(), "edgeveil-bridge consuming").await?;
        let consumed = consuming.create_channel().await?;
        prepare(&consumed, settings, filters).await?;
        let publishing = connect(uri, transport, "edgeveil-bridge publishing").await?;
        let published = publishing_channel(&publishing).await?;
        let prefetch = BasicQosOptions { global: false };
        consumed.basic_qos(settings.prefetch, prefetch).await?;
        let (queue, table) = (settings.queue.as_str().into(), FieldTable::default());
        let consumer =
            consumed.basic_consume(queue, "".into(), BasicConsumeOptions::default(), table).await?;
        Ok(Connections { consuming, consumed, consumer, publishing, published })
    };
    match timeout(SET_UP, opened).await {
        Ok(opened) => opened.map_err(|error| explain(&error, settings)),
        Err(_) => Err(format!("no answer within {} s", SET_UP.as_secs())),
    }
}

/// One on which the broker confirms what is published.
pub async fn publishing_channel(publishing: &Connection) -> Result<Channel, Error> {
    let channel = publishing.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

fn uri(settings: &AmqpSettings, node: &HostPort) -> Result<AMQPUri, String> {
    let (userinfo, mechanism) = match &settings.login {
        AmqpLogin::Certificate => {
            (AMQPUserInfo { username: String::new(), password: String::new() }, SASLMechanism::External)
        }
        AmqpLogin::Password { user, password_file } => {
            let password = fs::read_to_string(password_file)
                .map_err(|error| format!("amqp.password_file {}: {error}", password_file.display()))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            (AMQPUserInfo { username: user.clone(), password }, SASLMechanism::Plain)
        }
    };
    Ok(AMQPUri {
        scheme: AMQPScheme::AMQPS,
        authority: AMQPAuthority { userinfo, host: node.host.clone(), port: node.port },
        vhost: settings.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX)),
            auth_mechanism: Some(mechanism),
            ..AMQPQueryString::default()
        },
    })
}

/// One connection, which is called so in the broker's lists.
pub async fn connect(uri: AMQPUri, transport: Transport, name: &str) -> Result<Connection, Error> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = Runtime::new(RuntimeParts::new(Tokio::current(), transport));
    let connect = Connection::connector(
        uri,
        runtime,
        async |uri, runtime| {
            let (host, port) = (uri.authority.host, uri.authority.port);
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
            Ok(AsyncTcpStream::connect(&runtime, addresses).await?)
        },
        properties,
    );
    connect.await
}

/// The queue with its bindings: made, or only looked at.
async fn prepare(channel: &Channel, settings: &AmqpSettings, filters: &[String]) -> Result<(), Error> {
    let mut arguments = FieldTable::default();
    let options = QueueDeclareOptions { passive: !settings.declare, ..QueueDeclareOptions::durable() };
    if settings.declare {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    }
    channel.queue_declare(settings.queue.as_str().into(), options, arguments).await?;
    if settings.declare {
        for filter in filters {
            let (queue, exchange) = (settings.queue.as_str().into(), settings.exchange.as_str().into());
            let (options, table) = (QueueBindOptions::default(), FieldTable::default());
            channel.queue_bind(queue, exchange, routing_key(filter).into(), options, table).await?;
        }
    }
    Ok(())
}

/// What broke a connection, and what to do about it where that is known.
pub fn explain(error: &Error, settings: &AmqpSettings) -> String {
    if let Some(text) = tls::explain_within(error, &settings.tls) {
        return text;
    }
    let remedy = match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => match settings.login {
                AmqpLogin::Certificate => {
                    "the user is the certificate's common name; give it its permissions (docs/rabbitmq.md)"
                }
                AmqpLogin::Password { .. } => {
                    "mend amqp.user and amqp.password_file, or give the user its permissions (docs/rabbitmq.md)"
                }
            },
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => {
                "make the queue, or let the bridge do so by amqp.declare = true; mend amqp.exchange"
            }
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => {
                "the queue is there with other arguments; set amqp.declare = false, or delete it once it is empty"
            }
            _ => return error.to_string(),
        },
        ErrorKind::ParsingError(_) => {
            "a device publishes on a topic that is no UTF-8; restrict topics by permissions, and purge the message (docs/rabbitmq.md)"
        }
        _ => return error.to_string(),
    };
    format!("{error}: {remedy}")
}
