//! Traces of the bridge in a collector: what they tell, what they must not tell, and a collector that is away.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_tests::{Lab, PATIENT, Process, free_port, models, wait_for};
use std::{
    env,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
};

fn collector(lab: &Lab, name: &str, port: u16) -> Process {
    let program = env::var_os("EDGEVEIL_COLLECTOR").map(PathBuf::from).filter(|program| program.exists());
    let program = program.expect("there is no collector: run the tests by tests/run");
    let mut command = Command::new(program);
    command
        .args([
            "start",
            "--exporter",
            "blackhole",
            "--debug-log",
            "traces",
            "--debug-log-verbosity",
            "detailed",
        ])
        .args(["--otlp-http-endpoint", &format!("127.0.0.1:{port}")])
        .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", free_port())])
        .arg("--pid-file")
        .arg(lab.path(&format!("{name}.pid")))
        .arg("--log-file")
        .arg(lab.path(&format!("{name}.rotel")));
    let mut process = Process::start(name, command, lab.path(&format!("{name}.log")));
    wait_for("the collector", || {
        process.assert_running();
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    process
}

fn get(port: u16, request_id: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {request_id}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_collector_gets_spans_with_ids_and_nothing_else_and_may_be_away() {
    let lab = Lab::new(&["edge-001"]);
    let (port, http, otlp, nobody) = (free_port(), free_port(), free_port(), free_port());
    let secret = lab.write("secret", "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0");
    let settings = lab.bridge_settings(
        port,
        &format!(
            "[otlp]\nendpoint = \"http://127.0.0.1:{otlp}\"\n[forward.webhook]\nurl = \"http://127.0.0.1:{nobody}/\"\n\
             allow_http = true\nsecret_file = \"{}\"\n",
            secret.display()
        ),
    );
    let settings = settings
        .replace("[http]\nlisten = \"127.0.0.1:0\"", &format!("[http]\nlisten = \"127.0.0.1:{http}\""));
    let first = collector(&lab, "collector", otlp);
    let mut bridge = lab.bridge("bridge", &settings);
    let sources = format!(
        "[[sensor]]\ngroup = \"env\"\nsource = {{ simulate = {{}} }}\nrate = 100\n\
         [[camera]]\nname = \"desk\"\nsource = {{ replay = \"{0}/astronaut.png\" }}\nfps = 2\n\
         [veil]\nmodel = \"{0}/yunet.onnx\"\nkind = \"yunet\"\n",
        models().display()
    );
    let agent = lab.agent("agent", &lab.agent_settings("edge-001", port, &format!("{PATIENT}{sources}")));
    wait_for("the page", || TcpStream::connect(("127.0.0.1", http)).ok());
    assert!(get(http, "asked-by-a-test").contains("\r\nx-request-id: asked-by-a-test\r\n"));
    assert!(!get(http, "no id, but <script>").contains("<script>\r\n"));
    let spans = ["batch", "objects", "object", "commit", "request", "forward"];
    let told = wait_for("spans of each kind", || {
        let log = first.log();
        spans.iter().all(|name| log.contains(&format!("Name           : {name}\n"))).then_some(log)
    });
    assert!(told.contains("id: Str(asked-by-a-test)") && told.contains("service.name: Str(edgeveil-bridge)"));
    let record = told.lines().find_map(|line| line.trim().strip_prefix("-> record: Str(")).unwrap();
    assert!(lab.stored().contains(record.trim_end_matches(')')), "{record}");
    for secret in ["sensor1", "contributions", "whsec", "Exif", "<script>"] {
        assert!(!told.contains(secret), "a trace has {secret}");
    }
    // Away: that is said once, and records go on.
    first.kill();
    let times = |bridge: &Process, what: &str| bridge.log().matches(what).count();
    wait_for("a word of it", || (times(&bridge, "takes no spans") == 1).then_some(()));
    let before = lab.stored().len();
    wait_for("records all the same", || {
        bridge.assert_running();
        (lab.stored().len() > before + 1000).then_some(())
    });
    let again = collector(&lab, "again", otlp);
    wait_for("a word of that too", || (times(&bridge, "takes spans again") == 1).then_some(()));
    wait_for("spans again", || again.log().contains("Name           : commit").then_some(()));
    assert_eq!(times(&bridge, "takes no spans"), 1);
    assert!(agent.stop().success());
    lab.drain("edge-001", port);
    assert!(bridge.stop().success());
    println!("{}", lab.verify());
}
