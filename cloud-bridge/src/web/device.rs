//! One device: how it is, its cameras, its sensors over time, its settings.

use super::{
    Failed, Web, alerts,
    chart::{self, Chart},
    films, gallery,
    html::{View, page, query, size},
    not_found, overview, tune,
};
use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use edgeveil_wire::{DeviceName, Health, Name};
use maud::{Markup, html};
use serde::Deserialize;

/// Times that charts may span.
const SPANS: [(&str, &str, i64); 5] = [
    ("10m", "10 minutes", 600_000),
    ("1h", "1 hour", 3_600_000),
    ("6h", "6 hours", 6 * 3_600_000),
    ("1d", "1 day", 86_400_000),
    ("7d", "7 days", 7 * 86_400_000),
];
/// Sensor groups that get charts.
const GROUPS: usize = 8;
/// Alerts that are marked in charts.
const MARKS: u32 = 200;

#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    span: String,
}

pub async fn device(
    State(web): State<Web>,
    view: View,
    Path(device): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let Ok(device) = device.parse::<DeviceName>() else { return Ok(not_found("device")) };
    let Some(row) = web.catalog.device(&device).await? else { return Ok(not_found("device")) };
    let (span, _, length) = *SPANS.iter().find(|(key, ..)| *key == asked.span).unwrap_or(&SPANS[1]);
    // What a device has said last is shown, however long it has been away.
    let newest = web.catalog.newest_reading(&device).await?;
    let to =
        newest.map_or(view.now, |newest| if view.now - newest < length { view.now } else { newest + 1000 });
    let from = to - length;
    let (groups, marks, images, settings) = tokio::try_join!(
        async { Ok::<_, Failed>(web.catalog.groups(&device).await?) },
        async { Ok(web.catalog.alerts_between(&device, from, to, MARKS).await?) },
        gallery::newest_of(&web, &device),
        async { Ok(web.catalog.settings_of(&device).await?) },
    )?;
    let mut charts = Vec::new();
    for group in groups.iter().take(GROUPS) {
        let Ok(name) = group.parse::<Name>() else { continue };
        let points = web.catalog.points(&device, &name, from, to, chart::PARTS).await?;
        let marks: Vec<_> = marks.iter().filter(|alert| alert.source == *group).cloned().collect();
        charts.push((group, chart::charts(&view, &Chart { points: &points, from, to, alerts: &marks })));
    }
    let problems = overview::problems(&row);
    let state = row.state.as_deref().unwrap_or("unknown");
    let body = html! {
        section data-refresh {
            (overview::missing(&view, &web.readiness.missing()))
            @if overview::is_away(&row) {
                p .problem role="alert" {
                    "It is " (state) @if let Some(at) = row.state_at { " since " (view.time(at)) } ". All of this is as it was last heard of."
                }
            }
            @for problem in &problems { p .problem role="alert" { (problem) } }
            dl {
                dt { "State" }
                dd { span class=(state) { (state) } @if let Some(at) = row.state_at { " since " (view.time(at)) } }
                dt { "Last seen" } dd { (view.ago(row.last_seen)) }
                dt { "First seen" } dd { (view.time(row.first_seen)) }
                dt { "Version" } dd { (row.version.as_deref().unwrap_or("not told")) }
                dt { "Clock" } dd { (row.clock.as_deref().unwrap_or("not told")) }
            }
        }
        @if !images.is_empty() {
            section aria-labelledby="cameras" {
                h2 #cameras { a href=(query("/gallery", &[("device", Some(device.as_str()))])) { "Cameras" } }
                (gallery::grid(&view, &images, &[("device", Some(device.as_str()))]))
                @if web.films { (films::form(&view, &device, &images)) }
            }
        }
        section aria-labelledby="sensors" {
            h2 #sensors { "Sensors" }
            p .spans { @for (key, name, _) in &SPANS { a href=(query(&format!("/devices/{device}"), &[("span", Some(key))])) aria-current=[(*key == span).then_some("true")] { (name) } " " } }
            @if charts.is_empty() { p .dim { "No reading yet. A device sends them once its settings have a [[sensor]]." } }
            @for (group, drawn) in &charts { h3 { (group) } (drawn) }
            @if !charts.is_empty() { p .dim { "Of each of " (chart::PARTS) " equal parts of that time the first reading is drawn; lines across are alerts, of which none is left out up to " (MARKS) "." } }
            @if let Some(newest) = newest { p .dim { "The last reading was made " (view.ago(newest)) "." } }
        }
        @if !marks.is_empty() {
            section aria-labelledby="alerts" {
                h2 #alerts { a href=(query("/alerts", &[("device", Some(device.as_str()))])) { "Alerts of that time" } }
                (alerts::list(&view, &marks[..marks.len().min(10)], false))
            }
        }
        (tune::section(&view, &device, &settings))
        section aria-labelledby="health" {
            h2 #health { "Health" }
            @match overview::health(&row) {
                Some(health) => (told(&view, &health, row.health_at)),
                None => p .dim { "It has told nothing yet." },
            }
        }
    };
    Ok(page(&view, "/", device.as_str(), &body).into_response())
}

