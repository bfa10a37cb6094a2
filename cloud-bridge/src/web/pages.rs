//! The pages themselves. maud escapes whatever is put into them.

use crate::{
    catalog::{AlertRow, DeviceRow, ImageRow},
    readiness::Part,
};
use edgeveil_wire::Values;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use std::collections::BTreeMap;

/// What stands on the first page.
pub struct Overview {
    pub images: Vec<ImageRow>,
    pub alerts: Vec<AlertRow>,
    pub devices: Vec<DeviceRow>,
    pub missing: Vec<(Part, String)>,
    /// What is wrong with single devices, a line each.
    pub troubles: Vec<String>,
    /// Milliseconds since 1970.
    pub now: i64,
}

/// The first page.
pub fn overview(view: &Overview, enrol: &str) -> Markup {
    let body = html! {
        @for (part, reason) in &view.missing {
            p .problem { strong { (part.as_str()) } ": " (reason) }
        }
        @for trouble in &view.troubles {
            p .problem { "device " (trouble) }
        }
        @if view.devices.is_empty() {
            h2 { "No device yet" }
            p { "Issue a certificate for a first one, named as you like, and copy it to the device with the CA's:" }
            pre { (enrol) }
        } @else {
            h2 { "Latest images" }
            (images(view))
            h2 { "Latest alerts" }
            (alerts(view))
            h2 { "Devices" }
            (devices(view))
        }
    };
    page("Overview", view.now, &body)
}

fn page(title: &str, now: i64, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content="10";
                title { (title) " · Edgeveil" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                header { h1 { "Edgeveil" } p { (clock(now)) } }
                main { (body) }
            }
        }
    }
}

fn images(view: &Overview) -> Markup {
    html! {
        @if view.images.is_empty() { p .dim { "None yet." } }
        div .images {
            @for image in &view.images {
                @let address = format!("/images/{}/{}", image.device, image.id);
                figure {
                    a href=(address) {
                        img src=(address) loading="lazy" alt=(format!("{} of {}", image.camera, image.device));
                    }
                    figcaption {
                        (image.device) " · " (image.camera) " · " (clock(image.timestamp)) br;
                        @if image.faces == 1 { "1 face covered" } @else { (image.faces) " faces covered" }
                        " (" (image.cover) ")"
                    }
                }
            }
        }
    }
}

fn alerts(view: &Overview) -> Markup {
    html! {
        @if view.alerts.is_empty() { p .dim { "None yet." } }
        div .alerts {
            @for alert in &view.alerts {
                @let class = if alert.severity == "critical" { "alert critical" } else { "alert" };
                div class=(class) {
                    p {
                        strong { (alert.device) " · " (alert.source) } " "
                        (alert.severity) ", score " (format!("{:.3}", alert.score))
                        " over " (format!("{:.3}", alert.threshold)) " "
                        span .dim { (clock(alert.timestamp)) }
                    }
                    (contributions(alert))
                }
            }
        }
    }
}

fn contributions(alert: &AlertRow) -> Markup {
    let values: Values = serde_json::from_str(&alert.vals).unwrap_or_default();
    let shares: Values = serde_json::from_str(&alert.contributions).unwrap_or_default();
    let mut shares: Vec<_> = shares.into_iter().collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    html! {
        @for (name, share) in shares.iter().take(8) {
            @let share = share.clamp(0.0, 1.0) * 100.0;
            div .share {
                span { (name) @if let Some(value) = values.get(name) { " = " (format!("{value:.4}")) } }
                svg viewBox="0 0 100 4" preserveAspectRatio="none" role="img"
                    aria-label=(format!("{share:.0} percent")) {
                    rect .all width="100" height="4" {}
                    rect .part width=(format!("{share:.2}")) height="4" {}
                }
                span .dim { (format!("{share:.0} %")) }
            }
        }
    }
}

fn devices(view: &Overview) -> Markup {
    html! {
        div .scroll {
            table {
                tr { th { "Device" } th { "State" } th { "Last seen" } th { "Version" } th { "What is wrong" } }
                @for device in &view.devices {
                    @let state = device.state.as_deref().unwrap_or("unknown");
                    tr {
                        td { (device.name) }
                        td class=(state) { (state) }
                        td { (ago(view.now - device.last_seen)) }
                        td { (device.version.as_deref().unwrap_or("")) }
                        td .free { (problems(device)) }
                    }
                }
            }
        }
    }
}

fn problems(device: &DeviceRow) -> String {
    let listed = device.problems.as_deref().and_then(|json| serde_json::from_str::<Vec<String>>(json).ok());
    let mut problems = listed.unwrap_or_default();
    if device.clock.as_deref() == Some("unsynced") {
        problems.push("its clock is not set".to_owned());
    }
    let dropped = dropped(device);
    if dropped > 0 {
        problems.push(format!("{dropped} records dropped"));
    }
    problems.join("; ")
}

fn dropped(device: &DeviceRow) -> u64 {
    #[derive(serde::Deserialize)]
    struct Spool {
        spool: BTreeMap<String, edgeveil_wire::LaneHealth>,
    }
    let health = device.health.as_deref().and_then(|json| serde_json::from_str::<Spool>(json).ok());
    health.map_or(0, |health| health.spool.values().flat_map(|lane| lane.dropped.values()).sum())
}

fn clock(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).map_or_else(
        |_| "at no time".to_owned(),
        |time| time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

fn ago(milliseconds: i64) -> String {
    match milliseconds.max(0) / 1000 {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceRow {
        DeviceRow {
            name: name.to_owned(),
            first_seen: 0,
            last_seen: 0,
            state: Some("online".to_owned()),
            version: Some("<script>alert(1)</script>".to_owned()),
            clock: None,
            problems: Some(r#"["<script>x</script>"]"#.to_owned()),
            health: None,
        }
    }

    fn view(devices: Vec<DeviceRow>) -> Overview {
        Overview {
            images: Vec::new(),
            alerts: Vec::new(),
            devices,
            missing: Vec::new(),
            troubles: Vec::new(),
            now: 5_000,
        }
    }

    #[test]
    fn what_devices_say_is_escaped() {
        let page = overview(&view(vec![device("pi")]), "").into_string();
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("&lt;script&gt;x"));
        assert!(page.contains("5 s ago"));
    }

    #[test]
    fn an_empty_page_tells_how_to_begin() {
        let page = overview(&view(Vec::new()), "edgeveil-bridge certs device desk-pi").into_string();
        assert!(page.contains("edgeveil-bridge certs device desk-pi"));
    }
}
