//! Alerts to a URL, as Standard Webhooks has it (<https://www.standardwebhooks.com>): `POST` with `webhook-id`,
//! `webhook-timestamp` and `webhook-signature`, which is HMAC-SHA256 over the three of id, time and body.
//!
//! A row is done when the answer is 2xx. Whatever may be over later (no answer, 408, 429, 5xx) or is about all rows (401,
//! 403, 404, a redirect) lets it wait; `retry-after` is heeded. 400, 413, 415 and 422 refuse this very row.

use super::in_turn::{Answer, Target};
use crate::{catalog::OutboxRow, settings::WebhookSettings};
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Certificate, Client, Response, StatusCode, header, redirect};
use ring::hmac;
use std::{fs, path::PathBuf, time::Duration};

/// What is heeded of `retry-after` at most.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Bytes of a refusal's body that are kept as its reason.
const REASON: usize = 200;
/// What stands before a secret in base64.
const PREFIX: &str = "whsec_";
/// Bytes of a secret.
const SECRET: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a webhook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The secret's file.
    #[error("forward.webhook.secret_file {path}: {why}; make one with: (umask 077; echo \"whsec_$(openssl rand -base64 32)\" >{path})", path = path.display())]
    Secret {
        /// Where.
        path: PathBuf,
        /// What was seen.
        why: String,
    },
    /// The file of CAs.
    #[error("forward.webhook.ca {path}: {why}; name a PEM file of the server's CA, or leave it out for the system's CAs", path = path.display())]
    Ca {
        /// Where.
        path: PathBuf,
        /// What was seen.
        why: String,
    },
    /// Everything else.
    #[error("forward.webhook: {0}")]
    Client(String),
}

/// A URL.
pub struct Webhook {
    client: Client,
    secret: hmac::Key,
    settings: WebhookSettings,
}

impl Webhook {
    /// Reads the secret and the CA; sends only when there is something.
    pub fn new(settings: WebhookSettings) -> Result<Self, WebhookError> {
        let (client, secret) = open(&settings)?;
        Ok(Self { client, secret, settings })
    }
}

impl Target for Webhook {
    fn place(&self) -> String {
        self.settings.host()
    }

    fn rate(&self) -> u32 {
        self.settings.rate
    }

    async fn send(&mut self, row: &OutboxRow) -> Answer {
        let at = jiff::Timestamp::now().as_second();
        let sent = self
            .client
            .post(&self.settings.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &row.record)
            .header("webhook-timestamp", at.to_string())
            .header("webhook-signature", signature(&self.secret, &row.record, at, &row.payload))
            .body(row.payload.clone())
            .send()
            .await;
        match sent {
            Ok(response) => answer(response).await,
            Err(error) => Answer::Unavailable { reason: explain(&error), wait: None },
        }
    }
}

/// What the settings name, ready to be used.
pub fn open(settings: &WebhookSettings) -> Result<(Client, hmac::Key), WebhookError> {
    let path = &settings.secret_file;
    let bad = |why: String| WebhookError::Secret { path: path.clone(), why };
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let secret = key(&text).map_err(bad)?;
    // The client takes the process's provider. Whoever has set one before has set the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(settings.timeout)
        .user_agent(concat!("edgeveil-bridge/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &settings.ca {
        let bad = |why: String| WebhookError::Ca { path: path.clone(), why };
        let pem = fs::read(path).map_err(|error| bad(error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| bad(error.to_string()))?;
        if certificates.is_empty() {
            return Err(bad("holds no certificate".to_owned()));
        }
        client = client.tls_certs_only(certificates);
    }
    let client = client.build().map_err(|error| WebhookError::Client(causes(&error)))?;
    Ok((client, secret))
}

/// Of `whsec_` and base64. The text is not shown in messages: it is the secret.
fn key(text: &str) -> Result<hmac::Key, String> {
    let coded = text.trim().strip_prefix(PREFIX).ok_or_else(|| format!("does not begin with {PREFIX}"))?;
    let bytes = BASE64_STANDARD.decode(coded).map_err(|_| format!("what follows {PREFIX} is no base64"))?;
    if !SECRET.contains(&bytes.len()) {
        return Err(format!("has {} bytes; wants {} to {}", bytes.len(), SECRET.start(), SECRET.end()));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn signature(key: &hmac::Key, id: &str, at: i64, body: &str) -> String {
    let signed = hmac::sign(key, format!("{id}.{at}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(signed))
}

async fn answer(mut response: Response) -> Answer {
    let status = response.status();
    if status.is_success() {
        return Answer::Taken;
    }
    let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let wait = wait.map(|wait| wait.min(LONGEST_WAIT));
    let mut reason = match advice(status) {
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

fn advice(status: StatusCode) -> Option<&'static str> {
    match status.as_u16() {
        _ if status.is_redirection() => {
            Some("a redirect is not followed: name its goal in forward.webhook.url")
        }
        401 | 403 => Some("give it the secret of forward.webhook.secret_file, and let it admit this bridge"),
        404 | 405 => Some("mend forward.webhook.url"),
        410 => Some("it wants no more; take [forward.webhook] out of the settings"),
        429 => Some("lower forward.webhook.rate"),
        _ => None,
    }
}

/// Without the URL, which may hold a secret.
fn explain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer within forward.webhook.timeout".to_owned();
    }
    let what = causes(error);
    if error.is_connect() {
        let tls = what.to_lowercase().contains("certificate");
        let remedy =
            if tls { "name its CA in forward.webhook.ca" } else { "start it, or mend forward.webhook.url" };
        return format!("cannot connect: {what}; {remedy}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_signed_as_the_standard_says() {
        // Checked by: printf ID.TIME.BODY | openssl dgst -sha256 -mac HMAC -macopt hexkey:KEY -binary | base64
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_bad_secret_is_named_and_not_shown() {
        let short = format!("{PREFIX}{}", BASE64_STANDARD.encode([7; 23]));
        for (text, why) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin"),
            ("whsec_!!", "no base64"),
            (short.as_str(), "23 bytes"),
        ] {
            let error = key(text).unwrap_err();
            assert!(error.contains(why) && !error.contains(&text[6..]), "{error}");
        }
    }
}
