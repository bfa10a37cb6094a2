//! What the bridge says of itself: logs, and traces by OTLP.

use super::reader::Section;
use std::path::PathBuf;

/// How logs look.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    /// A filter of tracing-subscriber, `info` by default.
    pub filter: String,
    /// Their form.
    pub format: LogFormat,
}

/// The form of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line, for containers.
    Json,
}

/// A collector that traces go to by OTLP over HTTP.
#[derive(Clone, PartialEq)]
pub struct OtlpSettings {
    /// Its URL without `/v1/traces`. It may hold a password, so it is not shown.
    pub endpoint: String,
    /// File with a token that requests bear.
    pub token_file: Option<PathBuf>,
    /// Who the collector must have been certified by; else the system's CAs.
    pub ca: Option<PathBuf>,
    /// The share of traces that are sent, in (0, 1].
    pub sample: f64,
}

impl std::fmt::Debug for OtlpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpSettings").field("sample", &self.sample).finish_non_exhaustive()
    }
}

/// None inside: not wanted. None outside: a problem.
pub(super) fn otlp(section: Section<'_, '_>) -> Option<Option<OtlpSettings>> {
    if !section.is_given(&["endpoint"]) {
        return Some(None);
    }
    let endpoint: Option<String> = section.required("endpoint");
    let url = endpoint.as_deref().map(reqwest::Url::parse);
    let problem = match &url {
        None => None,
        Some(Err(error)) => Some(error.to_string()),
        Some(Ok(url)) if !matches!(url.scheme(), "http" | "https") => Some(format!("`{}`", url.scheme())),
        Some(Ok(_)) => None,
    };
    if let Some(problem) = problem {
        section.problem("endpoint", format!("{problem}; wants \"http://HOST:4318\", by https over networks"));
    }
    if cfg!(not(feature = "otlp")) {
        section.problem("endpoint", "this bridge was built without the feature `otlp`".to_owned());
    }
    let (token_file, ca) = (section.get("token_file"), section.get("ca"));
    let sample = section.or("sample", 1.0);
    if !(sample > 0.0 && sample <= 1.0) {
        section.problem("sample", "wants a share of the traces, over 0 and up to 1".to_owned());
    }
    section.finish();
    Some(Some(OtlpSettings { endpoint: endpoint?, token_file, ca, sample }))
}

pub(super) fn log(section: Section<'_, '_>) -> LogSettings {
    let filter: String = section.or("filter", "info".to_owned());
    if tracing_subscriber::EnvFilter::try_new(&filter).is_err() {
        section
            .problem("filter", "wants a level or a filter such as \"info,edgeveil_bridge=debug\"".to_owned());
    }
    let format = match section.get::<String>("format").as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            section.problem("format", format!("`{other}`; wants \"text\" or \"json\""));
            LogFormat::Text
        }
    };
    section.finish();
    LogSettings { filter, format }
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    #[test]
    fn traces_go_to_a_url_and_only_a_share_of_them_if_that_is_wanted() {
        let otlp = |more: &str| Settings::parse("b.toml", &format!("[otlp]\n{more}"), &|_| None);
        assert_eq!(Settings::parse("b.toml", "", &|_| None).unwrap().otlp, None);
        let settings = otlp("endpoint = \"http://c:4318\"\nsample = 0.1\n").unwrap().otlp.unwrap();
        assert_eq!((settings.endpoint.as_str(), settings.sample), ("http://c:4318", 0.1));
        assert!(!format!("{settings:?}").contains("4318"));
        for (bad, line, key) in [
            ("endpoint = \"c:4318\"", 2, "endpoint"),
            ("endpoint = \"\"", 2, "endpoint"),
            ("endpoint = \"http://c\"\nsample = 0.0", 3, "sample"),
            ("endpoint = \"http://c\"\nsample = 2.0", 3, "sample"),
            ("sample = 0.5", 0, "endpoint"),
        ] {
            let found = otlp(bad).unwrap_err()[0].to_string();
            let place =
                if line > 0 { format!("b.toml:{line}: `otlp.{key}`") } else { format!("`otlp.{key}`") };
            assert!(found.contains(&place), "{found}");
        }
    }
}
