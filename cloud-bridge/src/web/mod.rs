//! What the bridge shows: pages for people, `/healthz` and `/readyz` for whoever runs it, `/metrics` for Prometheus.

mod about;
pub mod access;
mod alerts;
mod api;
mod chart;
mod device;
mod films;
mod gallery;
mod html;
mod live;
mod outbox;
mod overview;
mod thumbs;
mod tune;

pub use live::Live;
pub use thumbs::{MEGAPIXELS, key as thumbnail_key};

use crate::{
    anonymise::Images,
    catalog::{Catalog, CatalogError},
    metrics::Metrics,
    objects::Objects,
    readiness::{Missing, Part, Readiness},
    troubles::Troubles,
    wishes::Wishes,
};
use access::{Access, Who};
use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Path, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use edgeveil_wire::{DeviceName, RecordId};
use jiff::{Timestamp, Unit};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How long a page waits for an answer of the catalog.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a probe does.
const PROBE: Duration = Duration::from_secs(2);

/// What the pages are made of.
#[derive(Debug, Clone)]
pub struct Web {
    /// Rows, within [`PATIENCE`].
    pub catalog: Catalog,
    /// Images.
    pub objects: Objects,
    /// How long a link to the bucket lasts; none: images come through here.
    pub links: Option<Duration>,
    /// `/metrics`
    pub metrics: Arc<Metrics>,
    /// `/readyz`
    pub readiness: Arc<Readiness>,
    /// What is wrong with single devices.
    pub troubles: Arc<Troubles>,
    /// How a first device is enrolled here, for the empty page.
    pub enrol: Arc<str>,
    /// Pictures to be veiled, when they are taken.
    pub images: Option<Images>,
    /// Who may look and act.
    pub access: Arc<Access>,
    /// New alerts.
    pub live: Live,
    /// The way to devices for settings.
    pub wishes: Wishes,
    /// Whether films are made here.
    pub films: bool,
    /// Told of films that are asked for.
    pub studio: watch::Sender<()>,
    /// What is made small at the same time, by [`MEGAPIXELS`].
    pub small: Arc<Semaphore>,
}

/// Answers until it is stopped.
pub async fn serve(listener: TcpListener, web: Web, stop: CancellationToken) {
    let service = router(web).into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the web server ended");
    }
}

/// All routes.
pub fn router(web: Web) -> Router {
    let mut routes = Router::new();
    if let Some(images) = &web.images {
        routes = images.router();
        if images.root() {
            let images = images.clone();
            let posted = post(move |request: Request| async move { images.post(request).await });
            routes = routes.route("/", posted.layer(DefaultBodyLimit::disable()));
        }
    }
    let ways = Router::new()
        .route("/login", get(access::form).post(access::login))
        .route("/logout", post(access::logout))
        .with_state(web.access.clone());
    let pages = Router::new()
        .route("/", get(overview::overview))
        .route("/devices/{device}", get(device::device))
        .route("/devices/{device}/settings", post(tune::want))
        .route("/gallery", get(gallery::gallery))
        .route("/view/{device}/{id}", get(gallery::image))
        .route("/images/{device}/{id}", get(image))
        .route("/thumbs/{device}/{id}", get(thumbs::thumbnail))
        .route("/alerts", get(alerts::alerts))
        .route("/alerts/{device}/{id}", get(alerts::alert))
        .route("/alerts/{device}/{id}/acknowledge", post(alerts::acknowledge))
        .route("/live", get(live::live))
        .route("/outbox", get(outbox::outbox))
        .route("/outbox/retry", post(outbox::retry))
        .route("/films", get(films::films).post(films::ask))
        .route("/films/{id}", get(films::film))
        .route("/films/{id}/remove", post(films::take_away))
        .route("/films/{id}/{name}", get(films::bytes))
        .route("/about", get(about::about))
        .with_state(web.clone())
        .merge(ways)
        .layer(DefaultBodyLimit::max(16 << 10))
        .layer(middleware::from_fn_with_state(web.access.clone(), access::guard));
    let api = api::routes()
        .with_state(web.clone())
        .layer(middleware::from_fn_with_state(web.access.clone(), access::guard))
        .merge(api::description(web.images.is_some()))
        .layer(middleware::from_fn(api::in_json));
    Router::new()
        .route("/style.css", get(|| fixed("text/css; charset=utf-8", include_str!("style.css"))))
        .route("/app.js", get(|| fixed("text/javascript; charset=utf-8", include_str!("app.js"))))
        .route("/icon.svg", get(|| fixed("image/svg+xml", include_str!("icon.svg"))))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(web)
        .merge(pages)
        .merge(api)
        .merge(routes)
        .layer(middleware::from_fn(headers))
        .layer(middleware::from_fn(trace))
}

async fn fixed(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")], text)
}

fn not_found(what: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("no such {what}\n")).into_response()
}

/// Whoever may not act, or sends a form that is none of ours.
fn refuse(who: &Who, token: &str) -> Option<Response> {
    if !who.acts() {
        return Some((StatusCode::FORBIDDEN, "only an operator may do this\n").into_response());
    }
    (!who.sent(token))
        .then(|| (StatusCode::FORBIDDEN, "this form is an old one; load its page again\n").into_response())
}

/// What a worker that is a process of its own shows.
pub async fn serve_probes(listener: TcpListener, probes: Probes, stop: CancellationToken) {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|State(probes): State<Probes>| async move { probes.ready("").await }))
        .route("/metrics", get(|State(probes): State<Probes>| async move { text(&probes.metrics) }))
        .layer(middleware::from_fn(headers))
        .with_state(probes);
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the web server ended");
    }
}

