//! What a folder of certificates holds.

use super::Kind;
use anyhow::{Context, Result};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Serialize;
use std::{net::IpAddr, path::Path};
use x509_parser::prelude::{GeneralName, X509Certificate};

/// One certificate.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Its common name.
    pub name: String,
    /// `ca`, `device`, `broker` or `observer`.
    pub kind: String,
    /// In hexadecimal digits.
    pub serial: String,
    /// When it ends.
    pub expires: Timestamp,
    /// Whole days until then; negative when it is over.
    pub days_left: i64,
    /// The names and addresses that a broker's certificate holds for.
    pub names: Vec<String>,
}

/// The CA first, then brokers, devices and observers by name.
pub fn list(dir: &Path) -> Result<Vec<Listed>> {
    let mut found = vec![read(&dir.join("ca.pem"), "ca")?];
    for kind in [Kind::Broker, Kind::Device, Kind::Observer] {
        let folder = dir.join(kind.folder());
        if !folder.exists() {
            continue;
        }
        let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut names = entries
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("reading {}", folder.display()))?;
        names.sort_by_key(std::fs::DirEntry::file_name);
        for name in names {
            let cert = name.path().join("cert.pem");
            if cert.exists() {
                found.push(read(&cert, kind.as_str())?);
            }
        }
    }
    Ok(found)
}

fn read(path: &Path, kind: &str) -> Result<Listed> {
    let place = || format!("certificate {}", path.display());
    let der = CertificateDer::from_pem_file(path).with_context(place)?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).with_context(place)?;
    let cn = cert.subject().iter_common_name().next().and_then(|cn| cn.as_str().ok());
    let expires = Timestamp::from_second(cert.validity().not_after.timestamp()).with_context(place)?;
    Ok(Listed {
        name: cn.unwrap_or("(no common name)").to_owned(),
        kind: kind.to_owned(),
        serial: cert.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        expires,
        days_left: (expires.as_second() - Timestamp::now().as_second()).div_euclid(86_400),
        names: names(&cert),
    })
}

fn names(cert: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = cert.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}
