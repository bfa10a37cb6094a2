//! Whom alerts go on to.

use super::{NotifySettings, TlsFiles, notify::notify, read::tls_files, reader::Section};
use crate::forward::TopicTemplate;
use std::{path::PathBuf, time::Duration};

/// Whom alerts go on to; none of them is needed.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardSettings {
    /// AWS IoT Core.
    pub aws: Option<AwsSettings>,
    /// A URL.
    pub webhook: Option<WebhookSettings>,
    /// A topic of Kafka.
    pub kafka: Option<KafkaSettings>,
    /// People.
    pub notify: Option<NotifySettings>,
}

/// AWS IoT Core, or whatever speaks like it.
#[derive(Debug, Clone, PartialEq)]
pub struct AwsSettings {
    /// The account's endpoint, `….iot.<region>.amazonaws.com`.
    pub endpoint: String,
    /// 8883, or 443 with ALPN.
    pub port: u16,
    /// The thing's certificates.
    pub tls: TlsFiles,
    /// The MQTT client id; one connection each.
    pub client_id: String,
    /// Where alerts are published.
    pub topic: TopicTemplate,
    /// Publishes a second.
    pub rate: u32,
    /// Publishes without their PUBACK.
    pub max_in_flight: u16,
    /// Pings.
    pub keep_alive: Duration,
    /// The protocol named in the TLS handshake; port 443 wants `x-amzn-mqtt-ca`.
    pub alpn: Option<String>,
}

/// A URL that alerts are posted to.
#[derive(Clone, PartialEq)]
pub struct WebhookSettings {
    /// It may hold a secret of its own, so it is not shown.
    pub url: String,
    /// File with what requests are signed by.
    pub secret_file: PathBuf,
    /// Who the server must have been certified by; else the system's CAs.
    pub ca: Option<PathBuf>,
    /// How long a request may take.
    pub timeout: Duration,
    /// Requests a second.
    pub rate: u32,
}

impl WebhookSettings {
    /// What may be shown of the URL.
    pub fn host(&self) -> String {
        let url = reqwest::Url::parse(&self.url).ok();
        url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }
}

impl std::fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSettings").field("host", &self.host()).finish_non_exhaustive()
    }
}

/// A topic of Kafka that alerts go to.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaSettings {
    /// Some of the cluster's brokers, from which the others are learned.
    pub brokers: Vec<String>,
    /// Where alerts are written.
    pub topic: String,
    /// The client's name in the brokers' logs and quotas.
    pub client_id: String,
    /// How the connection is secured.
    pub tls: KafkaTls,
    /// A user, and the file with the password.
    pub login: Option<(String, PathBuf)>,
    /// How the two are shown.
    pub mechanism: KafkaMechanism,
    /// Records a second.
    pub rate: u32,
}

/// How a connection to Kafka is secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KafkaTls {
    /// Not at all.
    None,
    /// The server shows a certificate of this CA.
    Server(PathBuf),
    /// Both show one.
    Mutual(TlsFiles),
}

/// How user and password are shown (SASL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaMechanism {
    /// As they are.
    Plain,
    /// By a challenge, with SHA-256.
    Scram256,
    /// By a challenge, with SHA-512.
    Scram512,
}

/// None: something in it is wrong.
pub(super) fn forward(section: Section<'_, '_>) -> Option<ForwardSettings> {
    let part = section.section("aws");
    let aws = if part.is_given(&["endpoint"]) { aws(part).map(Some) } else { Some(None) };
    let part = section.section("webhook");
    let webhook = if part.is_given(&["url"]) { webhook(part).map(Some) } else { Some(None) };
    let part = section.section("kafka");
    let kafka = if part.is_given(&["brokers"]) { kafka(part).map(Some) } else { Some(None) };
    let part = section.section("notify");
    let notify = if part.is_given(&["service"]) { notify(part).map(Some) } else { Some(None) };
    section.finish();
    Some(ForwardSettings { aws: aws?, webhook: webhook?, kafka: kafka?, notify: notify? })
}

fn aws(section: Section<'_, '_>) -> Option<AwsSettings> {
    let endpoint = section.required("endpoint");
    let tls = tls_files(&section);
    let port = section.or("port", 8883);
    let alpn = section.get("alpn").or_else(|| (port == 443).then(|| "x-amzn-mqtt-ca".to_owned()));
    let topic = section.or("topic", TopicTemplate::default());
    let client_id = section.or("client_id", "edgeveil-bridge".to_owned());
    if client_id.len() > 128 {
        section.problem("client_id", "is longer than 128 bytes".to_owned());
    }
    let rate = section.or("rate", 90);
    if rate == 0 || rate > 100 {
        section.problem("rate", "wants 1 to 100 publishes a second".to_owned());
    }
    let max_in_flight = section.or("max_in_flight", 50);
    if max_in_flight == 0 || max_in_flight > 50 {
        section.problem("max_in_flight", "wants 1 to 50".to_owned());
    }
    let keep_alive = section.or("keep_alive", Duration::from_secs(60));
    if !(Duration::from_secs(30)..=Duration::from_secs(1200)).contains(&keep_alive) {
        section.problem("keep_alive", "wants \"30 s\" to \"20 min\"".to_owned());
    }
    section.finish();
    let (endpoint, tls) = (endpoint?, tls?);
    Some(AwsSettings { endpoint, port, tls, client_id, topic, rate, max_in_flight, keep_alive, alpn })
}

