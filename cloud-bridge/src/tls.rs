//! Certificates from files, as rustls wants them. Every error names the file and what to do about it.

use crate::settings::TlsFiles;
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or holds something else.
    #[error("{what} {path}: {why}; issue one with `edgeveil-bridge certs`, or name the right file in the settings", path = path.display())]
    File {
        /// `CA certificate`, `certificate` or `key`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What was seen.
        why: String,
    },
    /// Its time is over.
    #[error("certificate {path} expired on {at}; renew it (`edgeveil-bridge certs .. --force`) and start again", path = path.display())]
    Expired {
        /// Where.
        path: PathBuf,
        /// When.
        at: Timestamp,
    },
    /// Key and certificate do not belong together, or rustls cannot use them.
    #[error("certificate {cert} with key {key}: {why}; both have to come from the same `certs` command", cert = cert.display(), key = key.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls said.
        why: String,
    },
}

type Chain = Vec<CertificateDer<'static>>;

/// For a server that demands a client certificate of the CA.
pub fn server(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let bad_ca = |why: String| TlsError::File { what: "CA certificate", path: files.ca.clone(), why };
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&files.ca)?), provider.clone())
        .build()
        .map_err(|error| bad_ca(error.to_string()))?;
    let (chain, key) = pair(files)?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .map_err(|error| bad_pair(files, &error))
}

/// For a server whose certificate was made in memory, and which takes clients with a certificate of the CA or with none.
pub fn registrar(ca: &Path, chain: Chain, key: PrivateKeyDer<'static>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let bad_ca = |why: String| TlsError::File { what: "CA certificate", path: ca.to_owned(), why };
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| bad_ca(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .map_err(|error| bad_ca(error.to_string()))?;
    // Each connection shows its certificate anew.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For a client that shows its certificate to a server of the CA.
pub fn client(files: &TlsFiles, alpn: Option<&str>) -> Result<ClientConfig, TlsError> {
    let roots = roots(&files.ca)?;
    let (chain, key) = pair(files)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_root_certificates(roots).with_client_auth_cert(chain, key))
        .map_err(|error| bad_pair(files, &error))?;
    config.alpn_protocols = alpn.map(|name| name.as_bytes().to_vec()).into_iter().collect();
    Ok(config)
}

/// For a client that shows none to a server of the CA.
pub fn anonymous_client(ca: &Path) -> Result<ClientConfig, TlsError> {
    let roots = roots(ca)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| TlsError::File {
        what: "CA certificate",
        path: ca.to_owned(),
        why: error.to_string(),
    })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn bad_pair(files: &TlsFiles, error: &rustls::Error) -> TlsError {
    TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), why: error.to_string() }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in certificates("CA certificate", path)? {
        roots.add(cert).map_err(|error| TlsError::File {
            what: "CA certificate",
            path: path.to_owned(),
            why: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn pair(files: &TlsFiles) -> Result<(Chain, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates("certificate", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::File {
        what: "key",
        path: files.key.clone(),
        why: error.to_string(),
    })?;
    Ok((chain, key))
}

fn certificates(what: &'static str, path: &Path) -> Result<Chain, TlsError> {
    let bad = |why: String| TlsError::File { what, path: path.to_owned(), why };
    let chain: Chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad(error.to_string()))?;
    let Some(first) = chain.first() else { return Err(bad("holds no certificate".to_owned())) };
    let (_, cert) = x509_parser::parse_x509_certificate(first).map_err(|error| bad(error.to_string()))?;
    let at = Timestamp::from_second(cert.validity().not_after.timestamp())
        .map_err(|error| bad(error.to_string()))?;
    if at < Timestamp::now() {
        return Err(TlsError::Expired { path: path.to_owned(), at });
    }
    Ok(chain)
}

/// The same for whatever failed, when a TLS handshake is behind it.
pub fn explain_within(error: &(dyn std::error::Error + 'static), files: &TlsFiles) -> Option<String> {
    let mut source = Some(error);
    while let Some(current) = source {
        let inner = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls_error = current
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        if let Some(tls_error) = tls_error {
            return Some(explain(tls_error, files));
        }
        source = current.source();
    }
    None
}

/// One line for a TLS handshake that failed against a server, with the file that most likely has to change.
pub fn explain(error: &rustls::Error, files: &TlsFiles) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer) => {
            format!("the server's certificate was not issued by the CA in {}", files.ca.display())
        }
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "the server's certificate has expired".to_owned()
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "the server's certificate is for another host name".to_owned()
        }
        Error::AlertReceived(
            Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown | Alert::DecryptError,
        ) => {
            format!("the server refuses the certificate in {}: it trusts another CA", files.cert.display())
        }
        Error::AlertReceived(Alert::CertificateExpired) => {
            format!("the server says that the certificate in {} has expired", files.cert.display())
        }
        other => other.to_string(),
    }
}