fn told(view: &View, health: &Health, at: Option<i64>) -> Markup {
    let board = &health.board;
    html! {
        @if let Some(at) = at { p .dim { "As told " (view.ago(at)) } }
        dl {
            dt { "Running for" } dd { (minutes(health.uptime_ms)) }
            @if let Some(celsius) = board.temperature_c { dt { "Temperature" } dd { (format!("{celsius:.1} °C")) } }
            @if let Some(load) = board.load_1m { dt { "Load" } dd { (format!("{load:.2}")) } }
            @if let Some(free) = board.disk_free_bytes { dt { "Disk free" } dd { (size(free)) } }
            @if let Some(free) = board.memory_available_bytes { dt { "Memory available" } dd { (size(free)) } }
            @if let Some(used) = board.resident_bytes { dt { "Memory of the agent" } dd { (size(used)) } }
            dt { "Connections" } dd { (health.link.connections) ", " (health.link.published) " publishes, " (health.link.repeated) " repeated, " (health.link.refused) " refused" }
        }
        div .scroll tabindex="0" role="region" aria-label="Spool" {
            table {
                thead { tr { th scope="col" { "Lane" } th scope="col" { "Waiting" } th scope="col" { "Bytes" } th scope="col" { "Accepted" } th scope="col" { "Delivered" } th scope="col" { "Dropped" } } }
                tbody {
                    @for (name, lane) in &health.spool {
                        tr { th scope="row" { (name) } td { (lane.records) } td { (size(lane.bytes)) } td { (lane.accepted) } td { (lane.delivered) }
                            td { @for (reason, count) in &lane.dropped { (count) " " (reason) " " } } }
                    }
                }
            }
        }
        @if !health.cameras.is_empty() {
            div .scroll tabindex="0" role="region" aria-label="Cameras" {
                table {
                    thead { tr { th scope="col" { "Camera" } th scope="col" { "Runs" } th scope="col" { "Frames" } th scope="col" { "Images" } th scope="col" { "Faces covered" } th scope="col" { "Failed" } th scope="col" { "Lost" } } }
                    tbody {
                        @for (name, camera) in &health.cameras {
                            tr { th scope="row" { (name) } td { @if camera.running { "yes" } @else { span .offline { "no" } } } td { (camera.frames) } td { (camera.images) } td { (camera.faces) } td { (camera.failed) } td { (camera.lost) } }
                        }
                    }
                }
            }
        }
        @if !health.sensors.is_empty() {
            div .scroll tabindex="0" role="region" aria-label="Sensor groups" {
                table {
                    thead { tr { th scope="col" { "Sensor group" } th scope="col" { "Readings" } th scope="col" { "Alerts" } th scope="col" { "Failed" } } }
                    tbody {
                        @for (name, sensor) in &health.sensors { tr { th scope="row" { (name) } td { (sensor.readings) } td { (sensor.alerts) } td { (sensor.failed) } } }
                    }
                }
            }
        }
    }
}

fn minutes(milliseconds: u64) -> String {
    match milliseconds / 60_000 {
        minutes @ 0..120 => format!("{minutes} min"),
        minutes @ 120..2880 => format!("{} h", minutes / 60),
        minutes => format!("{} days", minutes / 1440),
    }
}
