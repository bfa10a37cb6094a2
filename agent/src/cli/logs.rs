//! Logs go to standard error, for journald or a container's runtime.

use std::io::IsTerminal;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// rumqttc warns of each refused packet; what matters of it is said by the link, once.
const DEFAULT: &str = "info,rumqttc=error";

/// One line an event; JSON when `EDGEVEIL_LOG_FORMAT=json`. `RUST_LOG` chooses what is logged, by levels and targets
/// (`info,edgeveil_agent::record=debug`); `info` by default. By spans and fields it cannot be chosen: that takes an
/// engine for regular expressions, which would stay in a board's memory for it.
pub fn start() {
    let default = || DEFAULT.parse::<Targets>().expect("levels and targets");
    let asked = std::env::var("RUST_LOG").ok().filter(|asked| !asked.is_empty());
    let asked = asked.map(|asked| asked.parse::<Targets>().map_err(|error| (asked, error)));
    let filter = match &asked {
        Some(Ok(filter)) => filter.clone(),
        None | Some(Err(_)) => default(),
    };
    let logs = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    let set = match std::env::var("EDGEVEIL_LOG_FORMAT").as_deref() {
        Ok("json") => logs.json().flatten_event(true).finish().with(filter).try_init(),
        // journald stamps the time itself.
        _ if std::env::var_os("JOURNAL_STREAM").is_some() => {
            logs.without_time().with_ansi(false).finish().with(filter).try_init()
        }
        _ => logs.with_ansi(std::io::stderr().is_terminal()).finish().with(filter).try_init(),
    };
    if let Err(error) = set {
        eprintln!("logs were started before: {error}");
    }
    if let Some(Err((asked, error))) = asked {
        tracing::warn!(%error, "RUST_LOG={asked} is not understood; what is logged is {DEFAULT}");
    }
}
