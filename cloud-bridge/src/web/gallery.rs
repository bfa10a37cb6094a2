//! The gallery: by device, camera and day; and one image with what is known of it.

use super::{
    Failed, Web,
    html::{View, page, query, size},
    not_found,
};
use crate::catalog::{ImageRow, ImagesOf, Place};
use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use edgeveil_wire::{DeviceName, Name, RecordId};
use maud::{Markup, html};
use serde::Deserialize;

/// Images on a page.
const IMAGES: u32 = 24;
/// An alert belongs to an image that was taken within so many milliseconds of it.
const NEAR: i64 = 30_000;

/// What is asked for. What makes no sense counts as not asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    device: String,
    #[serde(default)]
    camera: String,
    #[serde(default)]
    day: String,
    #[serde(default)]
    after: String,
}

impl Asked {
    fn wanted(&self, view: &View) -> ImagesOf {
        let day = self.day.parse().ok().and_then(|day| view.bounds(day));
        ImagesOf {
            device: self.device.parse().ok(),
            camera: self.camera.parse().ok(),
            from: day.map(|(from, _)| from),
            to: day.map(|(_, to)| to),
            after: self.after.parse().ok(),
        }
    }

    fn pairs(&self) -> [(&'static str, Option<&str>); 3] {
        [("device", Some(&self.device)), ("camera", Some(&self.camera)), ("day", Some(&self.day))]
    }
}

fn place(image: &ImageRow) -> Place {
    Place { at: image.timestamp, device: image.device.clone(), id: image.id.clone() }
}

pub async fn gallery(
    State(web): State<Web>,
    view: View,
    Query(asked): Query<Asked>,
) -> Result<Markup, Failed> {
    let wanted = asked.wanted(&view);
    let mut images = web.catalog.images(&wanted, IMAGES + 1).await?;
    let more = images.len() > IMAGES as usize;
    images.truncate(IMAGES as usize);
    let cameras = match &wanted.device {
        Some(device) => web.catalog.cameras(device).await?,
        None => Vec::new(),
    };
    let next = images.last().filter(|_| more).map(|last| {
        let mut pairs = asked.pairs().to_vec();
        let after = place(last).to_string();
        pairs.push(("after", Some(&after)));
        query("/gallery", &pairs)
    });
    let body = html! {
        form .filter {
            label { "Device " input name="device" value=(asked.device) maxlength="64" size="16"; }
            @if !cameras.is_empty() {
                label { "Camera "
                    select name="camera" {
                        option value="" { "all" }
                        @for camera in &cameras { option value=(camera) selected[*camera == asked.camera] { (camera) } }
                    }
                }
            }
            label { "Day " input type="date" name="day" value=(asked.day); }
            button .small { "Show" }
            @if !asked.after.is_empty() { a href=(query("/gallery", &asked.pairs())) { "The newest" } }
        }
        @if images.is_empty() {
            p .dim {
                @if asked.device.is_empty() && asked.day.is_empty() { "No image yet. A device sends them once its settings have a [[camera]]." }
                @else { "There is no such image. " a href="/gallery" { "Show all" } }
            }
        }
        (grid(&view, &images, &asked.pairs()))
        @if let Some(next) = next { p .pager { a rel="next" href=(next) { "Older images" } } }
    };
    Ok(page(&view, "/gallery", "Gallery", &body))
}

/// Thumbnails. `asked` is what the pages of single images go on within.
pub fn grid(view: &View, images: &[ImageRow], asked: &[(&str, Option<&str>)]) -> Markup {
    html! {
        @if !images.is_empty() {
            ul .images {
                @for image in images {
                    li {
                        a href=(query(&format!("/view/{}/{}", image.device, image.id), asked)) {
                            img src=(format!("/thumbs/{}/{}", image.device, image.id)) loading="lazy" width="240" height="180"
                                alt=(format!("{} of {}", image.camera, image.device));
                            span .caption {
                                strong { (image.device) " · " (image.camera) } br;
                                (view.time(image.timestamp)) br;
                                (covered(image))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn covered(image: &ImageRow) -> String {
    match image.faces {
        1 => "1 face covered".to_owned(),
        n => format!("{n} faces covered"),
    }
}

pub async fn image(
    State(web): State<Web>,
    view: View,
    Path((device, id)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let (Ok(device), Ok(id)) = (device.parse::<DeviceName>(), id.parse::<RecordId>()) else {
        return Ok(not_found("image"));
    };
    let Some(image) = web.catalog.image(&device, id).await? else { return Ok(not_found("image")) };
    let wanted = asked.wanted(&view);
    let here = place(&image);
    let older = ImagesOf { after: Some(here.clone()), ..wanted.clone() };
    let (newer, older, alerts) = tokio::try_join!(
        web.catalog.newer_image(&wanted, &here),
        web.catalog.images(&older, 1),
        web.catalog.alerts_between(&device, image.timestamp - NEAR, image.timestamp + NEAR, 5),
    )?;
    let address = |image: &ImageRow| query(&format!("/view/{}/{}", image.device, image.id), &asked.pairs());
    let raw = format!("/images/{}/{}", image.device, image.id);
    let body = html! {
        p .pager data-keys {
            @if let Some(newer) = &newer { a rel="prev" href=(address(newer)) { "Newer" } }
            a href=(query("/gallery", &asked.pairs())) { "Gallery" }
            @if let Some(older) = older.first() { a rel="next" href=(address(older)) { "Older" } }
        }
        figure .whole {
            img src=(raw) alt=(format!("{} of {}", image.camera, image.device));
        }
        dl {
            dt { "Device" } dd { a href=(format!("/devices/{device}")) { (image.device) } }
            dt { "Camera" } dd { (image.camera) }
            dt { "Taken" } dd { (view.time(image.timestamp)) }
            dt { "Arrived" } dd { (view.time(image.received)) }
            dt { "Faces" } dd { (covered(&image)) " (" (image.cover) ")" }
            dt { "File" } dd { (size(image.bytes.unsigned_abs())) ", " a href=(raw) download=(format!("{}-{}-{}.jpg", image.device, image.camera, image.id)) { "download" } }
            dt { "Record" } dd { code { (image.id) } " (also in its EXIF block, with all of the above)" }
            @if !alerts.is_empty() {
                dt { "Alerts at that time" }
                dd { @for alert in &alerts { a href=(format!("/alerts/{}/{}", alert.device, alert.id)) { (alert.source) ", " (alert.severity) } " " (view.time(alert.timestamp)) br; } }
            }
        }
    };
    let mut page = page(&view, "/gallery", "Image", &body).into_response();
    if let Some(bucket) = web.bucket().await {
        page.headers_mut().insert(axum::http::header::CONTENT_SECURITY_POLICY, bucket);
    }
    Ok(page)
}

/// The cameras of a device, with the newest image of each.
pub async fn newest_of(web: &Web, device: &DeviceName) -> Result<Vec<ImageRow>, Failed> {
    let mut newest = Vec::new();
    for camera in web.catalog.cameras(device).await?.into_iter().take(8) {
        let Ok(camera) = camera.parse::<Name>() else { continue };
        let wanted = ImagesOf { device: Some(device.clone()), camera: Some(camera), ..ImagesOf::default() };
        newest.extend(web.catalog.images(&wanted, 1).await?);
    }
    Ok(newest)
}