/// `/readyz` and `/metrics`.
#[derive(Debug, Clone)]
pub struct Probes {
    /// Asked whether it answers.
    pub catalog: Catalog,
    /// `/metrics`
    pub metrics: Arc<Metrics>,
    /// `/readyz`
    pub readiness: Arc<Readiness>,
}

impl Probes {
    async fn ready(&self, troubles: &str) -> Response {
        let mut missing = self.readiness.missing();
        let asked = self.catalog.within(PROBE).ping().await;
        if let Err(error) = asked
            && !missing.iter().any(|missing| missing.part == Part::Database)
        {
            let since = error.since().unwrap_or_else(Timestamp::now);
            missing.push(Missing { part: Part::Database, reason: error.to_string(), since });
        }
        if missing.is_empty() {
            return format!("ready\n{troubles}").into_response();
        }
        let lines: String = missing.iter().map(|missing| format!("{missing}\n")).collect();
        (StatusCode::SERVICE_UNAVAILABLE, lines + troubles).into_response()
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives each request an id, or leaves it the one that it has, for logs and traces. Probes have none, and no trace.
async fn trace(mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = path.unwrap_or_default();
    if matches!(route.as_str(), "/healthz" | "/readyz" | "/metrics") {
        return next.run(request).await;
    }
    let given = request.headers().get(REQUEST_ID).filter(|id| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=64).contains(&id.len()) && id.as_bytes().iter().all(plain)
    });
    let Some(id) = given.cloned().or_else(new_id) else { return next.run(request).await };
    let shown = id.to_str().unwrap_or_default();
    let span = tracing::info_span!("request", id = shown, method = %request.method(), route, status = tracing::field::Empty);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn new_id() -> Option<HeaderValue> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).ok()?;
    HeaderValue::try_from(format!("{:016x}", u64::from_be_bytes(random))).ok()
}

const POLICY: &str =
    "default-src 'self'; object-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The same for every answer: nothing from elsewhere is loaded, and nobody frames these pages.
async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let policy = response.headers_mut().entry(header::CONTENT_SECURITY_POLICY);
    policy.or_insert(HeaderValue::from_static(POLICY));
    let fixed = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::REFERRER_POLICY, "no-referrer")];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What a page that cannot be made answers.
#[derive(Debug)]
pub struct Failed(CatalogError);

/// The same in one line, for whom a page is too much.
#[derive(Debug, Clone)]
struct Unanswered(String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let since = error.since().map(|since| since.round(Unit::Second).unwrap_or(since));
        // A silence has its own lines.
        if since.is_none() {
            tracing::error!(%error, "cannot answer");
        }
        let said = since.map_or_else(|| error.to_string(), |since| format!("{error} (since {since})"));
        let page = html::unanswered(&error.to_string(), since);
        let mut response =
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], page).into_response();
        response.extensions_mut().insert(Unanswered(said));
        response
    }
}

impl From<CatalogError> for Failed {
    fn from(error: CatalogError) -> Self {
        Self(error)
    }
}

impl Web {
    /// What a page says to browsers that are sent to the bucket for its images: none when they are not, or when there is no
    /// link for now, as for want of credentials.
    async fn bucket(&self) -> Option<HeaderValue> {
        let link = self.objects.link("origin", self.links?).await.ok()??;
        let origin = reqwest::Url::parse(&link).ok()?.origin().ascii_serialization();
        HeaderValue::try_from(format!("{POLICY}; img-src 'self' {origin}")).ok()
    }
}

/// The way to the bucket. Browsers keep it for half of its time, so that it is good when they use it.
fn redirect(link: &str, lasts: Duration) -> Response {
    let kept = format!("private, max-age={}", lasts.as_secs() / 2);
    let headers = [(header::LOCATION, link), (header::CACHE_CONTROL, &kept)];
    (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
}

async fn image(
    State(web): State<Web>,
    Path((device, id)): Path<(String, String)>,
) -> Result<Response, Failed> {
    let (Ok(device), Ok(id)) = (device.parse::<DeviceName>(), id.parse::<RecordId>()) else {
        return Ok(not_found("image"));
    };
    let Some(object) = web.catalog.image_object(&device, id).await? else { return Ok(not_found("image")) };
    if let Some(lasts) = web.links {
        match web.objects.link(&object, lasts).await {
            Ok(Some(link)) => return Ok(redirect(&link, lasts)),
            Ok(None) => {}
            Err(error) => return Ok((StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()),
        }
    }
    match web.objects.get(&object).await {
        Ok(bytes) => {
            // An id names the same bytes for ever.
            let headers: [(HeaderName, &str); 2] = [
                (header::CONTENT_TYPE, "image/jpeg"),
                (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
            ];
            Ok((headers, bytes).into_response())
        }
        Err(error) if error.missing => {
            tracing::error!(object, "an image's object is gone");
            Ok((StatusCode::GONE, "this image's object is gone from the store\n").into_response())
        }
        Err(error) => Ok((StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()),
    }
}

async fn ready(State(web): State<Web>) -> Response {
    // What is wrong with one device does not keep the bridge from serving the others.
    let troubles: String =
        web.troubles.now().iter().map(|trouble| format!("degraded: device {trouble}\n")).collect();
    let Web { catalog, metrics, readiness, .. } = web;
    Probes { catalog, metrics, readiness }.ready(&troubles).await
}

async fn metrics(State(web): State<Web>) -> impl IntoResponse {
    if let Some(images) = &web.images {
        // Without an answer the numbers of before stay.
        let _ = tokio::time::timeout(Duration::from_secs(2), images.count()).await;
    }
    text(&web.metrics)
}

fn text(metrics: &Metrics) -> impl IntoResponse + use<> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text())
}
