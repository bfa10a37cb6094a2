//! Asking the bridge for a certificate, over HTTPS: one request, one answer, both short.

use super::{csr, folder::Given};
use crate::link::{Identity, find};
use edgeveil_wire::{
    DeviceName, ENROLL_PATH, EnrollRequest, Enrolled, MAX_ENROLL_BYTES, RENEW_PATH, Refusal, RenewRequest,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rcgen::KeyPair;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// From the connection to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no certificate. Each message names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error("{url} cannot be reached: {why}; check the address, and that the bridge runs with enroll.listen")]
    Unreachable {
        /// Where.
        url: BridgeUrl,
        /// What the system said.
        why: String,
    },
    /// It is not the bridge that was meant, or cannot be told from another.
    #[error("{url} is not trusted: {why}")]
    NotTrusted {
        /// Where.
        url: BridgeUrl,
        /// Why, with the remedy.
        why: String,
    },
    /// It says no.
    #[error("{url} gives no certificate: {why}")]
    Refused {
        /// Where.
        url: BridgeUrl,
        /// The bridge's own words, with the remedy.
        why: String,
    },
    /// It does not say what a bridge of this version says.
    #[error("{url} answers {what}; is it the registrar of an Edgeveil bridge (enroll.listen)?")]
    Answer {
        /// Where.
        url: BridgeUrl,
        /// What came.
        what: String,
    },
    /// The certificate that came is not the one that was asked for.
    #[error(
        "{url} has sent a certificate that cannot be used: {why}; the clocks here and there may differ, else its log tells more"
    )]
    Unusable {
        /// Where.
        url: BridgeUrl,
        /// Why.
        why: String,
    },
    /// The request could not be made.
    #[error("cannot make a request for a certificate: {0}")]
    Request(#[from] rcgen::Error),
}

/// The bridge's registrar: `https://bridge.lan:8444`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeUrl(Uri);

impl BridgeUrl {
    fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(443)
    }

    fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }
}

impl fmt::Display for BridgeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl FromStr for BridgeUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wants = "wants the bridge's address such as \"https://bridge.lan:8444\"";
        let uri: Uri = text.trim().parse().map_err(|_| format!("is no address; it {wants}"))?;
        let bare = matches!(uri.path_and_query().map_or("/", |path| path.as_str()), "" | "/");
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if uri.scheme_str() != Some("https") || !bare || !plain || uri.host().is_none_or(str::is_empty) {
            return Err(wants.to_owned());
        }
        Ok(Self(uri))
    }
}

/// SHA-256 of a CA's certificate: `sha256:` and 64 hexadecimal digits, with or without colons between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wants =
            "wants `sha256:` and 64 hexadecimal digits, as `edgeveil-bridge enroll token` prints them";
        let digits: Vec<u32> = text
            .trim()
            .strip_prefix("sha256:")
            .ok_or(wants)?
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).ok_or(wants))
            .collect::<Result<_, _>>()?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8))
            .collect();
        match <[u8; 32]>::try_from(bytes) {
            Ok(bytes) if digits.len() == 64 => Ok(Self(bytes)),
            _ => Err(wants),
        }
    }
}

/// Asks for a first certificate with a one-time token. The bridge is trusted by its CA's fingerprint.
pub async fn enroll(
    url: &BridgeUrl,
    ca: Fingerprint,
    device: &DeviceName,
    token: &str,
    key: &str,
) -> Result<Enrolled, AskError> {
    let provider = Arc::new(ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { ca, provider }))
        .with_no_client_auth();
    let asked = EnrollRequest { device: device.clone(), token: token.to_owned(), csr: csr(key, device)? };
    let enrolled = post(url, Arc::new(tls), ENROLL_PATH, asked.to_json()).await?;
    check(&enrolled, device, key).map_err(|why| AskError::Unusable { url: url.clone(), why })?;
    let pinned =
        authorities(&enrolled.ca).is_ok_and(|found| found.iter().any(|one| Fingerprint::of(one) == ca));
    if !pinned {
        let why = format!("the CA with {ca} is not among the authorities that came with it");
        return Err(AskError::Unusable { url: url.clone(), why });
    }
    Ok(enrolled)
}

/// Asks for the next certificate, showing the current one.
pub async fn renew(url: &BridgeUrl, current: &Identity, key: &str) -> Result<Enrolled, AskError> {
    let asked = RenewRequest { csr: csr(key, &current.device)? };
    let enrolled = post(url, current.tls.clone(), RENEW_PATH, asked.to_json()).await?;
    check(&enrolled, &current.device, key).map_err(|why| AskError::Unusable { url: url.clone(), why })?;
    Ok(enrolled)
}

