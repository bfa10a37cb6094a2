//! Alerts: the list, which new ones join by themselves, and one with what was around it.

use super::{
    Failed, Web,
    chart::{self, Chart},
    html::{View, number, page, query},
    not_found,
};
use crate::catalog::{AlertRow, AlertsOf, Place};
use axum::{
    Form,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use edgeveil_wire::{DeviceName, Name, RecordId, Values};
use maud::{Markup, html};
use serde::Deserialize;

/// Alerts on a page.
const ALERTS: u32 = 50;
/// Around an alert, in milliseconds.
const AROUND: i64 = 5 * 60_000;
/// An image belongs to an alert when it was taken within so many milliseconds of it.
const NEAR: i64 = 30_000;
/// A note is no longer, in bytes.
const NOTE: usize = 1000;

#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    device: String,
    #[serde(default)]
    severity: String,
    #[serde(default)]
    open: String,
    #[serde(default)]
    after: String,
}

pub async fn alerts(
    State(web): State<Web>,
    view: View,
    Query(asked): Query<Asked>,
) -> Result<Markup, Failed> {
    let severity = matches!(asked.severity.as_str(), "warning" | "critical").then(|| asked.severity.clone());
    let open = asked.open == "1";
    let wanted = AlertsOf {
        device: asked.device.parse().ok(),
        severity: severity.clone(),
        open,
        after: asked.after.parse().ok(),
    };
    let mut alerts = web.catalog.alerts(&wanted, ALERTS + 1).await?;
    let more = alerts.len() > ALERTS as usize;
    alerts.truncate(ALERTS as usize);
    let pairs = [
        ("device", Some(asked.device.as_str())),
        ("severity", severity.as_deref()),
        ("open", open.then_some("1")),
    ];
    let next = alerts.last().filter(|_| more).map(|last| {
        let after = Place { at: last.received, device: last.device.clone(), id: last.id.clone() }.to_string();
        let mut pairs = pairs.to_vec();
        pairs.push(("after", Some(&after)));
        query("/alerts", &pairs)
    });
    let is_newest = wanted.after.is_none() && wanted.device.is_none() && severity.is_none();
    let body = html! {
        form .filter {
            label { "Device " input name="device" value=(asked.device) maxlength="64" size="16"; }
            label { "Severity "
                select name="severity" {
                    option value="" { "all" }
                    @for one in ["warning", "critical"] { option value=(one) selected[severity.as_deref() == Some(one)] { (one) } }
                }
            }
            label { input type="checkbox" name="open" value="1" checked[open]; " not acknowledged" }
            button .small { "Show" }
        }
        (list(&view, &alerts, is_newest))
        @if let Some(next) = next { p .pager { a rel="next" href=(next) { "Older alerts" } } }
    };
    Ok(page(&view, "/alerts", "Alerts", &body))
}

