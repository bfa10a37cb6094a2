//! A bad way between agent and broker, and between broker and bridge: connections are cut within packets, bytes come
//! late, connections fall silent. Afterwards everything is there once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{BadRoad, Dice, Lab, Mosquitto, PATIENT, long, models, wait_for};
use std::{thread::sleep, time::Duration};

#[test]
fn bad_roads_on_both_sides_of_mosquitto_lose_nothing() {
    let seed = Dice::seed(7);
    println!("EDGEVEIL_SEED={seed}");
    let lab = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let to_agent = BadRoad::open(broker.port, seed, 400_000);
    let to_bridge = BadRoad::open(broker.port, seed + 1, 400_000);
    let settings = lab.bridge_settings_external(to_bridge.port, "");
    // A connection that has fallen silent is found out by its pings.
    let bridge = lab.bridge("bridge", &settings.replace("client_id", "keep_alive = \"5 s\"\nclient_id"));
    let sources = format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 100\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 5\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    );
    let settings = format!("keep_alive = \"5 s\"\n{PATIENT}{sources}");
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", to_agent.port, &settings));
    let deeds = if long() { 200 } else { 12 };
    wait_for("misdeeds of the roads", || {
        agent.assert_running();
        let enough = |road: &BadRoad| road.deeds()[0] + road.deeds()[1] >= deeds && road.deeds()[1] > 0;
        (enough(&to_agent) && enough(&to_bridge)).then_some(())
    });
    println!("[cut, silent, held back]: agent {:?}, bridge {:?}", to_agent.deeds(), to_bridge.deeds());
    to_agent.mend();
    to_bridge.mend();
    sleep(Duration::from_secs(1));
    agent.assert_running();
    assert!(agent.stop().success());
    lab.drain("edge-001", broker.port);
    assert!(bridge.stop().success());
    println!("{}", lab.oracle(&[]));
}
