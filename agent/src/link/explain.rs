//! Turns what rumqttc and rustls say into one line that names the place and the remedy.

use super::mqtt::{Failure, Kind, Refusal};
use crate::settings::{self, MqttVersion};
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::{error::Error, io};

/// Why there is no connection, for the person who has to mend it.
pub fn explain(failure: &Failure, link: &settings::Link) -> String {
    let broker = format!("broker {}:{}", link.host, link.port);
    match &failure.kind {
        Kind::Refused(refusal) => return format!("{broker} refuses the connection: {}", refused(refusal)),
        Kind::OtherVersion => return format!("{broker} {}", other_version(link.mqtt_version)),
        _ => {}
    }
    let ca = link.ca.display();
    match &failure.tls {
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
    match failure.io {
        Some(io::ErrorKind::ConnectionRefused) => return format!("{broker}: nothing listens there"),
        Some(
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof,
        ) => return closed(&broker, link.mqtt_version),
        _ => {}
    }
    match &failure.kind {
        Kind::Silent | Kind::MissedPing => format!("{broker} does not answer"),
        Kind::Closed => closed(&broker, link.mqtt_version),
        Kind::Ended(why) => format!("{broker} ended the connection: {why}"),
        _ => format!("{broker}: {}", failure.text),
    }
}

/// A broker of 3.1.1 closes the connection where one of 5 gives a reason.
fn closed(broker: &str, version: MqttVersion) -> String {
    match version {
        MqttVersion::V5 => format!("{broker} closed the connection; its log says why"),
        MqttVersion::V311 => format!(
            "{broker} closed the connection; its log says why: it may be a topic that its ACL denies, or a packet that is larger than it takes (set link.max_packet to its bound)"
        ),
    }
}

fn other_version(asked: MqttVersion) -> &'static str {
    match asked {
        MqttVersion::V5 => "does not speak MQTT 5; set link.mqtt_version to \"3.1.1\"",
        MqttVersion::V311 => "does not speak MQTT 3.1.1; set link.mqtt_version to \"5\"",
    }
}

/// Whether the broker does not take the certificate, or its own is not signed by the authorities that came with it: trying
/// again is in vain.
pub fn is_refused(failure: &Failure) -> bool {
    if let Kind::Refused(refusal) = &failure.kind {
        return !matches!(refusal, Refusal::NotNow(_));
    }
    matches!(
        &failure.tls,
        Some(
            TlsError::AlertReceived(_)
                | TlsError::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature
                )
        )
    )
}

fn refused(refusal: &Refusal) -> &str {
    match refusal {
        Refusal::NotAuthorized => "not authorized; check that the broker takes certificates as identity",
        Refusal::ClientId => "the client id is not accepted; it is the certificate's common name",
        Refusal::Never(why) | Refusal::NotNow(why) => why,
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
