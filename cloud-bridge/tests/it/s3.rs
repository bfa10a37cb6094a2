//! Images in buckets of real servers: SeaweedFS, which keeps files, and moto, which plays AWS.

use crate::harness::{Bench, boot, jpeg, until};
use bytes::Bytes;
use edgeveil_bridge::{objects::Objects, settings::Settings, verify};
use edgeveil_wire::Lane;
use object_store::{
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
    signer::Signer,
};
use reqwest::{Client, Method, Response, StatusCode, header};
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

const BUCKET: &str = "images";
const ID: &str = "edgeveil";
const SECRET: &str = "a secret of the tests";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SeaweedFs,
    Moto,
}

/// The server, with its files in a folder. It ends with the test.
struct Server {
    kind: Kind,
    programs: PathBuf,
    folder: TempDir,
    ports: Vec<u16>,
    process: Option<Child>,
}

impl Server {
    /// With the bucket. None where there is none, which is a failure where tests have to run.
    async fn start(kind: Kind) -> Option<Self> {
        // As main() does; another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let programs = std::env::var_os("EDGEVEIL_S3").map(PathBuf::from);
        let cache = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || std::env::home_dir().map(|home| home.join(".cache"));
        let programs = programs.or_else(|| Some(cache().or_else(home)?.join("edgeveil/s3")));
        let programs = programs.filter(|programs| programs.join("version").exists());
        assert!(programs.is_some() || std::env::var_os("CI").is_none(), "no servers: run tests/fetch-s3");
        let sockets: Vec<_> = (0..8).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        drop(sockets);
        let folder = tempfile::tempdir().unwrap();
        let identity = serde_json::json!({"identities": [{"name": ID,
            "credentials": [{"accessKey": ID, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]});
        std::fs::write(folder.path().join("s3.json"), identity.to_string()).unwrap();
        std::fs::write(folder.path().join("id"), format!("{ID}\n")).unwrap();
        std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).unwrap();
        let mut server = Self { kind, programs: programs?, folder, ports, process: None };
        server.go().await;
        until("a bucket", async || {
            let made = match kind {
                Kind::SeaweedFs => server.request(Method::PUT, "", "").await,
                // It asks for no signature.
                Kind::Moto => Client::new().put(format!("{}/{BUCKET}", server.url())).send().await.ok(),
            };
            made.is_some_and(|answer| answer.status().is_success())
        })
        .await;
        Some(server)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    async fn go(&mut self) {
        let dir = self.folder.path();
        let mut command = match self.kind {
            Kind::SeaweedFs => {
                let mut command = Command::new(self.programs.join("weed"));
                let ports = ["s3.port", "s3.port.grpc", "filer.port", "filer.port.grpc", "volume.port"];
                let more = ["volume.port.grpc", "master.port", "master.port.grpc"];
                command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer=true", "-s3=true"]);
                command.args(["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
                command.args(["-volume.max=5", "-master.volumeSizeLimitMB=64"]);
                for (name, port) in ports.iter().chain(&more).zip(&self.ports) {
                    command.arg(format!("-{name}={port}"));
                }
                for socket in ["filer", "s3"] {
                    command.arg(format!("-{socket}.localSocket={}/{socket}.sock", dir.display()));
                }
                std::fs::create_dir_all(dir.join("data")).unwrap();
                command.arg(format!("-dir={}/data", dir.display()));
                command.arg(format!("-s3.config={}/s3.json", dir.display()));
                command
            }
            Kind::Moto => {
                let mut command = Command::new("python3");
                command.args(["-c", "from moto.server import main; main()", "-H", "127.0.0.1"]);
                command.args(["-p", &self.ports[0].to_string()]).env("PYTHONPATH", &self.programs);
                command
            }
        };
        command.env("HOME", dir).current_dir(dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
        let url = self.url();
        until("a server that answers", async || Client::new().get(&url).send().await.is_ok()).await;
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn client(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(self.url())
            .with_allow_http(true)
            .with_bucket_name(BUCKET)
            .with_region("us-east-1")
            .with_access_key_id(ID)
            .with_secret_access_key(SECRET)
            .build()
            .unwrap()
    }

    /// Straight to the server, beside the bridge's own way.
    async fn request(&self, method: Method, key: &str, body: &'static str) -> Option<Response> {
        let lasts = Duration::from_secs(60);
        let url = self.client().signed_url(method.clone(), &Path::from(key), lasts).await.unwrap();
        Client::new().request(method, url).body(body).send().await.ok()
    }

    fn settings(&self, more: &str) -> String {
        let dir = self.folder.path().display();
        format!(
            "[objects.s3]\nbucket = \"{BUCKET}\"\nendpoint = \"{}\"\nallow_http = true\n\
             access_key_id_file = \"{dir}/id\"\nsecret_access_key_file = \"{dir}/secret\"\n{more}\n",
            self.url()
        )
    }

    /// The bucket as the bridge sees it.
    async fn objects(&self, more: &str) -> Objects {
        let settings = Settings::parse("test.toml", &self.settings(more), &|_| None).unwrap();
        Objects::open(&settings.objects).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn no_finding_is_wrong(bench: &Bench) {
    let found = verify::verify(&bench.bridge.catalog, &bench.bridge.objects).await.unwrap();
    assert!(found.iter().all(|finding| !finding.is_wrong() && !finding.is_gap()), "{found:?}");
}

async fn images_are_kept_known_again_shown_and_linked(kind: Kind) {
    let Some(mut server) = Server::start(kind).await else { return };
    let key = "[objects]\nkey = \"site/{year}/{device}-{camera}-{id}.jpg\"\n";
    let plain = format!("{key}{}", server.settings(""));
    let bench = Bench::start_with(&plain).await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let (meta, file) = jpeg("pi", "desk", boot(1), 0);
    // Sent twice, as after a lost acknowledgement; and one whose EXIF names another device.
    pi.say("image/desk", file.clone()).await;
    pi.say("image/desk", file.clone()).await;
    let (foreign, foreign_file) = jpeg("other", "desk", boot(1), 1);
    pi.say("image/desk", foreign_file.clone()).await;
    pi.acks(vec![meta.stamp.id, foreign.stamp.id]).await;
    assert_eq!(bench.count(Lane::Image).await, 1);
    let image = format!("/images/pi/{}", meta.stamp.id);
    let (head, body) = bench.get(&image).await;
    assert!(head.starts_with("HTTP/1.1 200") && body == file, "{head}");
    no_finding_is_wrong(&bench).await;
    let year = meta.stamp.timestamp.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y").to_string();
    let id = meta.stamp.id;
    let mut keys: Vec<_> = bench.bridge.objects.list().await.unwrap();
    keys.sort();
    let dead = format!("dead/pi/{}.jpg", foreign.stamp.id);
    let name = format!("site/{year}/pi-desk-{id}.jpg");
    assert_eq!(keys, [(dead, foreign_file.len() as u64), (name, file.len() as u64)]);

    if kind == Kind::Moto {
        // It forgets all when it ends.
        return;
    }

    // The server dies on the way and comes back.
    server.kill();
    let mut more = Vec::new();
    for seq in 1..6 {
        let (meta, file) = jpeg("pi", "desk", boot(1), seq);
        pi.say("image/desk", file).await;
        more.push(meta.stamp.id);
    }
    until("not ready", async || bench.get("/readyz").await.0.starts_with("HTTP/1.1 503")).await;
    server.go().await;
    pi.acks(more).await;
    no_finding_is_wrong(&bench).await;

    let linked = plain.replace("[objects]\n", "[objects]\nlinks = \"1 min\"\n");
    let bench = Bench::start_in(bench.close().await, &linked).await;
    let (head, _) = bench.get(&image).await;
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().to_owned();
    assert!(head.starts_with("HTTP/1.1 307") && head.contains("private, max-age=30"), "{head}");
    let answer = Client::new().get(&location).send().await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "image/jpeg");
    assert_eq!(answer.bytes().await.unwrap(), file);
    let forged = location.replace("desk", "door");
    assert_eq!(Client::new().get(&forged).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let (head, _) = bench.get(&image.replace("/images/", "/view/")).await;
    assert!(head.contains(&format!("img-src 'self' {}", server.url())), "{head}");
}

#[tokio::test]
async fn images_in_a_bucket_of_seaweedfs() {
    images_are_kept_known_again_shown_and_linked(Kind::SeaweedFs).await;
}

#[tokio::test]
async fn images_in_a_bucket_of_moto() {
    images_are_kept_known_again_shown_and_linked(Kind::Moto).await;
}

#[tokio::test]
async fn a_record_is_written_once_even_where_versions_are_kept() {
    let Some(server) = Server::start(Kind::Moto).await else { return };
    let versioned = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    let url = format!("{}/{BUCKET}?versioning", server.url());
    let answer = Client::new().put(url).body(versioned).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let versions = async || {
        let url = format!("{}/{BUCKET}?versions", server.url());
        let text = Client::new().get(url).send().await.unwrap().text().await.unwrap();
        text.matches("<Version>").count()
    };
    let objects = server.objects("").await;
    let bytes = Bytes::from_static(b"a picture");
    for _ in 0..3 {
        objects.create("pi/1.jpg", bytes.clone()).await.unwrap();
    }
    assert_eq!(versions().await, 1);
    // Something else under its name: the record is not lost, and that is one version more.
    objects.create("pi/1.jpg", Bytes::from_static(b"another picture")).await.unwrap();
    assert_eq!((versions().await, objects.get("pi/1.jpg").await.unwrap().len()), (2, 15));
    let unconditional = server.objects("conditional_put = false").await;
    unconditional.create("pi/1.jpg", bytes.clone()).await.unwrap();
    unconditional.put("pi/1.jpg", bytes).await.unwrap();
    assert_eq!(versions().await, 4);
}

#[tokio::test]
async fn objects_are_encrypted_and_stored_as_is_set() {
    let Some(server) = Server::start(Kind::Moto).await else { return };
    for (more, encryption, key, class) in [
        ("", None, None, None),
        (
            "encryption = \"AES256\"\nstorage_class = \"STANDARD_IA\"",
            Some("AES256"),
            None,
            Some("STANDARD_IA"),
        ),
        ("encryption = \"aws:kms\"\nkms_key_id = \"a-key\"", Some("aws:kms"), Some("a-key"), None),
    ] {
        let objects = server.objects(more).await;
        for put in [true, false] {
            let bytes = Bytes::from_static(b"{}");
            let key_of_object = format!("dead/pi/{}.json", more.len());
            if put {
                objects.put(&key_of_object, bytes).await.unwrap();
            } else {
                objects.delete(&key_of_object).await.unwrap();
                objects.create(&key_of_object, bytes).await.unwrap();
            }
            let answer = server.request(Method::GET, &key_of_object, "").await.unwrap();
            let has = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(has("content-type").as_deref(), Some("application/json"));
            assert_eq!(has("x-amz-server-side-encryption").as_deref(), encryption, "{more}");
            assert_eq!(has("x-amz-server-side-encryption-aws-kms-key-id").as_deref(), key, "{more}");
            assert_eq!(has("x-amz-storage-class").as_deref(), class, "{more}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_bucket_is_said_with_its_remedy() {
    let Some(server) = Server::start(Kind::SeaweedFs).await else { return };
    let wrong = |from: &str, to: &str| {
        Settings::parse("test.toml", &server.settings("").replace(from, to), &|_| None)
    };
    let answer = async |settings: Settings| {
        Objects::open(&settings.objects).await.unwrap().answers().await.unwrap_err().to_string()
    };
    let text = answer(wrong("\"images\"", "\"none\"").unwrap()).await;
    assert_eq!(text, "bucket none: there is no such bucket; make it, or set objects.s3.bucket");
    std::fs::write(server.folder.path().join("other"), "wrong").unwrap();
    for file in ["/secret\"", "/id\""] {
        let text = answer(wrong(file, "/other\"").unwrap()).await;
        assert!(text.starts_with("bucket images: access denied; check the keys"), "{text}");
    }
}
