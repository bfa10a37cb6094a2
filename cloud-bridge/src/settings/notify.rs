//! Messages for people about alerts.

use super::reader::{Section, Setting};
use crate::forward::QuietHours;
use edgeveil_wire::Severity;
use jiff::tz::TimeZone;
use std::{path::PathBuf, time::Duration};

/// Messages for people about alerts.
#[derive(Clone, PartialEq)]
pub struct NotifySettings {
    /// Whose words are used.
    pub service: Service,
    /// Where it is; it may be a secret, so it is not shown.
    pub url: Option<String>,
    /// The same, in a file.
    pub url_file: Option<PathBuf>,
    /// Whether it may be `http://`.
    pub allow_http: bool,
    /// File with a token that is sent as `Authorization: Bearer`.
    pub token_file: Option<PathBuf>,
    /// Who the server must have been certified by; else the system's CAs.
    pub ca: Option<PathBuf>,
    /// How long a request may take.
    pub timeout: Duration,
    /// File with the text of a message.
    pub template: Option<PathBuf>,
    /// Where people reach the pages, for links.
    pub pages: Option<String>,
    /// The least severity of alerts that are told of.
    pub severity: Severity,
    /// How long is waited after the first alert for others.
    pub group_wait: Duration,
    /// The least time between two messages.
    pub group_interval: Duration,
    /// When alerts wait.
    pub quiet_hours: QuietHours,
    /// The least severity that is told of even then; none: nothing is.
    pub quiet_severity: Option<Severity>,
    /// Of quiet hours, and of times in messages.
    pub zone: TimeZone,
}

/// Whose words are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// ntfy.sh, or one's own: the URL's last part is the topic.
    Ntfy,
    /// An incoming webhook of Slack.
    Slack,
    /// A room of Matrix.
    Matrix {
        /// Its id, `!…:server`.
        room: String,
    },
    /// The template makes all of the JSON.
    Json,
}

impl std::fmt::Debug for NotifySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotifySettings").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Setting for QuietHours {
    const WANTS: &'static str =
        "hours such as \"22:00-07:00\" or \"mon-fri 22:00-07:00, sat-sun 00:00-24:00\"";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Setting for Severity {
    const WANTS: &'static str = "\"warning\" or \"critical\"";
    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "warning" => Ok(Self::Warning),
            "critical" => Ok(Self::Critical),
            _ => Err(format!("`{text}` is no severity")),
        }
    }
}

/// None as a value of its own.
struct QuietSeverity(Option<Severity>);

impl Setting for QuietSeverity {
    const WANTS: &'static str = "\"warning\", \"critical\" or \"none\"";
    fn from_text(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self(None)) } else { Severity::from_text(text).map(|least| Self(Some(least))) }
    }
}

struct Zone(TimeZone);

impl Setting for Zone {
    const WANTS: &'static str = "a time zone such as \"Europe/Berlin\"";
    fn from_text(text: &str) -> Result<Self, String> {
        TimeZone::get(text).map(Self).map_err(|_| format!("`{text}` is no time zone that is known here"))
    }
}

/// None: a problem.
pub(super) fn notify(section: Section<'_, '_>) -> Option<NotifySettings> {
    let (url, url_file): (Option<String>, _) = (section.get("url"), section.get("url_file"));
    if url.is_none() && url_file.is_none() && !section.is_set("url") {
        section.problem("url", "is missing; wants the service's URL, here or in a url_file".to_owned());
    }
    let service = service(&section);
    let template: Option<PathBuf> = section.get("template");
    if service == Some(Service::Json) && template.is_none() {
        section.problem("template", "is missing; wants the file that makes the JSON".to_owned());
    }
    let token_file = section.get("token_file");
    if matches!(service, Some(Service::Matrix { .. })) && token_file.is_none() {
        section.problem("token_file", "is missing; wants the file with the user's access token".to_owned());
    }
    let pages: Option<String> = section.get("pages");
    if pages.as_deref().is_some_and(|pages| !pages.starts_with("https://") && !pages.starts_with("http://")) {
        section.problem("pages", "wants \"https://HOST\"".to_owned());
    }
    let timeout = section.or("timeout", Duration::from_secs(10));
    if !(Duration::from_millis(100)..=Duration::from_secs(120)).contains(&timeout) {
        section.problem("timeout", "wants \"100 ms\" to \"2 min\"".to_owned());
    }
    let time = |key, usual: u64| {
        let time = section.or(key, Duration::from_secs(usual));
        if time > Duration::from_secs(86_400) {
            section.problem(key, "wants \"0 s\" to \"1 d\"".to_owned());
        }
        time
    };
    let (group_wait, group_interval) = (time("group_wait", 30), time("group_interval", 300));
    let settings = NotifySettings {
        service: service?,
        url,
        url_file,
        allow_http: section.or("allow_http", false),
        token_file,
        ca: section.get("ca"),
        timeout,
        template,
        pages,
        severity: section.or("severity", Severity::Warning),
        group_wait,
        group_interval,
        quiet_hours: section.or("quiet_hours", QuietHours::default()),
        quiet_severity: section.or("quiet_severity", QuietSeverity(Some(Severity::Critical))).0,
        zone: section.or("zone", Zone(TimeZone::UTC)).0,
    };
    section.finish();
    Some(settings)
}

