//! Who the device is: its certificate and key, and the authorities that it trusts.

use crate::settings;
use edgeveil_wire::{DeviceName, NameError};
use jiff::Timestamp;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// A loaded certificate with what it says.
pub struct Identity {
    /// Its common name.
    pub device: DeviceName,
    /// When it begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// For the connection.
    pub tls: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    enrolled: bool,
}

/// How a device comes to a certificate by itself.
const ENROLL: &str =
    "enrol this device with the command that `edgeveil-bridge enroll token --device NAME` prints";

/// What tells one version of the three files from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version([Option<(SystemTime, u64, u64)>; 3]);

impl Version {
    /// Of the files as they are now.
    pub fn of(link: &settings::Link) -> Self {
        Self([&link.ca, &link.cert, &link.key].map(|path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len(), meta.ino()))
        }))
    }
}

/// Why there is no identity. Each message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing, unreadable or no PEM.
    #[error("{what} {}: {why}; {remedy}", path.display())]
    File {
        /// What it should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        remedy: String,
    },
    /// The certificate cannot be read.
    #[error("certificate {}: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Its common name is no device name.
    #[error("certificate {}: common name {source}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: NameError,
    },
    /// It is over.
    #[error("certificate {} expired on {not_after}; {remedy} (or set the device's clock, which shows {now})", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// What to do about it.
        remedy: String,
        /// When.
        not_after: Timestamp,
        /// The device's clock.
        now: Timestamp,
    },
    /// Key and certificate do not belong together, or TLS does not like them.
    #[error("key {} does not fit certificate {}: {why}", key.display(), cert.display())]
    Key {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
        /// What TLS said.
        why: String,
    },
    /// The settings and the certificate name different devices.
    #[error("certificate {} is made out to {found}, but device.name is {wanted}; leave device.name out, or issue a certificate for {wanted}: the broker would refuse its topics", path.display())]
    OtherName {
        /// The file.
        path: PathBuf,
        /// Its common name.
        found: DeviceName,
        /// The settings' name.
        wanted: DeviceName,
    },
}

impl Identity {
    /// Reads the three files anew, so that renewed ones are taken up with the next connection.
    pub fn load(link: &settings::Link) -> Result<Self, IdentityError> {
        let file = |what, key, path: &Path, why: String| IdentityError::File {
            what,
            path: path.to_owned(),
            why,
            remedy: match &link.folder {
                None => {
                    format!("issue one with `edgeveil-bridge certs device NAME` and set link.{key} to it")
                }
                Some(_) => format!("{ENROLL}, or set link.ca, link.cert and link.key to files of your own"),
            },
        };
        let mut roots = RootCertStore::empty();
        for root in certificates(&link.ca).map_err(|why| file("CA file", "ca", &link.ca, why))? {
            roots.add(root).map_err(|e| file("CA file", "ca", &link.ca, e.to_string()))?;
        }
        let chain = certificates(&link.cert).map_err(|why| file("certificate", "cert", &link.cert, why))?;
        let key = PrivateKeyDer::from_pem_file(&link.key)
            .map_err(|e| file("private key", "key", &link.key, pem_error(&e)))?;
        let (device, not_before, not_after) = read(&chain[0], &link.cert)?;
        let roots = Arc::new(roots);
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key)
            .map_err(|e| IdentityError::Key {
                key: link.key.clone(),
                cert: link.cert.clone(),
                why: e.to_string(),
            })?;
        tls.resumption = rustls::client::Resumption::disabled();
        let enrolled = link.folder.is_some();
        Ok(Self { device, not_before, not_after, tls: Arc::new(tls), roots, chain, enrolled })
    }

    /// Holds the certificate against the settings' name.
    pub fn check_name(&self, wanted: Option<&DeviceName>, path: &Path) -> Result<(), IdentityError> {
        match wanted {
            Some(wanted) if *wanted != self.device => Err(IdentityError::OtherName {
                path: path.to_owned(),
                found: self.device.clone(),
                wanted: wanted.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the authorities of `link.ca` have signed the certificate; the error says why not. A broker may well take
    /// devices of another authority than its own.
    pub fn check_chain(&self) -> Result<(), String> {
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), ring)
            .build()
            .map_err(|error| error.to_string())?;
        // The time is another question.
        let seconds = u64::try_from(self.not_before.as_second().max(0)).unwrap_or(0);
        let then = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match verifier.verify_client_cert(&self.chain[0], &self.chain[1..], then) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => Err("another authority has".to_owned()),
            // An authority may be younger than what it has signed: devices' certificates begin in the past.
            Ok(_)
            | Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
                | CertificateError::Expired
                | CertificateError::ExpiredContext { .. },
            )) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Holds the certificate's end against the clock.
    pub fn check_time(&self, now: Timestamp, path: &Path) -> Result<(), IdentityError> {
        if now <= self.not_after {
            return Ok(());
        }
        Err(IdentityError::Expired {
            path: path.to_owned(),
            remedy: if self.enrolled {
                format!("{ENROLL}, and --force")
            } else {
                format!("issue a new one with `edgeveil-bridge certs device {} --force`", self.device)
            },
            not_after: self.not_after,
            now,
        })
    }
}

/// At least one certificate.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error(&error))?;
    if chain.is_empty() { Err("holds no PEM certificate".to_owned()) } else { Ok(chain) }
}

fn pem_error(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => format!("cannot be read ({error})"),
        rustls::pki_types::pem::Error::NoItemsFound => "holds nothing of that kind in PEM".to_owned(),
        error => format!("is no valid PEM ({error})"),
    }
}

fn read(der: &CertificateDer<'_>, path: &Path) -> Result<(DeviceName, Timestamp, Timestamp), IdentityError> {
    let error = |why: String| IdentityError::Certificate { path: path.to_owned(), why };
    let (_, cert) =
        x509_parser::parse_x509_certificate(der).map_err(|e| error(format!("cannot be parsed ({e})")))?;
    let mut names = cert.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(error("wants exactly one common name: the device's name".to_owned()));
    };
    let device = name.parse().map_err(|source| IdentityError::Name { path: path.to_owned(), source })?;
    let time = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp())
            .map_err(|e| error(format!("begins or ends at no possible time ({e})")))
    };
    Ok((device, time(cert.validity().not_before)?, time(cert.validity().not_after)?))
}
