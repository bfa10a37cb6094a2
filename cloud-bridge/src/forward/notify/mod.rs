//! Messages for people about alerts: to ntfy, Slack, Matrix, or whatever takes JSON.
//!
//! Alerts are gathered, so that a storm is one message: `group_wait` after the first one, no sooner than `group_interval` after the
//! last message, and not in quiet hours unless one is as severe as `quiet_severity`. What waits stays in the outbox and is
//! done when the service has taken its message: each alert is told of at least once. A refused message is tried again like one that
//! did not arrive, with all that came until then. Of several replicas one at a time does this.

mod group;
mod message;
mod quiet;

pub use quiet::QuietHours;

use super::{
    http::{self, ClientError},
    in_turn::Answer,
    rows::Rows,
};
use crate::{
    backoff::Backoff,
    catalog::{Blame, CatalogError, OutboxRow, Turn},
    settings::{NotifySettings, Service as WordsOf},
};
use edgeveil_wire::{Alert, BootId, ClockState, Lane, RecordId, Severity, Stamp, Values};
use group::{Group, MAX_ALERTS};
use jiff::{SignedDuration, Timestamp};
use message::{Message, Way, Writer};
use reqwest::{Client, Url, header};
use sha2::{Digest, Sha256};
use std::{fs, path::PathBuf, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

const SECTION: &str = "forward.notify";
/// Rows that are read at once.
const AT_ONCE: u32 = 500;
/// How a critical alert is known in the outbox.
const CRITICAL: &str = "%\"severity\":\"critical\"%";
/// Between two looks while alerts pour in.
const PACE: Duration = Duration::from_secs(1);
/// How often a replica whose turn it is not asks whether it is.
const ASK: Duration = Duration::from_secs(5);

/// Why no message can be made.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// A file that the settings name.
    #[error("{SECTION}.{key} {path}: {why}", path = path.display())]
    File {
        /// Which setting.
        key: &'static str,
        /// Where.
        path: PathBuf,
        /// What was seen.
        why: String,
    },
    /// The URL, which is not shown: it may be a secret.
    #[error("{SECTION}.{key}: {why}")]
    Url {
        /// Which setting.
        key: &'static str,
        /// What was seen.
        why: String,
    },
    /// What requests are made by.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The service did not take it.
    #[error("{0}")]
    NotTaken(String),
}

/// The service, and what it takes to write to it.
pub struct Service {
    client: Client,
    url: Url,
    token: Option<String>,
    writer: Writer,
    settings: NotifySettings,
}

