//! The environment's part of the settings: a variable that looks like one of ours and is none is a mistake, since nothing
//! else would tell that it has no effect.

use super::reader::Problem;

const PREFIX: &str = "EDGEVEIL_BRIDGE_";

/// Every setting. A test holds this list against what is read.
const KEYS: [&str; 203] = [
    "access.hosts",
    "access.proxy.from",
    "access.proxy.header",
    "access.proxy.operators",
    "access.secure_cookie",
    "access.session",
    "access.tokens",
    "access.users",
    "amqp.ca",
    "amqp.cert",
    "amqp.declare",
    "amqp.exchange",
    "amqp.heartbeat",
    "amqp.hosts",
    "amqp.key",
    "amqp.password_file",
    "amqp.prefetch",
    "amqp.queue",
    "amqp.user",
    "amqp.vhost",
    "anonymise.amqp.allow_plain",
    "anonymise.amqp.ca",
    "anonymise.amqp.dead_letter",
    "anonymise.amqp.host",
    "anonymise.amqp.input.folder",
    "anonymise.amqp.input.s3.access_key_id_file",
    "anonymise.amqp.input.s3.allow_http",
    "anonymise.amqp.input.s3.bucket",
    "anonymise.amqp.input.s3.conditional_put",
    "anonymise.amqp.input.s3.encryption",
    "anonymise.amqp.input.s3.endpoint",
    "anonymise.amqp.input.s3.kms_key_id",
    "anonymise.amqp.input.s3.region",
    "anonymise.amqp.input.s3.secret_access_key_file",
    "anonymise.amqp.input.s3.storage_class",
    "anonymise.amqp.output.folder",
    "anonymise.amqp.output.s3.access_key_id_file",
    "anonymise.amqp.output.s3.allow_http",
    "anonymise.amqp.output.s3.bucket",
    "anonymise.amqp.output.s3.conditional_put",
    "anonymise.amqp.output.s3.encryption",
    "anonymise.amqp.output.s3.endpoint",
    "anonymise.amqp.output.s3.kms_key_id",
    "anonymise.amqp.output.s3.region",
    "anonymise.amqp.output.s3.secret_access_key_file",
    "anonymise.amqp.output.s3.storage_class",
    "anonymise.amqp.password_file",
    "anonymise.amqp.port",
    "anonymise.amqp.queue",
    "anonymise.amqp.user",
    "anonymise.amqp.vhost",
    "anonymise.attempts",
    "anonymise.input.folder",
    "anonymise.input.s3.access_key_id_file",
    "anonymise.input.s3.allow_http",
    "anonymise.input.s3.bucket",
    "anonymise.input.s3.conditional_put",
    "anonymise.input.s3.encryption",
    "anonymise.input.s3.endpoint",
    "anonymise.input.s3.kms_key_id",
    "anonymise.input.s3.region",
    "anonymise.input.s3.secret_access_key_file",
    "anonymise.input.s3.storage_class",
    "anonymise.keep_failed",
    "anonymise.keep_raw",
    "anonymise.keep_results",
    "anonymise.lease",
    "anonymise.max_bytes",
    "anonymise.max_pixels",
    "anonymise.output.folder",
    "anonymise.output.s3.access_key_id_file",
    "anonymise.output.s3.allow_http",
    "anonymise.output.s3.bucket",
    "anonymise.output.s3.conditional_put",
    "anonymise.output.s3.encryption",
    "anonymise.output.s3.endpoint",
    "anonymise.output.s3.kms_key_id",
    "anonymise.output.s3.region",
    "anonymise.output.s3.secret_access_key_file",
    "anonymise.output.s3.storage_class",
    "anonymise.queue",
    "anonymise.root",
    "anonymise.token_file",
    "anonymise.veil.cover",
    "anonymise.veil.model",
    "anonymise.veil.profile",
    "anonymise.veil.quality",
    "anonymise.veil.threads",
    "anonymise.veil.timeout",
    "anonymise.without_token",
    "anonymise.worker",
    "anonymise.worker_listen",
    "broker.ca",
    "broker.cert",
    "broker.key",
    "broker.listen",
    "broker.max_connections",
    "catalog.file",
    "catalog.postgres.allow_plain",
    "catalog.postgres.ca",
    "catalog.postgres.database",
    "catalog.postgres.host",
    "catalog.postgres.password_file",
    "catalog.postgres.port",
    "catalog.postgres.user",
    "data_dir",
    "enroll.ca",
    "enroll.host",
    "enroll.lifetime",
    "enroll.listen",
    "films.max_bytes",
    "forward.aws.alpn",
    "forward.aws.ca",
    "forward.aws.cert",
    "forward.aws.client_id",
    "forward.aws.endpoint",
    "forward.aws.keep_alive",
    "forward.aws.key",
    "forward.aws.max_in_flight",
    "forward.aws.port",
    "forward.aws.rate",
    "forward.aws.topic",
    "forward.kafka.allow_plain",
    "forward.kafka.brokers",
    "forward.kafka.ca",
    "forward.kafka.cert",
    "forward.kafka.client_id",
    "forward.kafka.key",
    "forward.kafka.mechanism",
    "forward.kafka.password_file",
    "forward.kafka.rate",
    "forward.kafka.topic",
    "forward.kafka.user",
    "forward.notify.allow_http",
    "forward.notify.ca",
    "forward.notify.group_interval",
    "forward.notify.group_wait",
    "forward.notify.pages",
    "forward.notify.quiet_hours",
    "forward.notify.quiet_severity",
    "forward.notify.room",
    "forward.notify.service",
    "forward.notify.severity",
    "forward.notify.template",
    "forward.notify.timeout",
    "forward.notify.token_file",
    "forward.notify.url",
    "forward.notify.url_file",
    "forward.notify.zone",
    "forward.webhook.allow_http",
    "forward.webhook.ca",
    "forward.webhook.rate",
    "forward.webhook.secret_file",
    "forward.webhook.timeout",
    "forward.webhook.url",
    "homeassistant.discovery",
    "homeassistant.forget",
    "homeassistant.off_delay",
    "homeassistant.prefix",
    "homeassistant.units",
    "http.listen",
    "ingest.batch",
    "ingest.linger",
    "ingest.memory",
    "ingest.queue",
    "legacy.device",
    "legacy.group",
    "legacy.timestamp",
    "legacy.topic",
    "log.filter",
    "log.format",
    "mqtt.ca",
    "mqtt.cert",
    "mqtt.client_id",
    "mqtt.host",
    "mqtt.keep_alive",
    "mqtt.key",
    "mqtt.port",
    "mqtt.receive_maximum",
    "mqtt.session_expiry",
    "mqtt.share_group",
    "objects.folder",
    "objects.key",
    "objects.links",
    "objects.s3.access_key_id_file",
    "objects.s3.allow_http",
    "objects.s3.bucket",
    "objects.s3.conditional_put",
    "objects.s3.encryption",
    "objects.s3.endpoint",
    "objects.s3.kms_key_id",
    "objects.s3.region",
    "objects.s3.secret_access_key_file",
    "objects.s3.storage_class",
    "otlp.ca",
    "otlp.endpoint",
    "otlp.sample",
    "otlp.token_file",
    "retention.alerts",
    "retention.events",
    "retention.forwarded",
    "retention.images",
    "retention.readings",
];

