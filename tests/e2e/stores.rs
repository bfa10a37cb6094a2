//! The bridge's stores are slow, fail, or are held by somebody else: nothing is acknowledged that is not stored, memory
//! stays bounded, and it goes on by itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{
    Bucket, Dice, Lab, Mosquitto, PATIENT, Process, PutDeed, free_port, long, models, run, stderr, wait_for,
};
use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
    time::Duration,
};

fn sources() -> String {
    format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 50\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 10\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    )
}

#[test]
fn a_slow_and_failing_object_store_loses_and_doubles_nothing() {
    let seed = Dice::seed(5);
    println!("EDGEVEIL_SEED={seed}");
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let mut dice = Dice::new(seed);
    let moody = move |_: u64| match dice.below(20) {
        0..3 => PutDeed::Refuse,
        3..5 => PutDeed::Cut,
        5..7 => PutDeed::StoreAndCut,
        7..9 => PutDeed::Slow(Duration::from_millis(dice.below(1500))),
        _ => PutDeed::Store,
    };
    let bucket = Bucket::start(&lab.path("bridge/objects"), Box::new(moody.clone()));
    let secret = lab.write("secret", "none");
    let settings = lab.bridge_settings(
        port,
        &format!(
            "[objects.s3]\nbucket = \"images\"\nendpoint = \"http://127.0.0.1:{}\"\nallow_http = true\n\
             access_key_id_file = \"{1}\"\nsecret_access_key_file = \"{1}\"\n",
            bucket.port,
            secret.display()
        ),
    );
    let mut bridge = lab.bridge("bridge", &settings);
    let mut agent =
        lab.agent("agent", &lab.agent_settings("edge-001", port, &format!("{PATIENT}{}", sources())));
    let mut flow = |what: &str, puts: u64| {
        let before = bucket.puts();
        wait_for(what, || {
            bridge.assert_running();
            agent.assert_running();
            (bucket.puts() >= before + puts).then_some(())
        });
    };
    flow("objects in a moody bucket", if long() { 5000 } else { 150 });
    bucket.follow(Box::new(|_| PutDeed::Refuse));
    wait_for("the agent to say that nobody acknowledges", || {
        agent.log().contains("no acknowledgement from the bridge").then_some(())
    });
    bucket.follow(Box::new(moody));
    bridge.kill();
    bridge = lab.bridge("bridge", &settings);
    let before = bucket.puts();
    wait_for("objects after a kill", || (bucket.puts() >= before + 50).then_some(()));
    bucket.follow(Box::new(|_| PutDeed::Store));
    assert!(agent.stop().success());
    lab.drain("edge-001", port);
    lab.verify();
    assert!(bridge.stop().success());
    println!("{} PUTs\n{}", bucket.puts(), lab.oracle(&[]));
}

/// Another process that holds a catalog until it is let go.
struct Holder(Child);

impl Holder {
    fn hold(lab: &Lab) -> Self {
        const HOLD: &str = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n\
             c.execute('BEGIN EXCLUSIVE')\nprint('held', flush=True)\nsys.stdin.readline()\nc.execute('ROLLBACK')";
        let mut child = Command::new("python3")
            .args(["-c", HOLD])
            .arg(lab.path("bridge/catalog.sqlite"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut said)
            .unwrap();
        assert_eq!(said, "held\n");
        Self(child)
    }

    fn let_go(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

fn resident_kib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Somebody holds the catalog while a mosquitto has far more for the bridge than its memory should take.
#[test]
fn a_locked_catalog_holds_the_broker_back_and_memory_stays_bounded() {
    let lab = Lab::new(&["edge-001", "edge-002"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let settings = lab.bridge_settings_external(broker.port, "[ingest]\nmemory = \"16 MiB\"\n");
    // Memory is to be the bound, not the number of messages.
    let settings = settings.replace("client_id", "receive_maximum = 2000\nclient_id");
    let mut bridge = lab.bridge("bridge", &settings);
    let mut agent =
        lab.agent("agent", &lab.agent_settings("edge-001", broker.port, &format!("{PATIENT}{}", sources())));
    wait_for("records in the catalog", || {
        bridge.assert_running();
        (lab.path("bridge/catalog.sqlite").exists() && lab.stored().len() > 100).then_some(())
    });
    let before = resident_kib(&bridge);
    let holder = Holder::hold(&lab);
    wait_for("the holder in one line with the catalog", || {
        bridge.assert_running();
        bridge
            .log()
            .lines()
            .any(|l| l.contains("catalog.sqlite") && l.contains("another process"))
            .then_some(())
    });
    wait_for("the agent to say that nobody acknowledges", || {
        agent.assert_running();
        agent.log().contains("no acknowledgement from the bridge").then_some(())
    });
    let stored = lab.stored();
    // 200 MB of what the bridge will refuse: it has to hold each message until it can write that.
    let load = lab.write("load", vec![0xff; 1 << 20]);
    let [ca, cert, key] = lab.identity("devices", "edge-002");
    for _ in 0..200 {
        let mut publish = Command::new("mosquitto_pub");
        publish.args(["-h", "localhost", "-p", &broker.port.to_string(), "-V", "mqttv5", "-q", "1"]);
        publish.args(["--cafile", &ca, "--cert", &cert, "--key", &key, "-i", "edge-002"]);
        let output = run(publish.args(["-t", "edgeveil/edge-002/image/load", "-f"]).arg(&load));
        assert!(output.status.success(), "{}", stderr(&output));
    }
    bridge.assert_running();
    let grown = resident_kib(&bridge).saturating_sub(before) >> 10;
    println!("the bridge grew by {grown} MiB under 200 MiB");
    assert!(grown < 100, "{grown} MiB");
    assert_eq!(lab.stored(), stored, "the catalog was held");
    holder.let_go();
    wait_for("records again", || {
        bridge.assert_running();
        agent.assert_running();
        (lab.stored().len() > stored.len() + 100).then_some(())
    });
    assert!(agent.stop().success());
    lab.drain("edge-001", broker.port);
    assert!(bridge.stop().success());
    println!("{}", lab.oracle(&[]));
}
