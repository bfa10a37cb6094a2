//! Real RabbitMQ nodes with mutual TLS, alone or as a cluster: devices speak MQTT to them, bridges AMQP.
//!
//! Each has its folder, its ports and its own `epmd`, all on the loopback interface, and is a child of the test: the scripts
//! become the Erlang machine, so that a signal to the child is a signal to the node.

use crate::{Lab, Process, free_port, run, stderr, wait_for};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

/// The programs themselves, not Debian's wrappers around them, which change the user.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// What docs/rabbitmq.md shows, which is where the tests have it from.
const DOCUMENT: &str = include_str!("../../docs/rabbitmq.md");

/// A broker of one or three nodes.
pub struct Rabbit {
    nodes: Vec<Node>,
    epmd: Option<Process>,
    epmd_port: u16,
    home: PathBuf,
}

struct Node {
    name: String,
    /// MQTT over TLS.
    mqtt: u16,
    /// AMQP over TLS.
    amqp: u16,
    distribution: u16,
    folder: PathBuf,
    process: Option<Process>,
}

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Messages in it, those under way to a consumer among them.
    pub messages: u64,
    /// Messages that a consumer has not acknowledged.
    pub unacknowledged: u64,
    /// Those that consume it.
    pub consumers: u64,
}

impl Rabbit {
    /// Starts so many nodes as one cluster, with a user for each of these devices and one for `bridge`.
    pub fn start(lab: &Lab, nodes: usize, devices: &[&str]) -> Self {
        assert!(Path::new(PROGRAMS).exists(), "RabbitMQ is not installed: run the tests by tests/run");
        let home = lab.path("rabbit");
        fs::create_dir_all(&home).expect("a folder in the temporary folder");
        let epmd_port = free_port();
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()]);
        let epmd = Some(Process::start("epmd", epmd, home.join("epmd.log")));
        let node = |number| {
            let folder = home.join(format!("node-{number}"));
            fs::create_dir_all(&folder).expect("a folder in the temporary folder");
            let name = format!("node-{number}@localhost");
            let [mqtt, amqp, distribution] = [free_port(), free_port(), free_port()];
            Node { name, mqtt, amqp, distribution, folder, process: None }
        };
        let mut rabbit = Self { nodes: (0..nodes).map(node).collect(), epmd, epmd_port, home };
        rabbit.configure(lab, devices);
        // One after the other: of nodes that start at once the MQTT plugin of RabbitMQ 3.10 may leave one out of its own cluster,
        // in which client ids are agreed on, and then stands still when another one falls.
        for n in 0..nodes {
            rabbit.restart(n);
            let so_far = n + 1;
            wait_for("a cluster", || {
                (rabbit.running() == so_far && rabbit.in_mqtt() == so_far).then_some(())
            });
        }
        rabbit
    }

    fn configure(&self, lab: &Lab, devices: &[&str]) {
        let [ca, cert, key] = lab.identity("brokers", "localhost");
        let definitions = lab.write("rabbit/definitions.json", definitions(devices));
        for node in &self.nodes {
            let mut config = block("ini");
            for (shown, here) in [
                ("/etc/rabbitmq/ca.pem", ca.as_str()),
                ("/etc/rabbitmq/cert.pem", &cert),
                ("/etc/rabbitmq/key.pem", &key),
                ("ssl.default = 8883", &format!("ssl.1 = 127.0.0.1:{}", node.mqtt)),
                ("ssl.default = 5671", &format!("ssl.1 = 127.0.0.1:{}", node.amqp)),
            ] {
                assert!(config.contains(shown), "docs/rabbitmq.md does not show {shown}");
                config = config.replace(shown, here);
            }
            config += &format!(
                "load_definitions = {}\nlog.console = true\nlog.file = false\ndisk_free_limit.absolute = 50MB\n\
                 cluster_formation.peer_discovery_backend = classic_config\n",
                definitions.display()
            );
            for (number, peer) in self.nodes.iter().enumerate() {
                let number = number + 1;
                config += &format!("cluster_formation.classic_config.nodes.{number} = {}\n", peer.name);
            }
            fs::write(node.folder.join("rabbitmq.conf"), config).expect("a file in the temporary folder");
            fs::write(node.folder.join("plugins"), "[rabbitmq_mqtt,rabbitmq_auth_mechanism_ssl].\n")
                .expect("a file in the temporary folder");
        }
    }

    /// A program of RabbitMQ's, with all that would otherwise come from the system's folders.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new(PROGRAMS).join(program));
        command
            // The cookie is made there.
            .env("HOME", &self.home)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_CONF_ENV_FILE", self.home.join("none"))
            .env("LANG", "C.UTF-8")
            .current_dir(&self.home);
        command
    }

    fn spawn(&mut self, n: usize) {
        let mut command = self.command("rabbitmq-server");
        let node = &mut self.nodes[n];
        let path = |name: &str| node.folder.join(name);
        command
            .env("RABBITMQ_NODENAME", &node.name)
            .env("RABBITMQ_DIST_PORT", node.distribution.to_string())
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", path("generated"))
            .env("RABBITMQ_FEATURE_FLAGS_FILE", path("feature_flags"))
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", path("pid"))
            // Has the script replaced by the Erlang machine.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            );
        node.process = Some(Process::start(&node.name, command, path("output")));
    }

    fn wait(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let process = node.process.as_mut().expect("it was started");
        // The last thing that a node does before it is there for others.
        wait_for("RabbitMQ", || {
            process.assert_running();
            let listens = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
            (listens(node.mqtt) && listens(node.amqp)).then_some(())
        });
    }

    /// SIGKILL for one node.
    pub fn kill(&mut self, n: usize) {
        if let Some(process) = self.nodes[n].process.take() {
            process.kill();
        }
    }

    /// Starts a node again, with what it has kept.
    pub fn restart(&mut self, n: usize) {
        self.spawn(n);
        self.wait(n);
    }

    /// The nodes' ports for MQTT.
    pub fn mqtt_ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.mqtt).collect()
    }

    /// The settings section of a bridge that consumes from these nodes, beginning with the `first`.
    pub fn bridge_section(&self, lab: &Lab, first: usize) -> String {
        let [ca, cert, key] = lab.identity("devices", "bridge");
        let mut ports: Vec<_> = self.nodes.iter().map(|node| format!("localhost:{}", node.amqp)).collect();
        ports.rotate_left(first);
        let hosts = ports.join(", ");
        format!(
            "[amqp]\nhosts = \"{hosts}\"\nca = \"{ca}\"\ncert = \"{cert}\"\nkey = \"{key}\"\nheartbeat = \"5 s\"\n"
        )
    }

    /// `rabbitmqctl` on a node that runs. None when it fails.
    pub fn ctl(&self, arguments: &[&str]) -> Option<String> {
        let node = self.nodes.iter().find(|node| node.process.is_some())?;
        let output = run(self.command("rabbitmqctl").args(["-q", "--node", &node.name]).args(arguments));
        if !output.status.success() {
            eprintln!("rabbitmqctl {arguments:?}: {}", stderr(&output));
            return None;
        }
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Members of the MQTT plugin's own cluster.
    fn in_mqtt(&self) -> usize {
        let Some(said) = self.ctl(&["eval", "ra:members({mqtt_node, node()})."]) else { return 0 };
        let members = said.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        members.map_or(0, |(members, _)| members.matches("@localhost").count())
    }

    fn running(&self) -> usize {
        let Some(said) = self.ctl(&["eval", "rabbit_nodes:all_running()."]) else { return 0 };
        said.matches("@localhost").count()
    }

    /// What the bridges' queue holds.
    pub fn queue(&self) -> Queue {
        let columns = ["name", "type", "messages", "messages_unacknowledged", "consumers"];
        wait_for("the queue", || {
            let said = self.ctl(&[&["list_queues", "--no-table-headers"], &columns[..]].concat())?;
            let line = said.lines().find_map(|line| line.strip_prefix("edgeveil\tquorum\t"))?;
            let numbers: Vec<_> = line.split('\t').map(|n| n.trim().parse().ok()).collect();
            let [messages, unacknowledged, consumers] = numbers[..] else { return None };
            Some(Queue { messages: messages?, unacknowledged: unacknowledged?, consumers: consumers? })
        })
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        // The nodes before what they are registered at.
        for node in &mut self.nodes {
            if let Some(process) = node.process.take() {
                process.kill();
            }
        }
        drop(self.epmd.take());
    }
}