impl Service {
    /// Reads the files that the settings name, and tries the template.
    pub fn open(settings: &NotifySettings) -> Result<Self, NotifyError> {
        let read = |key: &'static str, path: &PathBuf| {
            let bad = |why: String| NotifyError::File { key, path: path.clone(), why };
            let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
            if text.trim().is_empty() { Err(bad("is empty".to_owned())) } else { Ok(text) }
        };
        let (key, url) = match (&settings.url, &settings.url_file) {
            (Some(url), _) => ("url", url.clone()),
            (None, Some(file)) => ("url_file", read("url_file", file)?.trim().to_owned()),
            (None, None) => return Err(NotifyError::Url { key: "url", why: "is missing".to_owned() }),
        };
        let bad = |why: String| NotifyError::Url { key, why };
        let url: Url = url.parse().map_err(|error| bad(format!("is no URL: {error}")))?;
        if url.scheme() != "https" && !(url.scheme() == "http" && settings.allow_http) {
            return Err(bad(
                "is not encrypted; wants https://…, or allow_http = true if that is meant".to_owned()
            ));
        }
        if settings.service == WordsOf::Ntfy && message::topic(&url).is_none() {
            return Err(bad("wants https://HOST/TOPIC for ntfy".to_owned()));
        }
        let token = settings.token_file.as_ref().map(|file| read("token_file", file)).transpose()?;
        let token = token.map(|token| token.trim().to_owned());
        let template = settings.template.as_ref().map(|file| read("template", file)).transpose()?;
        let client = http::client(SECTION, settings.ca.as_deref(), settings.timeout)?;
        let service = Self { client, url, token, writer: Writer::new(template), settings: settings.clone() };
        // One, more, and one of which less is known.
        for example in [example(1, true), example(3, true), example(1, false)] {
            service.message_by(&service.writer, &example).map_err(|why| NotifyError::File {
                key: "template",
                path: settings.template.clone().unwrap_or_default(),
                why,
            })?;
        }
        Ok(service)
    }

    /// Where the operator's template fails the usual text is better than none, unless all of it is the template's.
    fn message(&self, group: &Group) -> Result<Message, String> {
        self.message_by(&self.writer, group).or_else(|why| match self.settings.service {
            WordsOf::Json => Err(why),
            _ => {
                tracing::error!(why, "forward.notify.template fails for this message; it has the usual text");
                self.message_by(&Writer::new(None), group)
            }
        })
    }

    fn message_by(&self, writer: &Writer, group: &Group) -> Result<Message, String> {
        let mut digest = Sha256::new();
        group.numbers().iter().for_each(|number| digest.update(number.to_le_bytes()));
        let transaction: String = digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let summary = group.summary(&self.settings.zone, self.settings.pages.as_deref());
        writer.message(&self.settings.service, &self.url, &summary, &transaction)
    }

    async fn send(&self, message: &Message) -> Answer {
        let url = message.way.from(&self.url);
        let request = match message.way {
            Way::Below(_) => self.client.put(url),
            Way::To | Way::Above => self.client.post(url),
        };
        let mut request =
            request.header(header::CONTENT_TYPE, "application/json").body(message.body.to_string());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        match request.send().await {
            Ok(response) => http::answer(response, SECTION).await,
            Err(error) => Answer::Unavailable { reason: http::explain(&error, SECTION), wait: None },
        }
    }

    /// Sends an example, to try it.
    pub async fn try_it(&self) -> Result<(), NotifyError> {
        let message = self.message(&example(1, true)).map_err(NotifyError::NotTaken)?;
        match self.send(&message).await {
            Answer::Taken => Ok(()),
            Answer::Refused(reason) | Answer::Unavailable { reason, .. } => {
                Err(NotifyError::NotTaken(format!("{}: {reason}", self.place())))
            }
        }
    }

    /// What may be shown of the URL.
    pub fn place(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }
}

/// Of a device that nobody has.
fn example(alerts: u64, known: bool) -> Group {
    let (boot, now) = (BootId::from_random([0; 10]), Timestamp::now());
    let value = |value| [("temperature".parse().expect("a name"), value)].into();
    let (device, source) = ("example".parse().expect("a name"), "env".parse().expect("a name"));
    let mut group = Group::default();
    for number in 0..alerts {
        let alert = Alert {
            stamp: Stamp::new(boot, Lane::Alert, number, now, ClockState::Synced, 0),
            reading: RecordId::new(boot, Lane::Reading, number),
            anomaly: true,
            score: 0.7,
            threshold: 0.6,
            contributions: if known { value(1.0) } else { Values::default() },
            severity: Severity::of(0.7, 0.6),
            values: value(41.25),
        };
        let payload = super::payload(&device, &source, &alert);
        let record = alert.stamp.id.to_string();
        let row = OutboxRow {
            number: number.cast_signed(),
            device: device.to_string(),
            record,
            payload,
            attempts: 0,
            refusals: 0,
            last_error: None,
        };
        group.add(&row, Severity::Warning);
    }
    group
}

/// Drains the outbox into messages.
pub struct Notifier {
    service: Service,
    rows: Rows,
    turn: Turn,
    group: Group,
    /// The last row that was looked at.
    looked: i64,
    /// Since when alerts are gathered.
    since: Timestamp,
    /// When the last message was taken.
    last: Option<Timestamp>,
    /// Why the last one was not.
    said: Option<String>,
    /// And until when nothing is tried.
    not_before: Timestamp,
    backoff: Backoff,
}

impl Notifier {
    pub fn new(service: Service, rows: Rows) -> Self {
        let turn = rows.outbox.turn();
        Self {
            service,
            rows,
            turn,
            group: Group::default(),
            looked: 0,
            since: Timestamp::UNIX_EPOCH,
            last: None,
            said: None,
            not_before: Timestamp::MIN,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
        }
    }

