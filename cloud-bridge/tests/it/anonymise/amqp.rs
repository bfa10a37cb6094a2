//! A foreign queue in a real RabbitMQ, by TLS and without: messages name pictures in one bucket, veiled ones come into another.

use super::{PATIENCE, Worker, objects, patiently, pictures, section};

use base64::{Engine, prelude::BASE64_STANDARD};
use edgeveil_bridge::certs::{self, Kind, Replace};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The programs themselves, not Debian's wrappers around them, which change the user.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";
const PASSWORD: &str = "a password/with@signs";

/// One node and its own port mapper. Both end with the test.
struct Rabbit {
    dir: tempfile::TempDir,
    port: u16,
    plain: u16,
    children: Vec<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Rabbit {
    /// None where there is no RabbitMQ, which is a failure where tests have to run.
    async fn start() -> Option<Self> {
        let there = Path::new(PROGRAMS).join("rabbitmq-server").exists();
        assert!(there || std::env::var_os("CI").is_none(), "no RabbitMQ in {PROGRAMS}");
        if !there {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (port, plain) = (free_port(), free_port());
        let (mapper, distribution) = (free_port().to_string(), free_port().to_string());
        let path = |name: &str| dir.path().join(name);
        certs::init(&path("certs"), Replace::Refuse).unwrap();
        let issued = certs::issue(&path("certs"), Kind::Broker, "localhost", &[], Replace::Refuse).unwrap();
        // RabbitMQ's own form: a salt of four bytes, and SHA-256 of it and the password.
        let salted = [&b"salt"[..], PASSWORD.as_bytes()].concat();
        let hash = BASE64_STANDARD.encode([&b"salt"[..], &Sha256::digest(salted)[..]].concat());
        let definitions = format!(
            r#"{{"vhosts":[{{"name":"/"}}],"users":[{{"name":"edgeveil","password_hash":"{hash}","hashing_algorithm":"rabbit_password_hashing_sha256","tags":[]}}],
                "permissions":[{{"user":"edgeveil","vhost":"/","configure":".*","write":".*","read":".*"}}]}}"#
        );
        fs::write(path("definitions.json"), definitions).unwrap();
        fs::write(path("plugins"), "[].\n").unwrap();
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{plain}\nlisteners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_none\nload_definitions = {}\nlog.console = true\nlog.file = false\n\
             disk_free_limit.absolute = 50MB\n",
            issued.ca.display(),
            issued.cert.display(),
            issued.key.display(),
            path("definitions.json").display()
        );
        fs::write(path("rabbitmq.conf"), config).unwrap();
        let log = fs::File::create(path("output")).unwrap();
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &mapper]);
        let mut server = Command::new(Path::new(PROGRAMS).join("rabbitmq-server"));
        server
            .env("HOME", dir.path())
            .env("ERL_EPMD_PORT", &mapper)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", "pictures@localhost")
            .env("RABBITMQ_DIST_PORT", distribution)
            .env("RABBITMQ_CONF_ENV_FILE", path("none"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", path("generated"))
            .env("RABBITMQ_FEATURE_FLAGS_FILE", path("feature_flags"))
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", path("pid"))
            // The script is replaced by the Erlang machine, so that a signal to the child is one to the node.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            );
        let mut children = Vec::new();
        for mut command in [epmd, server] {
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
            children.push(command.spawn().unwrap());
        }
        let mut rabbit = Self { dir, port, plain, children };
        let up = async {
            while rabbit.connect().await.is_err() {
                let node = &mut rabbit.children[1];
                assert!(node.try_wait().unwrap().is_none(), "RabbitMQ has ended");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, up).await.is_ok(), "RabbitMQ never came up");
        Some(rabbit)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn connect(&self) -> lapin::Result<Connection> {
        let uri = format!("amqp://edgeveil:a%20password%2Fwith%40signs@localhost:{}/%2f", self.plain);
        Connection::connect(&uri, ConnectionProperties::default()).await
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        // The node before what it is registered at.
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.path("output")).unwrap_or_default());
        }
    }
}

