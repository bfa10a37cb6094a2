//! A device's request for a certificate (PKCS #10): what is in it, and whether its sender holds the key.

use edgeveil_wire::{DeviceName, NameError};
use rcgen::{CertificateSigningRequestParams, PublicKey};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::{
    certification_request::X509CertificationRequest, oid_registry::OID_EC_P256,
    oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY, prelude::FromDer, x509::X509Name,
};

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It cannot be read.
    #[error("the request is no PKCS #10 in PEM")]
    Form,
    /// Its name is no device's.
    #[error("the request's common name: {0}")]
    Name(#[from] NameError),
    /// No name, or several.
    #[error("the request wants exactly one common name: the device's")]
    Names,
    /// A key of another kind.
    #[error("the request's key is no ECDSA key on P-256, which is what `edgeveil-agent enroll` makes")]
    Key,
    /// It is not signed by the key that is in it.
    #[error("the request is not signed by the key that is in it")]
    Signature,
}

/// A request that its sender has signed with the key in it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose certificate is wanted.
    pub name: DeviceName,
    /// SHA-256 of the public key.
    pub key: [u8; 32],
    params: CertificateSigningRequestParams,
}

impl Request {
    /// Reads PEM.
    pub fn from_pem(pem: &str) -> Result<Self, RequestError> {
        let der =
            CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| RequestError::Form)?;
        let (_, csr) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Form)?;
        let info = &csr.certification_request_info;
        let algorithm = &info.subject_pki.algorithm;
        let curve = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
            return Err(RequestError::Key);
        }
        let name = common_name(&info.subject)?.parse()?;
        let key = Sha256::digest(info.subject_pki.raw).into();
        // This looks at the signature.
        let params = CertificateSigningRequestParams::from_der(&der).map_err(|error| match error {
            rcgen::Error::InvalidCertificationRequestSignature => RequestError::Signature,
            _ => RequestError::Form,
        })?;
        Ok(Self { name, key, params })
    }

    pub(super) fn public_key(&self) -> &PublicKey {
        &self.params.public_key
    }
}

fn common_name<'a>(name: &'a X509Name<'_>) -> Result<&'a str, RequestError> {
    let mut names = name.iter_common_name();
    match (names.next().and_then(|name| name.as_str().ok()), names.next()) {
        (Some(name), None) => Ok(name),
        _ => Err(RequestError::Names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn csr(names: &[&str], key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn a_name_and_a_key_are_read() {
        let key = KeyPair::generate().unwrap();
        let request = Request::from_pem(&csr(&["edge-001"], &key)).unwrap();
        assert_eq!(request.name.as_str(), "edge-001");
        let other = Request::from_pem(&csr(&["edge-001"], &KeyPair::generate().unwrap())).unwrap();
        assert_ne!(request.key, other.key);
        assert_eq!(request.key, Request::from_pem(&csr(&["edge-002"], &key)).unwrap().key);
    }

    #[test]
    fn what_is_no_good_request_is_told_apart() {
        let key = KeyPair::generate().unwrap();
        let good = csr(&["edge-001"], &key);
        assert!(matches!(Request::from_pem("x"), Err(RequestError::Form)));
        assert!(matches!(Request::from_pem(&csr(&[], &key)), Err(RequestError::Names)));
        assert!(matches!(Request::from_pem(&csr(&["a/b"], &key)), Err(RequestError::Name(_))));
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(matches!(Request::from_pem(&csr(&["edge-001"], &p384)), Err(RequestError::Key)));
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(matches!(Request::from_pem(&csr(&["edge-001"], &ed25519)), Err(RequestError::Key)));
        // Somebody else's public key, with a signature that is not by it.
        let mut der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap().to_vec();
        let at = der.windows(8).position(|bytes| bytes == b"edge-001").unwrap();
        der[at + 7] = b'2';
        assert!(matches!(Request::from_pem(&pem(&der)), Err(RequestError::Signature)));
    }

    fn pem(der: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
        for chunk in der.chunks(3) {
            let bits =
                chunk.iter().enumerate().fold(0, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
            for i in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
                text.push(if i <= chunk.len() { digit.into() } else { '=' });
            }
        }
        text + "\n-----END CERTIFICATE REQUEST-----\n"
    }
}