/// What the command line reads by itself, and `prefix`, which stands alone.
const OTHERS: [&str; 3] = ["EDGEVEIL_BRIDGE_CONFIG", "EDGEVEIL_BRIDGE_CERTS", "EDGEVEIL_BRIDGE_PREFIX"];

/// The variable that overrides a setting.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// A problem for each variable that begins as ours do and is none.
pub fn unknown(variables: &[(String, String)]) -> Vec<Problem> {
    let known: Vec<_> = KEYS.into_iter().map(variable).chain(OTHERS.map(str::to_owned)).collect();
    let is_unknown = |(name, value): &&(String, String)| {
        name.starts_with(PREFIX) && !known.contains(name) && !is_service_link(name, value)
    };
    let problem = |(name, _): &(String, String)| {
        let nearest = known.iter().min_by_key(|known| distance(known, name)).map_or("", String::as_str);
        Problem {
            place: name.clone(),
            key: String::new(),
            text: format!("is no setting; the nearest one is {nearest}"),
        }
    };
    let mut problems: Vec<_> = variables.iter().filter(is_unknown).map(problem).collect();
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    problems
}

/// What Kubernetes gives every container for a Service named `edgeveil-bridge` or `edgeveil-bridge-..`.
fn is_service_link(name: &str, value: &str) -> bool {
    let docker = name.ends_with("_PORT") || name.contains("_PORT_");
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (docker && (value.contains("://") || name.contains("_TCP") || name.contains("_UDP")))
}

