//! A message in the words of each service. The text comes from a template (Jinja's language, by minijinja); its first line is the
//! title.

use super::group::Summary;
use crate::settings::Service;
use edgeveil_wire::Severity;
use minijinja::{Environment, UndefinedBehavior};
use reqwest::Url;
use serde_json::{Value, json};

/// Without a template of the operator's.
const USUAL: &str = include_str!("message.jinja");
/// A message's text is cut to this, in bytes: ntfy takes 4096, the others more.
const MAX_TEXT: usize = 3500;
/// Of a title.
const MAX_TITLE: usize = 200;

/// Where and what.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub way: Way,
    pub body: Value,
}

/// How a message goes to the URL of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// `POST`
    To,
    /// `POST`, to what is above its last part.
    Above,
    /// `PUT`, to these parts below it.
    Below(Vec<String>),
}

impl Way {
    /// Where that is.
    pub fn from(&self, url: &Url) -> Url {
        let mut url = url.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            match self {
                Self::To => {}
                Self::Above => _ = parts.pop_if_empty().pop().push(""),
                Self::Below(below) => _ = parts.pop_if_empty().extend(below),
            }
        }
        url
    }
}

/// Makes messages.
#[derive(Debug)]
pub struct Writer {
    environment: Environment<'static>,
    template: String,
}

impl Writer {
    /// With the operator's template, or the usual one.
    pub fn new(template: Option<String>) -> Self {
        let mut environment = Environment::new();
        // A name that is none is a mistake of the template's, to be told.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        Self { environment, template: template.unwrap_or_else(|| USUAL.to_owned()) }
    }

    fn text(&self, summary: &Summary) -> Result<String, String> {
        // The whole chain says the line, and never more than the template's own text.
        self.environment.render_str(&self.template, summary).map_err(|error| error.to_string())
    }

    /// In the words of a service. `transaction` is the same for the same message.
    pub fn message(
        &self,
        service: &Service,
        url: &Url,
        summary: &Summary,
        transaction: &str,
    ) -> Result<Message, String> {
        let text = self.text(summary)?;
        if let Service::Json = service {
            let body =
                serde_json::from_str(&text).map_err(|error| format!("it does not make JSON: {error}"))?;
            return Ok(Message { way: Way::To, body });
        }
        let (title, lines) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
        let (title, lines) = (cut(title.trim(), MAX_TITLE), cut(lines.trim(), MAX_TEXT));
        Ok(match service {
            Service::Ntfy => ntfy(topic(url).unwrap_or_default(), summary, &title, &lines),
            Service::Slack => slack(summary, &title, &lines),
            Service::Matrix { room } => matrix(room, transaction, summary, &title, &lines),
            Service::Json => unreachable!("it was made above"),
        })
    }
}

/// The last part of ntfy's URL.
pub fn topic(url: &Url) -> Option<&str> {
    url.path_segments()?.next_back().filter(|topic| !topic.is_empty())
}

/// <https://docs.ntfy.sh/publish/#publish-as-json>
fn ntfy(topic: &str, summary: &Summary, title: &str, lines: &str) -> Message {
    let (priority, tag) = match summary.severity {
        Severity::Warning => (3, "warning"),
        Severity::Critical => (5, "rotating_light"),
    };
    let mut body = json!({
        "topic": topic, "title": title, "message": if lines.is_empty() { title } else { lines },
        "priority": priority, "tags": [tag],
    });
    if let Some(link) = &summary.link {
        body["click"] = link.as_str().into();
    }
    Message { way: Way::Above, body }
}

/// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>
fn slack(summary: &Summary, title: &str, lines: &str) -> Message {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let sign = match summary.severity {
        Severity::Warning => ":warning:",
        Severity::Critical => ":rotating_light:",
    };
    let link = summary.link.as_ref().map(|link| format!("\n<{}|Look at it>", escape(link)));
    let text = format!("{sign} *{}*\n{}{}", escape(title), escape(lines), link.unwrap_or_default());
    Message { way: Way::To, body: json!({ "text": text }) }
}

/// <https://spec.matrix.org/v1.11/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid>
fn matrix(room: &str, transaction: &str, summary: &Summary, title: &str, lines: &str) -> Message {
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let mut html = format!("<strong>{}</strong><br>{}", escape(title), escape(lines).replace('\n', "<br>"));
    let mut plain = format!("{title}\n{lines}");
    if let Some(link) = &summary.link {
        html += &format!("<br><a href=\"{}\">Look at it</a>", escape(link));
        plain += &format!("\n{link}");
    }
    let body = json!({
        "msgtype": "m.text", "body": plain, "format": "org.matrix.custom.html", "formatted_body": html,
    });
    let below = ["_matrix", "client", "v3", "rooms", room, "send", "m.room.message", transaction];
    Message { way: Way::Below(below.map(str::to_owned).to_vec()), body }
}

