//! Films of cameras: asked for, watched while they are made, looked at, removed.

use super::{
    Failed, Web,
    html::{View, page, size},
    not_found, refuse,
};
use crate::{
    catalog::{FilmRow, ImageRow},
    film::{MAX_IMAGES, Order, remove},
};
use axum::{
    Form,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use edgeveil_wire::{DeviceName, Name};
use jiff::civil::Date;
use maud::{Markup, html};
use serde::Deserialize;
use std::ops::Range;

/// One image of so many seconds.
const STEPS: [(u64, &str); 6] = [
    (1, "every image (one a second)"),
    (10, "one in 10 seconds"),
    (60, "one a minute"),
    (600, "one in 10 minutes"),
    (3600, "one an hour"),
    (86_400, "one a day"),
];
const RATES: [u32; 4] = [5, 12, 25, 50];

/// What is asked for.
#[derive(Debug, Deserialize)]
pub struct Asked {
    #[serde(default)]
    token: String,
    device: String,
    camera: String,
    from: String,
    to: String,
    every: u64,
    fps: u32,
    #[serde(default)]
    lean: String,
}

/// The form on a device's page.
pub fn form(view: &View, device: &DeviceName, images: &[ImageRow]) -> Markup {
    let (today, yesterday) = (view.day(view.now), view.day(view.now - 86_400_000));
    html! {
        details #film {
            summary { "Make a film of a camera" }
            @if view.who.acts() {
                form .filter method="post" action="/films" {
                    input type="hidden" name="token" value=(view.who.token);
                    input type="hidden" name="device" value=(device);
                    label { "Camera " select name="camera" {
                        @for image in images { option value=(image.camera) { (image.camera) } }
                    } }
                    label { "First day " input type="date" name="from" value=(yesterday) required; }
                    label { "Last day " input type="date" name="to" value=(today) required; }
                    label { "Images " select name="every" {
                        @for (seconds, text) in &STEPS { option value=(seconds) selected[*seconds == 60] { (text) } }
                    } }
                    label { "Frames a second " select name="fps" {
                        @for fps in &RATES { option value=(fps) selected[*fps == 25] { (fps) } }
                    } }
                    label { input type="checkbox" name="lean" value="1" checked; " leave out night, blurred images, and those like the one before" }
                    button { "Make the film" }
                }
            } @else { p .dim { "An operator can. Those that were made are on the page of " a href="/films" { "films" } "." } }
        }
    }
}

pub async fn ask(State(web): State<Web>, view: View, Form(asked): Form<Asked>) -> Result<Response, Failed> {
    if let Some(refused) = refuse(&view.who, &asked.token) {
        return Ok(refused);
    }
    if !web.films {
        return Ok((StatusCode::NOT_FOUND, "this bridge makes no films (films.max_bytes)\n").into_response());
    }
    let bad = |why: &str| Ok((StatusCode::BAD_REQUEST, format!("{why}\n")).into_response());
    let (Ok(device), Ok(camera)) = (asked.device.parse::<DeviceName>(), asked.camera.parse::<Name>()) else {
        return bad("there is no such camera");
    };
    let day = |text: &str| text.parse::<Date>().ok().and_then(|day| view.bounds(day));
    let (Some((from, _)), Some((_, to))) = (day(&asked.from), day(&asked.to)) else {
        return bad("a day is written as in 2026-11-21");
    };
    let order = Order {
        from,
        to,
        every: asked.every,
        fps: asked.fps,
        lean: !asked.lean.is_empty(),
        zone: view.zone.iana_name().unwrap_or("UTC").to_owned(),
    };
    let there = web.catalog.count_images(&device, &camera, from, to, MAX_IMAGES + 1).await?;
    if let Some(problem) = order.problem(there) {
        return bad(&problem);
    }
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, "no random numbers\n").into_response());
    }
    let film = FilmRow {
        id: format!("{:032x}", u128::from_be_bytes(random)),
        asked: view.now,
        asked_by: view.who.name().to_owned(),
        device: device.to_string(),
        camera: camera.to_string(),
        wanted: serde_json::to_string(&order).expect("plain fields"),
        state: "waiting".to_owned(),
        changed: view.now,
        looked: 0,
        images: 0,
        frames: 0,
        oldest: None,
        object: None,
        bytes: 0,
        note: None,
        attempts: 0,
    };
    if !web.catalog.ask_for_film(&film).await? {
        let why = "some films are being made already: wait for one of them, or remove it\n";
        return Ok((StatusCode::TOO_MANY_REQUESTS, why).into_response());
    }
    web.studio.send_replace(());
    Ok(Redirect::to("/films").into_response())
}

pub async fn films(State(web): State<Web>, view: View) -> Result<Markup, Failed> {
    let films = web.catalog.films().await?;
    let body = html! {
        section data-refresh {
            @if films.is_empty() {
                p { "No film yet. " a href="/" { "Choose a device" } " and there “Make a film of a camera”." }
            } @else {
                ul .alerts {
                    @for film in &films { li .alert .done[film.state == "done"] .critical[film.state == "failed"] data-film=(film.id) { (item(&view, film)) } }
                }
            }
        }
        p .dim { "The last " (crate::catalog::MAX_FILMS) " are kept, and none longer than the first of its images. On the command line: " code { "edgeveil-bridge timelapse" } "." }
    };
    Ok(page(&view, "/films", "Films", &body))
}

