//! The same data for programs, read-only: `openapi.yaml`.

use super::{Failed, Web, not_found};
use crate::catalog::{AlertRow, AlertsOf, DeviceRow, ImageRow, ImagesOf, Place};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use edgeveil_wire::{DeviceName, Name};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// Rows of one answer at the most.
const MOST: u32 = 500;
const USUAL: u32 = 100;

#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    name: Option<String>,
    device: Option<String>,
    camera: Option<String>,
    severity: Option<String>,
    open: Option<bool>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    limit: Option<u32>,
    after: Option<String>,
    skip: Option<u32>,
    parts: Option<u32>,
}

impl Asked {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(USUAL).clamp(1, MOST)
    }
}

fn bad(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": why }))).into_response()
}

fn moment(milliseconds: i64) -> Value {
    Timestamp::from_millisecond(milliseconds).map_or(Value::Null, |moment| moment.to_string().into())
}

fn parsed(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

fn device_json(row: &DeviceRow) -> Value {
    json!({
        "name": row.name, "state": row.state, "state_at": row.state_at.map(moment), "first_seen": moment(row.first_seen),
        "last_seen": moment(row.last_seen), "version": row.version, "clock": row.clock,
        "problems": parsed(row.problems.as_deref()), "health": parsed(row.health.as_deref()),
        "health_at": row.health_at.map(moment),
    })
}

fn image_json(row: &ImageRow) -> Value {
    json!({
        "id": row.id, "device": row.device, "camera": row.camera, "timestamp": moment(row.timestamp),
        "received": moment(row.received), "bytes": row.bytes, "faces": row.faces, "cover": row.cover,
        "image": format!("/images/{}/{}", row.device, row.id), "thumbnail": format!("/thumbs/{}/{}", row.device, row.id),
    })
}

fn alert_json(row: &AlertRow) -> Value {
    json!({
        "id": row.id, "device": row.device, "source": row.source, "timestamp": moment(row.timestamp),
        "received": moment(row.received), "score": row.score, "threshold": row.threshold, "severity": row.severity,
        "contributions": parsed(Some(&row.contributions)), "values": parsed(Some(&row.vals)),
        "acknowledged": row.acknowledged.map(moment), "acknowledged_by": row.acknowledged_by, "note": row.note,
    })
}

/// A list, and where the next one begins.
fn listed(rows: Vec<Value>, next: Option<String>) -> Response {
    Json(json!({ "items": rows, "next": next })).into_response()
}

pub async fn devices(State(web): State<Web>, Query(asked): Query<Asked>) -> Result<Response, Failed> {
    let (limit, skip) = (asked.limit(), asked.skip.unwrap_or(0));
    let mut rows =
        web.catalog.devices_like(asked.name.as_deref().unwrap_or(""), i64::from(skip), limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    Ok(listed(rows.iter().map(device_json).collect(), more.then(|| (skip + limit).to_string())))
}

pub async fn device(State(web): State<Web>, Path(device): Path<String>) -> Result<Response, Failed> {
    let Ok(device) = device.parse::<DeviceName>() else { return Ok(not_found("device")) };
    let Some(row) = web.catalog.device(&device).await? else { return Ok(not_found("device")) };
    Ok(Json(device_json(&row)).into_response())
}

pub async fn images(
    State(web): State<Web>,
    Path(device): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let Ok(device) = device.parse::<DeviceName>() else { return Ok(not_found("device")) };
    let Ok(after) = asked.after.as_deref().map(str::parse::<Place>).transpose() else {
        return Ok(bad("`after` is none of ours"));
    };
    let Ok(camera) = asked.camera.as_deref().map(str::parse::<Name>).transpose() else {
        return Ok(bad("`camera` is no name"));
    };
    let limit = asked.limit();
    let wanted = ImagesOf {
        device: Some(device),
        camera,
        from: asked.from.map(Timestamp::as_millisecond),
        to: asked.to.map(Timestamp::as_millisecond),
        after,
    };
    let mut rows = web.catalog.images(&wanted, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more);
    let next = next
        .map(|row| Place { at: row.timestamp, device: row.device.clone(), id: row.id.clone() }.to_string());
    Ok(listed(rows.iter().map(image_json).collect(), next))
}

pub async fn alerts(State(web): State<Web>, Query(asked): Query<Asked>) -> Result<Response, Failed> {
    let Ok(after) = asked.after.as_deref().map(str::parse::<Place>).transpose() else {
        return Ok(bad("`after` is none of ours"));
    };
    let Ok(device) = asked.device.as_deref().map(str::parse::<DeviceName>).transpose() else {
        return Ok(bad("`device` is no name"));
    };
    if asked.severity.as_deref().is_some_and(|severity| !matches!(severity, "warning" | "critical")) {
        return Ok(bad("`severity` is `warning` or `critical`"));
    }
    let limit = asked.limit();
    let wanted = AlertsOf { device, severity: asked.severity, open: asked.open.unwrap_or(false), after };
    let mut rows = web.catalog.alerts(&wanted, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more);
    let next = next
        .map(|row| Place { at: row.received, device: row.device.clone(), id: row.id.clone() }.to_string());
    Ok(listed(rows.iter().map(alert_json).collect(), next))
}

pub async fn readings(
    State(web): State<Web>,
    Path((device, group)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let (Ok(device), Ok(group)) = (device.parse::<DeviceName>(), group.parse::<Name>()) else {
        return Ok(not_found("sensor group"));
    };
    let to = asked.to.unwrap_or_else(Timestamp::now).as_millisecond();
    let from = asked.from.map_or(to - 3_600_000, Timestamp::as_millisecond);
    if from >= to {
        return Ok(bad("`from` is not before `to`"));
    }
    let parts = asked.parts.unwrap_or(240).clamp(1, 2000);
    let points = web.catalog.points(&device, &group, from, to, parts).await?;
    let rows = points.iter().map(|point| {
        json!({ "timestamp": moment(point.timestamp), "score": point.score, "values": parsed(Some(&point.vals)) })
    });
    Ok(listed(rows.collect(), None))
}
