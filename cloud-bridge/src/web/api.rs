//! The same data for programs, read-only: as `openapi.json` has it, which a test holds against what is answered here.

use super::{Failed, Unanswered, Web, not_found, thumbs};
use crate::catalog::{AlertRow, AlertsOf, DeviceRow, ImageRow, ImagesOf, Place};
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use edgeveil_wire::{DeviceName, Name, Severity};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// The description of all this, and of the service for pictures.
const OPENAPI: &str = include_str!("../../openapi.json");

/// What is said of an error, at the most.
const MOST_SAID: usize = 4096;

/// All routes but the description's.
pub fn routes() -> Router<Web> {
    Router::new()
        .route("/v1/devices", get(devices))
        .route("/v1/devices/{device}", get(device))
        .route("/v1/devices/{device}/images", get(images))
        .route("/v1/devices/{device}/images/{id}", get(image))
        .route("/v1/devices/{device}/images/{id}/thumbnail", get(thumbnail))
        .route("/v1/devices/{device}/readings/{group}", get(readings))
        .route("/v1/alerts", get(alerts))
}

/// The description of what is on here. Whoever asks need not be known.
pub fn description(has_pictures: bool) -> Router {
    let text = described(has_pictures);
    let kind = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "max-age=300")];
    let mut routes = Router::new().route("/v1/openapi.json", get(async move || (kind, text)));
    if !has_pictures {
        let nothing = async || (StatusCode::NOT_FOUND, "no such address; see /v1/openapi.json");
        routes = routes.route("/v1/{*other}", any(nothing));
    }
    routes
}

fn described(has_pictures: bool) -> String {
    let mut all: Value = serde_json::from_str(OPENAPI).expect("a test reads it");
    if !has_pictures {
        let other = |value: &Value| value != "pictures" && value["name"] != "pictures";
        if let Some(paths) = all["paths"].as_object_mut() {
            paths.retain(|_, methods| {
                methods.as_object().into_iter().flatten().all(|(_, operation)| other(&operation["tags"][0]))
            });
        }
        if let Some(tags) = all["tags"].as_array_mut() {
            tags.retain(other);
        }
        for (kind, name) in [("schemas", "Job"), ("schemas", "Problem"), ("securitySchemes", "anonymise")] {
            all["components"][kind].as_object_mut().map(|of| of.remove(name));
        }
    }
    all.to_string()
}

/// Whatever is no success says why in plain text, whoever it comes from: a handler, axum, or the guard at the door. Here it becomes
/// `{"error": …}`.
pub async fn in_json(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let said = match parts.extensions.remove::<Unanswered>() {
        Some(Unanswered(said)) => said,
        None => {
            let body = to_bytes(body, MOST_SAID).await.unwrap_or_default();
            String::from_utf8_lossy(&body).trim().to_owned()
        }
    };
    let why = match status {
        StatusCode::METHOD_NOT_ALLOWED => "this address takes GET, HEAD",
        _ if said.is_empty() => status.canonical_reason().unwrap_or("no answer"),
        _ => &said,
    };
    let body = Body::from(json!({ "error": why }).to_string());
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        parts.headers.entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static("10"));
    }
    Response::from_parts(parts, body)
}

/// A number from 1 on.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u32")]
struct UpTo<const MOST: u32>(u32);

impl<const MOST: u32> TryFrom<u32> for UpTo<MOST> {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        if (1..=MOST).contains(&number) { Ok(Self(number)) } else { Err(format!("wants 1 to {MOST}")) }
    }
}

/// Rows of one answer.
type Limit = UpTo<500>;

fn usual() -> Limit {
    UpTo(100)
}

fn usual_parts() -> UpTo<2000> {
    UpTo(240)
}

