//! The registrar as devices, and others, meet it over HTTPS.

use crate::harness::{Bench, device_files, files};
use edgeveil_bridge::{
    certs::{self, Kind, Replace},
    enroll::{Book, Secret, Token},
    settings::TlsFiles,
};
use edgeveil_wire::{EnrollRequest, Enrolled, Refusal, RenewRequest};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{fs, net::SocketAddr, path::Path, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

const ENROLL: &str = "[enroll]\nlisten = \"127.0.0.1:0\"\nhost = \"localhost\"";

/// What a client shows.
struct Client<'a> {
    to: SocketAddr,
    certs: &'a Path,
    shows: Option<TlsFiles>,
}

impl Client<'_> {
    /// The answer's status and body.
    async fn send(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certs.join("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match &self.shows {
            None => builder.with_no_client_auth(),
            Some(files) => builder
                .with_client_auth_cert(
                    CertificateDer::pem_file_iter(&files.cert).unwrap().map(Result::unwrap).collect(),
                    PrivateKeyDer::from_pem_file(&files.key).unwrap(),
                )
                .unwrap(),
        };
        let tcp = TcpStream::connect(self.to).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // An answer may come, and the connection end, before all of a long body was read.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
        (status, answer.split_off(end))
    }
}

fn csr(name: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn error(body: &[u8]) -> String {
    Refusal::from_json(body).unwrap().error
}

/// Writes what was issued where a client finds it.
fn keep(dir: &Path, name: &str, enrolled: &Enrolled, key: &KeyPair) -> TlsFiles {
    let [ca, cert, pem] = ["ca", "cert", "key"].map(|part| dir.join(format!("{name}-{part}.pem")));
    fs::write(&ca, &enrolled.ca).unwrap();
    fs::write(&cert, &enrolled.certificate).unwrap();
    fs::write(&pem, key.serialize_pem()).unwrap();
    TlsFiles { ca, cert, key: pem }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_connects_and_renews() {
    let bench = Bench::start_with(ENROLL).await;
    let certs = bench.path().join("certs");
    let to = bench.bridge.enroll.unwrap();
    let book = Book::open(&bench.path()).await.unwrap();
    let secret = Secret::random().unwrap();
    let mut token = None;
    let device = "edge-001".parse().unwrap();
    let made = |number| token.insert(Token::new(number, &secret)).hash();
    book.add_token(&device, 0, i64::MAX, made).await.unwrap();

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "edge-001");
    // What it asks for beside its name is not given.
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::OrganizationalUnitName, certs::OBSERVER_UNIT);
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let asked =
        EnrollRequest { device: device.clone(), token: token.unwrap().text().to_owned(), csr: csr.clone() };
    let client = Client { to, certs: &certs, shows: None };
    let (status, body) = client.send("POST", "/v1/enroll", &asked.to_json()).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let enrolled = Enrolled::from_json(&body).unwrap();
    assert_eq!(enrolled.ca, fs::read_to_string(certs.join("ca.pem")).unwrap());
    let der = CertificateDer::from_pem_slice(enrolled.certificate.as_bytes()).unwrap();
    let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!cert.is_ca() && cert.subject().iter_organizational_unit().next().is_none());
    assert!(cert.extended_key_usage().unwrap().unwrap().value.client_auth);

    let shown = keep(&bench.path(), "first", &enrolled, &key);
    let mqtt = crate::harness::Device::connect(bench.mqtt(), &shown, "edge-001").await;
    assert!(mqtt.is_ok(), "the embedded broker takes it");

    let client = Client { shows: Some(shown), ..client };
    let (status, body) = client.send("POST", "/v1/renew", &RenewRequest { csr: csr.clone() }.to_json()).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    assert_ne!(Enrolled::from_json(&body).unwrap().certificate, enrolled.certificate);
    // For its own name only.
    let other = RenewRequest { csr: self::csr("edge-002") }.to_json();
    let (status, body) = client.send("POST", "/v1/renew", &other).await;
    assert_eq!(status, 403);
    assert!(error(&body).contains("is for edge-002, and not for edge-001"), "{}", error(&body));
    assert!(book.block(&device, 1).await.unwrap());
    let (status, body) = client.send("POST", "/v1/renew", &RenewRequest { csr }.to_json()).await;
    assert_eq!((status, error(&body).contains("edge-001 is blocked")), (403, true));
    let metrics = String::from_utf8(bench.get("/metrics").await.1).unwrap();
    for line in ["edgeveil_bridge_enrolled_total 2", "edgeveil_bridge_enroll_refused_total 2"] {
        assert!(metrics.contains(line), "{line}");
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_a_certificate_and_a_guesser_has_to_wait() {
    let bench = Bench::start_with(ENROLL).await;
    let certs = bench.path().join("certs");
    let to = bench.bridge.enroll.unwrap();
    let nobody = Client { to, certs: &certs, shows: None };
    let renew = RenewRequest { csr: csr("anna") }.to_json();
    let (status, body) = nobody.send("POST", "/v1/renew", &renew).await;
    assert!(status == 401 && error(&body).contains("wants the current certificate"));
    let observer = certs::issue(&certs, Kind::Observer, "anna", &[], Replace::Refuse).unwrap();
    let observer = Client { shows: Some(files(&observer)), ..nobody };
    let (status, body) = observer.send("POST", "/v1/renew", &renew).await;
    assert!(status == 403 && error(&body).contains("an observer's certificate"));
    // One that was issued by hand renews as well.
    let device = Client { shows: Some(device_files(&certs, "desk-pi")), ..observer };
    let desk = RenewRequest { csr: csr("desk-pi") }.to_json();
    assert_eq!(device.send("POST", "/v1/renew", &desk).await.0, 200);

    let nobody = Client { shows: None, ..device };
    for (method, path, body, wanted) in [
        ("GET", "/v1/enroll", &b""[..], 405),
        ("POST", "/v1/enroll", b"{}", 400),
        ("POST", "/", b"{}", 404),
        ("POST", "/v1/enroll", &[b'x'; 40_000], 413),
    ] {
        assert_eq!(nobody.send(method, path, body).await.0, wanted, "{method} {path}");
    }
    let guess = |number| {
        let token = Token::new(number, &Secret::random().unwrap()).text().to_owned();
        EnrollRequest { device: "desk-pi".parse().unwrap(), token, csr: csr("desk-pi") }.to_json()
    };
    let mut answers = Vec::new();
    for number in 1..=6 {
        answers.push(nobody.send("POST", "/v1/enroll", &guess(number)).await.0);
    }
    // Six were refused before.
    assert_eq!(answers, [401, 401, 401, 401, 429, 429]);
    let (status, body) = device_waits(&nobody, &desk, &certs).await;
    assert!(status == 429 && error(&body).contains("try again in a minute"));
    bench.close().await;
}

/// It is the address that waits.
async fn device_waits(nobody: &Client<'_>, desk: &[u8], certs: &Path) -> (u16, Vec<u8>) {
    let device = Client { to: nobody.to, certs, shows: Some(device_files(certs, "desk-pi")) };
    device.send("POST", "/v1/renew", desk).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_could_not_sign_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let lonely = certs::development(&dir.path().join("data/certs")).unwrap();
    fs::remove_file(lonely.ca.with_extension("key")).unwrap();
    fs::write(
        dir.path().join("b.toml"),
        format!(
            "data_dir = \"data\"\nbroker.listen = \"127.0.0.1:0\"\nhttp.listen = \"127.0.0.1:0\"\n{ENROLL}\n"
        ),
    )
    .unwrap();
    for command in [&["serve"][..], &["check"], &["enroll", "token", "--device", "pi"]] {
        let arguments = [command, &["--config", "b.toml"]].concat();
        let (code, text) = crate::command::run(dir.path(), &arguments);
        assert_eq!(code, Some(1), "{command:?} {text}");
        assert!(text.contains("enroll.ca") && text.contains("ca.key"), "{text}");
    }
    fs::write(dir.path().join("b.toml"), "data_dir = \"data\"\n").unwrap();
    let (code, text) =
        crate::command::run(dir.path(), &["enroll", "token", "--device", "pi", "--config", "b.toml"]);
    assert!(code == Some(1) && text.contains("set enroll.listen and enroll.host"), "{text}");
}
