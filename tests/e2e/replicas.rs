//! Two replicas of the bridge share a subscription of mosquitto's and a PostgreSQL; one is killed again and again, or asked
//! to stop. (With RabbitMQ: `rabbit.rs`.)

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, Mosquitto, Postgres, Publisher, Replica, kill_one_of_two, long, wait_for};

fn section(lab: &Lab, broker: &Mosquitto, client_id: &str) -> String {
    let [ca, cert, key] = lab.identity("devices", "bridge");
    format!(
        "[mqtt]\nhost = \"localhost\"\nport = {}\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\nclient_id = \"{client_id}\"\n",
        broker.port
    )
}

#[test]
fn a_replica_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let lab = Lab::new(&["edge-001"]);
    let postgres = Postgres::start(&lab);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let publisher = Publisher::start(&lab, "edge-001", vec![broker.port], 200);
    let replicas = ["replica-0", "replica-1"]
        .map(|name| Replica::sharing(&lab, name, &section(&lab, &broker, name), &postgres));
    let replicas = kill_one_of_two(&lab, replicas, &publisher);
    let sent = publisher.finish();
    println!("{sent:?}");
    assert_eq!(Replica::stop_and_verify(&lab, replicas), sent.made);
}

#[test]
fn what_is_committed_before_a_stop_is_not_sent_again() {
    let lab = Lab::new(&["edge-001"]);
    let broker = Mosquitto::start(&lab, "broker", "", Mosquitto::ACL);
    let mut bridge = Replica::new(&lab, "bridge", &section(&lab, &broker, "bridge"), "");
    bridge.start(&lab);
    let publisher = Publisher::start(&lab, "edge-001", vec![broker.port], 200);
    let flow = |records| {
        let before = publisher.sent().acknowledged;
        wait_for("acknowledgements", || (publisher.sent().acknowledged >= before + records).then_some(()));
    };
    flow(200);
    let stops = if long() { 20 } else { 5 };
    let mut again = 0;
    for _ in 0..stops {
        let repeated = publisher.sent().repeated;
        bridge.stop();
        bridge.start(&lab);
        flow(300);
        again += bridge.metric("edgeveil_bridge_redelivered_total");
        // What comes a second time, and was not repeated by the device, had been committed and not acknowledged.
        let known = bridge.metric("edgeveil_bridge_duplicates_total");
        let repeated = publisher.sent().repeated - repeated;
        assert!(known <= repeated, "{known} came again, the device repeated {repeated}");
    }
    println!("{stops} times SIGTERM under load: {again} were redelivered, none of them committed before");
    let sent = publisher.finish();
    bridge.stop();
    println!("{sent:?}");
    assert_eq!(bridge.verify(&lab), sent.made);
}