/// The first block of this language in the document.
fn block(language: &str) -> String {
    let start = format!("```{language}\n");
    let (_, rest) = DOCUMENT.split_once(&start).expect("docs/rabbitmq.md has such a block");
    rest.split("```").next().unwrap_or_default().to_owned()
}

/// An argument of a `rabbitmqctl` line in the document: the `nth` in quotes.
fn quoted(command: &str, user: &str, nth: usize) -> String {
    let line = DOCUMENT.lines().find(|line| {
        line.contains(&format!("rabbitmqctl {command} ")) && line.contains(&format!(" {user} "))
    });
    let line = line.unwrap_or_else(|| panic!("docs/rabbitmq.md does not show {command} for {user}"));
    line.split('\'').nth(2 * nth + 1).unwrap_or_else(|| panic!("{line}")).to_owned()
}

/// The users and permissions that the document's commands make.
fn definitions(devices: &[&str]) -> String {
    let (mut users, mut permissions, mut topics) = (Vec::new(), Vec::new(), Vec::new());
    let pairs = devices.iter().map(|device| ("desk-pi", *device)).chain([("bridge", "bridge")]);
    for (shown, user) in pairs {
        let of = |command: &str, nth| quoted(command, shown, nth).replace(shown, user);
        users.push(serde_json::json!({
            "name": user, "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": []
        }));
        permissions.push(serde_json::json!({
            "user": user, "vhost": "/", "configure": of("set_permissions", 0),
            "write": of("set_permissions", 1), "read": of("set_permissions", 2)
        }));
        topics.push(serde_json::json!({
            "user": user, "vhost": "/", "exchange": "amq.topic",
            "write": of("set_topic_permissions", 0), "read": of("set_topic_permissions", 1)
        }));
    }
    serde_json::json!({
        "vhosts": [{ "name": "/" }], "users": users, "permissions": permissions, "topic_permissions": topics
    })
    .to_string()
}
