//! `POST /v1/images`, `GET /v1/images/<id>`, `GET /v1/images/<id>/result`: as `openapi.json` has it, which a test holds against
//! what is answered here.
//!
//! A picture is put into the input place first and gets its row then; only then its sender is told 202. A crash between the two
//! leaves an object without a row, which [`super::mend`] removes, and a sender who was told nothing and sends again.

use super::{
    JobId, Places,
    form::{self, FormError},
    picture::{self, Refusal},
    token,
};
use crate::{
    catalog::{Accepted, Catalog, CatalogError, Job, JobState, NewJob},
    metrics::Metrics,
    objects::ObjectError,
    settings::AnonymiseSettings,
};
use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{DefaultBodyLimit, Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Frame;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::sync::{Semaphore, watch};

/// How long a picture may be under way to us, with its row.
pub const UPLOAD: Duration = Duration::from_secs(60);
/// Pictures taken in at once, each of `max_bytes` at the most; others wait.
const AT_ONCE: usize = 8;
/// How long they wait.
const TURN: Duration = Duration::from_secs(10);
/// How long a refused sender may go on sending.
const DRAIN: Duration = Duration::from_secs(2);
/// What a form may have beside the picture.
const FORM: u64 = 64 << 10;

/// The service.
#[derive(Debug, Clone)]
pub struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: AnonymiseSettings,
    catalog: Catalog,
    places: Places,
    metrics: Arc<Metrics>,
    /// Tells a worker within this process of a new job.
    wake: watch::Sender<()>,
    turns: Semaphore,
}

/// An answer that is no success, as RFC 9457 has it.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    detail: String,
    retry_after: Option<u32>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after: None }
    }

    fn later(status: StatusCode, detail: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(status, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or_default();
        let body = json!({ "title": title, "status": self.status.as_u16(), "detail": self.detail });
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body.to_string()).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        tracing::error!(%error, "cannot answer");
        Self::later(StatusCode::SERVICE_UNAVAILABLE, "the catalog does not answer; try again later", 10)
    }
}

impl From<ObjectError> for Problem {
    fn from(error: ObjectError) -> Self {
        tracing::error!(%error, "cannot answer");
        Self::later(StatusCode::SERVICE_UNAVAILABLE, "the object store does not answer; try again later", 10)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Kind => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::Damaged(_) | Refusal::Pixels { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, format!("the picture is refused: {refusal}"))
    }
}

impl Images {
    /// Of what it is made.
    pub fn new(
        settings: AnonymiseSettings,
        catalog: Catalog,
        places: Places,
        metrics: Arc<Metrics>,
        wake: watch::Sender<()>,
    ) -> Self {
        let turns = Semaphore::new(AT_ONCE);
        Self(Arc::new(Inner { settings, catalog, places, metrics, wake, turns }))
    }

    /// Whether `POST /` is a picture too.
    pub fn root(&self) -> bool {
        self.0.settings.root
    }

    /// Its routes.
    pub fn router(&self) -> Router {
        let known = || async { method_not_allowed("GET, HEAD") };
        Router::new()
            .route(
                "/v1/images",
                post(accept)
                    .layer(DefaultBodyLimit::disable())
                    .fallback(|| async { method_not_allowed("POST") }),
            )
            .route("/v1/images/{id}", get(status).fallback(known))
            .route("/v1/images/{id}/result", get(result).fallback(known))
            .route("/v1/{*other}", axum::routing::any(nothing))
            .with_state(self.clone())
    }

    /// How many wait, for `/metrics`.
    pub async fn count(&self) {
        if let Ok((queued, working)) = self.0.catalog.open_jobs().await {
            self.0.metrics.anonymise_queued.set(queued);
            self.0.metrics.anonymise_working.set(working);
        }
    }

