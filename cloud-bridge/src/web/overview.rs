//! The first page: what is wrong, how the fleet is, what came last.

use super::{
    Failed, Web, alerts, gallery,
    html::{View, page, query, size},
};
use crate::catalog::{AlertRow, DeviceRow, Fleet, ImageRow};
use crate::readiness::Missing;
use axum::extract::{Query, State};
use edgeveil_wire::Health;
use maud::{Markup, html};
use serde::Deserialize;

/// Devices on a page.
const DEVICES: u32 = 50;

#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    name: String,
    #[serde(default)]
    skip: u32,
}

/// What stands on it.
struct Overview {
    images: Vec<ImageRow>,
    alerts: Vec<AlertRow>,
    fleet: Fleet,
    devices: Vec<DeviceRow>,
    missing: Vec<Missing>,
    /// What is wrong with single devices, a line each.
    troubles: Vec<String>,
}

pub async fn overview(
    State(web): State<Web>,
    view: View,
    Query(asked): Query<Asked>,
) -> Result<Markup, Failed> {
    let (images, alerts, fleet, devices) = tokio::try_join!(
        web.catalog.latest_images(12),
        web.catalog.latest_alerts(10),
        web.catalog.fleet(),
        web.catalog.devices_like(&asked.name, i64::from(asked.skip), DEVICES + 1),
    )?;
    let shown = Overview {
        images,
        alerts,
        fleet,
        devices,
        missing: web.readiness.missing(),
        troubles: web.troubles.now(),
    };
    Ok(page(&view, "/", "Overview", &body(&view, &shown, &asked, &web.enrol)))
}

fn body(view: &View, shown: &Overview, asked: &Asked, enrol: &str) -> Markup {
    html! {
        div data-refresh {
            (missing(view, &shown.missing))
            @for trouble in &shown.troubles {
                p .problem { "device " (trouble) }
            }
        }
        @if shown.fleet.devices == 0 {
            h2 { "No device yet" }
            p { "Issue a certificate for a first one, named as you like, and copy it to the device with the CA's:" }
            pre tabindex="0" { (enrol) }
        } @else {
            section aria-labelledby="devices" data-refresh {
                h2 #devices { "Devices" }
                p {
                    (shown.fleet.devices) " in all, " span .online { (shown.fleet.online) " online" } ", "
                    span .offline[shown.fleet.offline > 0] { (shown.fleet.offline) " offline" } ", "
                    (shown.fleet.troubled) " with something wrong"
                }
                (devices(view, shown, asked))
            }
            section aria-labelledby="alerts" {
                h2 #alerts { a href="/alerts" { "Latest alerts" } }
                (alerts::list(view, &shown.alerts, true))
            }
            section aria-labelledby="images" {
                h2 #images { a href="/gallery" { "Latest images" } }
                (gallery::grid(view, &shown.images, &[]))
            }
        }
    }
}

/// What the bridge is without, since when, and what comes of it.
pub fn missing(view: &View, missing: &[Missing]) -> Markup {
    html! {
        @for Missing { part, reason, since } in missing {
            p .problem role="alert" {
                strong { (part.as_str()) } ": " (reason) ", since " (view.time(since.as_millisecond())) ". " (part.without())
            }
        }
    }
}

fn devices(view: &View, shown: &Overview, asked: &Asked) -> Markup {
    let more = shown.devices.len() > DEVICES as usize;
    let step = |skip: u32| {
        query("/", &[("name", Some(&asked.name)), ("skip", (skip > 0).then(|| skip.to_string()).as_deref())])
    };
    html! {
        @if shown.fleet.devices > i64::from(DEVICES) || !asked.name.is_empty() {
            form .filter role="search" {
                label { "Name has " input name="name" value=(asked.name) maxlength="64"; }
                button .small { "Find" }
            }
        }
        @if shown.devices.is_empty() { p .dim { "No device has that in its name." } }
        @else {
            div .scroll tabindex="0" role="region" aria-label="Devices" {
                table {
                    thead { tr { th scope="col" { "Device" } th scope="col" { "State" } th scope="col" { "Last seen" } th scope="col" { "Waits there" }
                        th scope="col" { "Disk free" } th scope="col" { "Temperature" } th scope="col" { "Version" } th scope="col" { "What is wrong" } } }
                    tbody {
                        @for device in shown.devices.iter().take(DEVICES as usize) { (row(view, device)) }
                    }
                }
            }
        }
        @if asked.skip > 0 || more {
            p .pager {
                @if asked.skip > 0 { a rel="prev" href=(step(asked.skip.saturating_sub(DEVICES))) { "Those before" } }
                @if more { a rel="next" href=(step(asked.skip + DEVICES)) { "The next ones" } }
            }
        }
    }
}

