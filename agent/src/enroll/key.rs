//! The device's key, and the request that it signs. The key leaves neither the device nor the folder.

use edgeveil_wire::DeviceName;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

/// Makes an ECDSA key on P-256, PEM.
pub(super) fn generate() -> Result<String, rcgen::Error> {
    KeyPair::generate().map(|key| key.serialize_pem())
}

/// Whether this is such a key.
pub(super) fn is_key(pem: &str) -> bool {
    KeyPair::from_pem(pem).is_ok()
}

/// A request for a certificate of this name, signed by the key: PKCS #10 in PEM.
pub fn csr(key: &str, device: &DeviceName) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, device.as_str());
    params.serialize_request(&KeyPair::from_pem(key)?)?.pem()
}