    /// Takes a picture in, or says why not.
    pub async fn post(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let expects = parts.headers.contains_key(header::EXPECT);
        let lent = Lent(Arc::new(Mutex::new((body, false))));
        let request = Request::from_parts(parts, Body::new(lent.clone()));
        let taken = tokio::time::timeout(UPLOAD, self.take(request)).await.unwrap_or_else(|_| {
            let detail = format!("the picture was under way for more than {} s", UPLOAD.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        });
        let metrics = &self.0.metrics;
        let job = match taken {
            Ok(job) => job,
            Err(problem) => {
                metrics.anonymise_refused.inc();
                tokio::spawn(lent.drain(expects, self.0.settings.max_bytes.0));
                return problem.into_response();
            }
        };
        metrics.anonymise_accepted.inc();
        let place = format!("/v1/images/{}", job.id);
        (StatusCode::ACCEPTED, [(header::LOCATION, place)], json_of(&shown(&job))).into_response()
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        match token::admits(&self.0.settings.access, given).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let detail = "wants `Authorization: Bearer TOKEN` with a token of this bridge";
                Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "nobody can be let in");
                Err(Problem::later(StatusCode::SERVICE_UNAVAILABLE, "tokens cannot be read", 10))
            }
        }
    }

    async fn take(&self, request: Request) -> Result<Job, Problem> {
        let Inner { settings, catalog, places, wake, turns, .. } = &*self.0;
        self.admit(request.headers()).await?;
        let idempotency = idempotency_key(request.headers())?;
        let form = Form::of(request.headers())?;
        let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let most = settings.max_bytes.0;
        let room = if form == Form::Raw { most } else { most + FORM };
        if declared.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > room) {
            return Err(too_large(most));
        }
        // A queue at its bound is told before the picture is read; but who asks again about a picture of before is answered.
        let (queued, working) = catalog.open_jobs().await?;
        let is_full = queued + working >= i64::from(settings.queue);
        let is_known = match &idempotency {
            Some(key) if is_full => catalog.job_by_key(key).await?.is_some(),
            _ => false,
        };
        if is_full && !is_known {
            return Err(full());
        }
        let turn = tokio::time::timeout(TURN, turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            let detail = "too many pictures are under way at once; try again later";
            return Err(Problem::later(StatusCode::SERVICE_UNAVAILABLE, detail, 5));
        };
        let bytes = match form {
            Form::Raw => raw(request, most, most).await?,
            Form::Multipart(boundary) => field(request, &boundary, most).await?,
        };
        picture::inspect(&bytes, settings.max_pixels)?;
        let digest = hex(&Sha256::digest(&bytes));
        if is_known
            && let Some(key) = &idempotency
            && let Some(job) = catalog.job_by_key(key).await?
        {
            return same(job, &digest);
        }
        let id = JobId::new(SystemTime::now()).map_err(|error| {
            tracing::error!(%error, "no random bytes for an id");
            Problem::later(StatusCode::SERVICE_UNAVAILABLE, "no random bytes for an id", 10)
        })?;
        let new = NewJob { id, bytes: bytes.len(), digest, idempotency };
        places.input.put(&id.raw_key(), bytes).await?;
        // What is not taken in must not stay; if it does, mending finds it.
        let withdraw = async || {
            if let Err(error) = places.input.delete(&id.raw_key()).await {
                tracing::warn!(%error, %id, "a raw picture without a job stays until it is mended");
            }
        };
        match catalog.accept_job(&new, settings.queue).await {
            Ok(Accepted::New(job)) => {
                wake.send_replace(());
                tracing::debug!(%id, bytes = new.bytes, "picture taken in");
                Ok(job)
            }
            Ok(Accepted::Known(job)) => {
                withdraw().await;
                same(job, &new.digest)
            }
            Ok(Accepted::Full) => {
                withdraw().await;
                Err(full())
            }
            // Whether the row is there is not known: a commit may have come through without its answer. If it is, the picture
            // is veiled as any other; if not, mending removes it.
            Err(error) => Err(error.into()),
        }
    }
}

/// A request's body, lent to whoever reads it, and whether anybody has.
#[derive(Clone)]
struct Lent(Arc<Mutex<(Body, bool)>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let (body, is_touched) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *is_touched = true;
        Pin::new(body).poll_frame(context)
    }
}

impl Lent {
    /// Reads on for a while what a refused sender still sends. A connection that is closed before is reset, and the answer may be
    /// lost with it. Who waits to be asked for the body (`Expect`) is not asked.
    async fn drain(mut self, expects: bool, most: u64) {
        if expects && !self.0.lock().unwrap_or_else(PoisonError::into_inner).1 {
            return;
        }
        let drained = async {
            let mut left = most;
            while let Some(Ok(frame)) = self.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64);
                if left == 0 {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN, drained).await;
    }
}

/// An Idempotency-Key names one picture.
fn same(job: Job, digest: &str) -> Result<Job, Problem> {
    if job.digest == digest {
        return Ok(job);
    }
    let detail =
        "this Idempotency-Key came with another picture before; make another key for another picture";
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

fn full() -> Problem {
    let detail = "as many pictures wait as may (anonymise.queue); try again later";
    Problem::later(StatusCode::TOO_MANY_REQUESTS, detail, 10)
}

fn too_large(most: u64) -> Problem {
    let detail = format!("the picture is larger than {most} bytes (anonymise.max_bytes)");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of it, so that a row has a fixed size and a key that holds a secret is not kept.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.as_bytes();
    if key.is_empty() || key.len() > 255 || !key.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        let detail = "Idempotency-Key wants 1 to 255 printable characters of ASCII";
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    Ok(Some(hex(&Sha256::digest(key))))
}

/// How a picture comes.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Raw,
    /// Parts, with this between them.
    Multipart(String),
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "image/jpeg" | "image/png" => Ok(Self::Raw),
            "multipart/form-data" => form::boundary(kind).map(Self::Multipart).ok_or_else(|| {
                let detail = "Content-Type multipart/form-data wants a boundary of 1 to 70 characters";
                Problem::new(StatusCode::BAD_REQUEST, detail)
            }),
            _ => {
                let detail =
                    "Content-Type wants image/jpeg, image/png, or multipart/form-data with the field `image`";
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
            }
        }
    }
}

