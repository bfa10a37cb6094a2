//! What an operator can set. [`Settings`] is valid by construction: whoever holds one need not check it again.
//!
//! Every setting has a default that works on one box without a file; the reference is in the crate's README.

mod access;
mod anonymise;
mod environment;
mod forward;
mod homeassistant;
mod legacy;
mod notify;
mod read;
mod reader;
mod telemetry;
mod units;

pub use access::{AccessSettings, Network, ProxySettings};
pub use anonymise::{AmqpJobSettings, AnonymiseSettings, ImageAccess, VeilSettings};
pub use forward::{AwsSettings, ForwardSettings, KafkaMechanism, KafkaSettings, KafkaTls, WebhookSettings};
pub use homeassistant::HomeAssistantSettings;
pub use legacy::{LegacySettings, LegacyTopic};
pub use notify::{NotifySettings, Service};
pub use reader::{Env, Problem};
pub use telemetry::{LogFormat, LogSettings, OtlpSettings};
pub use units::{ByteSize, HostPort, Hosts, time};

use crate::objects::KeyTemplate;
use edgeveil_wire::{Name, Topics};
use reader::{Reader, Section};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Everything that `serve` needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where whatever has no folder of its own is kept.
    pub data_dir: PathBuf,
    /// The topics' prefix.
    pub topics: Topics,
    /// Where messages come from.
    pub source: SourceSettings,
    /// The pages' address.
    pub http: SocketAddr,
    /// Who may see them, and who may act.
    pub access: AccessSettings,
    /// Where images are kept.
    pub objects: ObjectSettings,
    /// How they are named there.
    pub image_key: KeyTemplate,
    /// How long a link lasts by which pages send browsers to the bucket; none: the bridge reads the image for them.
    pub image_links: Option<Duration>,
    /// Bytes of a film that the pages ask for, at the most; 0: none is made.
    pub films: ByteSize,
    /// Where rows are kept.
    pub catalog: CatalogSettings,
    /// How records are batched.
    pub ingest: IngestSettings,
    /// Where devices get their certificates, when they get them here.
    pub enroll: Option<EnrollSettings>,
    /// How long things are kept.
    pub retention: RetentionSettings,
    /// Publishers that know nothing of Edgeveil, when they are heard.
    pub legacy: Option<LegacySettings>,
    /// Home Assistant, when it is told of the devices.
    pub homeassistant: Option<HomeAssistantSettings>,
    /// Pictures of cameras that run no agent, when they are taken.
    pub anonymise: Option<AnonymiseSettings>,
    /// Whom alerts go on to.
    pub forward: ForwardSettings,
    /// How logs look.
    pub log: LogSettings,
    /// A collector of traces, when they go to one.
    pub otlp: Option<OtlpSettings>,
}

/// Where messages come from.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceSettings {
    /// A broker inside this process.
    Embedded(BrokerSettings),
    /// A broker somewhere else.
    External(MqttSettings),
    /// A queue of RabbitMQ's.
    Amqp(AmqpSettings),
}

/// A CA, a certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who the other side must have been certified by.
    pub ca: PathBuf,
    /// Our own chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The embedded broker.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerSettings {
    /// MQTT over TLS.
    pub listen: SocketAddr,
    /// Its certificate.
    pub certificates: BrokerCertificates,
    /// Connections at once; more are closed at once.
    pub max_connections: u32,
}

/// Which certificate the embedded broker shows.
#[derive(Debug, Clone, PartialEq)]
pub enum BrokerCertificates {
    /// Issued by the development CA in this folder, made when it is not there.
    Development(PathBuf),
    /// The operator's own.
    Own(TlsFiles),
}

/// An external broker.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttSettings {
    /// Its host name, as in its certificate.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The connection's certificates.
    pub tls: TlsFiles,
    /// Fixed over restarts: the broker keeps the session by it. In Kubernetes the pod's name.
    pub client_id: String,
    /// The shared subscription's group; none for a plain subscription.
    pub share_group: Option<Name>,
    /// How long the broker keeps the session of a bridge that is away.
    pub session_expiry: Duration,
    /// Pings.
    pub keep_alive: Duration,
    /// Messages that the broker may send before it has acknowledgements.
    pub receive_maximum: u16,
}

/// A RabbitMQ that devices speak MQTT to.
#[derive(Debug, Clone, PartialEq)]
pub struct AmqpSettings {
    /// Its nodes.
    pub hosts: Hosts,
    /// The connections' certificates.
    pub tls: TlsFiles,
    /// As whom.
    pub login: AmqpLogin,
    /// The virtual host.
    pub vhost: String,
    /// The queue that all replicas consume.
    pub queue: String,
    /// The exchange of the MQTT plugin.
    pub exchange: String,
    /// Whether queue and bindings are made when they are not there.
    pub declare: bool,
    /// Messages that the broker may send before it has acknowledgements.
    pub prefetch: u16,
    /// How often each side hears from the other.
    pub heartbeat: Duration,
}