/// At most so many bytes, at the end of a character.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::notify::group::tests::{group, row};
    use jiff::tz::TimeZone;

    fn summary(scores: &[f64]) -> Summary {
        let rows: Vec<_> = (0..).zip(scores).map(|(n, score)| row(n, "pi", *score)).collect();
        group(&rows).summary(&TimeZone::UTC, Some("https://bridge.lan"))
    }

    fn url() -> Url {
        "https://a.lan/pi".parse().unwrap()
    }

    fn usual(service: &Service, scores: &[f64]) -> Message {
        Writer::new(None).message(service, &url(), &summary(scores), "t1").unwrap()
    }

    #[test]
    fn one_alert_says_what_it_was_and_many_say_how_many() {
        let one = usual(&Service::Ntfy, &[0.9]).body;
        assert_eq!(one["title"], "Critical: pi/env");
        assert_eq!(
            one["message"],
            "pi/env: score 0.9 over 0.6, 2026-11-26 10:00:00 UTC; mostly temperature (41.25)"
        );
        assert_eq!((&one["topic"], &one["priority"]), (&"pi".into(), &5.into()));
        assert!(one["click"].as_str().unwrap().starts_with("https://bridge.lan/alerts/pi/"));
        let two = usual(&Service::Ntfy, &[0.7, 0.65]).body;
        assert_eq!(two["title"], "2 alerts of 1 device, warning");
        assert_eq!(
            two["message"],
            "pi/env: 2 alerts, 2026-11-26 10:00:00 UTC to 2026-11-26 10:00:01 UTC, the worst warning, score 0.7 over 0.6; mostly temperature (41.25)"
        );
    }

    #[test]
    fn each_service_gets_its_own_words() {
        let slack = usual(&Service::Slack, &[0.9]);
        let text = slack.body["text"].as_str().unwrap();
        assert!(text.starts_with(":rotating_light: *Critical: pi/env*\npi/env: score"), "{text}");
        assert!(
            text.contains("\n<https://bridge.lan/alerts/pi/") && text.ends_with("|Look at it>"),
            "{text}"
        );
        let matrix = usual(&Service::Matrix { room: "!a:b.lan".to_owned() }, &[0.9]);
        assert_eq!(
            matrix.way.from(&"https://m.lan/x/".parse().unwrap()).as_str(),
            "https://m.lan/x/_matrix/client/v3/rooms/!a:b.lan/send/m.room.message/t1"
        );
        assert_eq!(matrix.body["msgtype"], "m.text");
        for (url, above) in
            [("https://ntfy.lan/pi", "https://ntfy.lan/"), ("https://a.lan/ntfy/pi", "https://a.lan/ntfy/")]
        {
            assert_eq!(Way::Above.from(&url.parse().unwrap()).as_str(), above);
        }
        let html = matrix.body["formatted_body"].as_str().unwrap();
        assert!(html.starts_with("<strong>Critical: pi/env</strong><br>pi/env: score"), "{html}");
    }

    #[test]
    fn what_a_template_says_is_escaped_for_its_service_and_cut() {
        let writer = Writer::new(Some(
            "<b>{{ count }} & \"more\"\n{% for n in range(2000) %}é {% endfor %}".to_owned(),
        ));
        let slack = writer.message(&Service::Slack, &url(), &summary(&[0.7]), "t").unwrap().body;
        assert!(slack["text"].as_str().unwrap().starts_with(":warning: *&lt;b&gt;1 &amp; \"more\"*\né é"));
        let matrix = writer
            .message(&Service::Matrix { room: "!r:x".to_owned() }, &url(), &summary(&[0.7]), "t")
            .unwrap();
        assert!(
            matrix.body["formatted_body"].as_str().unwrap().contains("&lt;b&gt;1 &amp; &quot;more&quot;")
        );
        let ntfy = writer.message(&Service::Ntfy, &url(), &summary(&[0.7]), "t").unwrap().body;
        let message = ntfy["message"].as_str().unwrap();
        assert!(message.len() <= MAX_TEXT && message.ends_with('…'));
    }

    #[test]
    fn another_service_gets_what_its_template_makes() {
        let template =
            r#"{"content": {{ (count ~ " alerts: " ~ sources[0].device)|tojson }}, "n": {{ count }}}"#;
        let made = Writer::new(Some(template.to_owned()))
            .message(&Service::Json, &url(), &summary(&[0.7, 0.8]), "t")
            .unwrap();
        assert_eq!(made.body, json!({ "content": "2 alerts: pi", "n": 2 }));
        for (bad, why) in [("{{ cuont }}", "undefined"), ("{{ count", "syntax"), ("count", "JSON")] {
            let error = Writer::new(Some(bad.to_owned()))
                .message(&Service::Json, &url(), &summary(&[0.7]), "t")
                .unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
