//! A device gets its certificate from the bridge and renews it, while a mosquitto of somebody else's carries its records.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{
    Lab, Mosquitto, PATIENT, Process, Watcher, free_port, program, run, stderr, verified, wait_for,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SENSOR: &str = "[[sensor]]\ngroup = \"env\"\nsource = { simulate = {} }\nrate = 100\n";

/// A mosquitto, a bridge behind it that signs, and a device.
struct Site {
    lab: Lab,
    broker: Mosquitto,
    bridge: Option<Process>,
    enroll: u16,
}

impl Site {
    /// Certificates last so long.
    fn new(lifetime: &str) -> Self {
        let lab = Lab::new(&[]);
        let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
        let enroll = free_port();
        let more = format!(
            "[enroll]\nlisten = \"127.0.0.1:{enroll}\"\nhost = \"localhost\"\nca = \"{}\"\nlifetime = \"{lifetime}\"\n",
            lab.path("registrar").display()
        );
        // A folder of its own for the CA, so that it can be exchanged.
        fs::create_dir(lab.path("registrar")).unwrap();
        for file in ["ca.pem", "ca.key"] {
            fs::copy(lab.path("certs").join(file), lab.path("registrar").join(file)).unwrap();
        }
        let settings = lab.bridge_settings_external(broker.port, &more);
        let mut site = Self { lab, broker, bridge: None, enroll };
        site.start_bridge(&settings);
        site
    }

    fn start_bridge(&mut self, settings: &str) {
        let mut bridge = self.lab.bridge("bridge", settings);
        wait_for("the registrar", || {
            bridge.assert_running();
            std::net::TcpStream::connect(("127.0.0.1", self.enroll)).ok()
        });
        self.bridge = Some(bridge);
    }

    fn restart_bridge(&mut self) {
        assert!(self.bridge.take().unwrap().stop().success());
        let settings = fs::read_to_string(self.lab.path("bridge.toml")).unwrap();
        self.start_bridge(&settings);
    }

    /// `edgeveil-bridge enroll ..`
    fn bridge_says(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(program("edgeveil-bridge"));
        verified(command.arg("enroll").args(arguments).arg("--config").arg(self.lab.path("bridge.toml")))
    }

    /// The command that a person would copy to the device: its arguments.
    fn token(&self, arguments: &[&str]) -> Vec<String> {
        let said = self.bridge_says(&[&["token"], arguments].concat());
        let line = said.lines().find(|line| line.starts_with("edgeveil-agent enroll ")).unwrap();
        line.split(' ').skip(1).map(str::to_owned).collect()
    }

    /// Runs it on the device.
    fn enroll(&self, command: &[String], device: &str) -> Output {
        let config = self.lab.write(&format!("{device}.toml"), self.settings(device, ""));
        run(Command::new(program("edgeveil-agent")).args(command).arg("--config").arg(config))
    }

    fn settings(&self, device: &str, more: &str) -> String {
        format!(
            "[device]\ndata_dir = \"{}\"\n[link]\nhost = \"localhost\"\nport = {}\n{more}",
            self.lab.path(&format!("agent-{device}")).display(),
            self.broker.port
        )
    }

    fn identity(&self, device: &str) -> PathBuf {
        self.lab.path(&format!("agent-{device}/identity"))
    }

