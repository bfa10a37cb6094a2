//! Certificates of simulated devices.

use edgeveil_wire::DeviceName;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A device that can connect.
pub struct Member {
    /// The common name of its certificate.
    pub name: DeviceName,
    /// With its certificate.
    pub tls: Arc<ClientConfig>,
}

/// Where certificates come from.
#[derive(Debug, Clone)]
pub enum Authority {
    /// A folder of `edgeveil-bridge certs`: `ca.pem` and `ca.key`. They are made in memory and written nowhere.
    Development(PathBuf),
    /// Issued before: `NAME.crt` and `NAME.key` in a folder, and the file of those that sign the broker's.
    Issued {
        /// The folder.
        folder: PathBuf,
        /// The broker's authorities, PEM.
        ca: PathBuf,
    },
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file.
    #[error("{}: {why}; {remedy}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// There are too few.
    #[error("{} holds certificates of {found} devices, and --devices is {wanted}; issue more, or lower it", path.display())]
    TooFew {
        /// The folder.
        path: PathBuf,
        /// As many as there are.
        found: usize,
        /// As many as are wanted.
        wanted: usize,
    },
    /// Making one.
    #[error("cannot make a certificate for {name}: {why}; is the CA one of `edgeveil-bridge certs init`?")]
    Make {
        /// For whom.
        name: String,
        /// What was said.
        why: String,
    },
}

const DEVELOPMENT: &str = "--dev-ca wants a folder that `edgeveil-bridge certs init` has made";
const ISSUED: &str = "--certs wants NAME.crt and NAME.key of each device, --ca the file of the broker's CA";

impl Authority {
    /// Certificates of so many devices; those that are made are called `<prefix>-0001` and so on.
    pub fn members(&self, count: usize, prefix: &str) -> Result<Vec<Member>, CertsError> {
        match self {
            Self::Development(folder) => made(folder, count, prefix),
            Self::Issued { folder, ca } => issued(folder, ca, count),
        }
    }
}

fn file(path: &Path, remedy: &'static str) -> impl Fn(String) -> CertsError {
    move |why| CertsError::File { path: path.to_owned(), why, remedy }
}

/// What the broker's certificate is held against, once for all devices.
fn verifier(path: &Path, remedy: &'static str) -> Result<Arc<WebPkiServerVerifier>, CertsError> {
    let error = file(path, remedy);
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(path).map_err(|e| error(e.to_string()))? {
        roots.add(root.map_err(|e| error(e.to_string()))?).map_err(|e| error(e.to_string()))?;
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), ring)
        .build()
        .map_err(|e| error(e.to_string()))
}

fn tls(
    verifier: &Arc<WebPkiServerVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(verifier.clone())
        .with_client_auth_cert(chain, key)?;
    tls.resumption = Resumption::disabled();
    Ok(Arc::new(tls))
}

fn made(folder: &Path, count: usize, prefix: &str) -> Result<Vec<Member>, CertsError> {
    let (ca, ca_key) = (folder.join("ca.pem"), folder.join("ca.key"));
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| file(path, DEVELOPMENT)(e.to_string()));
    let (ca_text, key_text) = (read(&ca)?, read(&ca_key)?);
    let key = KeyPair::from_pem(&key_text).map_err(|e| file(&ca_key, DEVELOPMENT)(e.to_string()))?;
    let issuer =
        Issuer::from_ca_cert_pem(&ca_text, key).map_err(|e| file(&ca, DEVELOPMENT)(e.to_string()))?;
    let verifier = verifier(&ca, DEVELOPMENT)?;
    (1..=count)
        .map(|n| {
            let text = format!("{prefix}-{n:04}");
            let error = |why: String| CertsError::Make { name: text.clone(), why };
            let name: DeviceName =
                text.parse().map_err(|e: edgeveil_wire::NameError| error(e.to_string()))?;
            let key = KeyPair::generate().map_err(|e| error(e.to_string()))?;
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, text.as_str());
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let cert = params.signed_by(&key, &issuer).map_err(|e| error(e.to_string()))?;
            let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            let tls = tls(&verifier, vec![cert.der().clone()], key).map_err(|e| error(e.to_string()))?;
            Ok(Member { name, tls })
        })
        .collect()
}

fn issued(folder: &Path, ca: &Path, count: usize) -> Result<Vec<Member>, CertsError> {
    let entries = fs::read_dir(folder).map_err(|e| file(folder, ISSUED)(e.to_string()))?;
    let mut certs: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "crt"))
        .collect();
    certs.sort();
    if certs.len() < count {
        return Err(CertsError::TooFew { path: folder.to_owned(), found: certs.len(), wanted: count });
    }
    certs.truncate(count);
    let verifier = verifier(ca, ISSUED)?;
    certs
        .iter()
        .map(|cert| {
            let error = file(cert, ISSUED);
            let stem = cert.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let name = stem.parse().map_err(|e: edgeveil_wire::NameError| error(e.to_string()))?;
            let chain = CertificateDer::pem_file_iter(cert)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|e| error(e.to_string()))?;
            let key_file = cert.with_extension("key");
            let key = PrivateKeyDer::from_pem_file(&key_file)
                .map_err(|e| file(&key_file, ISSUED)(e.to_string()))?;
            let tls = tls(&verifier, chain, key).map_err(|e| error(e.to_string()))?;
            Ok(Member { name, tls })
        })
        .collect()
}