/// How RabbitMQ knows a bridge.
#[derive(Debug, Clone, PartialEq)]
pub enum AmqpLogin {
    /// By the common name of its certificate (EXTERNAL).
    Certificate,
    /// By name and password (PLAIN).
    Password {
        /// The name.
        user: String,
        /// The file with the password.
        password_file: PathBuf,
    },
}

/// Where devices get their certificates.
#[derive(Debug, Clone, PartialEq)]
pub struct EnrollSettings {
    /// HTTPS.
    pub listen: SocketAddr,
    /// How devices reach it: a name or address, with a port when it is another than `listen`'s.
    pub host: String,
    /// The folder with `ca.pem` and `ca.key`.
    pub ca: PathBuf,
    /// How long a certificate lasts.
    pub lifetime: Duration,
}

impl EnrollSettings {
    /// The name that the server's certificate is for.
    pub fn host_name(&self) -> &str {
        let host = self.host_and_port().0;
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// What devices are to be told.
    pub fn url(&self) -> String {
        let (host, port) = self.host_and_port();
        format!("https://{host}:{}", port.unwrap_or(self.listen.port()))
    }

    fn host_and_port(&self) -> (&str, Option<u16>) {
        match self.host.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => (&self.host, None),
            },
            _ => (&self.host, None),
        }
    }
}

/// Where images are kept.
#[derive(Debug, Clone, PartialEq)]
pub enum ObjectSettings {
    /// A folder.
    Folder(PathBuf),
    /// An S3 bucket.
    S3(S3Settings),
}

/// An S3 bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct S3Settings {
    /// URL of the service; none for AWS itself.
    pub endpoint: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// File with the access key's id; else `AWS_ACCESS_KEY_ID`.
    pub access_key_id_file: Option<PathBuf>,
    /// File with the secret; else `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key_file: Option<PathBuf>,
    /// Whether `http://` endpoints are fine.
    pub allow_http: bool,
    /// How the service encrypts what it keeps; none: as the bucket is set up.
    pub encryption: Option<Encryption>,
    /// The storage class of new objects; none: the service's own.
    pub storage_class: Option<String>,
    /// Whether records are written by `If-None-Match`, which some services do not know.
    pub conditional_put: bool,
}

/// How S3 encrypts what it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// By keys of S3's own.
    S3,
    /// By a key in KMS: this one, or the account's.
    Kms(Option<String>),
    /// The same, in two layers.
    KmsTwice(Option<String>),
}

/// Where rows are kept.
#[derive(Debug, Clone, PartialEq)]
pub enum CatalogSettings {
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// A server, which replicas of the bridge share.
    Postgres(PostgresSettings),
}

impl std::fmt::Display for CatalogSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "{}", file.display()),
            Self::Postgres(server) => {
                write!(f, "postgres://{}:{}/{}", server.host, server.port, server.database)
            }
        }
    }
}

/// A PostgreSQL server.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresSettings {
    /// Its host name, as in its certificate; or the folder of its socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// Its owner.
    pub user: String,
    /// File with the user's password.
    pub password_file: Option<PathBuf>,
    /// Who the server must have been certified by; else the system's CAs.
    pub ca: Option<PathBuf>,
    /// Whether a connection without TLS is fine.
    pub allow_plain: bool,
}

/// How records are batched.
#[derive(Debug, Clone, PartialEq)]
pub struct IngestSettings {
    /// Records in one transaction at the most.
    pub batch: usize,
    /// How long a batch waits for more.
    pub linger: Duration,
    /// Records that may wait for their batch; when it is full, devices wait.
    pub queue: usize,
    /// Bytes that may wait for their batch; likewise.
    pub memory: ByteSize,
}

/// How long things are kept; none: for ever.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RetentionSettings {
    /// Readings.
    pub readings: Option<Duration>,
    /// Alerts.
    pub alerts: Option<Duration>,
    /// Events of agents.
    pub events: Option<Duration>,
    /// Images, with their objects.
    pub images: Option<Duration>,
    /// Rows of the outbox that have arrived.
    pub forwarded: Option<Duration>,
}