/// `live`: new ones join it by themselves.
pub fn list(view: &View, alerts: &[AlertRow], live: bool) -> Markup {
    html! {
        @if live { p .dim #live-state aria-live="polite" { "New alerts appear here by themselves." } }
        @if alerts.is_empty() { p .dim data-empty { "None yet. What stands out in a sensor's readings becomes one, once its detector has seen enough of them." } }
        ul .alerts data-live[live] {
            @for alert in alerts { (item(view, alert)) }
        }
    }
}

/// One of the list.
pub fn item(view: &View, alert: &AlertRow) -> Markup {
    html! {
        li .alert .critical[alert.severity == "critical"] .done[alert.acknowledged.is_some()] data-id=(alert.id) {
            p {
                a href=(format!("/alerts/{}/{}", alert.device, alert.id)) { strong { (alert.device) " · " (alert.source) } }
                " " (alert.severity) ", score " (format!("{:.3}", alert.score)) " over " (format!("{:.3}", alert.threshold))
                " " span .dim { (view.time(alert.timestamp)) }
                @if let Some(by) = &alert.acknowledged_by { " " span .dim { "· acknowledged by " (by) } }
            }
            (contributions(alert, 3))
        }
    }
}

fn contributions(alert: &AlertRow, most: usize) -> Markup {
    let values: Values = serde_json::from_str(&alert.vals).unwrap_or_default();
    let shares: Values = serde_json::from_str(&alert.contributions).unwrap_or_default();
    let mut shares: Vec<_> = shares.into_iter().collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    html! {
        @for (name, share) in shares.iter().take(most) {
            @let share = share.clamp(0.0, 1.0) * 100.0;
            div .share {
                span { (name) @if let Some(value) = values.get(name) { " = " (number(*value)) } }
                svg viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label=(format!("{share:.0} percent")) {
                    rect .all width="100" height="4" {}
                    rect .part width=(format!("{share:.2}")) height="4" {}
                }
                span .dim { (format!("{share:.0} %")) }
            }
        }
    }
}

pub async fn alert(
    State(web): State<Web>,
    view: View,
    Path((device, id)): Path<(String, String)>,
) -> Result<Response, Failed> {
    let (Ok(device), Ok(id)) = (device.parse::<DeviceName>(), id.parse::<RecordId>()) else {
        return Ok(not_found("alert"));
    };
    let Some(alert) = web.catalog.alert(&device, id).await? else { return Ok(not_found("alert")) };
    let (from, to) = (alert.timestamp - AROUND, alert.timestamp + AROUND);
    let points = match alert.source.parse::<Name>() {
        Ok(group) => web.catalog.points(&device, &group, from, to, chart::PARTS).await?,
        Err(_) => Vec::new(),
    };
    let image = web.catalog.image_near(&device, alert.timestamp, NEAR).await?;
    let body = html! {
        p .alert .critical[alert.severity == "critical"] {
            (alert.severity) ", score " (format!("{:.3}", alert.score)) " over " (format!("{:.3}", alert.threshold))
        }
        dl {
            dt { "Device" } dd { a href=(format!("/devices/{device}")) { (alert.device) } }
            dt { "Source" } dd { (alert.source) }
            dt { "Happened" } dd { (view.time(alert.timestamp)) }
            dt { "Arrived" } dd { (view.time(alert.received)) }
            dt { "Record" } dd { code { (alert.id) } }
        }
        h2 { "What it was made of" }
        (contributions(&alert, 32))
        h2 { "The values around it" }
        @if points.is_empty() { p .dim { "Its readings are not here, or no longer." } }
        (chart::charts(&view, &Chart { points: &points, from, to, alerts: std::slice::from_ref(&alert) }))
        @if let Some(image) = &image {
            h2 { "The picture next to it" }
            (super::gallery::grid(&view, std::slice::from_ref(image), &[]))
        }
        h2 { "Acknowledgement" }
        @if let Some(at) = alert.acknowledged {
            p { "By " strong { (alert.acknowledged_by.as_deref().unwrap_or_default()) } ", " (view.time(at)) }
            @if let Some(note) = alert.note.as_deref().filter(|note| !note.is_empty()) { blockquote { (note) } }
        } @else if view.who.acts() {
            form .acknowledge method="post" action=(format!("/alerts/{device}/{id}/acknowledge")) {
                input type="hidden" name="token" value=(view.who.token);
                label { "Note (may stay empty)" textarea name="note" rows="3" maxlength=(NOTE) {} }
                button { "Acknowledge" }
            }
        } @else {
            p .dim { "Nobody has seen to it yet. An operator can." }
        }
    };
    Ok(page(&view, "/alerts", &format!("Alert of {device}"), &body).into_response())
}

/// What an operator says to an alert.
#[derive(Deserialize)]
pub struct Said {
    #[serde(default)]
    token: String,
    #[serde(default)]
    note: String,
}

pub async fn acknowledge(
    State(web): State<Web>,
    view: View,
    Path((device, id)): Path<(String, String)>,
    Form(said): Form<Said>,
) -> Result<Response, Failed> {
    if let Some(refused) = super::refuse(&view.who, &said.token) {
        return Ok(refused);
    }
    let (Ok(device), Ok(id)) = (device.parse::<DeviceName>(), id.parse::<RecordId>()) else {
        return Ok(not_found("alert"));
    };
    if said.note.len() > NOTE {
        return Ok((StatusCode::BAD_REQUEST, format!("a note has at most {NOTE} bytes\n")).into_response());
    }
    let note = said.note.trim();
    let done = web.catalog.acknowledge_alert(&device, id, view.who.name(), note, view.now).await?;
    if !done && web.catalog.alert(&device, id).await?.is_none() {
        return Ok(not_found("alert"));
    }
    // Whoever comes second sees who came first.
    Ok(Redirect::to(&format!("/alerts/{device}/{id}")).into_response())
}
