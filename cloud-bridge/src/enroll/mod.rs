//! The registrar: devices get their certificates here, over HTTPS. `docs/enroll.md` has the contract.
//!
//! It holds the CA's key, so it is off unless the settings name its address. A first certificate costs a one-time
//! [`Token`]; the next one is given to whoever shows the last one. The device's key never comes here: it sends a request
//! that it has signed with it.

mod attempts;
mod book;
mod door;
mod token;

pub use book::{Book, BookError, EnrolledRow, NotGiven, Redemption, TokenRow};
pub use door::serve;
pub use token::{Secret, Token, TokenError};

use crate::{
    broker::Role,
    certs::{self, Request, Signed},
    metrics::Metrics,
    settings::EnrollSettings,
};
use attempts::Attempts;
use edgeveil_wire::{DeviceName, EnrollRequest, Enrolled, RenewRequest};
use hyper::StatusCode;
use jiff::Timestamp;
use std::{net::IpAddr, sync::Arc, time::Duration};

/// Signs for whoever may have a certificate.
#[derive(Debug)]
pub struct Registrar {
    settings: EnrollSettings,
    book: Book,
    metrics: Arc<Metrics>,
    attempts: Attempts,
}

/// Who shows which certificate.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its common name.
    pub name: DeviceName,
    /// What it is for.
    pub role: Role,
    /// Hexadecimal.
    pub serial: String,
}

/// No certificate.
#[derive(Debug)]
pub struct Refused {
    /// 4xx: asking again with the same is in vain. 5xx and 429: later.
    pub status: StatusCode,
    /// Why, and what to do about it.
    pub why: String,
}

impl Refused {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

impl From<NotGiven> for Refused {
    fn from(why: NotGiven) -> Self {
        let status = match why {
            NotGiven::Unknown(_) | NotGiven::Expired(..) | NotGiven::Used(..) | NotGiven::Revoked(..) => {
                StatusCode::UNAUTHORIZED
            }
            NotGiven::OtherDevice(..) | NotGiven::Blocked(_) => StatusCode::FORBIDDEN,
        };
        Self::new(status, why.to_string())
    }
}

/// The place is not the asker's business.
fn broken(error: &anyhow::Error) -> Refused {
    tracing::error!(error = format!("{error:#}"), "cannot sign certificates");
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the bridge cannot sign now; its log says why")
}

impl Registrar {
    /// Looks at the CA once, so that a bridge that could not sign says so at its start.
    pub fn new(settings: EnrollSettings, book: Book, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        certs::fingerprint(&settings.ca)?;
        Ok(Self { settings, book, metrics, attempts: Attempts::default() })
    }

    /// A first certificate, for a token.
    pub async fn enroll(&self, body: &[u8], from: IpAddr) -> Result<Enrolled, Refused> {
        let bad = |why: String| Refused::new(StatusCode::BAD_REQUEST, why);
        let asked = EnrollRequest::from_json(body).map_err(|error| bad(error.to_string()))?;
        let token: Token = asked.token.parse().map_err(|error: TokenError| bad(error.to_string()))?;
        let request = self.request(&asked.csr, &asked.device)?;
        let redemption = Redemption {
            number: token.number(),
            hash: &token.hash(),
            device: &asked.device,
            key: &request.key,
            now: Timestamp::now().as_millisecond(),
            from: &from.to_canonical().to_string(),
        };
        let given = self.book.redeem(&redemption, || self.sign(&request)).await;
        let pem = given.map_err(|error| broken(&error))??;
        tracing::info!(device = %asked.device, token = token.number(), %from, "enrolled");
        self.enrolled(asked.device, pem)
    }

    /// The next certificate, for the one that was shown.
    pub async fn renew(&self, body: &[u8], shown: Option<Shown>, from: IpAddr) -> Result<Enrolled, Refused> {
        let Some(shown) = shown else {
            let why = "renewing wants the current certificate in the TLS handshake; without one, enrol with a token";
            return Err(Refused::new(StatusCode::UNAUTHORIZED, why));
        };
        if shown.role != Role::Device {
            let why = format!("{} has an observer's certificate, which is not renewed here", shown.name);
            return Err(Refused::new(StatusCode::FORBIDDEN, why));
        }
        let asked = RenewRequest::from_json(body)
            .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let request = self.request(&asked.csr, &shown.name)?;
        let given = self.book.renew(&shown.name, &shown.serial, || self.sign(&request)).await;
        let pem = given.map_err(|error| broken(&error))??;
        tracing::info!(device = %shown.name, %from, "certificate renewed");
        self.enrolled(shown.name, pem)
    }

    fn request(&self, csr: &str, device: &DeviceName) -> Result<Request, Refused> {
        let request = Request::from_pem(csr)
            .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        if request.name != *device {
            let why = format!("the request is for {}, and not for {device}", request.name);
            return Err(Refused::new(StatusCode::FORBIDDEN, why));
        }
        Ok(request)
    }

    fn sign(&self, request: &Request) -> anyhow::Result<Signed> {
        let signed = certs::sign(&self.settings.ca, request, self.settings.lifetime)?;
        self.metrics.enrolled.inc();
        Ok(signed)
    }

    fn enrolled(&self, device: DeviceName, certificate: String) -> Result<Enrolled, Refused> {
        let ca = certs::authorities(&self.settings.ca).map_err(|error| broken(&error))?;
        Ok(Enrolled { device, certificate, ca })
    }
}

/// The command that is to be typed on the device.
pub fn command(settings: &EnrollSettings, device: &DeviceName, token: &Token, ca: &str) -> String {
    let (url, token) = (settings.url(), token.text());
    format!("edgeveil-agent enroll {url} --device {device} --token {token} --ca sha256:{ca}")
}

/// How long a token may last: it is typed, not stored.
pub const MAX_TOKEN: Duration = Duration::from_secs(30 * 86_400);
