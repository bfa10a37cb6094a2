//! Certificates: a development CA, what it issues, and a list of both.
//!
//! One folder holds it all: `ca.pem`, `ca.key`, and `devices/`, `brokers/`, `observers/` with a folder for each name
//! that holds `cert.pem` and `key.pem`. How to use a CA of one's own instead stands in `certs/README.md`.

mod files;
mod list;
mod request;

pub use list::{Listed, list};
pub use request::{Request, RequestError};

use anyhow::{Context, Result, bail};
use edgeveil_wire::DeviceName;
use files::{Overwrite, write};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// The organisational unit of certificates that may read everything and write nothing.
pub const OBSERVER_UNIT: &str = "observer";

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An agent: writes below its own name.
    Device,
    /// A broker: what devices connect to.
    Broker,
    /// A person with `mosquitto_sub`: reads everything.
    Observer,
}

impl Kind {
    /// The folder they are kept in.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Device => "devices",
            Self::Broker => "brokers",
            Self::Observer => "observers",
        }
    }

    /// For lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Broker => "broker",
            Self::Observer => "observer",
        }
    }
}

/// Whether a certificate that is there may be replaced.
pub use files::Overwrite as Replace;

/// Where an issued certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Where the certificate of a name is, whether it exists or not.
pub fn paths(dir: &Path, kind: Kind, name: &str) -> Issued {
    let folder = dir.join(kind.folder()).join(name);
    Issued { ca: dir.join("ca.pem"), cert: folder.join("cert.pem"), key: folder.join("key.pem") }
}