/// A body of at most so many bytes; `most` is for whoever sent more.
async fn raw(request: Request, limit: u64, most: u64) -> Result<Bytes, Problem> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(most)),
        Err(_) => Err(Problem::new(StatusCode::BAD_REQUEST, "the picture's transfer was broken off")),
    }
}

/// The picture in a form. The form is bounded, so it is read whole.
async fn field(request: Request, boundary: &str, most: u64) -> Result<Bytes, Problem> {
    let form = raw(request, most + FORM, most).await?;
    let parts = form::parts(&form, boundary).map_err(|error| {
        let status = match error {
            FormError::TooMany => StatusCode::UNPROCESSABLE_ENTITY,
            FormError::Broken(_) => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, error.to_string())
    })?;
    let mut images = parts.iter().filter(|part| part.name.as_deref() == Some("image"));
    let (Some(image), None) = (images.next(), images.next()) else {
        let detail = "a form wants one field `image`: `curl -F image=@FILE`";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    };
    if image.content.len() as u64 > most {
        return Err(too_large(most));
    }
    Ok(form.slice_ref(image.content))
}

fn json_of(value: &serde_json::Value) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}

/// A job as its sender sees it.
fn shown(job: &Job) -> serde_json::Value {
    let time = |millis: i64| {
        jiff::Timestamp::from_millisecond(millis).map(|time| format!("{time:.3}")).unwrap_or_default()
    };
    let mut shown = json!({
        "id": job.id.to_string(),
        "state": job.state.as_str(),
        "received": time(job.received),
        "changed": time(job.changed),
        "attempts": job.attempts,
        "bytes": job.bytes,
    });
    if let Some(reason) = &job.reason {
        shown["reason"] = reason.as_str().into();
    }
    if job.state == JobState::Done {
        shown["result"] = format!("/v1/images/{}/result", job.id).into();
        if let Some(faces) = job.faces {
            shown["faces"] = faces.into();
        }
    }
    shown
}

async fn accept(State(images): State<Images>, request: Request) -> Response {
    images.post(request).await
}

fn method_not_allowed(allowed: &'static str) -> Response {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("this address takes {allowed}"));
    ([(header::ALLOW, allowed)], problem).into_response()
}

async fn nothing() -> Response {
    Problem::new(StatusCode::NOT_FOUND, "no such address; see /v1/openapi.json").into_response()
}

impl Images {
    async fn find(&self, headers: &HeaderMap, id: &str) -> Result<Job, Problem> {
        self.admit(headers).await?;
        let not_found = || Problem::new(StatusCode::NOT_FOUND, "no such picture, or none any more");
        let id: JobId = id.parse().map_err(|_| not_found())?;
        self.0.catalog.job(id).await?.ok_or_else(not_found)
    }

    async fn fetch(&self, method: &Method, headers: &HeaderMap, id: &str) -> Result<Response, Problem> {
        let job = self.find(headers, id).await?;
        match job.state {
            JobState::Done => {}
            JobState::Queued | JobState::Working => {
                let detail = "the picture has no result yet; ask for its state";
                return Err(Problem::later(StatusCode::CONFLICT, detail, 1));
            }
            JobState::Failed => {
                let reason = job.reason.unwrap_or_default();
                return Err(Problem::new(StatusCode::GONE, format!("the picture has no result: {reason}")));
            }
        }
        let kind: [(HeaderName, &str); 2] = [
            (header::CONTENT_TYPE, "image/jpeg"),
            (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
        ];
        if method == Method::HEAD {
            return Ok(kind.into_response());
        }
        match self.0.places.output.get(&job.id.result_key()).await {
            Ok(bytes) => Ok((kind, bytes).into_response()),
            Err(error) if error.missing => {
                tracing::error!(id = %job.id, "a result is gone from the output place");
                Err(Problem::new(StatusCode::GONE, "the result is gone from the output place"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What is no text is no id either.
type Id = Result<Path<String>, PathRejection>;

fn text(id: Id) -> String {
    id.map(|Path(id)| id).unwrap_or_default()
}

async fn status(State(images): State<Images>, headers: HeaderMap, id: Id) -> Response {
    match images.find(&headers, &text(id)).await {
        Ok(job) => json_of(&shown(&job)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn result(State(images): State<Images>, method: Method, headers: HeaderMap, id: Id) -> Response {
    images.fetch(&method, &headers, &text(id)).await.unwrap_or_else(IntoResponse::into_response)
}