fn webhook(section: Section<'_, '_>) -> Option<WebhookSettings> {
    let url: Option<String> = section.required("url");
    let allow_http = section.or("allow_http", false);
    match url.as_deref().map(reqwest::Url::parse) {
        None => {}
        Some(Err(error)) => section.problem("url", format!("{error}; wants \"https://HOST/PATH\"")),
        Some(Ok(url)) => match url.scheme() {
            "https" => {}
            "http" if allow_http => {}
            "http" => {
                let text = "is not encrypted; set allow_http = true if that is meant".to_owned();
                section.problem("url", text);
            }
            other => section.problem("url", format!("`{other}`; wants \"https://HOST/PATH\"")),
        },
    }
    let rate = section.or("rate", 10);
    if rate == 0 || rate > 1000 {
        section.problem("rate", "wants 1 to 1000 requests a second".to_owned());
    }
    let timeout = section.or("timeout", Duration::from_secs(10));
    if !(Duration::from_millis(100)..=Duration::from_secs(120)).contains(&timeout) {
        section.problem("timeout", "wants \"100 ms\" to \"2 min\"".to_owned());
    }
    let (secret_file, ca) = (section.required("secret_file"), section.get("ca"));
    section.finish();
    Some(WebhookSettings { url: url?, secret_file: secret_file?, ca, timeout, rate })
}

fn kafka(section: Section<'_, '_>) -> Option<KafkaSettings> {
    let brokers = section.required("brokers");
    let topic = section.or("topic", "edgeveil-alerts".to_owned());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.len() > 249 || !topic.chars().all(is_plain) || matches!(topic.as_str(), "." | "..") {
        section.problem("topic", "wants 1 to 249 letters, digits, `.`, `_` and `-`".to_owned());
    }
    let client_id = section.or("client_id", "edgeveil-bridge".to_owned());
    let allow_plain = section.or("allow_plain", false);
    let ca: Option<PathBuf> = section.get("ca");
    let own = section.is_set("cert") || section.is_set("key");
    let tls = match ca {
        _ if own => tls_files(&section).map(KafkaTls::Mutual),
        Some(ca) => Some(KafkaTls::Server(ca)),
        None if allow_plain => Some(KafkaTls::None),
        None => {
            let text = "is missing; wants the brokers' CA, or allow_plain = true if that is meant".to_owned();
            section.problem("ca", text);
            None
        }
    };
    if !own {
        let _: (Option<PathBuf>, Option<PathBuf>) = (section.get("cert"), section.get("key"));
    }
    let mechanism = match section.get::<String>("mechanism").as_deref() {
        None | Some("scram-sha-512") => KafkaMechanism::Scram512,
        Some("scram-sha-256") => KafkaMechanism::Scram256,
        Some("plain") => KafkaMechanism::Plain,
        Some(other) => {
            let text = format!("`{other}`; wants \"scram-sha-512\", \"scram-sha-256\" or \"plain\"");
            section.problem("mechanism", text);
            KafkaMechanism::Scram512
        }
    };
    if mechanism == KafkaMechanism::Plain && matches!(tls, Some(KafkaTls::None)) {
        section.problem("mechanism", "`plain` shows the password to whoever listens; wants a ca".to_owned());
    }
    let user: Option<String> = section.get("user");
    let password = section.get("password_file");
    let login = match (user, password) {
        (Some(user), Some(file)) => Some((user, file)),
        (None, None) => None,
        (Some(_), None) => {
            section
                .problem("password_file", "is missing; wants the file with the user's password".to_owned());
            None
        }
        (None, Some(_)) => {
            section.problem("user", "is missing; wants whose password it is".to_owned());
            None
        }
    };
    let rate = section.or("rate", 100);
    if rate == 0 || rate > 1000 {
        section.problem("rate", "wants 1 to 1000 records a second".to_owned());
    }
    section.finish();
    Some(KafkaSettings { brokers: brokers?, topic, client_id, tls: tls?, login, mechanism, rate })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn kafka_is_encrypted_unless_plain_is_meant() {
        let kafka = |more: &str| {
            let text = format!("[forward.kafka]\nbrokers = [\"k:9092\"]\n{more}");
            Settings::parse("b.toml", &text, &|_| None).map(|settings| settings.forward.kafka.unwrap())
        };
        let text = |more: &str| kafka(more).unwrap_err()[0].to_string();
        assert!(text("").contains("forward.kafka.ca"), "{}", text(""));
        assert_eq!(kafka("allow_plain = true\n").unwrap().tls, KafkaTls::None);
        assert_eq!(kafka("ca = \"c\"\n").unwrap().tls, KafkaTls::Server("c".into()));
        assert!(matches!(kafka("ca = \"c\"\ncert = \"d\"\nkey = \"e\"\n").unwrap().tls, KafkaTls::Mutual(_)));
        assert!(text("ca = \"c\"\ncert = \"d\"\n").contains("forward.kafka.key"));
        assert!(text("ca = \"c\"\nuser = \"u\"\n").contains("forward.kafka.password_file"));
        assert!(text("ca = \"c\"\nmechanism = \"gssapi\"\n").contains("scram-sha-512"));
        // In the clear a password would go to whoever listens.
        let plain = "allow_plain = true\nuser = \"u\"\npassword_file = \"p\"\nmechanism = \"plain\"\n";
        assert!(text(plain).contains("forward.kafka.mechanism"), "{}", text(plain));
    }
}