fn service(section: &Section<'_, '_>) -> Option<Service> {
    let room: Option<String> = section.get("room");
    let is_matrix = section.get::<String>("service")? == "matrix";
    if room.is_some() && !is_matrix {
        section.problem("room", "is of Matrix alone".to_owned());
    }
    match section.get::<String>("service")?.as_str() {
        "ntfy" => Some(Service::Ntfy),
        "slack" => Some(Service::Slack),
        "matrix" => {
            if !room.as_deref().is_some_and(|room| room.starts_with('!')) {
                section.problem("room", "wants the room's id such as \"!abc:example.org\"".to_owned());
            }
            Some(Service::Matrix { room: room? })
        }
        "json" => Some(Service::Json),
        other => {
            let text = format!("`{other}`; wants \"ntfy\", \"slack\", \"matrix\" or \"json\"");
            section.problem("service", text);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn each_service_says_what_it_wants() {
        let notify = |text: &str| {
            let text = format!("[forward.notify]\n{text}\n");
            Settings::parse("b.toml", &text, &|_| None).map(|settings| settings.forward.notify.unwrap())
        };
        let good = notify("service = \"ntfy\"\nurl = \"https://ntfy.sh/greenhouse\"").unwrap();
        assert_eq!(good.service, Service::Ntfy);
        assert_eq!(good.quiet_severity, Some(Severity::Critical));
        let matrix = "service = \"matrix\"\nurl = \"https://m.org\"\nroom = \"!a:m.org\"\ntoken_file = \"t\"";
        assert_eq!(notify(matrix).unwrap().service, Service::Matrix { room: "!a:m.org".to_owned() });
        assert!(notify("service = \"slack\"\nurl_file = \"u\"\nquiet_severity = \"none\"").is_ok());
        for (text, why) in [
            ("service = \"ntfy\"", "`forward.notify.url`: is missing"),
            ("service = \"fax\"\nurl = \"https://x\"", "`forward.notify.service`: `fax`"),
            ("service = \"json\"\nurl = \"https://x\"", "`forward.notify.template`"),
            (
                "service = \"matrix\"\nurl = \"https://x\"\nroom = \"#a:b\"\ntoken_file = \"t\"",
                "`forward.notify.room`",
            ),
            ("service = \"matrix\"\nurl = \"https://x\"\nroom = \"!a:b\"", "`forward.notify.token_file`"),
            ("service = \"slack\"\nurl = \"https://x\"\nroom = \"!a:b\"", "`forward.notify.room`"),
            ("service = \"slack\"\nurl = \"https://x\"\nzone = \"Mars/Olympus\"", "`forward.notify.zone`"),
            (
                "service = \"slack\"\nurl = \"https://x\"\nquiet_hours = \"22-7\"",
                "`forward.notify.quiet_hours`",
            ),
            ("service = \"slack\"\nurl = \"https://x\"\ngroup_wait = \"2 d\"", "`forward.notify.group_wait`"),
        ] {
            let problems = notify(text).unwrap_err();
            assert!(problems.iter().any(|problem| problem.to_string().contains(why)), "{text}: {problems:?}");
        }
    }
}