// Each address has its own: a parameter that does nothing there is refused.

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfDevices {
    #[serde(default)]
    name: String,
    after: Option<DeviceName>,
    #[serde(default = "usual")]
    limit: Limit,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfImages {
    camera: Option<Name>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    after: Option<Place>,
    #[serde(default = "usual")]
    limit: Limit,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfReadings {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    #[serde(default = "usual_parts")]
    parts: UpTo<2000>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfAlerts {
    device: Option<DeviceName>,
    severity: Option<Severity>,
    #[serde(default)]
    open: bool,
    after: Option<Place>,
    #[serde(default = "usual")]
    limit: Limit,
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
        "image": format!("/v1/devices/{}/images/{}", row.device, row.id),
        "thumbnail": format!("/v1/devices/{}/images/{}/thumbnail", row.device, row.id),
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

/// As many as were asked for of one more, and where the next ones begin.
fn listed<T>(
    mut rows: Vec<T>,
    limit: u32,
    shown: impl Fn(&T) -> Value,
    place: impl Fn(&T) -> String,
) -> Response {
    let is_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| is_more).map(place);
    let items: Vec<_> = rows.iter().map(shown).collect();
    Json(json!({ "items": items, "next": next })).into_response()
}

async fn devices(State(web): State<Web>, Query(asked): Query<OfDevices>) -> Result<Response, Failed> {
    let limit = asked.limit.0;
    let rows = web.catalog.devices_after(&asked.name, asked.after.as_ref(), limit + 1).await?;
    Ok(listed(rows, limit, device_json, |row| row.name.clone()))
}

/// The row of a device that is known.
async fn known(web: &Web, device: &str) -> Result<Option<(DeviceName, DeviceRow)>, Failed> {
    let Ok(name) = device.parse::<DeviceName>() else { return Ok(None) };
    Ok(web.catalog.device(&name).await?.map(|row| (name, row)))
}

async fn device(
    State(web): State<Web>,
    Path(device): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Response, Failed> {
    let Some((_, row)) = known(&web, &device).await? else { return Ok(not_found("device")) };
    Ok(Json(device_json(&row)).into_response())
}

async fn images(
    State(web): State<Web>,
    Path(device): Path<String>,
    Query(asked): Query<OfImages>,
) -> Result<Response, Failed> {
    let Some((device, _)) = known(&web, &device).await? else { return Ok(not_found("device")) };
    let limit = asked.limit.0;
    let wanted = ImagesOf {
        device: Some(device),
        camera: asked.camera,
        from: asked.from.map(Timestamp::as_millisecond),
        to: asked.to.map(Timestamp::as_millisecond),
        after: asked.after,
    };
    let rows = web.catalog.images(&wanted, limit + 1).await?;
    let place = |row: &ImageRow| Place { at: row.timestamp, device: row.device.clone(), id: row.id.clone() };
    Ok(listed(rows, limit, image_json, |row| place(row).to_string()))
}

async fn image(
    web: State<Web>,
    place: Path<(String, String)>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Response, Failed> {
    super::image(web, place).await
}

async fn thumbnail(
    web: State<Web>,
    place: Path<(String, String)>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Response, Failed> {
    thumbs::thumbnail(web, place).await
}

async fn alerts(State(web): State<Web>, Query(asked): Query<OfAlerts>) -> Result<Response, Failed> {
    let limit = asked.limit.0;
    let severity = asked.severity.map(|severity| match severity {
        Severity::Warning => "warning".to_owned(),
        Severity::Critical => "critical".to_owned(),
    });
    let wanted = AlertsOf { device: asked.device, severity, open: asked.open, after: asked.after };
    let rows = web.catalog.alerts(&wanted, limit + 1).await?;
    let place = |row: &AlertRow| Place { at: row.received, device: row.device.clone(), id: row.id.clone() };
    Ok(listed(rows, limit, alert_json, |row| place(row).to_string()))
}

async fn readings(
    State(web): State<Web>,
    Path((device, group)): Path<(String, String)>,
    Query(asked): Query<OfReadings>,
) -> Result<Response, Failed> {
    let Ok(group) = group.parse::<Name>() else { return Ok(not_found("sensor group")) };
    let Some((device, _)) = known(&web, &device).await? else { return Ok(not_found("device")) };
    let to = asked.to.unwrap_or_else(Timestamp::now).as_millisecond();
    let from = asked.from.map_or(to - 3_600_000, Timestamp::as_millisecond);
    if from >= to {
        return Ok((StatusCode::BAD_REQUEST, "`from` is not before `to`").into_response());
    }
    let points = web.catalog.points(&device, &group, from, to, asked.parts.0).await?;
    let items: Vec<_> = points
        .iter()
        .map(|point| {
            json!({ "timestamp": moment(point.timestamp), "score": point.score, "values": parsed(Some(&point.vals)) })
        })
        .collect();
    Ok(Json(json!({ "items": items })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_refers_to_what_is_there_and_leaves_nothing_over() {
        for has_pictures in [true, false] {
            let text = described(has_pictures);
            let all: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(all["paths"]["/v1/images"].is_object(), has_pictures);
            for (kind, names) in all["components"].as_object().unwrap() {
                for name in names.as_object().unwrap().keys() {
                    let used = match kind.as_str() {
                        "securitySchemes" => format!("{{\"{name}\":[]}}"),
                        _ => format!("\"#/components/{kind}/{name}\""),
                    };
                    assert!(text.contains(&used), "{kind} {name}, pictures: {has_pictures}");
                }
            }
            for reference in text.split("\"#/").skip(1) {
                let place = format!("/{}", reference.split('"').next().unwrap());
                assert!(all.pointer(&place).is_some(), "{place}, pictures: {has_pictures}");
            }
        }
    }

    #[test]
    fn a_limit_has_bounds() {
        for (text, good) in [("0", false), ("1", true), ("500", true), ("501", false), ("-1", false)] {
            assert_eq!(serde_json::from_str::<Limit>(text).is_ok(), good, "{text}");
        }
    }
}