    /// Nothing was lost: stops the device, sends what it still has, and counts by boot and seq.
    fn account(self, agent: Process, device: &str) {
        assert!(agent.stop().success());
        let mut drain = self.lab.agent("drain", &self.settings(device, PATIENT));
        let watcher = Watcher::start(&self.lab, self.broker.port, &[&format!("edgeveil/{device}/health")]);
        wait_for("an empty spool", || {
            drain.assert_running();
            let (_, health) = watcher.seen().pop()?;
            let health: serde_json::Value = serde_json::from_str(&health).unwrap();
            health["spool"].as_object()?.values().all(|lane| lane["records"] == 0).then_some(())
        });
        assert!(drain.stop().success());
        assert!(self.bridge.unwrap().stop().success());
        println!("{}", self.lab.oracle(&[]));
        println!("{}", self.lab.verify());
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(output)
}

fn refused(output: &Output, wanted: &str) {
    let said = said(output);
    assert!(!output.status.success() && said.contains(wanted), "{wanted} in\n{said}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_token_is_good_once_for_its_name_in_its_time_and_at_its_bridge() {
    let site = Site::new("90 d");
    let command = site.token(&["--device", "edge-001"]);
    let with = |flag: &str, value: &str| {
        let at = command.iter().position(|word| word == flag).unwrap() + 1;
        let mut changed = command.clone();
        changed[at] = value.to_owned();
        changed
    };
    // Another name than the token's.
    refused(&site.enroll(&with("--device", "edge-002"), "edge-002"), "is for edge-001");
    // Somebody who answers in the bridge's place has another CA.
    site.lab.certs_elsewhere("elsewhere");
    let other = verified(
        Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(site.lab.path("elsewhere/ca.pem")),
    );
    let other = format!("sha256:{}", other.trim().split_once('=').unwrap().1);
    refused(&site.enroll(&with("--ca", &other), "edge-001"), "is of another CA than the one given");
    // A guess.
    let token = &command[command.iter().position(|word| word == "--token").unwrap() + 1];
    let guess: String = token.chars().rev().collect::<String>();
    let guess = format!("{}-{}", token.split_once('-').unwrap().0, guess.rsplit_once('-').unwrap().0);
    refused(&site.enroll(&with("--token", &guess), "edge-001"), "this token is not known here");
    let identity = site.identity("edge-001");
    assert!(!identity.join("current").exists());

    // None of that has used it up. The fingerprint is openssl's of the CA.
    let ours = verified(
        Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(site.lab.path("certs/ca.pem")),
    );
    let ours = format!("sha256:{}", ours.trim().split_once('=').unwrap().1);
    let done = site.enroll(&with("--ca", &ours), "edge-001");
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!((mode(&identity), mode(&identity.join("current/key.pem"))), (0o700, 0o600));
    let key = fs::read(identity.join("current/key.pem")).unwrap();

    // Again on the same device: nothing happens, and no token is needed.
    let again = site.enroll(&command, "edge-001");
    assert!(again.status.success() && said(&again).contains("enrolled already"), "{}", said(&again));
    assert_eq!(fs::read(identity.join("current/key.pem")).unwrap(), key);
    // With the same token from elsewhere: no.
    fs::rename(&identity, site.lab.path("aside")).unwrap();
    refused(&site.enroll(&command, "edge-001"), "has been used, from 127.0.0.1");
    // The answer was lost, or the power went before it was in place: the key is there, and gets the same certificate.
    let issued = fs::read(site.lab.path("aside/current/cert.pem")).unwrap();
    fs::remove_dir_all(&identity).unwrap();
    fs::create_dir(&identity).unwrap();
    fs::write(identity.join("waiting.key"), &key).unwrap();
    let again = site.enroll(&command, "edge-001");
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(fs::read(identity.join("current/cert.pem")).unwrap(), issued);

    // Expired, revoked, blocked.
    let short = site.token(&["--device", "edge-002", "--for", "1 ms"]);
    refused(&site.enroll(&short, "edge-002"), "has expired");
    let revoked = site.token(&["--device", "edge-002"]);
    site.bridge_says(&["revoke", "3"]);
    refused(&site.enroll(&revoked, "edge-002"), "token 3 has been revoked");
    let blocked = site.token(&["--device", "edge-002"]);
    site.bridge_says(&["block", "edge-002"]);
    refused(&site.enroll(&blocked, "edge-002"), "edge-002 is blocked");
    let list = site.bridge_says(&["list"]);
    println!("{list}");
    for line in ["1      edge-001", "3      edge-002", "blocked: edge-002"] {
        assert!(list.contains(line), "{line} in\n{list}");
    }

    // No secret is in a log, a book, or a list.
    let secret = token.split_once('-').unwrap().1;
    let log = site.bridge.as_ref().unwrap().log();
    assert!(log.contains("enrolled device=edge-001") && log.contains("no certificate"), "{log}");
    assert!(!log.contains(secret) && !list.contains(secret), "{log}");
    let book = fs::read(site.lab.path("bridge/enroll.sqlite")).unwrap();
    assert!(!book.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));

    // Settings that name files of their own.
    let config =
        site.lab.write("own.toml", site.settings("edge-003", "ca = \"c\"\ncert = \"c\"\nkey = \"k\"\n"));
    let own = run(Command::new(program("edgeveil-agent")).args(&command).arg("--config").arg(config));
    refused(&own, "take link.ca, link.cert and link.key out of it");
}

/// Certificates of a minute, renewed after a third of it, while a hundred readings a second go over the wire.
#[test]
fn records_flow_over_rotations_and_none_is_lost() {
    rotate("");
}

#[test]
fn records_flow_over_rotations_with_mqtt_3_1_1() {
    rotate("mqtt_version = \"3.1.1\"\n");
}

fn rotate(link: &str) {
    let site = Site::new("60 s");
    let device = "edge-001";
    let done = site.enroll(&site.token(&["--device", device]), device);
    assert!(done.status.success(), "{}", said(&done));
    let cert = site.identity(device).join("current/cert.pem");
    let key = site.identity(device).join("current/key.pem");
    let read = |path: &Path| fs::read_to_string(path).ok();
    let settings = site.settings(device, &format!("{link}{PATIENT}{SENSOR}[renew]\nafter = 0.3\n"));
    let mut agent = site.lab.agent("agent", &settings);
    let watcher = Watcher::start(
        &site.lab,
        site.broker.port,
        &["edgeveil/edge-001/status", "edgeveil/edge-001/reading/env"],
    );
    let mut seen = vec![(read(&cert).unwrap(), read(&key).unwrap())];
    for rotation in 1..=3 {
        wait_for(&format!("rotation {rotation}"), || {
            agent.assert_running();
            let pair = (read(&cert)?, read(&key)?);
            let new = !seen.iter().any(|(cert, key)| *cert == pair.0 || *key == pair.1);
            new.then(|| seen.push(pair))
        });
        let before = watcher.seen().len();
        wait_for("readings with the new one", || {
            agent.assert_running();
            (watcher.seen().len() > before + 200).then_some(())
        });
    }
    let log = agent.log();
    assert!(log.matches("connected with the new certificate").count() >= 3, "{log}");
    // Neither the last will nor a problem was told of.
    let told: Vec<_> = watcher.seen().into_iter().filter(|(topic, _)| topic.ends_with("/status")).collect();
    assert!(
        !told.iter().any(|(_, status)| status.contains("\"offline\"") || status.contains("renewal")),
        "{told:?}"
    );
    assert!(!site.identity(device).join("next").exists());
    let list = site.bridge_says(&["list"]);
    assert!(list.contains("renewal of "), "{list}");
    site.account(agent, device);
}

/// The registrar signs with a new CA already, which the broker does not know yet. The device goes on with what it has, says
/// why, and asks again; once the broker knows both, it takes the new one.
#[test]
fn a_certificate_that_the_broker_refuses_is_not_taken() {
    let mut site = Site::new("240 s");
    let device = "edge-001";
    let (old, new) = (site.lab.path("registrar"), site.lab.path("elsewhere"));
    site.lab.certs_elsewhere("elsewhere");
    let both = |first: &Path, second: &Path| {
        fs::read_to_string(first.join("ca.pem")).unwrap()
            + &fs::read_to_string(second.join("ca.pem")).unwrap()
    };
    // Both CAs are known to the device first, as docs/enroll.md says.
    let (first, then) = (both(&old, &new), both(&new, &old));
    fs::write(old.join("ca.pem"), first).unwrap();
    let done = site.enroll(&site.token(&["--device", device]), device);
    assert!(done.status.success(), "{}", said(&done));
    let cert = site.identity(device).join("current/cert.pem");
    let before = fs::read(&cert).unwrap();
    fs::write(old.join("ca.pem"), &then).unwrap();
    fs::copy(new.join("ca.key"), old.join("ca.key")).unwrap();
    site.restart_bridge();

    let settings = site.settings(device, &format!("{PATIENT}{SENSOR}[renew]\nafter = 0.1\n"));
    let mut agent = site.lab.agent("agent", &settings);
    let watcher = Watcher::start(
        &site.lab,
        site.broker.port,
        &["edgeveil/edge-001/status", "edgeveil/edge-001/reading/env"],
    );
    wait_for("the refusal in the status", || {
        agent.assert_running();
        let told = |status: &str| {
            status.contains("renewal: the new certificate does not connect")
                && status.contains("signed by a CA that the broker does not know")
        };
        watcher.seen().iter().any(|(_, status)| told(status)).then_some(())
    });
    assert_eq!(fs::read(&cert).unwrap(), before);
    let count = watcher.seen().len();
    wait_for("readings with the old one", || (watcher.seen().len() > count + 200).then_some(()));

    // The broker learns of the new CA, and the device asks again.
    fs::write(site.lab.path("certs/ca.pem"), &then).unwrap();
    site.broker.stop();
    site.broker.restart();
    wait_for("the next one is taken", || {
        agent.assert_running();
        (fs::read(&cert).unwrap() != before).then_some(())
    });
    let watcher = Watcher::start(&site.lab, site.broker.port, &["edgeveil/edge-001/status"]);
    wait_for("a status without a problem", || {
        agent.assert_running();
        watcher.seen().last().is_some_and(|(_, status)| !status.contains("renewal")).then_some(())
    });
    site.account(agent, device);
}

/// While nobody signs the device goes on, and says so; a blocked one gets nothing any more.
#[test]
fn a_renewal_that_is_not_possible_is_told_and_tried_again() {
    let mut site = Site::new("240 s");
    let device = "edge-001";
    let done = site.enroll(&site.token(&["--device", device]), device);
    assert!(done.status.success(), "{}", said(&done));
    let cert = site.identity(device).join("current/cert.pem");
    let before = fs::read(&cert).unwrap();
    assert!(site.bridge.take().unwrap().stop().success());
    let settings = site.settings(device, &format!("{PATIENT}{SENSOR}[renew]\nafter = 0.1\n"));
    let mut agent = site.lab.agent("agent", &settings);
    let watcher = Watcher::start(&site.lab, site.broker.port, &["edgeveil/edge-001/status"]);
    let mut told = |what: &str| {
        wait_for(&format!("{what} in the status"), || {
            agent.assert_running();
            watcher
                .seen()
                .iter()
                .any(|(_, status)| status.contains("renewal: ") && status.contains(what))
                .then_some(())
        });
    };
    told("cannot be reached");
    let settings = fs::read_to_string(site.lab.path("bridge.toml")).unwrap();
    site.bridge_says(&["block", device]);
    site.start_bridge(&settings);
    told("edge-001 is blocked");
    assert_eq!(fs::read(&cert).unwrap(), before);
    site.bridge_says(&["unblock", device]);
    wait_for("the next one", || {
        agent.assert_running();
        (fs::read(&cert).unwrap() != before).then_some(())
    });
    site.account(agent, device);
}