/// Messages that wait, without those that a consumer has.
async fn waiting(channel: &Channel, queue: &str) -> u32 {
    let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), look, FieldTable::default()).await.unwrap().message_count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_queue_is_worked_on_and_acknowledged_afterwards() {
    let Some(rabbit) = Rabbit::start().await else { return };
    let connection = rabbit.connect().await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    // The queue is its sender's, who has made it.
    let options = QueueDeclareOptions::durable();
    channel.queue_declare("images".into(), options, FieldTable::default()).await.unwrap();
    let publish = async |text: String| {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let to = ("".into(), "images".into());
        let sent =
            channel.basic_publish(to.0, to.1, BasicPublishOptions::default(), text.as_bytes(), properties);
        sent.await.unwrap().await.unwrap();
    };
    let (infiles, outfiles) = (rabbit.path("infiles"), rabbit.path("outfiles"));
    fs::create_dir_all(infiles.join("yard")).unwrap();
    fs::write(rabbit.path("password"), format!("{PASSWORD}\n")).unwrap();
    let by_tls = format!("port = {}\nca = {:?}\n", rabbit.port, rabbit.path("certs/ca.pem"));
    let settings = format!(
        "data_dir = {:?}\n{}[anonymise.amqp]\nhost = \"localhost\"\n{by_tls}password_file = {:?}\n\
         dead_letter = \"images.dead\"\n[anonymise.amqp.input]\nfolder = {infiles:?}\n[anonymise.amqp.output]\nfolder = {outfiles:?}\n",
        rabbit.path("data"),
        section("[anonymise]\n"),
        rabbit.path("password"),
    );
    let mut wanted = BTreeSet::new();
    for number in 0..6_u8 {
        let name = format!("photo {number}.jpg");
        fs::write(infiles.join("yard").join(&name), pictures::jpeg(&pictures::photo(number))).unwrap();
        let message =
            format!(r#"{{"id":{number},"name":"yard/{name}","storage_location":"infiles/yard/{name}"}}"#);
        publish(message).await;
        wanted.insert(name);
    }
    fs::write(infiles.join("broken.jpg"), &pictures::small(1)[..300]).unwrap();
    for poison in [
        "no JSON",
        r#"{"id":"a","name":"nowhere.jpg","storage_location":"x"}"#,
        r#"{"id":"b","name":"../password","storage_location":"x"}"#,
        r#"{"id":"c","name":"broken.jpg","storage_location":"x"}"#,
    ] {
        publish(poison.to_owned()).await;
    }
    // Killed at a message: the broker gives it to the next one.
    let worker = Worker::start(rabbit.dir.path(), &settings);
    patiently("a first result", async || !objects(&outfiles).is_empty()).await;
    worker.kill();
    let plain = settings.replace(&by_tls, &format!("port = {}\nallow_plain = true\n", rabbit.plain));
    let worker = Worker::start(rabbit.dir.path(), &plain);
    let all = async || objects(&outfiles) == wanted && waiting(&channel, "images").await == 0;
    patiently("all results", all).await;
    patiently("dead letters", async || waiting(&channel, "images.dead").await == 4).await;
    worker.stop();
    // Whoever ends with a message in hand gives it back: so all of them were acknowledged.
    assert_eq!(waiting(&channel, "images").await, 0);
    for number in 0..6_u8 {
        let result = fs::read(outfiles.join(format!("yard/photo {number}.jpg"))).unwrap();
        pictures::assert_veiled(&pictures::photo(number), &result);
    }
    // A raw picture is its sender's: nobody here removes it.
    assert_eq!(objects(&infiles).len(), 7);
    for reason in ["no valid message", "no such picture", "cannot be that of an object", "corrupt picture"] {
        let letter = channel.basic_get("images.dead".into(), BasicGetOptions { no_ack: true }).await.unwrap();
        let letter = letter.expect("a dead letter");
        let headers = letter.properties.headers().as_ref().unwrap().inner();
        let AMQPValue::LongString(told) = &headers["x-edgeveil-reason"] else { panic!("{headers:?}") };
        let told = String::from_utf8_lossy(told.as_bytes());
        assert!(told.contains(reason), "{reason} in {told}");
    }
}
