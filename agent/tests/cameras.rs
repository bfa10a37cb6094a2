//! Cameras that are programs, addresses and folders, with a real ffmpeg: each comes back by itself.

#![cfg(feature = "vision")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_agent::{
    capture::{self, CaptureError, Pulse, Source},
    clock::{Clock, SystemClock, local_zone},
    pause::Pause,
    record::{self, Writer},
    settings::{self, Settings},
    state::{Counters, State},
    vision::{Slots, Waiting},
    watchdog::Progress,
};
use edgeveil_wire::{BootId, CameraHealth, Name};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::Notify};
use tokio_util::sync::CancellationToken;

/// What makes ffmpeg write MJPEG of this size to its standard output.
fn ffmpeg(size: &str, more: &str, out: &str) -> String {
    format!("ffmpeg -v error -re -f lavfi -i testsrc=size={size}:rate=20 {more} -c:v mjpeg -q:v 5 {out}")
}

const STDOUT: &str = "-f mjpeg -";

fn words(command: &str) -> String {
    let words: Vec<_> = command.split_whitespace().map(|word| format!("{word:?}")).collect();
    format!("command = [{}]", words.join(", "))
}

fn shell(script: &str) -> String {
    format!("command = [\"sh\", \"-c\", {script:?}]")
}

/// Settings with one camera.
fn settings(dir: &Path, source: &str, more: &str) -> Settings {
    let fps = if more.contains("every") { "" } else { "fps = 20\n" };
    let text = format!(
        "[device]\ndata_dir = \"{}\"\n[link]\nhost = \"h\"\nca = \"a\"\ncert = \"c\"\nkey = \"k\"\n\
         [spool]\nmin_free = \"0 B\"\ncommit_interval = \"10 ms\"\n[veil]\nmodel = \"m\"\n\
         [[camera]]\nname = \"cam\"\nsource = {{ {source} }}\n{fps}{more}\n",
        dir.display()
    );
    settings::parse(Path::new("test.toml"), &text).unwrap()
}

/// An opened source.
struct Opened {
    source: Box<dyn Source>,
    dir: tempfile::TempDir,
    _runtime: Runtime,
}