/// Characters to be inserted, removed or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use std::{cell::RefCell, collections::BTreeSet};

    fn unknown_of(name: &str, value: &str) -> Vec<String> {
        unknown(&[(name.to_owned(), value.to_owned())]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_mistyped_variable_is_told_with_the_nearest_one() {
        let found = unknown_of("EDGEVEIL_BRIDGE_HTTP_LISTN", "x");
        assert_eq!(
            found,
            ["EDGEVEIL_BRIDGE_HTTP_LISTN: is no setting; the nearest one is EDGEVEIL_BRIDGE_HTTP_LISTEN"]
        );
        assert_eq!(unknown_of("EDGEVEIL_BRIDGE_PREFIX", "x"), Vec::<String>::new());
        assert_eq!(unknown_of("EDGEVEIL_BRIDGE_CONFIG", "x"), Vec::<String>::new());
        assert_eq!(unknown_of("EDGEVEIL_CONFIG", "x"), Vec::<String>::new());
    }

    #[test]
    fn what_kubernetes_gives_every_container_is_no_mistake() {
        for (name, value) in [
            ("SERVICE_HOST", "10.43.0.7"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_HTTP", "8080"),
            ("PORT", "tcp://10.43.0.7:8080"),
            ("PORT_8080_TCP", "tcp://10.43.0.7:8080"),
            ("PORT_8080_TCP_PROTO", "tcp"),
            ("PORT_8080_TCP_PORT", "8080"),
            ("PORT_8080_TCP_ADDR", "10.43.0.7"),
            ("PAGES_SERVICE_HOST", "10.43.0.7"),
        ] {
            assert_eq!(unknown_of(&format!("{PREFIX}{name}"), value), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn every_setting_is_known() {
        let asked = RefCell::new(BTreeSet::new());
        let note = |name: &str| {
            asked.borrow_mut().insert(name.to_owned());
            None
        };
        let tls = "ca = \"a\"\ncert = \"b\"\nkey = \"c\"\n";
        let elsewhere = format!(
            "[mqtt]\nhost = \"h\"\n{tls}[catalog.postgres]\nhost = \"h\"\n[enroll]\nlisten = \"127.0.0.1:0\"\nhost = \"h\"\n[objects.s3]\nbucket = \"b\"\n[forward.aws]\nendpoint = \"e\"\n{tls}[forward.webhook]\nurl = \"https://u/\"\nsecret_file = \"s\"\n[forward.kafka]\nbrokers = \"k:9092\"\n{tls}"
        );
        let queue = "[anonymise.amqp]\nhost = \"h\"\npassword_file = \"p\"\nallow_plain = true\n";
        let buckets: String = ["input", "output", "amqp.input", "amqp.output"]
            .iter()
            .map(|place| format!("[anonymise.{place}.s3]\nbucket = \"{place}\"\n"))
            .collect();
        let folders = format!(
            "[broker]\n{tls}[anonymise]\n{queue}[legacy]\n[homeassistant]\n[access.proxy]\nheader = \"h\"\nfrom = \"::1\"\n[otlp]\nendpoint = \"http://c:4318\"\n[forward.notify]\nservice = \"slack\"\nurl = \"https://n\"\n"
        );
        let rabbit = format!("[amqp]\nhosts = \"h\"\n{tls}user = \"u\"\npassword_file = \"p\"\n");
        for text in [folders, format!("{elsewhere}{queue}{buckets}"), rabbit] {
            Settings::parse("-", &text, &note).unwrap();
        }
        asked.borrow_mut().remove("EDGEVEIL_BRIDGE_MQTT");
        asked.borrow_mut().remove("EDGEVEIL_BRIDGE_AMQP");
        let known: BTreeSet<_> =
            KEYS.into_iter().map(variable).chain(["EDGEVEIL_BRIDGE_PREFIX".to_owned()]).collect();
        assert_eq!(asked.into_inner(), known);
    }
}