fn item(view: &View, film: &FilmRow) -> Markup {
    let order: Option<Order> = serde_json::from_str(&film.wanted).ok();
    html! {
        p {
            strong { a href=(format!("/devices/{}", film.device)) { (film.device) } " · " (film.camera) }
            @if let Some(order) = &order { ", " (view.day(order.from)) " to " (view.day(order.to - 1)) ", " (order.fps) " frames a second" }
        }
        @match film.state.as_str() {
            "done" => {
                p { (film.frames) " frames, " (size(film.bytes.unsigned_abs())) ": "
                    a href=(format!("/films/{}", film.id)) { "watch" } ", "
                    a href=(file(film)) download { "download" } }
            }
            "failed" => p { "There is none." },
            "working" => {
                p { "In the making: " (film.looked) " of " (film.images) " images" }
                progress value=(film.looked) max=(film.images.max(1)) aria-label="Images" {}
            }
            _ => p { "It waits." },
        }
        @if let Some(note) = film.note.as_deref().filter(|note| !note.is_empty()) { p { (note) } }
        p .dim { "Asked for by " (film.asked_by) " " (view.ago(film.asked)) }
        @if view.who.acts() {
            form method="post" action=(format!("/films/{}/remove", film.id)) {
                input type="hidden" name="token" value=(view.who.token);
                button .small { "Remove" }
            }
        }
    }
}

/// Where its bytes are.
fn file(film: &FilmRow) -> String {
    let end = film.object.as_deref().and_then(|object| object.rsplit_once('.')).map_or("mp4", |(_, end)| end);
    format!("/films/{}/{}-{}.{end}", film.id, film.device, film.camera)
}

pub async fn film(State(web): State<Web>, view: View, Path(id): Path<String>) -> Result<Response, Failed> {
    let Some(film) = web.catalog.film(&id).await?.filter(|film| film.state == "done") else {
        return Ok(not_found("film"));
    };
    let address = file(&film);
    let body = html! {
        figure .whole {
            @if address.ends_with(".mp4") { video controls preload="metadata" src=(address) aria-label=(format!("{} of {}", film.camera, film.device)) {} }
            @else { p { "Browsers do not play Motion JPEG; " a href=(address) download { "download it" } " for a player such as VLC." } }
        }
        ul .alerts { li .alert .done { (item(&view, &film)) } }
        p .pager { a href="/films" { "All films" } }
    };
    Ok(page(&view, "/films", "Film", &body).into_response())
}

/// Its bytes; players ask for parts of them.
pub async fn bytes(
    State(web): State<Web>,
    Path((id, _)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let film = web.catalog.film(&id).await?;
    let Some((object, all)) = film
        .filter(|film| film.state == "done")
        .and_then(|film| Some((film.object?, film.bytes.unsigned_abs())))
    else {
        return Ok(not_found("film"));
    };
    let kind = if object.ends_with(".mp4") { "video/mp4" } else { "video/x-msvideo" };
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let part = match asked.map(|asked| range(asked, all)) {
        None | Some(Wanted::All) => None,
        Some(Wanted::Part(part)) => Some(part),
        Some(Wanted::Beyond) => {
            let all = [(header::CONTENT_RANGE, format!("bytes */{all}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, all).into_response());
        }
    };
    let span = part.clone().unwrap_or(0..all);
    let stream = match web.objects.stream(&object, span.clone()).await {
        Ok(stream) => stream,
        Err(error) if error.missing => {
            return Ok((StatusCode::GONE, "this film's object is gone from the store\n").into_response());
        }
        Err(error) => return Ok((StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()),
    };
    let mut response = Response::new(Body::from_stream(stream));
    let mut set = |name, value: String| {
        if let Ok(value) = value.try_into() {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, kind.to_owned());
    set(header::CONTENT_LENGTH, (span.end - span.start).to_string());
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::CACHE_CONTROL, "private, max-age=86400".to_owned());
    if part.is_some() {
        set(header::CONTENT_RANGE, format!("bytes {}-{}/{all}", span.start, span.end - 1));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// What a range asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    Beyond,
}

/// `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-COUNT`. Whatever else it is, it may be answered by all (RFC 9110, 14.2).
fn range(asked: &str, all: u64) -> Wanted {
    let Some((first, last)) = asked.strip_prefix("bytes=").and_then(|span| span.split_once('-')) else {
        return Wanted::All;
    };
    let span = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(all),
        (Ok(first), Err(_)) if last.is_empty() => first..all,
        (Err(_), Ok(count)) if first.is_empty() => all.saturating_sub(count)..all,
        _ => return Wanted::All,
    };
    if span.start < span.end { Wanted::Part(span) } else { Wanted::Beyond }
}

/// A form without more.
#[derive(Deserialize)]
pub struct Sent {
    #[serde(default)]
    token: String,
}

pub async fn take_away(
    State(web): State<Web>,
    view: View,
    Path(id): Path<String>,
    Form(sent): Form<Sent>,
) -> Result<Response, Failed> {
    if let Some(refused) = refuse(&view.who, &sent.token) {
        return Ok(refused);
    }
    let Some(film) = web.catalog.film(&id).await? else { return Ok(not_found("film")) };
    if let Err(error) = remove(&web.catalog, &web.objects, &film).await {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response());
    }
    let subject = format!("{}/{}", film.device, film.camera);
    web.catalog.note_action(view.now, view.who.name(), "remove-film", &subject, &film.id).await?;
    Ok(Redirect::to("/films").into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_get_the_parts_that_they_ask_for() {
        for (asked, wanted) in [
            ("bytes=0-", Wanted::Part(0..100)),
            ("bytes=0-1", Wanted::Part(0..2)),
            ("bytes=90-200", Wanted::Part(90..100)),
            ("bytes=-10", Wanted::Part(90..100)),
            ("bytes=-200", Wanted::Part(0..100)),
            ("bytes=100-", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=5-1", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("lines=0-1", Wanted::All),
        ] {
            assert_eq!(range(asked, 100), wanted, "{asked}");
        }
        assert_eq!(range("bytes=0-", 0), Wanted::Beyond);
    }
}
