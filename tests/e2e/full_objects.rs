//! The bridge's object folder fills up: it says so, acknowledges nothing that it has not stored, and goes on by itself
//! once there is room.
//!
//! It needs a small tmpfs, mounted in a namespace of its own: as root, or where the kernel lets users have namespaces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, PATIENT, Process, free_port, models, program, run, stderr, verified, wait_for};
use std::process::Command;

/// What makes a namespace here, and what enters one.
fn namespace() -> [&'static [&'static str]; 2] {
    let root = run(Command::new("id").arg("-u")).stdout.trim_ascii() == b"0";
    if root { [&["-m"], &["-m"]] } else { [&["-r", "-m"], &["-U", "-m", "--preserve-credentials"]] }
}

/// A command in a process's namespace.
fn inside(process: &Process) -> Command {
    let mut command = Command::new("nsenter");
    command.arg("-t").arg(process.pid().to_string()).args(namespace()[1]);
    command
}

#[test]
fn a_full_object_folder_is_named_and_loses_nothing() {
    let lab = Lab::new(&["edge-001"]);
    let port = free_port();
    let settings = lab.write("bridge.toml", lab.bridge_settings(port, ""));
    let objects = lab.path("bridge/objects");
    std::fs::create_dir_all(&objects).unwrap();
    let mut command = Command::new("unshare");
    command.args(namespace()[0]).args(["sh", "-c"]);
    command.arg("mount -t tmpfs -o size=300k none \"$1\" && exec \"$2\" serve --config \"$3\"").arg("sh");
    command.arg(&objects).arg(program("edgeveil-bridge")).arg(&settings);
    let mut bridge = Process::start("bridge", command, lab.path("bridge.log"));
    let camera = format!(
        "[[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 10\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    );
    let mut agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &format!("{PATIENT}{camera}")));
    wait_for("the folder, and that it is full, in one line", || {
        bridge.assert_running();
        agent.assert_running();
        let place = objects.display().to_string();
        bridge.log().lines().any(|l| l.contains(&place) && l.contains("no space left")).then_some(())
    });
    wait_for("the agent to say that nobody acknowledges", || {
        agent.assert_running();
        agent.log().contains("no acknowledgement from the bridge").then_some(())
    });
    let output = run(inside(&bridge).args(["mount", "-o", "remount,size=256m"]).arg(&objects));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(agent.stop().success());
    lab.drain("edge-001", port);
    let mut verify = inside(&bridge);
    verify.arg(program("edgeveil-bridge")).args(["verify", "--gapless", "--config"]).arg(&settings);
    println!("{}", verified(&mut verify));
    assert!(bridge.stop().success());
}
