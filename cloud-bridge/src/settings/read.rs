//! Every setting's key, default and bounds.

use super::{
    AmqpLogin, AmqpSettings, BrokerCertificates, BrokerSettings, ByteSize, CatalogSettings, Encryption,
    EnrollSettings, IngestSettings, MqttSettings, ObjectSettings, PostgresSettings, RetentionSettings,
    S3Settings, Settings, SourceSettings, TlsFiles, reader::Section,
};
use crate::objects::KeyTemplate;
use edgeveil_wire::Topics;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// All of them; none when something that has no default is missing or wrong.
pub fn settings(root: Section<'_, '_>) -> Option<Settings> {
    let data_dir: PathBuf = root.or("data_dir", "edgeveil-data".into());
    let topics = root.or("prefix", Topics::default());
    let source = source(&root, &data_dir);
    let http = root.section("http");
    let listen = http.or("listen", SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    http.finish();
    let access = super::access::access(root.section("access"), listen);
    let anonymise = super::anonymise::anonymise(root.section("anonymise"), &data_dir, listen);
    let section = root.section("objects");
    let image_key = section.or("key", KeyTemplate::default());
    let image_links = image_links(&section);
    let objects = objects(section, data_dir.join("objects"));
    let section = root.section("films");
    let films = section.or("max_bytes", ByteSize(1 << 30));
    section.finish();
    let legacy = super::legacy::legacy(root.section("legacy"), &topics);
    let homeassistant = super::homeassistant::homeassistant(
        root.section("homeassistant"),
        &topics,
        source.as_ref(),
        legacy.as_ref().and_then(Option::as_ref),
    );
    let catalog = root.section("catalog");
    let catalog = catalog_settings(catalog, &data_dir);
    let ingest = ingest(root.section("ingest"));
    let section = root.section("enroll");
    let enroll =
        if section.is_given(&["listen"]) { enroll(section, &data_dir).map(Some) } else { Some(None) };
    let retention = retention(root.section("retention"));
    let forward = super::forward::forward(root.section("forward"));
    let log = super::telemetry::log(root.section("log"));
    let otlp = super::telemetry::otlp(root.section("otlp"));
    root.finish();
    Some(Settings {
        data_dir,
        topics,
        source: source?,
        http: listen,
        access: access?,
        objects: objects?,
        image_key,
        image_links,
        films,
        catalog: catalog?,
        ingest,
        enroll: enroll?,
        retention,
        legacy: legacy?,
        homeassistant: homeassistant?,
        anonymise: anonymise?,
        forward: forward?,
        log,
        otlp: otlp?,
    })
}

fn source(root: &Section<'_, '_>, data_dir: &Path) -> Option<SourceSettings> {
    let broker = root.section("broker");
    let mqtt = root.section("mqtt");
    let amqp = root.section("amqp");
    if amqp.is_given(&["hosts"]) {
        let others = [("broker", &broker, &["listen", "ca", "cert", "key"][..]), ("mqtt", &mqtt, &["host"])];
        for (name, other, keys) in others {
            if other.is_given(keys) {
                let text =
                    format!("stands beside [{name}]; keep [amqp] for RabbitMQ, or [{name}] in place of it");
                root.problem("amqp", text);
            }
        }
        return amqp_settings(amqp).map(SourceSettings::Amqp);
    }
    if !mqtt.is_given(&["host"]) {
        return embedded(broker, data_dir).map(SourceSettings::Embedded);
    }
    if broker.is_given(&["listen", "ca", "cert", "key"]) {
        root.problem(
            "mqtt",
            "stands beside [broker]; keep [mqtt] for a broker elsewhere, or [broker] for the embedded one"
                .to_owned(),
        );
    }
    external(mqtt).map(SourceSettings::External)
}

fn embedded(section: Section<'_, '_>, data_dir: &Path) -> Option<BrokerSettings> {
    let listen = section.or("listen", SocketAddr::from((Ipv4Addr::LOCALHOST, 8883)));
    let max_connections = section.or("max_connections", 2_000);
    if max_connections == 0 {
        section.problem("max_connections", "is 0, so that no device could connect".to_owned());
    }
    let certificates = if ["ca", "cert", "key"].iter().any(|key| section.is_set(key)) {
        BrokerCertificates::Own(tls_files(&section)?)
    } else {
        BrokerCertificates::Development(data_dir.join("certs"))
    };
    section.finish();
    Some(BrokerSettings { listen, certificates, max_connections })
}

pub(super) fn tls_files(section: &Section<'_, '_>) -> Option<TlsFiles> {
    let (ca, cert, key) = (section.required("ca"), section.required("cert"), section.required("key"));
    Some(TlsFiles { ca: ca?, cert: cert?, key: key? })
}

fn external(section: Section<'_, '_>) -> Option<MqttSettings> {
    let host = section.required("host");
    let tls = tls_files(&section);
    let client_id = section.or("client_id", "edgeveil-bridge".to_owned());
    let share_group = match section.get::<String>("share_group") {
        None => "edgeveil-bridge".parse().ok(),
        Some(off) if off == "none" => None,
        Some(group) => group.parse().map_err(|error| section.problem("share_group", format!("{error}"))).ok(),
    };
    let settings = MqttSettings {
        port: section.or("port", 8883),
        client_id,
        share_group,
        session_expiry: section.or("session_expiry", Duration::from_secs(86_400)),
        keep_alive: section.or("keep_alive", Duration::from_secs(30)),
        receive_maximum: section.or("receive_maximum", 128),
        host: host.unwrap_or_default(),
        tls: tls?,
    };
    if settings.keep_alive < Duration::from_secs(5) || settings.keep_alive > Duration::from_secs(1200) {
        section.problem("keep_alive", "wants \"5 s\" to \"20 min\"".to_owned());
    }
    if settings.receive_maximum == 0 {
        section.problem("receive_maximum", "is 0, so that no message could come".to_owned());
    }
    section.finish();
    Some(settings)
}

fn amqp_settings(section: Section<'_, '_>) -> Option<AmqpSettings> {
    let hosts = section.required("hosts");
    let tls = tls_files(&section);
    let prefetch = section.or("prefetch", 256);
    if prefetch == 0 || prefetch > 10_000 {
        section.problem("prefetch", "wants 1 to 10000 messages".to_owned());
    }
    let heartbeat = section.or("heartbeat", Duration::from_secs(30));
    if !(Duration::from_secs(5)..=Duration::from_secs(1200)).contains(&heartbeat) {
        section.problem("heartbeat", "wants \"5 s\" to \"20 min\"".to_owned());
    }
    // AMQP's own bound; the names that begin so are the broker's.
    let queue = section.or("queue", "edgeveil".to_owned());
    if queue.len() > 255 || queue.starts_with("amq.") {
        section.problem("queue", "wants at most 255 bytes, and no `amq.` in front".to_owned());
    }
    let exchange = section.or("exchange", "amq.topic".to_owned());
    if exchange.len() > 255 {
        section.problem("exchange", "is longer than 255 bytes".to_owned());
    }
    let vhost = section.or("vhost", "/".to_owned());
    if vhost.len() > 255 {
        section.problem("vhost", "is longer than 255 bytes".to_owned());
    }
    let login = match (section.get("user"), section.get("password_file")) {
        (None, None) => Some(AmqpLogin::Certificate),
        (Some(user), Some(password_file)) => Some(AmqpLogin::Password { user, password_file }),
        (user, _) => {
            let missing = if user.is_none() { "user" } else { "password_file" };
            section.problem(missing, "is missing; wants both or none of user and password_file".to_owned());
            None
        }
    };
    let declare = section.or("declare", true);
    section.finish();
    let (hosts, tls, login) = (hosts?, tls?, login?);
    Some(AmqpSettings { hosts, tls, login, vhost, queue, exchange, declare, prefetch, heartbeat })
}

pub(super) fn objects(section: Section<'_, '_>, folder: PathBuf) -> Option<ObjectSettings> {
    let s3 = section.section("s3");
    let settings = if s3.is_given(&["bucket"]) {
        if section.is_set("folder") {
            section.problem("folder", "stands beside `s3`; keep one of them".to_owned());
        }
        let bucket = s3.required("bucket");
        let endpoint: Option<String> = s3.get("endpoint");
        let allow_http = s3.or("allow_http", false);
        if endpoint.as_ref().is_some_and(|url| url.starts_with("http://")) && !allow_http {
            let text = "is not encrypted; set allow_http = true if that is meant".to_owned();
            s3.problem("endpoint", text);
        }
        let region = s3.or("region", "us-east-1".to_owned());
        let (id, secret) = (s3.get("access_key_id_file"), s3.get("secret_access_key_file"));
        let encryption = encryption(&s3);
        let storage_class = s3.get("storage_class");
        let conditional_put = s3.or("conditional_put", true);
        s3.finish();
        ObjectSettings::S3(S3Settings {
            endpoint,
            bucket: bucket?,
            region,
            access_key_id_file: id,
            secret_access_key_file: secret,
            allow_http,
            encryption,
            storage_class,
            conditional_put,
        })
    } else {
        ObjectSettings::Folder(section.or("folder", folder))
    };
    section.finish();
    Some(settings)
}

fn encryption(s3: &Section<'_, '_>) -> Option<Encryption> {
    let (kind, key) = (s3.get::<String>("encryption"), s3.get::<String>("kms_key_id"));
    let by_kms = kind.as_deref().is_some_and(|kind| kind.starts_with("aws:kms"));
    if key.is_some() && !by_kms {
        s3.problem("kms_key_id", "wants encryption = \"aws:kms\" or \"aws:kms:dsse\" beside it".to_owned());
    }
    match kind?.as_str() {
        "AES256" => Some(Encryption::S3),
        "aws:kms" => Some(Encryption::Kms(key)),
        "aws:kms:dsse" => Some(Encryption::KmsTwice(key)),
        other => {
            let text = format!("`{other}`; wants \"AES256\", \"aws:kms\" or \"aws:kms:dsse\"");
            s3.problem("encryption", text);
            None
        }
    }
}

/// S3's own bound is a week.
fn image_links(objects: &Section<'_, '_>) -> Option<Duration> {
    let lasts: Duration = objects.get("links")?;
    if !(Duration::from_secs(10)..=Duration::from_secs(7 * 86_400)).contains(&lasts) {
        objects.problem("links", "wants \"10 s\" to \"7 d\"".to_owned());
    }
    if !objects.is_set("s3") && !objects.section("s3").is_given(&["bucket"]) {
        objects.problem("links", "is for a bucket, and images are in a folder; set objects.s3".to_owned());
    }
    Some(lasts)
}

fn catalog_settings(section: Section<'_, '_>, data_dir: &Path) -> Option<CatalogSettings> {
    let postgres = section.section("postgres");
    let settings = if postgres.is_given(&["host"]) {
        if section.is_set("file") {
            section.problem("file", "stands beside [catalog.postgres]; keep one of them".to_owned());
        }
        let host: Option<String> = postgres.required("host");
        let server = PostgresSettings {
            port: postgres.or("port", 5432),
            database: postgres.or("database", "edgeveil".to_owned()),
            user: postgres.or("user", "edgeveil".to_owned()),
            password_file: postgres.get("password_file"),
            ca: postgres.get("ca"),
            allow_plain: postgres.or("allow_plain", false),
            host: host.unwrap_or_default(),
        };
        postgres.finish();
        CatalogSettings::Postgres(server)
    } else {
        CatalogSettings::Sqlite(section.or("file", data_dir.join("catalog.sqlite")))
    };
    section.finish();
    Some(settings)
}

fn ingest(section: Section<'_, '_>) -> IngestSettings {
    let settings = IngestSettings {
        batch: section.or("batch", 256_u32) as usize,
        linger: section.or("linger", Duration::from_millis(20)),
        queue: section.or("queue", 1024_u32) as usize,
        memory: section.or("memory", ByteSize(64 << 20)),
    };
    if settings.batch == 0 || settings.batch > 10_000 {
        section.problem("batch", "wants 1 to 10000".to_owned());
    }
    if settings.queue == 0 || settings.queue > 1_000_000 {
        section.problem("queue", "wants 1 to 1000000".to_owned());
    }
    if settings.memory < ByteSize(16 << 20) {
        let text = "wants \"16 MiB\" or more, so that the largest image has room".to_owned();
        section.problem("memory", text);
    }
    section.finish();
    settings
}

fn enroll(section: Section<'_, '_>, data_dir: &Path) -> Option<EnrollSettings> {
    let (listen, host) = (section.required("listen"), section.required::<String>("host"));
    let ca = section.or("ca", data_dir.join("certs"));
    let lifetime = section.or("lifetime", Duration::from_secs(90 * 86_400));
    if !(Duration::from_secs(10)..=Duration::from_secs(3650 * 86_400)).contains(&lifetime) {
        section.problem("lifetime", "wants \"10 s\" to \"3650 d\"".to_owned());
    }
    if let Some(host) = &host {
        let in_brackets = host.starts_with('[');
        if host.contains(['/', '@'])
            || host.contains(char::is_whitespace)
            || (!in_brackets && host.matches(':').count() > 1)
        {
            let text = "wants a name or address, perhaps with a port, such as \"bridge.lan\", \"bridge.lan:443\" or \"[fd00::7]\"";
            section.problem("host", text.to_owned());
        }
    }
    section.finish();
    Some(EnrollSettings { listen: listen?, host: host?, ca, lifetime })
}

fn retention(section: Section<'_, '_>) -> RetentionSettings {
    let time = |key: &'static str| {
        let kept: Option<Duration> = section.get(key);
        if kept.is_some_and(|kept| kept < Duration::from_secs(3600)) {
            section.problem(key, "wants \"1 h\" or more".to_owned());
        }
        kept
    };
    let settings = RetentionSettings {
        readings: time("readings"),
        alerts: time("alerts"),
        events: time("events"),
        images: time("images"),
        forwarded: time("forwarded"),
    };
    section.finish();
    settings
}
