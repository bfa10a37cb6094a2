//! Agents, the bridge and mosquitto are killed in turn at random points while alerts, readings and images flow.
//! Afterwards every number of every lane of every boot is in the catalog once, and every file has its row.
//!
//! `EDGEVEIL_KILLS` says how many kills (`tests/faults --long`: 1,000), `EDGEVEIL_SEED` at which points.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Dice, Lab, Mosquitto, PATIENT, Process, models};
use std::{
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

const DEVICES: [&str; 2] = ["edge-001", "edge-002"];

fn sources() -> String {
    format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 50\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 2\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    )
}

/// A log of a thousand starts is of use only where something went wrong: the last of it.
fn trim(log: &Path) {
    const KEEP: usize = 1 << 20;
    if let Ok(text) = fs::read(log)
        && text.len() > 4 * KEEP
    {
        let _ = fs::write(log, &text[text.len() - KEEP..]);
    }
}

struct World {
    lab: Lab,
    broker: Mosquitto,
    bridge: Option<Process>,
    agents: [Option<Process>; 2],
}

impl World {
    fn start() -> Self {
        let lab = Lab::new(&DEVICES);
        // It writes its store now and then, and so is killed within that too.
        let broker = Mosquitto::start(&lab, "broker", "autosave_interval 5\n", Mosquitto::ACL);
        let mut world = Self { lab, broker, bridge: None, agents: [None, None] };
        world.start_bridge();
        (0..DEVICES.len()).for_each(|n| world.start_agent(n));
        world
    }

    fn start_bridge(&mut self) {
        trim(&self.lab.path("bridge.log"));
        self.bridge =
            Some(self.lab.bridge("bridge", &self.lab.bridge_settings_external(self.broker.port, "")));
    }

    fn start_agent(&mut self, n: usize) {
        trim(&self.lab.path(&format!("{}.log", DEVICES[n])));
        let settings =
            self.lab.agent_settings(DEVICES[n], self.broker.port, &format!("{PATIENT}{}", sources()));
        self.agents[n] = Some(self.lab.agent(DEVICES[n], &settings));
    }

    /// SIGKILL, a while of nothing, and a new start. What ended by itself fails the test.
    fn kill(&mut self, victim: usize, down: Duration) {
        match victim {
            0 | 3 => {
                let n = victim / 3;
                let mut agent = self.agents[n].take().unwrap();
                agent.assert_running();
                agent.kill();
                sleep(down);
                self.start_agent(n);
            }
            1 | 4 => {
                let mut bridge = self.bridge.take().unwrap();
                bridge.assert_running();
                bridge.kill();
                sleep(down);
                self.start_bridge();
            }
            _ => {
                self.broker.kill();
                sleep(down);
                trim(&self.lab.path("broker.log"));
                self.broker.restart();
            }
        }
    }
}

#[test]
fn a_thousand_kills_lose_nothing_and_double_nothing() {
    let kills: u64 = std::env::var("EDGEVEIL_KILLS").map_or(24, |n| n.parse().unwrap());
    let seed = Dice::seed(2026);
    println!("{kills} kills with EDGEVEIL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut world = World::start();
    let begin = Instant::now();
    let mut killed = [0u64; 3];
    let (mut count, mut turn) = (0, 0u64);
    while count < kills {
        // The agents take turns with the others: agent 1, bridge, broker, agent 2, bridge, broker.
        let victim = (turn % 6) as usize;
        let victim = if victim == 5 { 2 } else { victim };
        sleep(Duration::from_millis(dice.below(1600)));
        // One in four is killed again as it starts.
        for again in 0..if dice.below(4) == 0 { 2 } else { 1 } {
            if again > 0 {
                sleep(Duration::from_millis(dice.below(150)));
                count += 1;
            }
            world.kill(victim, Duration::from_millis(dice.below(300)));
            killed[victim % 3] += 1;
        }
        count += 1;
        turn += 1;
        if count % 50 < 2 {
            println!("{count} kills after {} s", begin.elapsed().as_secs());
        }
    }
    let World { lab, broker, bridge, agents } = world;
    for agent in agents {
        let mut agent = agent.unwrap();
        agent.assert_running();
        assert!(agent.stop().success());
    }
    let [by_agent, by_bridge, by_broker] = killed;
    println!(
        "{count} SIGKILLs after {} s: agents {by_agent}, bridge {by_bridge}, mosquitto {by_broker}; now what is left is delivered",
        begin.elapsed().as_secs()
    );
    DEVICES.iter().for_each(|device| lab.drain(device, broker.port));
    let mut bridge = bridge.unwrap();
    bridge.assert_running();
    assert!(bridge.stop().success());
    let told = lab.oracle(&[]);
    println!("{told}");
    let findings = lab.verify();
    let lanes = |lane: &str| findings.matches(&format!("\"lane\":\"{lane}\"")).count() as u64;
    println!(
        "`edgeveil-bridge verify --gapless` agrees on {} sequences",
        findings.matches("\"missing\":0").count()
    );
    // The kills met something: there were boots, and all lanes flowed.
    assert!(lanes("status") >= killed[0] / 2, "{findings}");
    for lane in ["alert", "reading", "image"] {
        assert!(lanes(lane) > killed[0] / 4, "{lane}: {findings}");
    }
}
