//! Cameras that are asked over HTTP: a stream of JPEGs (`multipart/x-mixed-replace`), or one JPEG for each request.

use super::{
    CaptureError, LIMITS, Shot, Source,
    encoded::Encoded,
    stream::{Feed, Stream},
};
use crate::{
    pause::Pause,
    settings::{HttpCamera, Url},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{
        ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, USER_AGENT,
        WWW_AUTHENTICATE,
    },
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use std::{fs, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Time for the connection and for the head of the answer, each.
const PATIENCE: Duration = Duration::from_secs(10);
/// JPEG's last marker.
const END_OF_PICTURE: [u8; 2] = [0xff, 0xd9];
/// The certificate authorities of the system, as Debian and those who follow it keep them.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Asks one address.
struct Asker {
    url: Url,
    login: Option<HeaderValue>,
    tls: Option<TlsConnector>,
}

/// An answer's body, and the task that reads its connection. Both end when this is dropped.
struct Answer {
    response: Response<Incoming>,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Asker {
    fn new(camera: &HttpCamera) -> Result<Self, CaptureError> {
        let login = camera.login.as_deref().map(login).transpose()?;
        let tls = camera.url.is_https().then(|| tls(camera.ca.as_deref())).transpose()?;
        Ok(Self { url: camera.url.clone(), login, tls })
    }

    fn error(&self, what: impl Into<String>) -> CaptureError {
        CaptureError::Http { url: self.url.to_string(), what: what.into() }
    }

    /// The answer, when it is a good one.
    async fn ask(&self) -> Result<Answer, CaptureError> {
        let connect = async {
            let stream = TcpStream::connect((self.url.host(), self.url.port()))
                .await
                .map_err(|e| self.error(format!("cannot be reached: {e}")))?;
            match &self.tls {
                None => self.handshake(stream).await,
                Some(tls) => {
                    let name = ServerName::try_from(self.url.host().to_owned())
                        .map_err(|e| self.error(format!("has no name for TLS: {e}")))?;
                    let stream = tls.connect(name, stream).await.map_err(|e| {
                        self.error(format!(
                            "TLS: {e}; when its certificate is its own, set `ca` to that certificate"
                        ))
                    })?;
                    self.handshake(stream).await
                }
            }
        };
        let late = |_| self.error(format!("does not answer within {} s", PATIENCE.as_secs()));
        let (mut sender, connection) = timeout(PATIENCE, connect).await.map_err(late)??;
        // From here on the connection ends with the answer, or with its being late.
        let guard = Guard(Some(connection));
        let request = self.request()?;
        let response = timeout(PATIENCE, sender.send_request(request))
            .await
            .map_err(late)?
            .map_err(|e| self.error(format!("gives no answer: {e}")))?;
        self.accept(&response)?;
        Ok(Answer { response, connection: guard.release() })
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(http1::SendRequest<Empty<Bytes>>, JoinHandle<()>), CaptureError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.error(format!("speaks no HTTP: {e}")))?;
        let connection = tokio::spawn(async move {
            // What is wrong with it shows in the answer's body.
            let _ = connection.await;
        });
        Ok((sender, connection))
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, CaptureError> {
        let mut request = Request::get(self.url.path())
            .header(HOST, self.url.authority())
            .header(USER_AGENT, concat!("edgeveil-agent/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "multipart/x-mixed-replace, image/jpeg, */*;q=0.1")
            .header(CONNECTION, "close");
        if let Some(login) = &self.login {
            request = request.header(AUTHORIZATION, login);
        }
        request.body(Empty::new()).map_err(|e| self.error(e.to_string()))
    }

    fn accept(&self, response: &Response<Incoming>) -> Result<(), CaptureError> {
        let head = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED if self.login.is_none() => {
                return Err(
                    self.error("wants a login: put `user:password` into a file and name it as `login`")
                );
            }
            StatusCode::UNAUTHORIZED => {
                let basic = response
                    .headers()
                    .get_all(WWW_AUTHENTICATE)
                    .iter()
                    .filter_map(|value| value.to_str().ok())
                    .any(|scheme| {
                        scheme
                            .trim_start()
                            .get(..5)
                            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))
                    });
                return Err(self.error(if basic {
                    "does not take the user or the password in the file `login`"
                } else {
                    "wants another login than Basic: allow Basic in the camera, or let ffmpeg ask it as a `command`"
                }));
            }
            status if status.is_redirection() => {
                let to = head(LOCATION).and_then(|to| to.split('?').next()).unwrap_or("another address");
                return Err(self.error(format!("has moved to {}; put that address here", printable(to))));
            }
            status => return Err(self.error(format!("answers {status}"))),
        }
        match head(CONTENT_TYPE) {
            Some(text) if text.starts_with("text/") || text.starts_with("application/json") => {
                Err(self.error(format!("gives {}, and no picture", printable(text))))
            }
            _ => Ok(()),
        }
    }
}

/// Ends a connection unless it is released.
struct Guard(Option<JoinHandle<()>>);

impl Guard {
    fn release(mut self) -> JoinHandle<()> {
        self.0.take().expect("it is released once")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.abort();
        }
    }
}

/// What a stranger's header may do in our log.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// The header of RFC 7617 from a file of one line.
fn login(path: &Path) -> Result<HeaderValue, CaptureError> {
    let error = |why: String| CaptureError::Login { path: path.to_owned(), why };
    let text = fs::read_to_string(path).map_err(|e| error(format!("cannot be read ({e})")))?;
    let line = text.trim_end_matches(['\n', '\r']);
    if !line.contains(':') || line.contains(['\n', '\r']) {
        return Err(error("does not hold that".to_owned()));
    }
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(line)))
        .map_err(|_| error("has characters in it that HTTP cannot send".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(ca: Option<&Path>) -> Result<TlsConnector, CaptureError> {
    let path = ca.unwrap_or(Path::new(SYSTEM_ROOTS));
    let error = |why: String| CaptureError::Authorities { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    let mut own = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| error(e.to_string()))? {
        let certificate = certificate.map_err(|e| error(e.to_string()))?;
        let added = roots.add(certificate.clone());
        if ca.is_some() {
            added.map_err(|e| error(e.to_string()))?;
            own.push(certificate);
        }
    }
    if roots.is_empty() {
        return Err(error("holds no certificate in PEM".to_owned()));
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), ring.clone())
        .build()
        .map_err(|e| error(e.to_string()))?;
    let config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { own, authorities }))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes the very certificate that the settings name, whatever stands in it: those that cameras make for themselves carry
/// any name and any date. All others are held against the authorities.
#[derive(Debug)]
struct Verifier {
    own: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The handshake's signature shows that the camera has its key.
        if self.own.iter().any(|own| own.as_ref() == end_entity.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// A stream of JPEGs.
pub struct HttpStream {
    stream: Stream,
    reader: JoinHandle<()>,
}

impl HttpStream {
    /// Asks for it.
    pub fn open(camera: &HttpCamera, silence: Duration, pause: &Pause) -> Result<Self, CaptureError> {
        let asker = Asker::new(camera)?;
        let answer = pause.run(asker.ask()).ok_or(CaptureError::Stopped)??;
        let kind = answer.response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("image/")) {
            return Err(
                asker.error("gives a single picture and no stream; name it as `snapshot` instead of `http`")
            );
        }
        let (stream, feed) = Stream::new(&asker.url.to_string(), silence, pause);
        let reader = pause.spawn(read(answer, feed));
        Ok(Self { stream, reader })
    }
}

impl Drop for HttpStream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Source for HttpStream {
    fn next(&mut self) -> Result<Option<Shot>, CaptureError> {
        self.stream.next().map(|frame| Some(frame.into()))
    }
}

async fn read(mut answer: Answer, mut feed: Feed) {
    let how = loop {
        match answer.response.body_mut().frame().await {
            None => break "the camera has closed the connection".to_owned(),
            Some(Err(error)) => break format!("the connection broke: {error}"),
            Some(Ok(part)) => {
                if let Some(bytes) = part.data_ref() {
                    feed.take(bytes);
                }
            }
        }
    };
    feed.end(how);
}

/// One JPEG for each request.
pub struct Snapshot {
    asker: Asker,
    silence: Duration,
    pause: Pause,
}

impl Snapshot {
    /// Reads the login and the authorities; the camera is asked with the first picture.
    pub fn open(camera: &HttpCamera, silence: Duration, pause: &Pause) -> Result<Self, CaptureError> {
        Ok(Self { asker: Asker::new(camera)?, silence, pause: pause.clone() })
    }

    async fn fetch(&self) -> Result<Encoded, CaptureError> {
        let mut answer = self.asker.ask().await?;
        let mut picture = Vec::new();
        while let Some(part) = answer.response.body_mut().frame().await {
            let part = match part {
                Ok(part) => part,
                // Many cameras close a TLS connection without the word that it was meant. The picture's end shows it.
                Err(_) if picture.ends_with(&END_OF_PICTURE) => break,
                Err(e) => return Err(self.asker.error(format!("the connection broke: {e}"))),
            };
            let bytes = part.data_ref().map_or(&[][..], |bytes| &bytes[..]);
            // A stream never ends, so it would show here.
            if picture.len() + bytes.len() > LIMITS.max_bytes {
                return Err(self
                    .asker
                    .error("gives more than 32 MiB; name a stream as `http` instead of `snapshot`"));
            }
            picture.extend_from_slice(bytes);
        }
        Ok(Encoded::new(picture))
    }
}

impl Source for Snapshot {
    fn next(&mut self) -> Result<Option<Shot>, CaptureError> {
        let fetch = async {
            let patience = self.silence.max(PATIENCE);
            let late =
                |_| self.asker.error(format!("gives no whole picture within {} s", patience.as_secs()));
            timeout(patience, self.fetch()).await.map_err(late)?
        };
        let picture = self.pause.run(fetch).ok_or(CaptureError::Stopped)??;
        picture.decode(&self.asker.url.to_string()).map(|frame| Some(frame.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_one_line_and_stays_out_of_messages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("login");
        fs::write(&path, "Aladdin:open sesame\n").unwrap();
        // The example of RFC 7617.
        let value = login(&path).unwrap();
        assert_eq!(value.to_str().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{value:?}").contains("QWxh"));
        for bad in ["", "no colon\n", "a:b\nc:d\n"] {
            fs::write(&path, bad).unwrap();
            let error = login(&path).unwrap_err().to_string();
            assert!(error.contains("user:password") && !error.contains("c:d"), "{error}");
        }
        assert!(matches!(login(&dir.path().join("none")), Err(CaptureError::Login { .. })));
    }

    #[test]
    fn authorities_that_are_none_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(tls(Some(&path)).is_err());
        fs::write(&path, "nothing").unwrap();
        let error = tls(Some(&path)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }
}
