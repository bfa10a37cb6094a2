//! RabbitMQ between devices and bridges: nodes and bridges are killed under load, and bridges are asked to stop.
//! Afterwards each record is in the catalog once, and none is left in the queue.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{
    Lab, PATIENT, Postgres, Publisher, Queue, Rabbit, Replica, files_below, kill_one_of_two, long, models,
    program, run, wait_for,
};
use std::{process::Command, thread::sleep, time::Duration};

const EMPTY: Queue = Queue { messages: 0, unacknowledged: 0, consumers: 1 };

/// Waits until so many more records are acknowledged.
fn flow(publisher: &Publisher, records: u64) {
    let before = publisher.sent().acknowledged;
    wait_for("acknowledgements", || (publisher.sent().acknowledged >= before + records).then_some(()));
}

#[test]
fn a_bridge_that_is_killed_or_stopped_loses_and_doubles_nothing() {
    let lab = Lab::new(&["edge-001"]);
    let rabbit = Rabbit::start(&lab, 1, &["edge-001"]);
    let mut bridge = Replica::new(&lab, "bridge", &rabbit.bridge_section(&lab, 0), "");
    bridge.start(&lab);
    let publisher = Publisher::start(&lab, "edge-001", rabbit.mqtt_ports(), 200);
    flow(&publisher, 200);
    for _ in 0..if long() { 20 } else { 3 } {
        // What it was sent while it could do nothing is sent again to the next one, and is marked so.
        bridge.pause();
        let made = publisher.sent().made;
        wait_for("records", || (publisher.sent().made > made + 200).then_some(()));
        bridge.kill();
        bridge.start(&lab);
        wait_for("a redelivery", || (bridge.metric("edgeveil_bridge_redelivered_total") > 0).then_some(()));
        flow(&publisher, 200);
    }
    let killed = publisher.finish();
    let publisher = Publisher::start(&lab, "edge-001", rabbit.mqtt_ports(), 200);
    flow(&publisher, 200);
    let stops = if long() { 20 } else { 5 };
    let mut again = 0;
    for _ in 0..stops {
        bridge.stop();
        bridge.start(&lab);
        flow(&publisher, 300);
        again += bridge.metric("edgeveil_bridge_redelivered_total");
        // What comes a second time, and was not repeated by the device, had been committed and not acknowledged.
        let (known, repeated) =
            (bridge.metric("edgeveil_bridge_duplicates_total"), publisher.sent().repeated);
        assert!(known <= repeated, "{known} came again, the device repeated {repeated}");
    }
    println!("{stops} times SIGTERM under load: {again} were redelivered, none of them committed before");
    let stopped = publisher.finish();
    wait_for("an empty queue", || (rabbit.queue() == EMPTY).then_some(()));
    bridge.stop();
    println!("{killed:?} {stopped:?}");
    assert_eq!(bridge.verify(&lab), killed.made + stopped.made);
}

#[test]
fn nodes_of_three_are_killed_and_two_replicas_lose_and_double_nothing() {
    const DEVICES: [&str; 2] = ["edge-001", "edge-002"];
    let lab = Lab::new(&DEVICES);
    let postgres = Postgres::start(&lab);
    let mut rabbit = Rabbit::start(&lab, 3, &DEVICES);
    let replica = |n: usize| {
        let section = rabbit.bridge_section(&lab, n);
        let mut replica = Replica::sharing(&lab, &format!("replica-{n}"), &section, &postgres);
        replica.start(&lab);
        replica
    };
    let mut replicas = [replica(0), replica(1)];
    let publishers = DEVICES.map(|device| Publisher::start(&lab, device, rabbit.mqtt_ports(), 100));
    let flow = |records| publishers.iter().for_each(|publisher| flow(publisher, records));
    flow(200);
    let kills = if long() { 12 } else { 2 };
    for n in 0..kills {
        rabbit.kill(n % 3);
        flow(400);
        rabbit.restart(n % 3);
        flow(200);
    }
    let sent = publishers.map(Publisher::finish);
    let queue = Queue { consumers: 2, ..EMPTY };
    wait_for("an empty queue", || (rabbit.queue() == queue).then_some(()));
    replicas.iter_mut().for_each(Replica::stop);
    println!("{kills} nodes killed; {sent:?}");
    assert_eq!(replicas[0].verify(&lab), sent.iter().map(|sent| sent.made).sum::<u64>());
}

#[test]
fn a_replica_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let lab = Lab::new(&["edge-001"]);
    let postgres = Postgres::start(&lab);
    let rabbit = Rabbit::start(&lab, 1, &["edge-001"]);
    let section = rabbit.bridge_section(&lab, 0);
    let publisher = Publisher::start(&lab, "edge-001", rabbit.mqtt_ports(), 200);
    let replicas = ["replica-0", "replica-1"].map(|name| Replica::sharing(&lab, name, &section, &postgres));
    let replicas = kill_one_of_two(&lab, replicas, &publisher);
    let sent = publisher.finish();
    wait_for("an empty queue", || (rabbit.queue() == Queue { consumers: 2, ..EMPTY }).then_some(()));
    println!("{sent:?}");
    assert_eq!(Replica::stop_and_verify(&lab, replicas), sent.made);
}

/// The agent itself: readings, alerts and images by MQTT 3.1.1, while the broker and the bridge are killed.
#[test]
fn an_agent_delivers_through_it() {
    let lab = Lab::new(&["edge-001"]);
    let mut rabbit = Rabbit::start(&lab, 1, &["edge-001"]);
    let mut bridge = Replica::new(&lab, "bridge", &rabbit.bridge_section(&lab, 0), "");
    bridge.start(&lab);
    let sources = format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 100\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 2\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    );
    let port = rabbit.mqtt_ports()[0];
    let settings = |sources: &str| {
        lab.agent_settings("edge-001", port, &format!("mqtt_version = \"3.1.1\"\n{PATIENT}{sources}"))
    };
    let mut agent = lab.agent("agent", &settings(&sources));
    let mut flow = |bridge: &Replica| {
        wait_for("records", || {
            agent.assert_running();
            (bridge.metric("edgeveil_bridge_committed_total") > 500).then_some(())
        });
    };
    flow(&bridge);
    rabbit.kill(0);
    bridge.kill();
    rabbit.restart(0);
    bridge.start(&lab);
    flow(&bridge);
    bridge.kill();
    bridge.start(&lab);
    flow(&bridge);
    assert!(agent.stop().success());
    wait_for("an empty spool", || {
        let drain = lab.agent("drain", &settings(""));
        sleep(Duration::from_secs(3));
        assert!(drain.stop().success());
        let mut command = Command::new(program("edgeveil-agent"));
        let output = run(command.args(["spool", "ls", "--dir"]).arg(lab.path("agent-edge-001/spool")));
        let lanes = String::from_utf8(output.stdout).unwrap();
        let records =
            lanes.lines().map(|lane| lane.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap());
        // That it was stopped stays for the next time.
        (records.sum::<u64>() <= 1).then_some(())
    });
    wait_for("an empty queue", || (rabbit.queue() == EMPTY).then_some(()));
    bridge.stop();
    let images = files_below(&lab.path("objects")).len();
    println!("{} records, {images} images", bridge.verify(&lab));
    assert!(images > 20);
}