    /// Until it is stopped. What was not taken then stays in the outbox.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(async move {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
            loop {
                let error = match self.round().await {
                    Ok(()) => {
                        backoff.reset();
                        continue;
                    }
                    Err(error) => error,
                };
                tracing::error!(%error, "cannot tell of alerts; they wait in the outbox");
                self.begin_anew();
                sleep(backoff.wait()).await;
            }
        })
        .await;
    }

    fn begin_anew(&mut self) {
        (self.group, self.looked) = (Group::default(), 0);
    }

    /// Gathers, and sends once it is time.
    async fn round(&mut self) -> Result<(), CatalogError> {
        if !self.turn.is_ours().await? {
            self.begin_anew();
            self.last = None;
            sleep(ASK).await;
            return Ok(());
        }
        if self.last.is_none() {
            // Of those that were told of.
            let critical = self.service.settings.severity == Severity::Critical;
            let last = self.rows.outbox.last_done(critical.then_some(CRITICAL)).await?;
            self.last = Some(last.and_then(|at| Timestamp::from_millisecond(at).ok()).unwrap_or_default());
        }
        self.gather().await?;
        self.rows.measure().await;
        let now = Timestamp::now();
        let patience = self.rows.outbox.patience();
        let wait = match self.due(now) {
            Some(due) if due <= now => return self.tell().await,
            Some(due) => Duration::try_from(due.duration_since(now)).unwrap_or_default().min(patience),
            None => patience,
        };
        sleep(PACE.min(wait)).await;
        tokio::select! {
            () = self.rows.outbox.changed() => {}
            () = sleep(wait.saturating_sub(PACE)) => {}
        }
        Ok(())
    }

    /// Puts what has come to the group.
    async fn gather(&mut self) -> Result<(), CatalogError> {
        while self.group.numbers().len() < MAX_ALERTS {
            let rows = self.rows.outbox.open(self.looked, AT_ONCE).await?;
            let full = rows.len() == AT_ONCE as usize;
            let mut others = Vec::new();
            for row in rows {
                if self.group.numbers().is_empty() {
                    self.since = Timestamp::now();
                }
                self.looked = row.number;
                if !self.group.add(&row, self.service.settings.severity) {
                    others.push(row.number);
                }
            }
            // Of what is less severe nobody wants to hear.
            self.rows.told(&others).await?;
            if !full {
                break;
            }
        }
        if self.group.numbers().is_empty() {
            // Rows of transactions that ended late stand before those that were looked at.
            self.looked = 0;
        }
        Ok(())
    }

    /// When the group is to be told of; none: there is nothing to tell.
    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        if self.group.numbers().is_empty() {
            return None;
        }
        let settings = &self.service.settings;
        let after = |moment: Timestamp, wait: Duration| {
            let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
            moment.checked_add(wait).unwrap_or(Timestamp::MAX)
        };
        // A clock that was set back must not put it off.
        let gathered = after(self.since.min(now), settings.group_wait);
        let last = self.last.filter(|last| *last <= now);
        let due = last
            .map_or(gathered, |last| gathered.max(after(last, settings.group_interval)))
            .max(now)
            .max(self.not_before);
        let passes = settings.quiet_severity.is_some_and(|least| self.group.worst() >= Some(least));
        if passes {
            return Some(due);
        }
        Some(settings.quiet_hours.end(due, &settings.zone).unwrap_or(due))
    }

    /// Sends a message. One that is not taken is sent again later, when it is time for it.
    async fn tell(&mut self) -> Result<(), CatalogError> {
        let count = self.group.numbers().len();
        let span = tracing::info_span!("notify", alerts = count);
        let answer = match self.service.message(&self.group) {
            Ok(message) => self.service.send(&message).instrument(span).await,
            Err(why) => Answer::Refused(format!("{SECTION}.template: {why}")),
        };
        let (reason, wait) = match answer {
            Answer::Taken => {
                (self.last, self.said, self.not_before) = (Some(Timestamp::now()), None, Timestamp::MIN);
                self.backoff.reset();
                let group = std::mem::take(&mut self.group);
                tracing::info!(to = self.service.place(), alerts = count, "told of alerts");
                self.looked = 0;
                return self.rows.told(group.numbers()).await;
            }
            Answer::Refused(reason) => (reason, None),
            Answer::Unavailable { reason, wait } => (reason, wait),
        };
        self.rows.count_error();
        if self.said.as_ref() != Some(&reason) {
            tracing::warn!(
                to = self.service.place(),
                reason,
                "cannot tell of alerts; they wait in the outbox"
            );
        }
        if let Some(first) = self.group.numbers().first() {
            self.rows.note(*first, &reason, Blame::Target).await;
        }
        self.said = Some(reason);
        let wait = self.backoff.wait().max(wait.unwrap_or_default());
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        self.not_before = Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX);
        Ok(())
    }
}
