//! How a device comes to its certificate: what it asks the bridge over HTTPS, and what it is told. `docs/enroll.md`
//! tells the same story to people.

use crate::{DeviceName, PayloadError, Schema, schema};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a device without a certificate asks for its first one, with a one-time token.
pub const ENROLL_PATH: &str = "/v1/enroll";
/// Where a device that shows its certificate asks for the next one.
pub const RENEW_PATH: &str = "/v1/renew";
/// The longest request or answer, in bytes.
pub const MAX_ENROLL_BYTES: usize = 32 << 10;

/// Asks for the first certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollRequest {
    /// The name that the token was made for.
    pub device: DeviceName,
    /// The one-time token, as the bridge has printed it.
    pub token: String,
    /// A PKCS #10 request in PEM, with this name and signed by the device's own key.
    pub csr: String,
}

impl fmt::Debug for EnrollRequest {
    /// Without the token: it is worth a certificate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrollRequest").field("device", &self.device).finish_non_exhaustive()
    }
}

/// Asks for the next certificate, for the name of the one that the connection was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// A PKCS #10 request in PEM, with the same name and a new key.
    pub csr: String,
}

/// The certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Whose it is.
    pub device: DeviceName,
    /// The chain in PEM, the device's own certificate first.
    pub certificate: String,
    /// The authorities that brokers and bridges are held against, PEM.
    pub ca: String,
}

/// No certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why, and what to do about it.
    pub error: String,
}

macro_rules! json {
    ($($type:ident: $schema:ident),*) => {$(
        impl $type {
            /// As sent.
            pub fn to_json(&self) -> Vec<u8> {
                schema::write(Schema::$schema, self)
            }

            /// Reads what [`Self::to_json`] wrote.
            pub fn from_json(payload: &[u8]) -> Result<Self, PayloadError> {
                schema::parse(Schema::$schema, payload)
            }
        }
    )*};
}
json!(EnrollRequest: Enroll, RenewRequest: Renew, Enrolled: Enrolled, Refusal: Refusal);
