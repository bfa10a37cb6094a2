//! Values with their units, as people write them.

use super::reader::Setting;
use crate::{forward::TopicTemplate, objects::KeyTemplate};
use edgeveil_wire::{Name, Topics};
use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};
use toml::de::DeValue;

/// A number of bytes: `512 MiB`, `64 KiB`, `2 GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name as in its certificate, or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            host if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl HostPort {
    fn from_text(text: &str, port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, port),
            Some((host, rest)) => (host, rest.strip_prefix(':')?.parse().ok()?),
            None => match text.split_once(':') {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (text, port),
            },
        };
        let is_host =
            !host.is_empty() && !host.contains(['/', '@', '[', ']']) && !host.contains(char::is_whitespace);
        (is_host && port != 0).then(|| Self { host: host.to_owned(), port })
    }
}

/// The nodes of a cluster: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts(Vec<HostPort>);

impl Hosts {
    /// AMQP over TLS.
    const PORT: u16 = 5671;

    /// The one to begin with.
    pub fn first(&self) -> &HostPort {
        &self.0[0]
    }

    /// One after the other, for ever.
    pub fn in_turn(&self) -> impl Iterator<Item = &HostPort> {
        self.0.iter().cycle()
    }
}

/// A time with its unit, as on a command line.
pub fn time(text: &str) -> Result<Duration, String> {
    Duration::from_text(text).map_err(|why| format!("{why}; wants {}", Duration::WANTS))
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

impl Setting for TopicTemplate {
    const WANTS: &'static str =
        "a topic such as \"edgecloud/alerts\" or \"edgecloud/{device}/alerts\" ({source} and {severity} too)";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Setting for KeyTemplate {
    const WANTS: &'static str =
        "a name such as \"{device}/{camera}/{year}/{month}/{day}/{time}-{id}.jpg\" ({hour} too)";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Setting for Duration {
    const WANTS: &'static str = "a time with its unit such as \"10 s\" (ms, s, min, h, d)";
    fn from_text(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no time");
        let (number, unit) = number_and_unit(text).ok_or_else(bad)?;
        let seconds = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "min" | "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(bad()),
        };
        Self::try_from_secs_f64(number * seconds).map_err(|_| bad())
    }
}

impl Setting for ByteSize {
    const WANTS: &'static str = "a size with its unit such as \"512 MiB\" (B, KiB, MiB, GiB, kB, MB, GB)";
    fn from_text(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no size");
        let (number, unit) = number_and_unit(text).ok_or_else(bad)?;
        let bytes: u64 = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err(bad()),
        };
        let total = number * bytes as f64;
        if total < 1e18 { Ok(Self(total as u64)) } else { Err(bad()) }
    }
}

impl Setting for String {
    const WANTS: &'static str = "a text that is not empty";
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
    }
}

/// Hosts with their ports.
impl Setting for Vec<String> {
    const WANTS: &'static str = "hosts with their ports such as [\"a.lan:9092\", \"b.lan:9092\"]";
    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(|host| host_and_port(host.trim())).collect()
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        let Some(list) = value.as_array() else {
            return value.as_str().ok_or_else(|| "is no list of texts".to_owned()).and_then(Self::from_text);
        };
        if list.is_empty() {
            return Err("is empty".to_owned());
        }
        let text = |value: &toml::Spanned<DeValue<'_>>| value.get_ref().as_str().map(str::to_owned);
        let texts = list.iter().map(|value| text(value).ok_or_else(|| "is no list of texts".to_owned()));
        texts.map(|text| host_and_port(&text?)).collect()
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("`{text}` is no host with a port")),
    }
}

impl Setting for PathBuf {
    const WANTS: &'static str = "a path";
    fn from_text(text: &str) -> Result<Self, String> {
        String::from_text(text).map(Self::from)
    }
}

impl Setting for Hosts {
    const WANTS: &'static str =
        "hosts with or without their ports such as \"rabbit-0.lan, rabbit-1.lan:5671\"";
    fn from_text(text: &str) -> Result<Self, String> {
        let read = |host: &str| {
            let host = host.trim();
            HostPort::from_text(host, Self::PORT).ok_or_else(|| format!("`{host}` is no host"))
        };
        text.split(',').map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl Setting for SocketAddr {
    const WANTS: &'static str = "an address and port such as \"127.0.0.1:8883\"";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is no address with a port"))
    }
}

impl Setting for Name {
    const WANTS: &'static str = "a name of 1 to 64 letters, digits, `-` and `_`";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: edgeveil_wire::NameError| error.to_string())
    }
}

impl Setting for Topics {
    const WANTS: &'static str = "one to three topic levels such as \"edgeveil\"";
    fn from_text(text: &str) -> Result<Self, String> {
        Self::new(text).map_err(|error| error.to_string())
    }
}

impl Setting for bool {
    const WANTS: &'static str = "true or false";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is neither true nor false"))
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "is no boolean".to_owned())
    }
}

impl Setting for f64 {
    const WANTS: &'static str = "a number such as 0.1";
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is no number"))
    }
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Float(number) => Self::from_text(number.as_str()),
            DeValue::Integer(number) => Self::from_text(number.as_str()),
            _ => Err("is no number".to_owned()),
        }
    }
}

macro_rules! whole {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            const WANTS: &'static str = "a whole number";
            fn from_text(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("`{text}` is no whole number from 0 to {}", <$type>::MAX))
            }
            fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
                let DeValue::Integer(number) = value else { return Err("is no whole number".to_owned()) };
                <$type>::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| format!("`{number}` is no whole number from 0 to {}", <$type>::MAX))
            }
        }
    )*};
}
whole!(u16, u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_their_ports() {
        let two = vec!["a.lan:9092".to_owned(), "[fd00::7]:9092".to_owned()];
        assert_eq!(Vec::<String>::from_text("a.lan:9092, [fd00::7]:9092"), Ok(two));
        for bad in ["", "a.lan", "a.lan:", "a.lan:0", ":9092", "a:1,"] {
            assert!(Vec::<String>::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn units_are_needed_and_understood() {
        assert_eq!(Duration::from_text("250 ms"), Ok(Duration::from_millis(250)));
        assert_eq!(Duration::from_text("1.5min"), Ok(Duration::from_secs(90)));
        assert_eq!(ByteSize::from_text("512 MiB"), Ok(ByteSize(512 << 20)));
        for bad in ["10", "s", "ten s", "-1 s", "1 week"] {
            assert!(Duration::from_text(bad).is_err(), "{bad}");
        }
        assert!(ByteSize::from_text("5").is_err());
    }
}
