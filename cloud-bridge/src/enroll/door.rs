//! HTTPS: TLS with or without a client's certificate, one request a connection, everything bounded.

use super::{Refused, Registrar, Shown};
use crate::{
    broker::{Handshakes, identify},
    certs, tls,
};
use anyhow::Context;
use bytes::Bytes;
use edgeveil_wire::{ENROLL_PATH, Enrolled, MAX_ENROLL_BYTES, RENEW_PATH, Refusal};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// From the first byte to the last.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// The server's certificate is made anew so often, which is far before its end.
const FRESH: Duration = Duration::from_secs(86_400);

impl Registrar {
    /// TLS as it is shown to devices: a certificate of the CA, made now.
    pub fn tls(&self) -> anyhow::Result<TlsAcceptor> {
        let host = self.settings.host_name();
        let (chain, key) = certs::server(&self.settings.ca, host)?;
        let config = tls::registrar(&self.settings.ca.join("ca.pem"), chain, key)
            .context("TLS of the registrar (enroll.listen)")?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Answers until it is stopped.
pub async fn serve(
    listener: TcpListener,
    registrar: Arc<Registrar>,
    mut tls: TlsAcceptor,
    stop: CancellationToken,
) {
    let handshakes = Handshakes::new(MAX_CONNECTIONS as u32);
    let (mut connections, mut made) = (JoinSet::new(), Instant::now());
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((tcp, peer)) => {
                    let Some(place) = handshakes.place(peer.ip()) else { continue };
                    if made.elapsed() > FRESH {
                        match registrar.tls() {
                            Ok(fresh) => (tls, made) = (fresh, Instant::now()),
                            Err(error) => tracing::warn!(error = format!("{error:#}"), "the registrar goes on with its old certificate"),
                        }
                    }
                    let (registrar, tls) = (registrar.clone(), tls.clone());
                    connections.spawn(async move {
                        let _place = place;
                        // Whoever gives up or takes too long asks again.
                        let _ = timeout(PATIENCE, connection(tcp, peer.ip(), &registrar, tls)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    let _ = timeout(Duration::from_secs(1), async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(tcp: TcpStream, peer: IpAddr, registrar: &Arc<Registrar>, tls: TlsAcceptor) {
    let _ = tcp.set_nodelay(true);
    let stream = match tls.accept(tcp).await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%peer, %error, "no TLS"),
    };
    let shown = shown(stream.get_ref().1.peer_certificates());
    let answer = |request| {
        let shown = shown.clone();
        async move { Ok::<_, Infallible>(answer(registrar, request, shown, peer).await) }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .max_buf_size(MAX_ENROLL_BYTES.max(8192))
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection to the registrar broke");
    }
}

/// What the client has shown, if anything.
fn shown(certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>) -> Result<Option<Shown>, String> {
    let Some(der) = certificates.and_then(<[_]>::first) else { return Ok(None) };
    let peer = identify(certificates)?;
    let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
    let serial = cert.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(Shown { name: peer.name, role: peer.role, serial }))
}

async fn answer(
    registrar: &Registrar,
    request: Request<Incoming>,
    shown: Result<Option<Shown>, String>,
    peer: IpAddr,
) -> Response<Full<Bytes>> {
    let given = match registrar.attempts.may_try(peer, Instant::now()) {
        true => handle(registrar, request, shown, peer).await,
        false => Err(Refused::new(
            StatusCode::TOO_MANY_REQUESTS,
            "this address was refused too often; it may try again in a minute",
        )),
    };
    let (status, body) = match given {
        Ok(enrolled) => (StatusCode::OK, enrolled.to_json()),
        Err(Refused { status, why }) => {
            if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
                registrar.attempts.refused(peer, Instant::now());
                registrar.metrics.enroll_refused.inc();
                tracing::warn!(%peer, %why, "no certificate");
            }
            (status, Refusal { error: why }.to_json())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match status {
        StatusCode::TOO_MANY_REQUESTS => _ = headers.insert(RETRY_AFTER, HeaderValue::from_static("60")),
        StatusCode::METHOD_NOT_ALLOWED => _ = headers.insert(ALLOW, HeaderValue::from_static("POST")),
        _ => {}
    }
    response
}

async fn handle(
    registrar: &Registrar,
    request: Request<Incoming>,
    shown: Result<Option<Shown>, String>,
    peer: IpAddr,
) -> Result<Enrolled, Refused> {
    let renews = match request.uri().path() {
        ENROLL_PATH => false,
        RENEW_PATH => true,
        _ => {
            let why = format!("nothing is here; devices ask at {ENROLL_PATH} and {RENEW_PATH}");
            return Err(Refused::new(StatusCode::NOT_FOUND, why));
        }
    };
    if request.method() != Method::POST {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "wants a POST"));
    }
    let body = Limited::new(request.into_body(), MAX_ENROLL_BYTES).collect().await.map_err(|_| {
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {MAX_ENROLL_BYTES} bytes, or cut off"))
    })?;
    let body = body.to_bytes();
    if renews {
        let shown = shown.map_err(|why| Refused::new(StatusCode::FORBIDDEN, why))?;
        registrar.renew(&body, shown, peer).await
    } else {
        registrar.enroll(&body, peer).await
    }
}
