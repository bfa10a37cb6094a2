//! The bridge's disk fills up, where its objects are or where its catalog is: it says so, acknowledges nothing that it has
//! not stored, and goes on by itself once there is room.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{
    Lab, PATIENT, Process, Watcher, free_port, models,
    namespace::{fill_up, inside, remove, resize, with_small_disk},
    oracle, program, verified, wait_for,
};
use std::collections::BTreeSet;

fn sources() -> String {
    format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 50\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 10\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    )
}

/// A bridge that sees a folder of its data as a disk of this size, and an agent that fills it.
struct Full {
    port: u16,
    bridge: Process,
    agent: Process,
    catalog: String,
    /// Last: what the others have said goes with it.
    lab: Lab,
}

impl Full {
    fn start(folder: &str, size: &str) -> Self {
        let lab = Lab::new(&["edge-001"]);
        let port = free_port();
        // The catalog has that disk, or lies where it lies by default.
        let place = if folder.ends_with("catalog") { lab.path(folder) } else { lab.path("bridge") };
        let catalog = place.join("catalog.sqlite").display().to_string();
        let settings = lab.bridge_settings(port, &format!("[catalog]\nfile = \"{catalog}\"\n"));
        let command = with_small_disk(&lab.path(folder), size, &lab.bridge_command("bridge", &settings));
        let bridge = Process::start("bridge", command, lab.path("bridge.log"));
        let settings = lab.agent_settings("edge-001", port, &format!("{PATIENT}{}", sources()));
        let agent = lab.agent("agent", &settings);
        Self { lab, port, bridge, agent, catalog }
    }

    fn wait(&mut self, what: &str, mut holds: impl FnMut(&str, &str) -> bool) {
        wait_for(what, || {
            self.bridge.assert_running();
            self.agent.assert_running();
            holds(&self.bridge.log(), &self.agent.log()).then_some(())
        });
    }

    /// Everything is delivered, and is there once.
    fn end(self) {
        let Self { lab, port, bridge, agent, catalog } = self;
        assert!(agent.stop().success());
        lab.drain("edge-001", port);
        let mut verify = inside(&bridge, program("edgeveil-bridge"));
        verified(verify.args(["verify", "--gapless", "--config"]).arg(lab.path("bridge.toml")));
        let oracle = oracle(&["--catalog", &catalog]);
        let mut oracle_there = inside(&bridge, oracle.get_program());
        println!("{}", verified(oracle_there.args(oracle.get_args()).arg(lab.path("bridge"))));
        assert!(bridge.stop().success());
    }
}

#[test]
fn a_full_object_folder_is_named_and_loses_nothing() {
    let mut full = Full::start("bridge/objects", "300k");
    let objects = full.lab.path("bridge/objects");
    let place = objects.display().to_string();
    full.wait("the folder, and that it is full, in one line", |bridge, _| {
        bridge.lines().any(|l| l.contains(&place) && l.contains("no space left"))
    });
    full.wait("the agent to say that nobody acknowledges", |_, agent| {
        agent.contains("no acknowledgement from the bridge")
    });
    resize(&full.bridge, &objects, "256m");
    full.end();
}

/// Ids that a device was told.
fn acknowledged(watcher: &Watcher) -> BTreeSet<String> {
    let acks =
        watcher.seen().into_iter().map(|(_, ack)| serde_json::from_str::<serde_json::Value>(&ack).unwrap());
    acks.flat_map(|ack| ack["ids"].as_array().unwrap().clone())
        .map(|id| id.as_str().unwrap().to_owned())
        .collect()
}

fn stored(full: &Full) -> BTreeSet<String> {
    let oracle = oracle(&["--ids", "--catalog", &full.catalog]);
    let mut there = inside(&full.bridge, oracle.get_program());
    let ids = verified(there.args(oracle.get_args()).arg(full.lab.path("bridge")));
    ids.lines().map(str::to_owned).collect()
}

#[test]
fn a_full_catalog_acknowledges_nothing_that_is_not_in_it() {
    let mut full = Full::start("bridge/catalog", "24m");
    let folder = full.lab.path("bridge/catalog");
    let watcher = Watcher::start(&full.lab, full.port, &["edgeveil/+/ack"]);
    full.wait("something acknowledged", |_, _| acknowledged(&watcher).len() > 200);
    let filler = fill_up(&full.bridge, &folder);
    full.wait("the catalog, and that there is no space left, in one line", |bridge, _| {
        bridge.lines().any(|l| l.contains("catalog.sqlite") && l.contains("no space left"))
    });
    // SQLite may use the room that its log has already, so some of it goes on. The bridge tells a device only after it has
    // committed: so what was said is there.
    let said = acknowledged(&watcher);
    let kept = stored(&full);
    let unkept: Vec<_> = said.difference(&kept).collect();
    assert!(unkept.is_empty(), "acknowledged and not stored: {unkept:?}");
    remove(&full.bridge, &filler);
    full.wait("the catalog to work again", |bridge, _| bridge.contains("works part=\"database\""));
    full.end();
}