impl Settings {
    /// From a file, or the defaults and the environment alone. All problems, or valid settings.
    pub fn load(file: Option<&Path>, variables: &[(String, String)]) -> Result<Self, Vec<Problem>> {
        let env =
            |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let (name, text) = match file {
            None => ("(no settings file)".to_owned(), Ok(String::new())),
            Some(path) => (path.display().to_string(), std::fs::read_to_string(path)),
        };
        let read = match text {
            Ok(text) => Self::parse(&name, &text, &env),
            Err(error) => {
                let text = format!("cannot be read: {error}");
                Err(vec![Problem { place: name, key: String::new(), text }])
            }
        };
        let unknown = environment::unknown(variables);
        match read {
            Ok(settings) if unknown.is_empty() => Ok(settings),
            Ok(_) => Err(unknown),
            Err(problems) => Err(problems.into_iter().chain(unknown).collect()),
        }
    }

    /// From text; `file` is only for messages.
    pub fn parse(file: &str, text: &str, env: Env<'_>) -> Result<Self, Vec<Problem>> {
        let reader = Reader::new(file, text, env);
        let table = reader.parse();
        let settings = read::settings(Section::root(&reader, &table));
        let problems = reader.into_problems();
        match settings {
            Some(settings) if problems.is_empty() => Ok(settings),
            _ => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn problems(text: &str) -> Vec<String> {
        Settings::parse("b.toml", text, &none).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_at_all_is_enough() {
        let settings = Settings::parse("-", "", &none).unwrap();
        assert!(matches!(settings.source, SourceSettings::Embedded(_)));
        assert_eq!(settings.http.port(), 8080);
        assert_eq!(settings.forward.aws, None);
    }

    #[test]
    fn every_problem_is_named_with_its_line() {
        let found = problems(
            "data_dir = 5\n[http]\nlisten = \"nowhere\"\nport = 80\n\n[ingest]\nlinger = 20\nbatch = 0\n\n[forward.aws]\nendpoint = \"x\"\nkeep_alive = \"5 s\"\n",
        );
        let starts = |start: &str| assert!(found.iter().any(|p| p.starts_with(start)), "{start}: {found:#?}");
        starts("b.toml:1: `data_dir`");
        starts("b.toml:3: `http.listen`");
        starts("b.toml:4: `http.port`: is no setting");
        starts("b.toml:7: `ingest.linger`");
        starts("b.toml:8: `ingest.batch`");
        starts("b.toml:10: `forward.aws.cert`: is missing");
        starts("b.toml:12: `forward.aws.keep_alive`");
    }

    #[test]
    fn broken_toml_is_named_with_its_line() {
        let found = problems("data_dir = \"x\"\nprefix = \n");
        assert!(found[0].starts_with("b.toml:2: no valid TOML"), "{found:?}");
    }

    #[test]
    fn the_environment_overrides_and_is_named_when_wrong() {
        let env = |name: &str| match name {
            "EDGEVEIL_BRIDGE_HTTP_LISTEN" => Some("0.0.0.0:1".to_owned()),
            "EDGEVEIL_BRIDGE_INGEST_LINGER" => Some("soon".to_owned()),
            _ => None,
        };
        let found = Settings::parse("b.toml", "", &env).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].place, "EDGEVEIL_BRIDGE_INGEST_LINGER");
        let env = |name: &str| (name == "EDGEVEIL_BRIDGE_HTTP_LISTEN").then(|| "0.0.0.0:1".to_owned());
        let settings = Settings::parse("b.toml", "[http]\nlisten = \"127.0.0.1:2\"", &env).unwrap();
        assert_eq!(settings.http.port(), 1);
    }

    #[test]
    fn devices_reach_the_registrar_by_a_name_and_perhaps_another_port() {
        let enroll = |host: &str| {
            let text = format!("[enroll]\nlisten = \"0.0.0.0:8444\"\nhost = \"{host}\"\n");
            Settings::parse("b.toml", &text, &none).map(|settings| settings.enroll.unwrap())
        };
        for (host, name, url) in [
            ("bridge.lan", "bridge.lan", "https://bridge.lan:8444"),
            ("bridge.lan:443", "bridge.lan", "https://bridge.lan:443"),
            ("10.0.0.7", "10.0.0.7", "https://10.0.0.7:8444"),
            ("[fd00::7]", "fd00::7", "https://[fd00::7]:8444"),
            ("[fd00::7]:443", "fd00::7", "https://[fd00::7]:443"),
        ] {
            let settings = enroll(host).unwrap();
            assert_eq!((settings.host_name(), settings.url().as_str()), (name, url));
        }
        for bad in ["https://bridge.lan", "bridge.lan/x", "a b", "fd00::7", ""] {
            assert!(enroll(bad).is_err(), "{bad}");
        }
        assert_eq!(Settings::parse("b.toml", "", &none).unwrap().enroll, None);
        let found = problems("[enroll]\nlisten = \"0.0.0.0:8444\"\nhost = \"h\"\nlifetime = \"1 s\"\n");
        assert!(found[0].starts_with("b.toml:4: `enroll.lifetime`"), "{found:?}");
    }

    #[test]
    fn nodes_of_rabbitmq_are_listed_with_or_without_their_ports() {
        let tls = "ca = \"a\"\ncert = \"b\"\nkey = \"c\"\n";
        let text =
            |hosts: &str, more: &str| format!("[amqp]\nhosts = \"{hosts}\"\n{tls}{more}prefetch = 7\n");
        let hosts = |list: &str| {
            let settings = Settings::parse("b.toml", &text(list, ""), &none).unwrap();
            let SourceSettings::Amqp(amqp) = settings.source else { panic!("{:?}", settings.source) };
            assert_eq!((amqp.prefetch, amqp.login), (7, AmqpLogin::Certificate));
            amqp.hosts.in_turn().take(4).map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(hosts("a, b:5672"), ["a:5671", "b:5672", "a:5671", "b:5672"]);
        assert_eq!(hosts("[fd00::7]:1"), vec!["[fd00::7]:1"; 4]);
        for bad in ["", "a,,b", "a:b", "a:0", "amqps://a", "fd00::7"] {
            let found = problems(&text(bad, ""));
            assert!(found[0].starts_with("b.toml:2: `amqp.hosts`"), "{bad}: {found:?}");
        }
        let found = problems(&text("a", "user = \"u\"\nheartbeat = \"1 s\"\n"));
        assert!(found[0].starts_with("b.toml:7: `amqp.heartbeat`"), "{found:?}");
        assert!(found[1].contains("`amqp.password_file`: is missing"), "{found:?}");
        let found = problems(&text("a", "password_file = \"p\"\nqueue = \"amq.x\"\n"));
        assert!(found[0].starts_with("b.toml:7: `amqp.queue`"), "{found:?}");
        assert!(found[1].contains("`amqp.user`: is missing"), "{found:?}");
    }

    #[test]
    fn images_in_s3_are_named_encrypted_and_linked_as_is_set() {
        let text = |more: &str| {
            format!("[objects]\n{more}\n[objects.s3]\nbucket = \"b\"\nstorage_class = \"STANDARD_IA\"\n")
        };
        let settings = |more: &str, s3: &str| Settings::parse("b.toml", &(text(more) + s3), &none).unwrap();
        let s3 = |settings: &Settings| match &settings.objects {
            ObjectSettings::S3(s3) => s3.clone(),
            ObjectSettings::Folder(folder) => panic!("{folder:?}"),
        };
        let plain = settings("", "");
        assert_eq!((plain.image_key, plain.image_links), (KeyTemplate::default(), None));
        let s3_plain = s3(&settings("", ""));
        assert_eq!((s3_plain.encryption, s3_plain.conditional_put), (None, true));
        let full = settings(
            "key = \"{device}/{id}.jpg\"\nlinks = \"15 min\"",
            "encryption = \"aws:kms\"\nkms_key_id = \"k\"\nconditional_put = false\n",
        );
        assert_eq!(full.image_links, Some(Duration::from_secs(900)));
        assert_eq!(s3(&full).encryption, Some(Encryption::Kms(Some("k".to_owned()))));
        assert_eq!(s3(&full).storage_class.as_deref(), Some("STANDARD_IA"));
        for (more, s3, line, key) in [
            ("key = \"{device}.jpg\"", "", 2, "objects.key"),
            ("links = \"8 d\"", "", 2, "objects.links"),
            ("", "encryption = \"rot13\"", 6, "objects.s3.encryption"),
            ("", "kms_key_id = \"k\"", 6, "objects.s3.kms_key_id"),
            ("", "encryption = \"AES256\"\nkms_key_id = \"k\"", 7, "objects.s3.kms_key_id"),
        ] {
            let found = problems(&(text(more) + s3));
            assert!(found[0].starts_with(&format!("b.toml:{line}: `{key}`")), "{found:?}");
        }
        let found = problems("[objects]\nlinks = \"15 min\"\n");
        assert!(found[0].starts_with("b.toml:2: `objects.links`"), "{found:?}");
    }

    #[test]
    fn two_sources_are_one_too_many() {
        let found = problems(
            "[broker]\nlisten = \"127.0.0.1:0\"\n[mqtt]\nhost = \"h\"\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n",
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("stands beside [broker]"));
        let found = problems(
            "[amqp]\nhosts = \"h\"\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n[mqtt]\nhost = \"h\"\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n",
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("stands beside [mqtt]"), "{found:?}");
    }
}
