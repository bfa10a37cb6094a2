//! Alerts to a URL, as Standard Webhooks has it (<https://www.standardwebhooks.com>): `POST` with `webhook-id`,
//! `webhook-timestamp` and `webhook-signature`, which is HMAC-SHA256 over the three of id, time and body.
//!
//! A row is done when the answer is 2xx. Whatever may be over later (no answer, 408, 429, 5xx) or is about all rows (401,
//! 403, 404, a redirect) lets it wait; `retry-after` is heeded. 400, 413, 415 and 422 refuse this very row.

use super::{
    http::{self, ClientError},
    in_turn::{Answer, Target},
};
use crate::{catalog::OutboxRow, settings::WebhookSettings};
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Client, header};
use ring::hmac;
use std::{fs, path::PathBuf};

/// What stands before a secret in base64.
const PREFIX: &str = "whsec_";
/// Its part of the settings.
const SECTION: &str = "forward.webhook";
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
    /// What requests are made by.
    #[error(transparent)]
    Client(#[from] ClientError),
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
            Ok(response) => http::answer(response, SECTION).await,
            Err(error) => Answer::Unavailable { reason: http::explain(&error, SECTION), wait: None },
        }
    }
}

/// What the settings name, ready to be used.
pub fn open(settings: &WebhookSettings) -> Result<(Client, hmac::Key), WebhookError> {
    let path = &settings.secret_file;
    let bad = |why: String| WebhookError::Secret { path: path.clone(), why };
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let secret = key(&text).map_err(bad)?;
    Ok((http::client(SECTION, settings.ca.as_deref(), settings.timeout)?, secret))
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
