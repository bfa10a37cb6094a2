//! What all pages have in common. maud escapes whatever is put into them.

use super::access::Who;
use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header, request::Parts},
};
use jiff::{Timestamp, tz::TimeZone};
use maud::{DOCTYPE, Markup, html};

/// Who looks, and from where.
#[derive(Debug, Clone)]
pub struct View {
    /// Who.
    pub who: Who,
    /// The zone that times are shown in: the browser's, once it has told, else UTC.
    pub zone: TimeZone,
    /// Milliseconds since 1970.
    pub now: i64,
}

impl<S: Send + Sync> FromRequestParts<S> for View {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let who = parts.extensions.get::<Who>().cloned().ok_or(StatusCode::UNAUTHORIZED)?;
        let cookies =
            parts.headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let zone = pairs.find(|(name, _)| *name == "edgeveil_zone").map_or("UTC", |(_, zone)| zone);
        let zone = TimeZone::get(&zone.replace("%2F", "/")).unwrap_or(TimeZone::UTC);
        Ok(Self { who, zone, now: Timestamp::now().as_millisecond() })
    }
}

/// The rooms of the house.
const ROOMS: [(&str, &str); 6] = [
    ("/", "Overview"),
    ("/gallery", "Gallery"),
    ("/films", "Films"),
    ("/alerts", "Alerts"),
    ("/outbox", "Outbox"),
    ("/about", "About"),
];

/// A page. `room` is the address of the one that it belongs to.
pub fn page(view: &View, room: &str, title: &str, body: &Markup) -> Markup {
    let nav = html! {
        nav aria-label="Pages" {
            @for (address, name) in ROOMS {
                a href=(address) aria-current=[(address == room).then_some("page")] { (name) }
            }
        }
        @if let Some(name) = &view.who.name {
            @if view.who.has_session {
                form .user method="post" action="/logout" {
                    input type="hidden" name="token" value=(view.who.token);
                    span { (name) " (" (view.who.role) ")" }
                    button .small { "Log out" }
                }
            } @else {
                span .user { (name) " (" (view.who.role) ")" }
            }
        }
    };
    whole(title, &nav, body, view.zone.iana_name().unwrap_or("UTC"))
}

/// A page for somebody who is not known yet.
pub fn bare(title: &str, body: &Markup) -> Markup {
    whole(title, &html! {}, body, "UTC")
}

/// In place of a page that cannot be made.
pub fn unanswered(why: &str, since: Option<Timestamp>) -> Markup {
    let body = html! {
        p .problem role="alert" {
            (why)
            @if let Some(since) = since { ", since " time datetime=(since) { (since.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
        }
        p { "There is no page without it. Devices keep what they have to tell until it answers again, and nothing of it is lost. Then load this page again." }
        p { "The log and " a href="/readyz" { "/readyz" } " have the same reason." }
    };
    bare("The database does not answer", &body)
}

fn whole(title: &str, nav: &Markup, body: &Markup, zone: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-zone=(zone) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Edgeveil" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
                script src="/app.js" defer {}
            }
            body {
                a .skip href="#main" { "To the content" }
                header { a .brand href="/" { "Edgeveil" } (nav) }
                main #main tabindex="-1" { h1 { (title) } (body) }
            }
        }
    }
}

impl View {
    /// A moment.
    pub fn time(&self, milliseconds: i64) -> Markup {
        let Ok(moment) = Timestamp::from_millisecond(milliseconds) else { return html! { "at no time" } };
        let shown = moment.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        html! { time datetime=(moment.to_string()) { (shown) } }
    }

    /// How long ago it was, with the moment itself for whoever points at it.
    pub fn ago(&self, milliseconds: i64) -> Markup {
        let Ok(moment) = Timestamp::from_millisecond(milliseconds) else { return html! { "never" } };
        let shown = moment.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        html! { time .ago datetime=(moment.to_string()) title=(shown) { (since(self.now - milliseconds)) } }
    }

    /// The day of a moment in the viewer's zone, as in a form.
    pub fn day(&self, milliseconds: i64) -> String {
        Timestamp::from_millisecond(milliseconds)
            .map_or_else(|_| String::new(), |moment| moment.to_zoned(self.zone.clone()).date().to_string())
    }

    /// The first moments of a day and of the next one, in the viewer's zone.
    pub fn bounds(&self, day: jiff::civil::Date) -> Option<(i64, i64)> {
        let start =
            |day: jiff::civil::Date| Some(day.to_zoned(self.zone.clone()).ok()?.timestamp().as_millisecond());
        Some((start(day)?, start(day.tomorrow().ok()?)?))
    }
}

fn since(milliseconds: i64) -> String {
    match milliseconds.max(0) / 1000 {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// Bytes, for people.
pub fn size(bytes: u64) -> String {
    let (mut amount, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") }
}

/// A number in which the digits that matter are seen.
pub fn number(value: f64) -> String {
    let text = if value != 0.0 && (value.abs() < 0.001 || value.abs() >= 1e7) {
        format!("{value:.3e}")
    } else {
        format!("{value:.4}")
    };
    if text.contains('e') || !text.contains('.') {
        text
    } else {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// A query of the pairs that have a value.
pub fn query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let given: Vec<_> = pairs
        .iter()
        .filter_map(|(name, value)| {
            value.filter(|value| !value.is_empty()).map(|value| format!("{name}={}", encode(value)))
        })
        .collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::web::access::Role;

    pub fn view() -> View {
        let who = Who { name: None, role: Role::Viewer, token: String::new(), has_session: false };
        View { who, zone: TimeZone::UTC, now: 5_000 }
    }

    #[test]
    fn numbers_and_sizes_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (21.5, "21.5"),
            (1e-5, "1.000e-5"),
            (-3.0, "-3"),
            (1e9, "1.000e9"),
            (0.12345, "0.1235"),
        ] {
            assert_eq!(number(value), text);
        }
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(query("/a", &[("b", None), ("c", Some("x y&z"))]), "/a?c=x%20y%26z");
        assert!(view().ago(0).into_string().contains("5 s ago"));
    }

    #[test]
    fn a_day_has_its_hours_in_the_viewers_zone() {
        let day = jiff::civil::date(2026, 10, 25);
        assert_eq!(view().bounds(day).map(|(from, to)| to - from), Some(86_400_000));
        let Ok(zone) = TimeZone::get("Europe/Berlin") else { return };
        // The day on which the clocks go back.
        let view = View { zone, ..view() };
        assert_eq!(view.bounds(day).map(|(from, to)| to - from), Some(90_000_000));
    }
}
