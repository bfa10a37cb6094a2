//! The device's disk fills up: images give way, alerts pass, the counters tell, and it recovers without a restart.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{
    Lab, Process, Watcher, files_below, free_port, models,
    namespace::{fill_up, remove, with_small_disk},
    wait_for,
};
use serde_json::Value;

fn sources() -> String {
    format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 50\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 10\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    )
}

const SPOOL: &str = "ack_timeout = \"3 s\"\n[spool]\ncommit_interval = \"100 ms\"\nmin_free = \"1 MiB\"\n[spool.image]\nwhen_full = \"thin\"\n[health]\ninterval = \"1 s\"\n";

/// The number in a record's id.
fn seq(id: &str) -> u64 {
    u64::from_str_radix(&id[22..], 16).unwrap()
}

/// The newest `health` of a device.
fn health(watcher: &Watcher) -> Option<Value> {
    let (_, health) = watcher.seen().into_iter().rfind(|(topic, _)| topic.ends_with("/health"))?;
    Some(serde_json::from_str(&health).unwrap())
}

fn dropped(health: &Value, lane: &str) -> u64 {
    let by_reason = health["spool"][lane]["dropped"].as_object();
    by_reason.map_or(0, |counts| counts.values().map(|count| count.as_u64().unwrap()).sum())
}

/// Nobody is there to deliver to, and the disk is small: the spool keeps to what is free. Then a bridge comes.
#[test]
fn on_a_small_disk_images_are_thinned_and_alerts_all_arrive() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let settings = lab.agent_settings("edge-001", port, &format!("{SPOOL}{}", sources()));
    let data = lab.path("agent-edge-001");
    let command = with_small_disk(&data, "20m", &lab.agent_command("agent", &settings));
    let mut agent = Process::start("agent", command, lab.path("agent.log"));
    wait_for("some images that gave way", || {
        agent.assert_running();
        // It is said at the 1st, 2nd, 4th .. record that is dropped.
        agent.log().contains("total=64").then_some(())
    });
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    let watcher = Watcher::start(&lab, port, &["edgeveil/+/health"]);
    let health = wait_for("an empty backlog", || {
        agent.assert_running();
        let health = health(&watcher)?;
        (health["spool"]["image"]["bytes"].as_u64()? < 1 << 20).then_some(health)
    });
    assert!(dropped(&health, "image") >= 64, "{health}");
    for lane in ["alert", "status", "reading"] {
        assert_eq!(dropped(&health, lane), 0, "{health}");
    }
    assert!(agent.stop().success());
    assert!(bridge.stop().success());
    println!("{}", health["spool"]);
    println!("{}", lab.oracle(&["--dropped"]));
    // What is left is spread over the whole time.
    let mut seqs: Vec<u64> = lab.stored().iter().filter(|id| id[20..22] == *"03").map(|id| seq(id)).collect();
    seqs.sort_unstable();
    let widest = seqs.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(seqs[0] == 0 && widest <= 16, "{seqs:?}");
}

/// Somebody else fills the disk to its last byte, and takes what the spool gives back to it, while all is connected.
#[test]
fn on_a_full_disk_alerts_pass_and_it_recovers_without_a_restart() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let bridge = lab.bridge("bridge", &lab.bridge_settings(port, ""));
    let settings = lab.agent_settings("edge-001", port, &format!("{SPOOL}{}", sources()));
    let data = lab.path("agent-edge-001");
    let command = with_small_disk(&data, "48m", &lab.agent_command("agent", &settings));
    let mut agent = Process::start("agent", command, lab.path("agent.log"));
    let topics = ["edgeveil/+/health", "edgeveil/+/alert/+", "edgeveil/+/status", "edgeveil/+/event"];
    let watcher = Watcher::start(&lab, port, &topics);
    let alerts = || watcher.seen().iter().filter(|(topic, _)| topic.contains("/alert/")).count();
    let images = || files_below(&lab.path("bridge/objects")).len();
    wait_for("images", || {
        agent.assert_running();
        (images() > 10).then_some(())
    });
    let filler = fill_up(&agent, &data);
    wait_for("the full disk in the status", || {
        agent.assert_running();
        watcher.seen().iter().any(|(_, status)| status.contains("spool disk: ")).then_some(())
    });
    let before = alerts();
    wait_for("ten more alerts", || {
        agent.assert_running();
        (alerts() >= before + 10).then_some(())
    });
    // What it has thrown off is taken too. Now alerts can only wait, and nothing ends by itself.
    fill_up(&agent, &data);
    wait_for("records that were dropped in health", || {
        agent.assert_running();
        // Nothing is ever dropped in silence: readings and images find no room now.
        (dropped(&health(&watcher)?, "image") > 20).then_some(())
    });
    remove(&agent, &filler);
    let (before, alerts_before) = (images(), alerts());
    wait_for("images and alerts again", || {
        agent.assert_running();
        (images() > before + 20 && alerts() > alerts_before + 5).then_some(())
    });
    wait_for("a status without the full disk, and the drops as an event", || {
        let seen = watcher.seen();
        let (_, status) = seen.iter().rfind(|(topic, _)| topic.ends_with("/status"))?;
        let event =
            seen.iter().any(|(topic, event)| topic.ends_with("/event") && event.contains("records dropped"));
        (!status.contains("spool disk: ") && event).then_some(())
    });
    let health = wait_for("an empty spool", || {
        agent.assert_running();
        health(&watcher)
            .filter(|health| health["spool"]["image"]["bytes"].as_u64().is_some_and(|b| b < 1 << 20))
    });
    println!("{}", health["spool"]);
    assert_eq!(dropped(&health, "alert"), 0, "{health}");
    assert!(agent.stop().success());
    assert!(bridge.stop().success());
    println!("{}", lab.oracle(&["--dropped"]));
}