/// What is kept of an answer.
pub fn given<'a>(enrolled: &'a Enrolled, url: &'a str) -> Given<'a> {
    Given { cert: &enrolled.certificate, ca: &enrolled.ca, url }
}

async fn post(
    url: &BridgeUrl,
    tls: Arc<ClientConfig>,
    path: &'static str,
    body: Vec<u8>,
) -> Result<Enrolled, AskError> {
    let late = |_| AskError::Unreachable {
        url: url.clone(),
        why: format!("no answer within {} s", PATIENCE.as_secs()),
    };
    let (status, body) = timeout(PATIENCE, exchange(url, tls, path, body)).await.map_err(late)??;
    let answer = |what: String| AskError::Answer { url: url.clone(), what };
    if status == StatusCode::OK {
        return Enrolled::from_json(&body).map_err(|error| answer(error.to_string()));
    }
    match Refusal::from_json(&body) {
        // What a stranger's words may do in our log.
        Ok(Refusal { error }) => Err(AskError::Refused {
            url: url.clone(),
            why: error.chars().filter(|c| !c.is_control()).take(400).collect(),
        }),
        Err(_) => Err(answer(status.to_string())),
    }
}

async fn exchange(
    url: &BridgeUrl,
    tls: Arc<ClientConfig>,
    path: &'static str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), AskError> {
    let unreachable = |why: String| AskError::Unreachable { url: url.clone(), why };
    let tcp = TcpStream::connect((url.host(), url.port())).await.map_err(|e| unreachable(e.to_string()))?;
    let name = ServerName::try_from(url.host().to_owned()).map_err(|e| unreachable(e.to_string()))?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| explain(url, &error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| explain(url, &error))?;
    let request = Request::post(path)
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("edgeveil-agent/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| unreachable(error.to_string()))?;
    let talk = async {
        // In TLS 1.3 a refused client certificate shows here.
        let response = sender.send_request(request).await.map_err(|error| explain(url, &error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ENROLL_BYTES).collect().await.map_err(|error| {
            AskError::Answer { url: url.clone(), what: format!("not to the end ({error})") }
        })?;
        Ok((status, body.to_bytes()))
    };
    let mut ended = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        // The answer may be read already when the connection ends.
        end = &mut ended => match (talk.await, end) {
            (Err(AskError::Unreachable { .. }), Err(error)) => Err(explain(url, &error)),
            (answer, _) => answer,
        },
    }
}

fn explain(url: &BridgeUrl, error: &(dyn std::error::Error + 'static)) -> AskError {
    let not_trusted = |why: &str| AskError::NotTrusted { url: url.clone(), why: why.to_owned() };
    match find::<rustls::Error>(error) {
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => not_trusted(
                "its certificate is of another CA than the one given; compare with `edgeveil-bridge enroll token`, or somebody else answers there",
            ),
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => not_trusted(
                "its certificate is not valid at the time that this device's clock shows; set the clock (`timedatectl set-ntp true`), or restart the bridge",
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => not_trusted(
                "its certificate is for another name; use the address that enroll.host of the bridge says",
            ),
            other => not_trusted(&format!("its certificate is not accepted: {other:?}")),
        },
        Some(rustls::Error::AlertReceived(alert)) => AskError::Refused {
            url: url.clone(),
            why: match alert {
                AlertDescription::CertificateExpired => {
                    "the certificate that this device has shown is over; enrol anew with a token (`edgeveil-bridge enroll token`)".to_owned()
                }
                AlertDescription::UnknownCA | AlertDescription::DecryptError | AlertDescription::BadCertificate => {
                    "the certificate that this device has shown is of another CA; enrol anew with a token (`edgeveil-bridge enroll token`)".to_owned()
                }
                other => format!("it ended the TLS handshake: {other:?}; its log says why"),
            },
        },
        Some(other) => not_trusted(&format!("TLS: {other}; is this address an Edgeveil bridge's?")),
        None => AskError::Unreachable { url: url.clone(), why: error.to_string() },
    }
}

/// Whether this is what was asked for.
fn check(enrolled: &Enrolled, device: &DeviceName, key: &str) -> Result<(), String> {
    let der = CertificateDer::from_pem_slice(enrolled.certificate.as_bytes())
        .map_err(|error| format!("it is no PEM ({error})"))?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
    let name = cert.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if name != Some(device.as_str()) || enrolled.device != *device {
        return Err(format!("it is for {}, and not for {device}", name.unwrap_or("nobody")));
    }
    let key = KeyPair::from_pem(key).map_err(|error| error.to_string())?;
    if cert.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err("it is for another key".to_owned());
    }
    let end = cert.validity().not_after.timestamp();
    if end <= Timestamp::now().as_second() {
        return Err(format!("it ended on {}", cert.validity().not_after));
    }
    authorities(&enrolled.ca).map(drop)
}

/// At least one.
fn authorities(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the authorities that came with it are no PEM ({error})"))?;
    let mut roots = RootCertStore::empty();
    for one in &found {
        roots.add(one.clone()).map_err(|error| format!("an authority that came with it: {error}"))?;
    }
    if found.is_empty() { Err("no authority came with it".to_owned()) } else { Ok(found) }
}

/// Trusts the CA with this fingerprint, which the server has to send with its own certificate, and nobody else. All the
/// rest (name, time, signatures) is checked as ever.
#[derive(Debug)]
struct Pinned {
    ca: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates.iter().find(|one| Fingerprint::of(one) == self.ca);
        let pinned = pinned.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let authority = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        authority.verify_server_cert(end_entity, &[], server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer};
    use std::slice::from_ref;

    fn named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn authority(name: &str) -> (rcgen::Certificate, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        (certificate, Issuer::new(params, key))
    }

    #[test]
    fn addresses_are_https_and_nothing_but_a_place() {
        let url: BridgeUrl = "https://bridge.lan:8444/".parse().unwrap();
        assert_eq!(
            (url.host(), url.port(), url.to_string().as_str()),
            ("bridge.lan", 8444, "https://bridge.lan:8444")
        );
        let url: BridgeUrl = "https://[fd00::7]".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.authority()), ("fd00::7", 443, "[fd00::7]"));
        for bad in [
            "http://bridge.lan",
            "bridge.lan:8444",
            "https://a@bridge.lan",
            "https://bridge.lan/v1",
            "https://",
            "",
        ] {
            assert!(bad.parse::<BridgeUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn fingerprints_are_read_as_openssl_and_the_bridge_write_them() {
        let (ca, _) = authority("a");
        let print = Fingerprint::of(ca.der());
        let text = print.to_string();
        assert_eq!(text.parse(), Ok(print));
        let pairs: Vec<_> =
            text.as_bytes()[7..].chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
        assert_eq!(format!("sha256:{}", pairs.join(":")).parse(), Ok(print));
        for bad in [&text[7..], &text[..70], &format!("{text}0"), "sha256:", &text.replace("sha256", "sha1")]
        {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    /// What somebody in the middle could show.
    #[test]
    fn only_a_server_of_the_pinned_authority_is_trusted() {
        let (ca, issuer) = authority("ca");
        let (other_ca, other) = authority("other");
        let (ca, other_ca) = (ca.der().clone(), other_ca.der().clone());
        let key = KeyPair::generate().unwrap();
        let leaf = |issuer| named("bridge.lan").signed_by(&key, issuer).unwrap().der().clone();
        let (good, forged) = (leaf(&issuer), leaf(&other));
        let pinned = Pinned { ca: Fingerprint::of(&ca), provider: Arc::new(ring::default_provider()) };
        let name = |name: &'static str| ServerName::try_from(name).unwrap();
        let verify = |leaf: &CertificateDer<'_>, chain: &[CertificateDer<'static>], host| {
            pinned.verify_server_cert(leaf, chain, &name(host), &[], UnixTime::now()).map(drop)
        };
        assert_eq!(verify(&good, from_ref(&ca), "bridge.lan"), Ok(()));
        let unknown = Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(verify(&good, &[], "bridge.lan"), unknown);
        assert_eq!(verify(&forged, from_ref(&other_ca), "bridge.lan"), unknown);
        // The right CA, which is no secret, beside a certificate that it has not signed.
        assert!(verify(&forged, &[other_ca, ca.clone()], "bridge.lan").is_err());
        assert!(verify(&good, &[ca], "other.lan").is_err());
    }

    #[test]
    fn a_certificate_for_another_name_or_key_is_not_kept() {
        let (ca, issuer) = authority("ca");
        let (mine, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let enrolled = |name: &str, key: &KeyPair| Enrolled {
            device: "edge-001".parse().unwrap(),
            certificate: named(name).signed_by(key, &issuer).unwrap().pem(),
            ca: ca.pem(),
        };
        let check =
            |enrolled: &Enrolled| check(enrolled, &"edge-001".parse().unwrap(), &mine.serialize_pem());
        assert_eq!(check(&enrolled("edge-001", &mine)), Ok(()));
        assert!(check(&enrolled("edge-002", &mine)).unwrap_err().contains("for edge-002"));
        assert!(check(&enrolled("edge-001", &other)).unwrap_err().contains("another key"));
        let mut none = enrolled("edge-001", &mine);
        none.ca = String::new();
        assert!(check(&none).unwrap_err().contains("no authority"));
    }
}
