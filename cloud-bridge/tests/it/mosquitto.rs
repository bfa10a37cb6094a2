//! The access list in `certs/`, on a real mosquitto: every right that it gives is used, and those that it does not give
//! are tried.

use crate::harness::{Bench, Device, boot, device_files, files, reading, status, until};
use edgeveil_bridge::certs::{self, Kind, Replace};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

const ACL: &str = include_str!("../../../certs/mosquitto.acl");

/// Ends with the test.
pub struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// None where there is no mosquitto, which is a failure where tests have to run.
pub fn start(dir: &Path, port: u16) -> Option<Mosquitto> {
    let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
        .into_iter()
        .find(|program| Path::new(program).exists());
    assert!(program.is_some() || std::env::var_os("CI").is_none(), "no mosquitto");
    let server = certs::paths(dir, Kind::Broker, "localhost");
    if !server.cert.exists() {
        certs::issue(dir, Kind::Broker, "localhost", &[], Replace::Refuse).unwrap();
    }
    fs::write(dir.join("acl"), ACL).unwrap();
    let config = format!(
        "user root\nlistener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
         use_identity_as_username true\nallow_anonymous false\nacl_file {}\n",
        server.ca.display(),
        server.cert.display(),
        server.key.display(),
        dir.join("acl").display()
    );
    fs::write(dir.join("mosquitto.conf"), config).unwrap();
    let mut command = Command::new(program?);
    command.arg("-c").arg(dir.join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    Some(Mosquitto(command.spawn().unwrap()))
}

#[test]
fn the_documents_show_the_list_that_is_tested() {
    let shown = include_str!("../../../docs/mqtt.md");
    assert!(shown.contains(&format!("```\n{ACL}```")), "docs/mqtt.md does not show certs/mosquitto.acl");
}

#[tokio::test]
async fn the_access_list_lets_everybody_do_their_part_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    certs::init(dir.path(), Replace::Refuse).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(_mosquitto) = start(dir.path(), port) else { return };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("mosquitto", async || TcpStream::connect(address).is_ok()).await;
    let bridge = device_files(dir.path(), "bridge");
    let bench = Bench::start_with(&format!(
        "[mqtt]\nhost = \"localhost\"\nport = {port}\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
        bridge.ca, bridge.cert, bridge.key
    ))
    .await;
    until("subscribed", async || bench.get("/readyz").await.0.starts_with("HTTP/1.1 200")).await;
    let observer = certs::issue(dir.path(), Kind::Observer, "watcher", &[], Replace::Refuse).unwrap();

    let mut watcher = Device::connect(address, &files(&observer), "watcher").await.unwrap();
    watcher.subscribe("edgeveil/+/status").await;
    watcher.subscribe("edgeveil/+/reading/+").await;
    let mut pi = Device::connect(address, &device_files(dir.path(), "pi"), "pi").await.unwrap();
    pi.listen().await;
    pi.retain("edgeveil/pi/status", status("online")).await;
    assert_eq!(watcher.message().await.0, "edgeveil/pi/status");
    let record = reading(boot(1), 0);
    pi.say("reading/env", record.to_json()).await;
    assert_eq!(pi.ack().await, [record.stamp.id], "read by the bridge, and answered");
    assert_eq!(watcher.message().await.0, "edgeveil/pi/reading/env");

    watcher.say("reading/env", record.to_json()).await;
    assert_eq!(watcher.puback().await, PubAckReason::NotAuthorized, "below its own name");
    watcher.send("edgeveil/pi/reading/env", record.to_json()).await;
    assert_eq!(watcher.puback().await, PubAckReason::NotAuthorized);
    let mut other = Device::connect(address, &device_files(dir.path(), "other"), "other").await.unwrap();
    other.send("edgeveil/pi/reading/env", record.to_json()).await;
    assert_eq!(other.puback().await, PubAckReason::NotAuthorized);
    // mosquitto grants such a subscription, and then sends nothing over it.
    other.subscribe("edgeveil/#").await;
    pi.say("reading/env", record.to_json()).await;
    assert_eq!(pi.ack().await, [record.stamp.id]);
    assert!(other.hears_nothing().await);
}
