//! The catalog in a real PostgreSQL, which each test starts for itself: alone, shared by replicas, killed, and refusing.

use crate::harness::{Bench, PATIENCE, alert, boot, jpeg, reading, until};
use edgeveil_bridge::{
    catalog::{Batch, Catalog, Content, Outbox, Record},
    certs::{self, Kind, Replace},
    check, forward,
    settings::Settings,
    verify,
};
use edgeveil_wire::{Event, EventKind, Lane, Stamp};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;

/// Debian's, or whichever is newest there.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<_> = versions.flatten().map(|version| version.path().join("bin")).collect();
    found.retain(|bin| bin.join("initdb").exists() && bin.join("postgres").exists());
    found.sort();
    found.pop()
}

/// A server with everything in a temporary folder. It ends with the test.
pub struct Server {
    dir: tempfile::TempDir,
    port: u16,
    bin: PathBuf,
    process: Option<Child>,
}

/// It refuses to run as root.
const NOBODY: u32 = 65_534;

impl Server {
    /// None where there is no PostgreSQL, which is a failure where tests have to run.
    pub async fn start() -> Option<Self> {
        let bin = programs();
        assert!(bin.is_some() || std::env::var_os("CI").is_none(), "no PostgreSQL below /usr/lib/postgresql");
        let bin = bin?;
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { dir, port, bin, process: None };
        certs::init(&server.certs(), Replace::Refuse).unwrap();
        let issued = certs::issue(&server.certs(), Kind::Broker, "localhost", &[], Replace::Refuse).unwrap();
        fs::copy(&issued.cert, server.path("cert.pem")).unwrap();
        fs::copy(&issued.key, server.path("key.pem")).unwrap();
        fs::write(server.path("password"), "with a space and 'quotes'\n").unwrap();
        if rustix::process::geteuid().is_root() {
            for file in [".", "cert.pem", "key.pem", "password"] {
                chown(server.path(file), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let made = server
            .command("initdb")
            .args([
                "--no-sync",
                "-U",
                "edgeveil",
                "-A",
                "scram-sha-256",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--pwfile",
            ])
            .arg(server.path("password"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.go().await;
        let mut admin = server.connect("postgres").await.unwrap();
        sqlx::query("CREATE DATABASE edgeveil").execute(&mut admin).await.unwrap();
        Some(server)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn certs(&self) -> PathBuf {
        self.path("certs")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.arg("-D").arg(self.path("data")).current_dir(self.dir.path());
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Starts it, for the first time or again.
    async fn go(&mut self) {
        let up = async {
            loop {
                // After a kill it gives up as long as the children of the one before have not seen that it is gone.
                if self.process.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some()) {
                    self.process = Some(self.spawn());
                }
                if self.connect("postgres").await.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, up).await.is_ok(), "PostgreSQL never came up");
    }

    fn spawn(&self) -> Child {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.command("postgres");
        command.args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"]).arg(self.dir.path());
        command
            .args(["-c", "ssl=on", "-c"])
            .arg(format!("ssl_cert_file={}", self.path("cert.pem").display()));
        command.arg("-c").arg(format!("ssl_key_file={}", self.path("key.pem").display()));
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// SIGKILL for all of it: the children see that their parent is gone.
    fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub async fn connect(&self, database: &str) -> sqlx::Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("localhost")
            .port(self.port)
            .username("edgeveil")
            .password("with a space and 'quotes'")
            .database(database);
        PgConnection::connect_with(&options).await
    }

    /// The bridge's settings.
    pub fn settings(&self) -> String {
        format!(
            "[catalog.postgres]\nhost = \"localhost\"\nport = {}\npassword_file = {:?}\nca = {:?}\n",
            self.port,
            self.path("password"),
            self.certs().join("ca.pem")
        )
    }

    async fn catalog(&self) -> Catalog {
        Catalog::open(&parsed(&self.settings()).catalog).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}

fn parsed(text: &str) -> Settings {
    Settings::parse("test.toml", text, &|_| None).unwrap()
}

#[tokio::test]
async fn everything_that_devices_send_is_kept_known_again_shown_and_verified() {
    let Some(server) = Server::start().await else { return };
    let mut bench = Bench::start_with(&server.settings()).await;
    let (meta, file) = jpeg("pi", "door", boot(1), 0);
    let (first, second) = (reading(boot(1), 0), alert(boot(1), 0));
    // A text with a NUL, which PostgreSQL does not take as it is.
    let event = Event {
        stamp: Stamp {
            id: edgeveil_wire::RecordId::new(boot(1), Lane::Status, 0),
            ..crate::harness::stamp(boot(1), Lane::Status, 0)
        },
        event: EventKind::Started,
        subject: Some("a\0b".to_owned()),
        detail: "c\0d".to_owned(),
    };
    for round in 0..2 {
        let mut pi = bench.device("pi").await;
        pi.listen().await;
        pi.say("reading/env", first.to_json()).await;
        pi.say("alert/env", second.to_json()).await;
        pi.say("event", event.to_json()).await;
        pi.say("image/door", file.clone()).await;
        pi.acks(vec![first.stamp.id, second.stamp.id, event.stamp.id, meta.stamp.id]).await;
        pi.say("reading/env", &b"no JSON"[..]).await;
        until("a dead letter", async || bench.bridge.catalog.dead_letters(9).await.unwrap().len() > round)
            .await;
        for lane in Lane::ALL {
            assert_eq!(bench.count(lane).await, 1, "{lane}, round {round}");
        }
        let (head, _) = bench.get(&format!("/images/pi/{}", meta.stamp.id)).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let (head, page) = bench.get("/").await;
        assert!(
            head.starts_with("HTTP/1.1 200") && String::from_utf8(page).unwrap().contains("pi"),
            "{head}"
        );
        let found = verify::verify(&bench.bridge.catalog, &bench.bridge.objects).await.unwrap();
        assert!(found.iter().all(|finding| !finding.is_wrong() && !finding.is_gap()), "{found:?}");
        bench = bench.restart().await;
    }
    let dir = bench.close().await;
    assert!(!dir.path().join("data/catalog.sqlite").exists());
}

#[tokio::test]
async fn a_server_that_is_killed_holds_up_and_loses_nothing() {
    let Some(mut server) = Server::start().await else { return };
    let bench = Bench::start_with(&server.settings()).await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let mut ids = Vec::new();
    for seq in 0..600 {
        let record = reading(boot(1), seq);
        pi.say("reading/env", record.to_json()).await;
        ids.push(record.stamp.id);
        if seq == 200 {
            server.kill();
        }
        if seq == 400 {
            server.go().await;
        }
    }
    pi.acks(ids).await;
    assert_eq!(bench.count(Lane::Reading).await, 600);
    until("ready again", async || bench.get("/readyz").await.0.starts_with("HTTP/1.1 200")).await;
    let found = verify::verify(&bench.bridge.catalog, &bench.bridge.objects).await.unwrap();
    assert!(found.iter().all(|finding| !finding.is_wrong() && !finding.is_gap()), "{found:?}");
}

fn alerts(device: &str, from: u64, to: u64) -> Batch {
    let record = |seq| Record {
        device: device.parse().unwrap(),
        content: Content::Alert("env".parse().unwrap(), alert(boot(1), seq)),
    };
    Batch { records: (from..to).map(record).collect(), targets: vec![forward::AWS], ..Batch::default() }
}

/// What was sent, in the order in which it was: device and number of each row.
type Sent = Arc<Mutex<Vec<(String, i64)>>>;

/// Drains as a forwarder does, until told to end, or after so many rows without marking its last ones.
async fn drain(
    catalog: Catalog,
    sent: Sent,
    dies_after: Option<usize>,
    mut end: watch::Receiver<bool>,
) -> usize {
    let outbox = Outbox::new(catalog, forward::AWS, watch::channel(()).1);
    let mut mine = 0;
    loop {
        // Asked before the look, or rows that came between the two would be left.
        let last = *end.borrow_and_update();
        let rows = outbox.take(20).await.unwrap();
        if rows.is_empty() {
            if last {
                return mine;
            }
            tokio::task::yield_now().await;
            continue;
        }
        for row in &rows {
            sent.lock().unwrap().push((row.device.clone(), row.number));
            mine += 1;
            if dies_after == Some(mine) {
                return mine;
            }
            // The other ones have their turn between the rows.
            tokio::task::yield_now().await;
        }
        outbox.done(&rows.iter().map(|row| row.number).collect::<Vec<_>>(), 1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_share_the_outbox_without_doubles_and_in_order() {
    const DEVICES: usize = 12;
    const ALERTS: u64 = 60;
    let Some(server) = Server::start().await else { return };
    let catalogs = [server.catalog().await, server.catalog().await];
    let sent = Sent::default();
    let (done, end) = watch::channel(false);
    let drains: Vec<_> = catalogs
        .iter()
        .map(|catalog| tokio::spawn(drain(catalog.clone(), sent.clone(), None, end.clone())))
        .collect();
    // Every device's alerts come by both replicas in turn.
    for from in (0..ALERTS).step_by(10) {
        let catalog = &catalogs[(from / 10 % 2) as usize];
        let batches: Vec<_> = (0..DEVICES).map(|n| alerts(&format!("pi-{n}"), from, from + 10)).collect();
        let commits = batches.iter().map(|batch| catalog.commit(batch));
        for fresh in join(commits).await {
            assert!(fresh.unwrap().iter().all(|fresh| *fresh));
        }
    }
    done.send(true).unwrap();
    let mut shares = Vec::new();
    for drain in drains {
        shares.push(drain.await.unwrap());
    }
    let sent = sent.lock().unwrap().clone();
    assert_eq!(sent.len(), DEVICES * ALERTS as usize, "each once; shares {shares:?}");
    assert_eq!(sent.iter().map(|(_, number)| number).collect::<BTreeSet<_>>().len(), sent.len());
    in_order(&sent);
    let count = catalogs[0].outbox_counts().await.unwrap().remove(0);
    assert_eq!((count.open, count.done), (0, (DEVICES as u64 * ALERTS) as i64));
}

async fn join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all = Vec::new();
    for future in futures {
        all.push(future.await);
    }
    all
}

/// The numbers of each device only rise.
fn in_order(sent: &[(String, i64)]) {
    let mut last = BTreeMap::new();
    for (device, number) in sent {
        let before = last.insert(device, number);
        assert!(before < Some(number), "{device}: {number} after {before:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_dead_replica_had_in_its_hands_goes_by_another_one() {
    let Some(server) = Server::start().await else { return };
    let catalogs = [server.catalog().await, server.catalog().await];
    for device in ["a", "b", "c"] {
        catalogs[0].commit(&alerts(device, 0, 30)).await.unwrap();
    }
    let (sent, after) = (Sent::default(), Sent::default());
    let (_done, end) = watch::channel(true);
    assert_eq!(drain(catalogs[0].clone(), sent.clone(), Some(25), end.clone()).await, 25);
    // The server has to see that its connection has ended.
    until("locks let go", async || {
        let mut admin = server.connect("edgeveil").await.unwrap();
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut admin).await.unwrap() == 0
    })
    .await;
    let rest = drain(catalogs[1].clone(), after.clone(), None, end).await;
    // Twenty were marked, five were sent and not marked: these go again.
    assert_eq!(rest, 90 - 20);
    in_order(&after.lock().unwrap());
    let all: BTreeSet<_> = sent.lock().unwrap().iter().chain(after.lock().unwrap().iter()).cloned().collect();
    assert_eq!(all.len(), 90);
}

#[tokio::test]
async fn a_forwarder_that_loses_its_hold_is_told_before_it_marks() {
    let Some(server) = Server::start().await else { return };
    let catalog = server.catalog().await;
    catalog.commit(&alerts("pi", 0, 3)).await.unwrap();
    let outbox = Outbox::new(catalog.clone(), forward::AWS, watch::channel(()).1);
    let rows = outbox.take(10).await.unwrap();
    assert_eq!(rows.len(), 3);
    assert!(outbox.take(10).await.unwrap().is_empty(), "they are taken");
    let mut admin = server.connect("edgeveil").await.unwrap();
    let ended = sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    assert!(ended.rows_affected() > 0);
    let error = outbox.done(&[rows[0].number], 1).await.unwrap_err();
    assert!(error.to_string().contains("marking outbox rows done"), "{error}");
    outbox.give_back(&[]).await.unwrap();
    assert_eq!(outbox.take(10).await.unwrap().len(), 3, "again, from the first one");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_remedy() {
    let Some(server) = Server::start().await else { return };
    let good = server.settings();
    let open = async |text: &str| Catalog::open(&parsed(text).catalog).await.unwrap_err().to_string();
    fs::write(server.path("wrong"), "guess").unwrap();
    let cases = [
        (good.replace("/password\"", "/wrong\""), "password_file"),
        (good.replace("/password\"", "/nowhere\""), "nowhere"),
        (format!("{good}database = \"other\"\n"), "CREATE DATABASE"),
        (good.replace(&server.port.to_string(), "1"), "mend catalog.postgres.host and port"),
        (
            good.lines().filter(|line| !line.starts_with("ca ")).collect::<Vec<_>>().join("\n"),
            "catalog.postgres.ca",
        ),
    ];
    for (text, remedy) in cases {
        let said = open(&text).await;
        assert!(said.contains(remedy) && said.contains("postgres://localhost"), "{remedy}: {said}");
        assert!(!said.contains("quotes"), "the password: {said}");
    }
    let settings = parsed(&good);
    let none = Catalog::open_read_only(&settings.catalog).await.unwrap_err().to_string();
    assert!(none.contains("edgeveil-bridge migrate"), "{none}");
    let mut with_folder = settings.clone();
    with_folder.data_dir = server.path("bridge");
    with_folder.objects = edgeveil_bridge::settings::ObjectSettings::Folder(server.path("bridge/objects"));
    check::check(&with_folder).await.unwrap();
    let none = Catalog::open_read_only(&settings.catalog).await.unwrap_err().to_string();
    assert!(none.contains("there is none"), "check makes nothing: {none}");
    let mut admin = server.connect("edgeveil").await.unwrap();
    sqlx::query("ALTER ROLE edgeveil SET synchronous_commit = off").execute(&mut admin).await.unwrap();
    assert!(open(&good).await.contains("synchronous_commit is off"));
    sqlx::query("ALTER ROLE edgeveil RESET synchronous_commit").execute(&mut admin).await.unwrap();
    Catalog::open(&settings.catalog).await.unwrap();
    Catalog::open_read_only(&settings.catalog).await.unwrap();
}

#[tokio::test]
async fn both_databases_have_the_same_tables() {
    let Some(server) = Server::start().await else { return };
    server.catalog().await;
    let mut postgres = server.connect("edgeveil").await.unwrap();
    let columns: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT table_name::text, column_name::text, is_nullable = 'YES' FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%'",
    )
    .fetch_all(&mut postgres)
    .await
    .unwrap();
    let file = server.path("catalog.sqlite");
    Catalog::open(&parsed(&format!("catalog.file = {file:?}")).catalog).await.unwrap();
    assert_eq!(columns.into_iter().collect::<BTreeSet<_>>(), sqlite_columns(&file).await);
}

async fn sqlite_columns(file: &Path) -> BTreeSet<(String, String, bool)> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut sqlite = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let columns: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT m.name, c.name, c.\"notnull\" = 0 AND c.pk = 0 FROM sqlite_master m, pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )
    .fetch_all(&mut sqlite)
    .await
    .unwrap();
    columns.into_iter().collect()
}

#[tokio::test]
async fn retention_and_replay_are_the_same_here() {
    let Some(server) = Server::start().await else { return };
    let bench = Bench::start_with(&server.settings()).await;
    crate::retention::expires_with_its_objects_and_stays_accounted_for(&bench).await;
    let Some(server) = Server::start().await else { return };
    let bench = Bench::start_with(&server.settings()).await;
    crate::retention::alerts_go_again(&bench).await;
}
