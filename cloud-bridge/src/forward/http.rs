//! Requests to URLs of the operator's: how they are made, and what answers mean.

use super::in_turn::Answer;
use reqwest::{Certificate, Client, Response, StatusCode, header, redirect};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// What is heeded of `retry-after` at most.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Bytes of a refusal's body that are kept as its reason.
const REASON: usize = 200;

/// Why no request can be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file of CAs.
    #[error("{section}.ca {path}: {why}; name a PEM file of the server's CA, or leave it out for the system's CAs", path = path.display())]
    Ca {
        /// Whose.
        section: &'static str,
        /// Where.
        path: PathBuf,
        /// What was seen.
        why: String,
    },
    /// Everything else.
    #[error("{section}: {why}")]
    Other {
        /// Whose.
        section: &'static str,
        /// What was seen.
        why: String,
    },
}

/// For requests that are not led elsewhere. `section` is that of the settings.
pub fn client(section: &'static str, ca: Option<&Path>, timeout: Duration) -> Result<Client, ClientError> {
    // The client takes the process's provider. Whoever has set one before has set the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(timeout)
        .user_agent(concat!("edgeveil-bridge/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca {
        let bad = |why: String| ClientError::Ca { section, path: path.to_owned(), why };
        let pem = fs::read(path).map_err(|error| bad(error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| bad(error.to_string()))?;
        if certificates.is_empty() {
            return Err(bad("holds no certificate".to_owned()));
        }
        client = client.tls_certs_only(certificates);
    }
    client.build().map_err(|error| ClientError::Other { section, why: causes(&error) })
}

/// What a response means for what was sent.
pub async fn answer(mut response: Response, section: &str) -> Answer {
    let status = response.status();
    if status.is_success() {
        return Answer::Taken;
    }
    let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let wait = wait.map(|wait| wait.min(LONGEST_WAIT));
    let mut reason = match advice(status, section) {
        Some(advice) => format!("{status}; {advice}"),
        None => status.to_string(),
    };
    // Of the body no more than the first part that came is read.
    if let Ok(Some(body)) = response.chunk().await {
        let text = String::from_utf8_lossy(&body[..body.len().min(REASON)]).into_owned();
        let text = text.replace(|c: char| c.is_control(), " ");
        if !text.trim().is_empty() {
            reason = format!("{reason}; it says: {}", text.trim());
        }
    }
    match status.as_u16() {
        400 | 413 | 415 | 422 => Answer::Refused(reason),
        _ => Answer::Unavailable { reason, wait },
    }
}

fn advice(status: StatusCode, section: &str) -> Option<String> {
    match status.as_u16() {
        _ if status.is_redirection() => {
            Some(format!("a redirect is not followed: name its goal in {section}.url"))
        }
        401 | 403 => {
            Some(format!("mend the secret or token that {section} names, and let it admit this bridge"))
        }
        404 | 405 => Some(format!("mend {section}.url")),
        410 => Some(format!("it wants no more; take [{section}] out of the settings")),
        429 => Some("it wants fewer requests".to_owned()),
        _ => None,
    }
}

/// Without the URL, which may hold a secret.
pub fn explain(error: &reqwest::Error, section: &str) -> String {
    if error.is_timeout() {
        return format!("no answer within {section}.timeout");
    }
    let what = causes(error);
    if error.is_connect() {
        let tls = what.to_lowercase().contains("certificate");
        let remedy = if tls { "name its CA in" } else { "start it, or mend" };
        let key = if tls { "ca" } else { "url" };
        return format!("cannot connect: {what}; {remedy} {section}.{key}");
    }
    what
}

/// The innermost error says most; reqwest's own text holds the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut source = std::error::Error::source(error);
    let mut text = None;
    while let Some(error) = source {
        text = Some(error.to_string());
        source = error.source();
    }
    text.unwrap_or_else(|| "the request failed".to_owned())
}