fn row(view: &View, device: &DeviceRow) -> Markup {
    let state = device.state.as_deref().unwrap_or("unknown");
    let health = health(device);
    let board = health.as_ref().map(|health| &health.board);
    // What a device that is away has told last is no news of it.
    let told = |value: &str| match device.health_at.filter(|_| is_away(device)) {
        Some(at) => html! { span .dim { (value) ", " (view.ago(at)) } },
        None => html! { (value) },
    };
    html! {
        tr {
            th scope="row" { a href=(format!("/devices/{}", device.name)) { (device.name) } }
            td { span class=(state) { (state) } @if let Some(at) = device.state_at.filter(|_| is_away(device)) { " since " (view.time(at)) } }
            td { (view.ago(device.last_seen)) }
            td { @if let Some(health) = &health { (told(&health.spool.values().map(|lane| lane.records).sum::<u64>().to_string())) } }
            td { @if let Some(free) = board.and_then(|board| board.disk_free_bytes) { (told(&size(free))) } }
            td { @if let Some(celsius) = board.and_then(|board| board.temperature_c) { (told(&format!("{celsius:.0} °C"))) } }
            td { (device.version.as_deref().unwrap_or("")) }
            td .free { (problems(device).join("; ")) @if is_away(device) && !problems(device).is_empty() { span .dim { " (as last heard)" } } }
        }
    }
}

/// Whether it has gone, with a word or without.
pub fn is_away(device: &DeviceRow) -> bool {
    matches!(device.state.as_deref(), Some("offline" | "stopped"))
}

/// The last health of a device, when there is one that can be read.
pub fn health(device: &DeviceRow) -> Option<Health> {
    Health::from_json(device.health.as_deref()?.as_bytes()).ok()
}

/// What is wrong with a device: what it says itself, and what can be seen.
pub fn problems(device: &DeviceRow) -> Vec<String> {
    let listed = device.problems.as_deref().and_then(|json| serde_json::from_str::<Vec<String>>(json).ok());
    let mut problems = listed.unwrap_or_default();
    if device.clock.as_deref() == Some("unsynced") && device.state.as_deref() != Some("offline") {
        problems.push("its clock is not set".to_owned());
    }
    let dropped = health(device)
        .map_or(0, |health| health.spool.values().flat_map(|lane| lane.dropped.values()).sum::<u64>());
    if dropped > 0 {
        problems.push(format!("{dropped} records dropped"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::html::tests::view;

    fn device(name: &str) -> DeviceRow {
        DeviceRow {
            name: name.to_owned(),
            first_seen: 0,
            last_seen: 0,
            state: Some("online".to_owned()),
            state_at: Some(0),
            version: Some("<script>alert(1)</script>".to_owned()),
            clock: None,
            problems: Some(r#"["<script>x</script>"]"#.to_owned()),
            health: None,
            health_at: None,
        }
    }

    fn shown(devices: Vec<DeviceRow>) -> Overview {
        Overview {
            images: Vec::new(),
            alerts: Vec::new(),
            fleet: Fleet { devices: devices.len() as i64, ..Fleet::default() },
            devices,
            missing: Vec::new(),
            troubles: Vec::new(),
        }
    }

    #[test]
    fn what_devices_say_is_escaped() {
        let page = body(&view(), &shown(vec![device("pi")]), &Asked::default(), "").into_string();
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("&lt;script&gt;x"));
        assert!(page.contains("5 s ago"));
    }

    #[test]
    fn a_device_that_is_away_is_shown_as_it_was_and_one_that_is_there_as_it_is() {
        let health = r#"{"schema":"edgeveil.health/1","boot":"00000000000000000000","timestamp":"1970-01-01T00:00:00Z","clock":"synced","uptime_ms":1,"version":"1","spool":{},"link":{"connections":1,"published":1,"repeated":0,"refused":0},"board":{"temperature_c":51.0}}"#;
        let there = DeviceRow { health: Some(health.to_owned()), health_at: Some(0), ..device("pi") };
        let shown = |state: &str| {
            row(&view(), &DeviceRow { state: Some(state.to_owned()), ..there.clone() }).into_string()
        };
        assert!(shown("online").contains("<td>51 °C</td>"), "{}", shown("online"));
        for away in ["offline", "stopped"] {
            let row = shown(away);
            assert!(row.contains("<span class=\"dim\">51 °C, <time"), "{row}");
            assert!(row.contains(&format!(">{away}</span> since <time")), "{row}");
        }
    }

    #[test]
    fn an_empty_page_tells_how_to_begin() {
        let page =
            body(&view(), &shown(Vec::new()), &Asked::default(), "edgeveil-bridge certs device desk-pi")
                .into_string();
        assert!(page.contains("edgeveil-bridge certs device desk-pi"));
    }

    #[test]
    fn a_long_fleet_goes_on_on_the_next_page() {
        let many = (0..=DEVICES).map(|n| device(&format!("pi-{n}"))).collect();
        let mut many = shown(many);
        many.fleet.devices = 1000;
        let page = body(&view(), &many, &Asked { name: "pi".to_owned(), skip: 50 }, "").into_string();
        assert!(page.contains("/?name=pi&amp;skip=100") && page.contains("\"/?name=pi\""), "{page}");
        assert!(!page.contains(&format!(">pi-{DEVICES}<")));
    }
}
