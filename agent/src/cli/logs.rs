//! Logs go to standard error, for journald or a container's runtime.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// rumqttc warns of each refused packet; what matters of it is said by the link, once.
const DEFAULT: &str = "info,rumqttc=error";

/// One line an event; JSON when `EDGEVEIL_LOG_FORMAT=json`. `RUST_LOG` chooses what is logged, `info` by default.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match std::env::var("EDGEVEIL_LOG_FORMAT").as_deref() {
        Ok("json") => logs.json().flatten_event(true).try_init(),
        // journald stamps the time itself.
        _ if std::env::var_os("JOURNAL_STREAM").is_some() => logs.without_time().with_ansi(false).try_init(),
        _ => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    if let Err(error) = set {
        eprintln!("logs were started before: {error}");
    }
}
