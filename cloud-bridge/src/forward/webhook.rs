//! Alerts to a URL, as Standard Webhooks has it (<https://www.standardwebhooks.com>): `POST` with `webhook-id`,
//! `webhook-timestamp` and `webhook-signature`, which is HMAC-SHA256 over the three of id, time and body.
//!
//! One row goes after the other, so the order is that of the commits. A row is done when the answer is 2xx. Whatever may be
//! over later (no answer, 408, 429, 5xx) or is about all rows (401, 403, 404, a redirect) lets it wait; `retry-after` is
//! heeded. What is about this row (400, 413, 415, 422) is tried [`REFUSALS`] times; then the one behind it is tried, and when
//! that is taken, the refused one is set aside.

use crate::{
    backoff::Backoff,
    catalog::{Blame, CatalogError, Outbox, OutboxRow},
    metrics::{Metrics, TargetLabel},
    settings::WebhookSettings,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Certificate, Client, Response, StatusCode, header, redirect};
use ring::hmac;
use std::{fs, path::PathBuf, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Rows that are taken from the outbox at once.
const ROWS: u32 = 32;
/// Refusals of one row, before another one is tried in its place.
const REFUSALS: i64 = 5;
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

/// Drains the outbox to a URL.
pub struct WebhookForwarder {
    client: Client,
    secret: hmac::Key,
    settings: WebhookSettings,
    outbox: Outbox,
    metrics: Arc<Metrics>,
    /// When the next request may go.
    next: Instant,
}

/// What the other side said to a row.
enum Answer {
    Taken,
    Refused(String),
    Unavailable { reason: String, wait: Option<Duration> },
}

/// Why it has to wait.
enum End {
    Refused,
    Unavailable { reason: String, wait: Option<Duration> },
    Catalog(CatalogError),
}

impl From<CatalogError> for End {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

impl WebhookForwarder {
    /// Reads the secret and the CA; sends only in [`Self::run`].
    pub fn new(
        settings: WebhookSettings,
        outbox: Outbox,
        metrics: Arc<Metrics>,
    ) -> Result<Self, WebhookError> {
        let (client, secret) = open(&settings)?;
        Ok(Self { client, secret, settings, outbox, metrics, next: Instant::now() })
    }

    /// Sends, until it is stopped. What was not answered then stays in the outbox.
    pub async fn run(mut self, stop: CancellationToken) {
        let label = TargetLabel { target: self.outbox.target() };
        let mut unavailable = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        let mut refused = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        let mut quiet = false;
        loop {
            let mut progress = false;
            let end = tokio::select! {
                () = stop.cancelled() => return,
                end = self.drain(&mut progress) => end,
            };
            if progress {
                unavailable.reset();
                refused.reset();
                quiet = false;
            }
            self.metrics.forward_errors.get_or_create(&label).inc();
            let wait = match end {
                End::Refused => refused.wait(),
                End::Unavailable { reason, wait } => {
                    if !std::mem::replace(&mut quiet, true) {
                        tracing::warn!(
                            to = self.settings.host(),
                            reason,
                            "cannot forward alerts; they wait in the outbox"
                        );
                    }
                    unavailable.wait().max(wait.unwrap_or_default())
                }
                End::Catalog(error) => {
                    tracing::error!(%error, "cannot forward alerts");
                    unavailable.wait()
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// Until something has to wait.
    async fn drain(&mut self, progress: &mut bool) -> End {
        if let Err(error) = self.outbox.give_back(&[]).await {
            return error.into();
        }
        // Rows that were refused, each too often, and nothing was taken since.
        let mut suspects = Vec::new();
        loop {
            let rows = match self.outbox.take(ROWS).await {
                Ok(rows) => rows,
                Err(error) => return error.into(),
            };
            self.measure().await;
            if rows.is_empty() {
                if !suspects.is_empty() {
                    // Nobody is there to be tried in their place.
                    return End::Refused;
                }
                let patience = self.outbox.patience();
                tokio::select! {
                    () = self.outbox.changed() => {}
                    () = sleep(patience) => {}
                }
                continue;
            }
            for row in rows {
                sleep_until(self.next).await;
                self.next = Instant::now() + Duration::from_secs(1) / self.settings.rate;
                match self.post(&row).await {
                    Answer::Taken => match self.taken(&row, &mut suspects).await {
                        Ok(()) => *progress = true,
                        Err(error) => return error.into(),
                    },
                    Answer::Refused(reason) => {
                        let refusals = self.refused(&row, &reason).await;
                        suspects.push((row, reason));
                        if refusals < REFUSALS {
                            return End::Refused;
                        }
                    }
                    Answer::Unavailable { reason, wait } => {
                        self.note(row.number, &reason, Blame::Target).await;
                        return End::Unavailable { reason, wait };
                    }
                }
            }
        }
    }

    async fn post(&self, row: &OutboxRow) -> Answer {
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

    /// What was refused before another row was taken is to blame itself.
    async fn taken(
        &self,
        row: &OutboxRow,
        suspects: &mut Vec<(OutboxRow, String)>,
    ) -> Result<(), CatalogError> {
        let now = jiff::Timestamp::now().as_millisecond();
        for (row, reason) in std::mem::take(suspects) {
            self.outbox.set_aside(row.number, &reason, now).await?;
            tracing::error!(
                number = row.number,
                device = row.device,
                record = row.record,
                reason,
                "an alert is set aside and not tried again; those behind it go on"
            );
        }
        self.outbox.done(&[row.number], now).await?;
        let label = TargetLabel { target: self.outbox.target() };
        self.metrics.forwarded.get_or_create(&label).inc();
        Ok(())
    }

    /// Tells how often it was.
    async fn refused(&self, row: &OutboxRow, reason: &str) -> i64 {
        self.note(row.number, reason, Blame::Row).await;
        let refusals = row.refusals + 1;
        tracing::error!(
            number = row.number,
            device = row.device,
            refusals,
            reason,
            "an alert was refused; it stays in the outbox and is tried again later"
        );
        refusals
    }

    async fn note(&self, number: i64, reason: &str, blame: Blame) {
        if let Err(error) = self.outbox.failed(number, reason, blame).await {
            tracing::warn!(%error, "cannot note why an alert was not forwarded");
        }
    }

    async fn measure(&self) {
        if let Ok((open, failed)) = self.outbox.depth().await {
            let label = TargetLabel { target: self.outbox.target() };
            self.metrics.outbox_depth.get_or_create(&label).set(open);
            self.metrics.outbox_failed.get_or_create(&label).set(failed);
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
