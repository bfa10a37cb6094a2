//! Turns what rumqttc and rustls say into one line that names the place and the remedy.

use crate::settings;
use rumqttc::v5::{
    ConnectionError, StateError,
    mqttbytes::{
        self,
        v5::{ConnectReturnCode, DisconnectReasonCode},
    },
};
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::{error::Error, io};

/// Why there is no connection, for the person who has to mend it.
pub fn explain(error: &ConnectionError, link: &settings::Link) -> String {
    let broker = format!("broker {}:{}", link.host, link.port);
    if let ConnectionError::ConnectionRefused(code) = error {
        return format!("{broker} refuses the connection: {}", refused(*code));
    }
    let cause = cause(error);
    let ca = link.ca.display();
    match find::<TlsError>(cause) {
        Some(TlsError::InvalidCertificate(reason)) => {
            return match reason {
                // A CA of the same name and another key shows as a bad signature.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    format!(
                        "{broker}: its certificate is not signed by link.ca {ca}; put the CA that signed it there"
                    )
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    format!(
                        "{broker}: its certificate has expired; renew it there, or check this device's clock"
                    )
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    format!("{broker}: its certificate is not valid yet; check this device's clock")
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    let host = &link.host;
                    format!(
                        "{broker}: its certificate is not made out to {host}; set link.host to a name in it"
                    )
                }
                other => format!("{broker}: its certificate is not accepted: {other:?}"),
            };
        }
        Some(TlsError::AlertReceived(alert)) => {
            let cert = link.cert.display();
            return match alert {
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::DecryptError => {
                    format!(
                        "{broker} does not accept certificate {cert}: it was signed by a CA that the broker does not know"
                    )
                }
                AlertDescription::CertificateExpired => {
                    format!("{broker} does not accept certificate {cert}: it has expired; issue a new one")
                }
                AlertDescription::CertificateRevoked => {
                    format!("{broker} does not accept certificate {cert}: it was revoked; issue a new one")
                }
                other => format!("{broker} ended the TLS handshake: {other:?}"),
            };
        }
        Some(other) => return format!("{broker}: TLS: {other}"),
        None => {}
    }
    match find::<io::Error>(cause).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => format!("{broker}: nothing listens there"),
        Some(
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof,
        ) => {
            format!("{broker} closed the connection; its log says why")
        }
        _ => match error {
            ConnectionError::Timeout(_) | ConnectionError::MqttState(StateError::AwaitPingResp) => {
                format!("{broker} does not answer")
            }
            ConnectionError::MqttState(StateError::ConnectionAborted) => {
                format!("{broker} closed the connection; its log says why")
            }
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
                format!("{broker} ended the connection: {reason_code:?}")
            }
            other => format!("{broker}: {other}"),
        },
    }
}

/// Whether the broker does not take the certificate, or its own is not signed by the authorities that came with it: trying
/// again is in vain.
pub fn is_refused(error: &ConnectionError) -> bool {
    if let ConnectionError::ConnectionRefused(code) = error {
        return matches!(
            code,
            ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::ClientIdentifierNotValid
                | ConnectReturnCode::Banned
                | ConnectReturnCode::BadAuthenticationMethod
        );
    }
    matches!(
        find::<TlsError>(cause(error)),
        Some(
            TlsError::AlertReceived(_)
                | TlsError::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature
                )
        )
    )
}

/// MQTT 5, 2.4: a packet was larger than the receiver takes. rumqttc does not know it as a reason of a PUBACK, though
/// mosquitto gives it there.
const PACKET_TOO_LARGE: u8 = 0x95;

/// Whether the broker found a packet too large.
pub fn is_too_large(error: &ConnectionError) -> bool {
    let ConnectionError::MqttState(state) = error else { return false };
    match state {
        StateError::Deserialization(
            mqttbytes::Error::InvalidConnectReturnCode(code) | mqttbytes::Error::InvalidReason(code),
        ) => *code == PACKET_TOO_LARGE,
        StateError::ServerDisconnect { reason_code, .. } => {
            *reason_code == DisconnectReasonCode::PacketTooLarge
        }
        _ => false,
    }
}

/// Whether the broker's answer to a ping did not come in time.
pub fn is_missed_ping(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::MqttState(StateError::AwaitPingResp))
}

fn refused(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword => {
            "not authorized; check that the broker takes certificates as identity".to_owned()
        }
        ConnectReturnCode::ClientIdentifierNotValid => {
            "the client id is not accepted; it is the certificate's common name".to_owned()
        }
        ConnectReturnCode::UnsupportedProtocolVersion => "it does not speak MQTT 5".to_owned(),
        other => format!("{other:?}"),
    }
}

/// rumqttc does not name this cause as a source. In TLS 1.3 a refused client certificate arrives here: the client's side
/// of the handshake is over before the server has looked at the certificate.
fn cause(error: &ConnectionError) -> &(dyn Error + 'static) {
    match error {
        ConnectionError::MqttState(StateError::Deserialization(cause)) => cause,
        other => other,
    }
}

/// Looks for an error of a kind down the chain of causes. What an [`io::Error`] wraps counts as its cause.
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|e| e as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}