fn open(source: &str, more: &str) -> Result<Opened, CaptureError> {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let pause = Pause::until(CancellationToken::new(), runtime.handle().clone());
    let settings = settings(dir.path(), source, more);
    let source = capture::open(&settings.cameras[0], dir.path(), &pause)?;
    Ok(Opened { source, dir, _runtime: runtime })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl Opened {
    /// The size of the next frame; bad ones are left out.
    fn size(&mut self) -> Result<(u32, u32), CaptureError> {
        loop {
            match self.source.next() {
                Ok(Some(shot)) => return Ok((shot.frame.width(), shot.frame.height())),
                Ok(None) => thread::sleep(Duration::from_millis(50)),
                Err(error) if error.is_one_frame_only() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn refusal(source: &str) -> String {
    match open(source, "silence = \"1 s\"") {
        Ok(mut opened) => opened.size().map(|_| ()).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

/// A camera's thread as the agent runs it, with a spool behind it.
struct Watched {
    slots: Arc<Slots<Waiting>>,
    state: Arc<State>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    _runtime: Runtime,
    _dir: tempfile::TempDir,
}

impl Watched {
    fn start(source: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), source, more);
        let runtime = runtime();
        let (state, stop) = (Arc::new(State::default()), CancellationToken::new());
        let clock = Arc::new(SystemClock::start());
        let (spool, _) = record::open(&settings).unwrap();
        let interval = settings.spool.commit_interval;
        let boot = BootId::from_random([7; 10]);
        let (committed, progress) = (Arc::new(Notify::new()), Arc::new(Progress::default()));
        let (writer, records) =
            Writer::new(spool, boot, interval, clock.clone(), committed, state.clone(), progress);
        let handle = runtime.handle().clone();
        thread::spawn(move || writer.run(&handle));
        let slots = Arc::new(Slots::new(1));
        let camera = capture::Camera {
            settings: settings.cameras[0].clone(),
            data_dir: dir.path().to_owned(),
            index: 0,
            slots: slots.clone(),
            records,
            state: state.clone(),
            clock,
            pulse: Arc::new(Pulse::default()),
            pause: Pause::until(stop.clone(), runtime.handle().clone()),
        };
        let thread = Some(thread::spawn(move || capture::watch(&camera)));
        Self { slots, state, stop, thread, _runtime: runtime, _dir: dir }
    }

    fn health(&self) -> CameraHealth {
        let Counters { cameras, .. } = self.state.counted();
        cameras.get(&"cam".parse::<Name>().unwrap()).cloned().unwrap_or_default()
    }

    fn problem(&self) -> String {
        self.state.problems().borrow().values().next().cloned().unwrap_or_default()
    }

    fn frame(&self) -> (u32, u32) {
        wait_for("a frame", || {
            let (_, waiting) = self.slots.take(Duration::from_millis(100))?;
            Some((waiting.frame.width(), waiting.frame.height()))
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The patience bounds a test that has failed; it measures nothing.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not seen: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_alive(pid: &str) -> bool {
    // A zombie has no command line.
    fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty())
}

#[test]
fn ffmpeg_is_read_and_ends_with_its_camera() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("echo $$ > {}; exec {}", pid.display(), ffmpeg("320x240", "", STDOUT));
    let mut camera = open(&shell(&script), "").unwrap();
    for _ in 0..5 {
        assert_eq!(camera.size().unwrap(), (320, 240));
    }
    let pid = fs::read_to_string(pid).unwrap();
    assert!(is_alive(&pid));
    drop(camera);
    wait_for("the end of ffmpeg", || (!is_alive(&pid)).then_some(()));
}

#[test]
fn a_program_is_run_without_a_shell() {
    let mut camera = open(&words(&ffmpeg("160x120", "", STDOUT)), "").unwrap();
    assert_eq!(camera.size().unwrap(), (160, 120));
    assert!(
        refusal("command = [\"/nonexistent/rpicam-vid\"]").contains("cannot start `/nonexistent/rpicam-vid`")
    );
}

#[test]
fn the_last_words_of_a_program_are_told() {
    let said = refusal(&words("ffmpeg -v error -i rtsp://anna:s3cret@127.0.0.1:9/cam -f mjpeg -"));
    assert!(said.starts_with("ffmpeg: ended (exit status: 1) and said: "), "{said}");
    assert!(said.contains("Connection refused") && !said.contains("s3cret"), "{said}");
    // H.264 is no MJPEG, however much of it comes.
    let said = refusal(&words(
        "ffmpeg -v error -f lavfi -i testsrc=size=640x480:rate=30 -c:v rawvideo -f rawvideo -",
    ));
    assert!(said.contains("MJPEG"), "{said}");
}

#[test]
fn a_program_that_ends_is_started_again() {
    // It gives some pictures each time; the camera is lost and back in between.
    let camera = Watched::start(&words(&ffmpeg("160x120", "-frames:v 15", STDOUT)), "silence = \"5 s\"");
    wait_for("three starts", || {
        let _ = camera.slots.take(Duration::ZERO);
        (camera.health().lost >= 2 && camera.health().running).then_some(())
    });
    assert!(camera.health().frames > 2);
}

#[test]
fn a_stalled_program_is_ended_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    // The kernel stops it, as a driver does that hangs.
    let script = format!("echo $$ >> {}; exec {}", pids.display(), ffmpeg("160x120", "", STDOUT));
    let camera = Watched::start(&shell(&script), "silence = \"1 s\"");
    camera.frame();
    let first = fs::read_to_string(&pids).unwrap();
    let stopped = Command::new("kill").args(["-STOP", first.trim()]).status().unwrap();
    assert!(stopped.success());
    wait_for("the silence", || camera.problem().contains("has given no picture for 1 s").then_some(()));
    wait_for("the end of the first", || (!is_alive(&first)).then_some(()));
    wait_for("the camera's return", || {
        (camera.problem().is_empty() && camera.health().running).then_some(())
    });
    camera.frame();
    assert_eq!(camera.health().lost, 1);
    assert_eq!(fs::read_to_string(&pids).unwrap().lines().count(), 2);
}

#[test]
fn rtsp_comes_in_through_ffmpeg() {
    // ffmpeg is no RTSP server, but it can wait for a camera that sends to it.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("rtsp://127.0.0.1:{port}/cam");
    let receive = format!("ffmpeg -v error -rtsp_flags listen -i {url} -an -r 5 -q:v 3 -f mjpeg -");
    let encode = "-c:v libx264 -preset ultrafast -tune zerolatency -g 10";
    let send = format!(
        "ffmpeg -v quiet -re -f lavfi -i testsrc=size=320x240:rate=20 {encode} -rtsp_transport tcp -f rtsp {url}"
    );
    let camera = Watched::start(&words(&receive), "");
    let again = format!("while ! {send}; do sleep 0.2; done");
    let mut sender = Command::new("sh").args(["-c", &again]).stdin(Stdio::null()).spawn().unwrap();
    let size = camera.frame();
    // The ffmpeg that it has started ends with the receiver.
    sender.kill().unwrap();
    sender.wait().unwrap();
    assert_eq!(size, (320, 240));
}

#[test]
fn damaged_pictures_are_left_out() {
    // ffmpeg changes bytes in two of three pictures.
    let noise = r"-bsf:v noise=amount='if(mod(n\,3)\,60\,0)'";
    let command = format!(
        "ffmpeg -v error -re -f lavfi -i testsrc=size=320x240:rate=20 -c:v mjpeg {noise} -q:v 5 -f mjpeg -"
    );
    let camera = Watched::start(&words(&command), "");
    wait_for("good and bad ones", || {
        let _ = camera.slots.take(Duration::ZERO);
        let health = camera.health();
        (health.frames >= 5 && health.failed >= 5).then_some(())
    });
}

/// A server that answers each request by a script. It ends with the test's process.
fn serve(
    answer: impl Fn(usize, &str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, count) = (Arc::new(answer), AtomicUsize::new(0));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (answer, number) = (answer.clone(), count.fetch_add(1, SeqCst));
            thread::spawn(move || {
                let mut head = String::new();
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                while lines.read_line(&mut head).is_ok_and(|length| length > 2) {}
                let _ = answer(number, &head, &mut stream);
            });
        }
    });
    format!("http://{address}")
}

fn jpeg(width: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..width * 48 * 3).map(|i| (i * i / 31) as u8).collect();
    let mut file = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_raw(width, 48, pixels)
        .unwrap()
        .write_to(&mut file, image::ImageFormat::Jpeg)
        .unwrap();
    file.into_inner()
}

const MULTIPART: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=cut\r\n\r\n";

fn part(stream: &mut TcpStream, jpeg: &[u8]) -> std::io::Result<()> {
    write!(stream, "--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len())?;
    stream.write_all(jpeg)?;
    stream.write_all(b"\r\n")
}

/// ffmpeg as a camera with an HTTP stream.
struct HttpCamera(Child);

impl HttpCamera {
    fn start(port: u16) -> Self {
        let command = ffmpeg("320x240", "", &format!("-f mpjpeg -listen 1 http://127.0.0.1:{port}/cam"));
        let mut words = command.split_whitespace();
        let mut program = Command::new(words.next().unwrap());
        Self(program.args(words).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for HttpCamera {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stream_over_http_comes_back_when_its_server_does() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = HttpCamera::start(port);
    let camera = Watched::start(&format!("http = \"http://127.0.0.1:{port}/cam\""), "silence = \"2 s\"");
    assert_eq!(camera.frame(), (320, 240));
    drop(server);
    wait_for("the loss", || (!camera.health().running).then_some(()));
    let _server = HttpCamera::start(port);
    wait_for("the camera's return", || camera.health().running.then_some(()));
    assert_eq!(camera.frame(), (320, 240));
    assert!(camera.health().lost >= 1);
}

#[test]
fn a_stream_over_http_may_do_anything() {
    // The first connection gives half a picture among whole ones and then nothing more, without closing; the second one
    // garbage only; the third one is good.
    let url = serve(|number, _, stream| {
        stream.write_all(MULTIPART)?;
        let good = jpeg(64);
        match number {
            0 => {
                part(stream, &good)?;
                part(stream, &good[..good.len() * 3 / 4])?;
                for _ in 0..10 {
                    part(stream, &good)?;
                    thread::sleep(Duration::from_millis(50));
                }
                thread::sleep(Duration::from_secs(1000));
            }
            1 => loop {
                stream.write_all(&[7; 4096])?;
            },
            _ => loop {
                part(stream, &jpeg(96))?;
                thread::sleep(Duration::from_millis(20));
            },
        }
        Ok(())
    });
    let camera = Watched::start(&format!("http = \"{url}/cam?password=s3cret\""), "silence = \"1 s\"");
    assert_eq!(camera.frame(), (64, 48));
    wait_for("the silence", || camera.problem().contains("no picture for 1 s").then_some(()));
    assert_eq!(camera.health().failed, 1, "the half picture");
    wait_for("the garbage", || camera.problem().contains("has to be MJPEG").then_some(()));
    assert!(!camera.problem().contains("s3cret"), "{}", camera.problem());
    wait_for("the third connection", || (camera.frame() == (96, 48)).then_some(()));
    assert!(camera.problem().is_empty());
}

#[test]
fn a_snapshot_is_asked_for_with_a_login() {
    let url = serve(|number, head, stream| {
        if !head.contains("authorization: Basic YW5uYTpzM2NyZXQ=") {
            return stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n");
        }
        let mut picture = jpeg(64 + 16 * number as u32 % 32);
        if number % 3 == 1 {
            picture.truncate(picture.len() / 2);
        }
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
            picture.len()
        )?;
        stream.write_all(&picture)
    });
    let dir = tempfile::tempdir().unwrap();
    let login = dir.path().join("login");
    fs::write(&login, "anna:s3cret\n").unwrap();
    let source = format!("snapshot = \"{url}/snap.jpg\", login = \"{}\"", login.display());
    let mut camera = open(&source, "").unwrap();
    for _ in 0..4 {
        assert_eq!(camera.size().unwrap().1, 48);
    }
    let said = refusal(&format!("snapshot = \"{url}/snap.jpg\""));
    assert!(said.contains("login"), "{said}");
    fs::write(&login, "anna:wrong\n").unwrap();
    let said = refusal(&source);
    assert!(said.contains("does not take the user or the password") && !said.contains("wrong"), "{said}");
}

#[test]
fn a_snapshot_that_breaks_or_hangs_is_asked_for_again() {
    let url = serve(|number, _, stream| {
        let picture = jpeg(64 + 16 * number as u32);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
            picture.len()
        );
        stream.write_all(head.as_bytes())?;
        match number {
            // The connection ends within the picture; it stays open, and nothing more comes.
            1 => stream.write_all(&picture[..picture.len() / 2]),
            2 => {
                stream.write_all(&picture[..picture.len() / 2])?;
                thread::sleep(Duration::from_secs(1000));
                Ok(())
            }
            _ => stream.write_all(&picture),
        }
    });
    let camera = Watched::start(&format!("snapshot = \"{url}/snap.jpg\""), "silence = \"1 s\"");
    assert_eq!(camera.frame(), (64, 48));
    wait_for("the break", || camera.problem().contains("the connection broke").then_some(()));
    wait_for("the late one", || camera.problem().contains("no whole picture within 10 s").then_some(()));
    wait_for("the return", || (camera.frame() == (112, 48)).then_some(()));
    wait_for("the all-clear", || camera.problem().is_empty().then_some(()));
    // Lost twice in a row without a picture in between is one loss.
    assert_eq!(camera.health().lost, 1);
}

#[test]
fn what_is_wrong_with_an_address_is_named() {
    let url = serve(|_, head, stream| {
        let answer: &[u8] = match head.split_whitespace().nth(1).unwrap_or_default() {
            "/moved" => b"HTTP/1.1 302 Found\r\nLocation: http://other/?token=s3cret\r\nContent-Length: 0\r\n\r\n",
            "/page" => b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello",
            "/single" => b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 0\r\n\r\n",
            "/digest" => b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
            "/odd" => b"SSH-2.0-OpenSSH\r\n",
            _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        };
        stream.write_all(answer)
    });
    let dir = tempfile::tempdir().unwrap();
    let login = dir.path().join("login");
    fs::write(&login, "a:b").unwrap();
    for (path, what) in [
        ("/moved", "has moved to http://other/; put that address here"),
        ("/page", "gives text/html, and no picture"),
        ("/single", "name it as `snapshot`"),
        ("/none", "answers 404"),
        ("/odd", "gives no answer"),
    ] {
        let said = refusal(&format!("http = \"{url}{path}\""));
        assert!(said.contains(what) && !said.contains("s3cret"), "{path}: {said}");
    }
    let said = refusal(&format!("http = \"{url}/digest\", login = \"{}\"", login.display()));
    assert!(said.contains("another login than Basic"), "{said}");
    let said = refusal("http = \"http://127.0.0.1:9/cam\"");
    assert!(said.contains("cannot be reached"), "{said}");
}

#[test]
fn a_camera_may_show_a_certificate_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for name in ["own", "other"] {
        let status = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "1", "-subj", "/CN=IPCAM"])
            .args(["-keyout", &path(&format!("{name}.key")), "-out", &path(&format!("{name}.pem"))])
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
    let answer = [b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\n\r\n".as_slice(), &jpeg(64)].concat();
    fs::write(path("snap.jpg"), answer).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-HTTP", "-accept", &format!("127.0.0.1:{port}")])
        .args(["-cert", "own.pem", "-key", "own.key"])
        .current_dir(dir.path())
        // It ends with its standard input.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _server = HttpCamera(server.unwrap());
    wait_for("the server", || TcpStream::connect(("127.0.0.1", port)).ok());
    let source =
        |ca: &str| format!("snapshot = \"https://127.0.0.1:{port}/snap.jpg\", ca = \"{}\"", path(ca));
    assert_eq!(open(&source("own.pem"), "").unwrap().size().unwrap(), (64, 48));
    let said = refusal(&source("other.pem"));
    assert!(said.contains("TLS") && said.contains("set `ca`"), "{said}");
    assert!(refusal(&source("none.pem")).contains("none.pem"));
}

#[test]
fn a_picture_in_so_long_opens_the_camera_for_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let starts = dir.path().join("starts");
    let script = format!("echo >> {}; exec {}", starts.display(), ffmpeg("160x120", "", STDOUT));
    let camera = Watched::start(&shell(&script), "every = \"1 s\"\nwarm_up = \"200 ms\"".trim_start());
    wait_for("three pictures", || {
        let _ = camera.slots.take(Duration::ZERO);
        (camera.health().frames >= 3).then_some(())
    });
    assert!(fs::read_to_string(&starts).unwrap().lines().count() >= 3);
    assert_eq!(camera.health().lost, 0, "its rest is no loss");
}

#[test]
fn pictures_are_taken_at_their_time_of_day_only() {
    let now = SystemClock::start().now().timestamp.to_zoned(local_zone());
    let at = |hours: i64| (now.clone() + jiff::Span::new().hours(hours)).strftime("%H:%M").to_string();
    let picture = tempfile::tempdir().unwrap();
    fs::write(picture.path().join("a.jpg"), jpeg(64)).unwrap();
    let source = format!("replay = \"{}\"", picture.path().display());
    let open = Watched::start(&source, &format!("between = \"{}-{}\"", at(-2), at(2)));
    let closed = Watched::start(&source, &format!("between = \"{}-{}\"", at(2), at(4)));
    assert_eq!(open.frame(), (64, 48));
    assert_eq!((closed.health().frames, closed.health().lost), (0, 0));
}

#[test]
fn an_upload_is_taken_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let inbox: PathBuf = dir.path().join("in");
    fs::create_dir(&inbox).unwrap();
    let mut camera = open(&format!("folder = \"{}\", then = \"delete\"", inbox.display()), "").unwrap();
    assert!(camera.source.next().unwrap().is_none());
    // As an FTP server writes it: in pieces, under its name.
    let picture = jpeg(64);
    let mut file = fs::File::create(inbox.join("a.jpg")).unwrap();
    for piece in picture.chunks(picture.len() / 4) {
        file.write_all(piece).unwrap();
        for _ in 0..3 {
            // On a slow machine half of it may look whole, but it cannot be decoded.
            if let Ok(Some(shot)) = camera.source.next() {
                panic!("taken while it grew: {shot:?}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
    assert_eq!(camera.size().unwrap(), (64, 48));
    assert!(inbox.join("a.jpg").exists(), "nothing is durable yet");
    assert!(!camera.dir.path().join("cameras").exists());
}