/// Makes a development CA, good for ten years. An unfinished one, a key without its certificate, is finished.
pub fn init(dir: &Path, replace: Overwrite) -> Result<()> {
    let (key_file, cert_file) = (dir.join("ca.key"), dir.join("ca.pem"));
    let key = match (replace, key_file.exists(), cert_file.exists()) {
        (Overwrite::Refuse, true, true) => {
            // Two halves of different CAs are told as what they are.
            issuer(dir)?;
            bail!("{} is there already; give --force to replace it", cert_file.display());
        }
        (Overwrite::Refuse, false, true) => bail!(
            "{} is there, but its key {} is not: put the key back, or give --force for a new CA, which has to issue \
             every certificate anew",
            cert_file.display(),
            key_file.display()
        ),
        (Overwrite::Refuse, true, false) => {
            let pem = std::fs::read_to_string(&key_file)
                .with_context(|| format!("reading {}", key_file.display()))?;
            KeyPair::from_pem(&pem)
                .with_context(|| format!("{} holds no key; remove it, or give --force", key_file.display()))?
        }
        (Overwrite::Allow, ..) | (_, false, false) => {
            let key = KeyPair::generate().context("making a key")?;
            // The key first: a certificate without its key would look like a finished CA. Whoever is interrupted
            // between the two is told by `issuer`.
            write(&key_file, key.serialize_pem().as_bytes(), 0o600, replace)?;
            key
        }
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Edgeveil development CA", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, Duration::days(3650))?;
    let cert = params.self_signed(&key).context("signing the CA's certificate")?;
    write(&cert_file, cert.pem().as_bytes(), 0o644, replace)
}

/// Issues a certificate, good for one year. `sans` are further names and addresses of a broker.
pub fn issue(dir: &Path, kind: Kind, cn: &str, sans: &[String], replace: Overwrite) -> Result<Issued> {
    let names = check_name(kind, cn, sans)?;
    let issuer = issuer(dir)?;
    let key = KeyPair::generate().context("making a key")?;
    let mut params = leaf_params(cn, (kind == Kind::Observer).then_some(OBSERVER_UNIT));
    if kind == Kind::Broker {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    }
    params.subject_alt_names = names;
    validity(&mut params, Duration::days(365))?;
    let cert = params.signed_by(&key, &issuer).context("signing the certificate")?;
    let issued = paths(dir, kind, cn);
    if replace == Overwrite::Refuse && issued.cert.exists() {
        bail!("{} is there already; give --force to replace it", issued.cert.display());
    }
    write(&issued.key, key.serialize_pem().as_bytes(), 0o600, Overwrite::Allow)?;
    write(&issued.cert, cert.pem().as_bytes(), 0o644, Overwrite::Allow)?;
    Ok(issued)
}

/// The development CA and a broker's certificate in `dir`, made where they are not there.
pub fn development(dir: &Path) -> Result<Issued> {
    if !dir.join("ca.pem").exists() {
        init(dir, Overwrite::Refuse)?;
        tracing::info!(dir = %dir.display(), "made a development CA");
    }
    let issued = paths(dir, Kind::Broker, "localhost");
    if issued.cert.exists() {
        return Ok(issued);
    }
    tracing::info!(cert = %issued.cert.display(), "issuing the broker's certificate");
    issue(dir, Kind::Broker, "localhost", &[], Overwrite::Allow)
}

/// A certificate that was signed for a device's own key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// PEM.
    pub pem: String,
    /// In hexadecimal digits.
    pub serial: String,
    /// When it begins to count: now. It is valid from a little earlier on.
    pub issued: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// Signs what a device has asked for. Of the request its name and its public key are taken, and nothing else.
pub fn sign(dir: &Path, request: &Request, lifetime: std::time::Duration) -> Result<Signed> {
    let issuer = issuer(dir)?;
    let mut params = leaf_params(request.name.as_str(), None);
    let lifetime: Duration = lifetime.try_into().context("the lifetime of certificates (enroll.lifetime)")?;
    let serial = serial()?;
    let now = OffsetDateTime::now_utc();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    // The device tells by both ends when two thirds are over, so the first one is about now; brokers' clocks differ.
    params.not_before = now - (lifetime / 10_i32).min(Duration::hours(1));
    params.not_after = now + lifetime;
    let time = |time: OffsetDateTime| Timestamp::from_second(time.unix_timestamp()).context("a time to come");
    let cert = params.signed_by(request.public_key(), &issuer).context("signing the certificate")?;
    Ok(Signed {
        pem: cert.pem(),
        serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        issued: time(now)?,
        expires: time(params.not_after)?,
    })
}

/// What devices are to trust: the CA's certificate, and others beside it while it is exchanged.
pub fn authorities(dir: &Path) -> Result<String> {
    // With the error of one that is not there, or whose key is another's.
    issuer(dir)?;
    let path = dir.join("ca.pem");
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// SHA-256 of the CA's certificate, in hexadecimal digits: `openssl x509 -fingerprint -sha256` shows the same.
pub fn fingerprint(dir: &Path) -> Result<String> {
    Ok(Sha256::digest(ca_der(dir)?).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A server's chain, with the CA at its end, and its key. It is for a process that holds the CA's key anyway, and is kept
/// in memory only.
pub fn server(dir: &Path, host: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let issuer = issuer(dir)?;
    let key = KeyPair::generate().context("making a key")?;
    let mut params = leaf_params(host, None);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = check_name(Kind::Broker, host, &[])?;
    validity(&mut params, Duration::days(365))?;
    let cert = params.signed_by(&key, &issuer).context("signing the server's certificate")?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((vec![cert.der().clone(), ca_der(dir)?], key))
}

fn ca_der(dir: &Path) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(authorities(dir)?.as_bytes())
        .with_context(|| format!("{} is not what `certs init` writes", dir.join("ca.pem").display()))
}

/// Of a client's certificate, without its times.
fn leaf_params(cn: &str, unit: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(cn, unit);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn check_name(kind: Kind, cn: &str, sans: &[String]) -> Result<Vec<SanType>> {
    if kind != Kind::Broker {
        cn.parse::<DeviceName>().with_context(|| format!("the name of the {}", kind.as_str()))?;
        return Ok(Vec::new());
    }
    if cn.is_empty() || cn.len() > 64 || cn.starts_with('.') || cn.contains(['/', '\\', '\0']) {
        bail!("`{cn}` is no host name of 1 to 64 characters");
    }
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for name in std::iter::once(cn).chain(sans.iter().map(String::as_str)) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    let params = CertificateParams::new(names).context("the broker's names (--san)")?;
    Ok(params.subject_alt_names)
}

fn issuer(dir: &Path) -> Result<Issuer<'static, KeyPair>> {
    let read = |file: &str| {
        let path = dir.join(file);
        std::fs::read_to_string(&path).with_context(|| {
            format!(
                "no CA at {}: make one with `edgeveil-bridge certs init --dir {}`",
                path.display(),
                dir.display()
            )
        })
    };
    let (cert, key) = (read("ca.pem")?, read("ca.key")?);
    let bad = |file| format!("{} is not what `certs init` writes", dir.join(file).display());
    let key = KeyPair::from_pem(&key).with_context(|| bad("ca.key"))?;
    let der = CertificateDer::from_pem_slice(cert.as_bytes()).with_context(|| bad("ca.pem"))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).with_context(|| bad("ca.pem"))?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        bail!(
            "ca.key and ca.pem in {} are not of one CA, so devices would not trust what it issues: put back the one \
             that belongs to the other, or make a new CA by `edgeveil-bridge certs init --force` and issue every \
             certificate anew",
            dir.display()
        );
    }
    Issuer::from_ca_cert_pem(&cert, key).with_context(|| bad("ca.pem"))
}

fn name(cn: &str, unit: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Edgeveil");
    if let Some(unit) = unit {
        name.push(DnType::OrganizationalUnitName, unit);
    }
    name.push(DnType::CommonName, cn);
    name
}

/// From the beginning of 2020, since a board without a clock battery may take today for a day long ago.
fn validity(params: &mut CertificateParams, span: Duration) -> Result<()> {
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = OffsetDateTime::now_utc() + span;
    Ok(())
}

fn serial() -> Result<[u8; 16]> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).context("random bytes for a serial number")?;
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and always of the same length
    Ok(serial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_private_and_nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs");
        init(&dir, Replace::Refuse).unwrap();
        assert!(init(&dir, Replace::Refuse).unwrap_err().to_string().contains("--force"));
        let issued = issue(&dir, Kind::Device, "desk-pi", &[], Replace::Refuse).unwrap();
        for key in [&issued.key, &dir.join("ca.key")] {
            assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let first = std::fs::read(&issued.cert).unwrap();
        assert!(issue(&dir, Kind::Device, "desk-pi", &[], Replace::Refuse).is_err());
        assert_eq!(std::fs::read(&issued.cert).unwrap(), first);
        issue(&dir, Kind::Device, "desk-pi", &[], Replace::Allow).unwrap();
        assert_ne!(std::fs::read(&issued.cert).unwrap(), first);
    }

    #[test]
    fn half_a_ca_is_finished_or_named_and_never_mixed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (key, cert) = (dir.join("ca.key"), dir.join("ca.pem"));
        init(dir, Replace::Refuse).unwrap();
        let issue = || issue(dir, Kind::Device, "pi", &[], Replace::Allow);
        // Interrupted between the two writes: the key is kept, so what it has issued still holds.
        let first = std::fs::read(&key).unwrap();
        std::fs::remove_file(&cert).unwrap();
        init(dir, Replace::Refuse).unwrap();
        assert_eq!(std::fs::read(&key).unwrap(), first);
        issue().unwrap();
        // The key is lost: no new one beside the old certificate.
        std::fs::rename(&key, dir.join("aside")).unwrap();
        let error = init(dir, Replace::Refuse).unwrap_err().to_string();
        assert!(error.contains("--force") && !key.exists(), "{error}");
        // Two halves, as an interrupted `init --force` leaves them.
        std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        for error in [issue().unwrap_err(), init(dir, Replace::Refuse).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("not of one CA") && error.contains("init --force"), "{error}");
        }
        init(dir, Replace::Allow).unwrap();
        issue().unwrap();
    }

    #[test]
    fn a_name_that_could_leave_the_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), Replace::Refuse).unwrap();
        for bad in ["../x", "", "a/b", "a b"] {
            assert!(issue(dir.path(), Kind::Device, bad, &[], Replace::Refuse).is_err(), "{bad}");
        }
        assert!(issue(dir.path(), Kind::Broker, "../x", &[], Replace::Refuse).is_err());
    }

    #[test]
    fn the_list_tells_kinds_and_days() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), Replace::Refuse).unwrap();
        issue(dir.path(), Kind::Broker, "hub.lan", &["10.0.0.7".to_owned()], Replace::Refuse).unwrap();
        issue(dir.path(), Kind::Observer, "anna", &[], Replace::Refuse).unwrap();
        let listed = list(dir.path()).unwrap();
        let kinds: Vec<_> = listed.iter().map(|l| (l.kind.as_str(), l.name.as_str())).collect();
        assert_eq!(kinds, [("ca", "Edgeveil development CA"), ("broker", "hub.lan"), ("observer", "anna")]);
        // A second may have passed meanwhile.
        assert!((3649..=3650).contains(&listed[0].days_left) && (364..=365).contains(&listed[1].days_left));
        assert_eq!(listed[1].names, ["localhost", "127.0.0.1", "::1", "hub.lan", "10.0.0.7"]);
    }
}
