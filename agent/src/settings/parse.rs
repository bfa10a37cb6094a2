//! From the file to [`Settings`]. Every key, its default and its bounds stand here.

use super::{
    Acknowledgement, Alerts, ByteSize, Detector, Device, Limits, Link, MqttVersion, Problems, Profile, Renew,
    Sensor, SensorSource, Settings, Spool, SpoolLane, WhenFull,
    document::{self, Section},
    sensor,
    units::Text,
};
#[cfg(feature = "vision")]
use super::{OnFailure, Veil, camera};
use crate::{
    enroll::{Files, Folder},
    status,
};
#[cfg(feature = "vision")]
use edgeveil_veil::{Cover, ModelKind};
use edgeveil_wire::{Name, Topics};
use std::{collections::BTreeSet, path::Path, path::PathBuf, time::Duration};

/// Reads settings; `file` is only named in messages.
pub fn parse(file: &Path, text: &str) -> Result<Settings, Problems> {
    document::read(file, text, |root| {
        let device = device(&root.section("device"));
        let data_dir = device.as_ref().map_or(Path::new("/var/lib/edgeveil"), |device| &device.data_dir);
        let link = link(&root.section("link"), data_dir);
        let has_folder = link.as_ref().is_none_or(|link| link.folder.is_some());
        let renew = renew(&root.section("renew"), has_folder);
        let spool = spool(&root.section("spool"));
        #[cfg(feature = "vision")]
        let cameras = all(root, "camera", camera::read);
        #[cfg(feature = "vision")]
        unique(root, "camera", cameras.iter().map(|camera| &camera.name));
        let sysfs = device.as_ref().map_or(Path::new("/sys"), |device| device.sysfs.as_path());
        let sensors = all(root, "sensor", |section| group(section, sysfs));
        unique(root, "sensor", sensors.iter().map(|sensor| &sensor.group));
        #[cfg(not(feature = "vision"))]
        for key in ["camera", "veil"] {
            root.refuse(key, "this agent was built without cameras; build it with the feature `vision`");
        }
        #[cfg(feature = "vision")]
        let veil = veil(&root.section("veil"), !cameras.is_empty());
        let health = root.section("health");
        let health_interval = health.within(
            "interval",
            Duration::from_secs(30),
            Duration::from_secs(1)..=Duration::from_secs(3600),
        );
        let detector_save_interval = root.section("detector").within(
            "save_interval",
            Duration::from_secs(1800),
            Duration::from_secs(60)..=Duration::from_secs(86_400),
        );
        Some(Settings {
            device: device?,
            link: link?,
            renew,
            spool,
            #[cfg(feature = "vision")]
            cameras,
            sensors,
            #[cfg(feature = "vision")]
            veil,
            health_interval,
            detector_save_interval,
        })
    })
}

fn device(section: &Section<'_>) -> Option<Device> {
    let name = section.get::<Text<_>>("name").map(|Text(name)| name);
    let data_dir = section.or("data_dir", PathBuf::from("/var/lib/edgeveil"));
    let sysfs = section.or("sysfs", PathBuf::from("/sys"));
    let status_socket = section.get::<PathBuf>("status_socket");
    if status_socket.as_ref().is_some_and(|path| path.as_os_str().len() > status::MAX_PATH) {
        let most = status::MAX_PATH;
        section.problem(
            "status_socket",
            format!("is longer than {most} bytes, the most that a socket's path has"),
        );
    }
    Some(Device { name, data_dir, sysfs, status_socket })
}

fn link(section: &Section<'_>, data_dir: &Path) -> Option<Link> {
    let host = section.required::<String>("host");
    let port = section.within("port", 8883, 1..=u16::MAX);
    let identity = identity(section, data_dir);
    let topics = match section.get::<String>("prefix").map(|prefix| Topics::new(&prefix)) {
        None => Topics::default(),
        Some(Ok(topics)) => topics,
        Some(Err(error)) => {
            section.problem("prefix", error.to_string());
            Topics::default()
        }
    };
    let mqtt_version =
        choice(section, "mqtt_version", &[("5", MqttVersion::V5), ("3.1.1", MqttVersion::V311)]);
    let max_packet = section
        .get_within("max_packet", ByteSize(1 << 10)..=ByteSize(256 << 20))
        .map_or(u32::MAX, |bytes| bytes.0 as u32);
    let acknowledgement = choice(
        section,
        "acknowledgement",
        &[("bridge", Acknowledgement::Bridge), ("broker", Acknowledgement::Broker)],
    );
    // Other brokers may end the connection of whoever asks for more than its ACL allows.
    let remote_settings = section.or("remote_settings", acknowledgement == Acknowledgement::Bridge);
    let seconds = Duration::from_secs;
    let keep_alive = section.within("keep_alive", seconds(30), seconds(5)..=seconds(1200));
    let ack_timeout = section.within("ack_timeout", seconds(30), seconds(1)..=seconds(3600));
    let window = section.within("window", 200, 1..=5000);
    let limits = Limits {
        backlog_messages: section.get_within("backlog_messages", 0.01..=100_000.0),
        backlog_bytes: section
            .get_within("backlog_bytes", ByteSize(100)..=ByteSize(1 << 40))
            .map(|bytes| bytes.0 as f64),
        daily_bytes: section
            .get_within("daily_bytes", ByteSize(1000)..=ByteSize(1 << 50))
            .map(|bytes| bytes.0),
    };
    let (host, (ca, cert, key, folder)) = (host?, identity?);
    if host.is_empty() || host.contains(char::is_whitespace) {
        section.problem("host", "wants a host name or an address");
    }
    Some(Link {
        host,
        port,
        ca,
        cert,
        key,
        folder,
        mqtt_version,
        max_packet,
        topics,
        acknowledgement,
        remote_settings,
        keep_alive,
        ack_timeout,
        window,
        limits,
    })
}

type Identity = (PathBuf, PathBuf, PathBuf, Option<PathBuf>);

/// Three files, or the folder that the agent looks after.
fn identity(section: &Section<'_>, data_dir: &Path) -> Option<Identity> {
    const FILES: [&str; 3] = ["ca", "cert", "key"];
    let folder = section.get::<PathBuf>("identity");
    if FILES.iter().all(|key| !section.has(key)) {
        let folder = Folder::new(folder.unwrap_or_else(|| data_dir.join("identity")));
        let Files { ca, cert, key, .. } = folder.current();
        return Some((ca, cert, key, Some(folder.path().to_owned())));
    }
    if folder.is_some() {
        section.problem("identity", "stands beside link.ca, link.cert or link.key; keep one or the other");
    }
    let [ca, cert, key] = FILES.map(|key| section.required(key));
    Some((ca?, cert?, key?, None))
}

fn renew(section: &Section<'_>, has_folder: bool) -> Renew {
    if section.is_present() && !has_folder {
        section.problem("after", "needs an identity that the agent looks after; take link.ca, link.cert and link.key out, and enrol (docs/enroll.md)");
    }
    let url = section.get::<Text<_>>("url").map(|Text(url)| url);
    Renew { after: section.within("after", 0.667, 0.1..=0.95), url }
}

fn spool(section: &Section<'_>) -> Spool {
    const MIB: u64 = 1 << 20;
    let bytes = |key, default: u64, least: u64| {
        section.within(key, ByteSize(default), ByteSize(least)..=ByteSize(1 << 50)).0
    };
    let max_bytes = bytes("max_bytes", 2048 * MIB, 8 * MIB);
    let age = |section: &Section<'_>| {
        let (least, most) = (Duration::from_secs(60), Duration::from_secs(3650 * 86_400));
        section.get::<Duration>("max_age").map(|_| section.within("max_age", most, least..=most))
    };
    // What is dropped first when the spool is full is images, and alerts go last: of these a quarter is plenty.
    let lane = |name, share| {
        let section = section.section(name);
        let least = ByteSize(MIB)..=ByteSize(1 << 50);
        let max_bytes = section.within("max_bytes", ByteSize(max_bytes / share), least).0;
        (SpoolLane { max_bytes, max_age: age(&section) }, section)
    };
    let [(alert, _), (status, _), (reading, _), (image, images)] =
        [lane("alert", 4), lane("status", 16), lane("reading", 1), lane("image", 1)];
    let images_when_full =
        choice(&images, "when_full", &[("drop-oldest", WhenFull::DropOldest), ("thin", WhenFull::Thin)]);
    let day = section.get::<ByteSize>("write_budget").is_some();
    Spool {
        max_bytes,
        max_age: age(section),
        write_budget: day.then(|| bytes("write_budget", 1024 * MIB, MIB)),
        lanes: [alert, status, reading, image],
        images_when_full,
        min_free_bytes: bytes("min_free", 256 * MIB, 0),
        commit_interval: section.within(
            "commit_interval",
            Duration::from_secs(1),
            Duration::from_millis(10)..=Duration::from_secs(600),
        ),
    }
}

fn group(section: &Section<'_>, sysfs: &Path) -> Option<Sensor> {
    let group = section.required::<Text<Name>>("group");
    let given = section.get_within("rate", 1e-5..=1000.0);
    let source = sensor::source(section, sysfs);
    let values = sensor::values(section);
    // A switch has no distribution that it could fall out of.
    let detect = section.or("detect", !matches!(source, Some(SensorSource::Gpio(_))));
    let seed = section.or("detector_seed", 0);
    let rate = given.unwrap_or_else(|| source.as_ref().map_or(1.0, SensorSource::default_rate));
    // Where a source brings its rows, the default is only how soon they are taken.
    let of_rate = match &source {
        Some(source) if given.is_none() && source.brings_rows() => Profile::Default,
        _ => Profile::of_rate(rate),
    };
    let profile = choice(
        section,
        "profile",
        &[
            ("auto", of_rate),
            ("default", Profile::Default),
            ("10hz", Profile::Hz10),
            ("100hz", Profile::Hz100),
        ],
    );
    let alerts = choice(section, "alerts", &[("rows", Alerts::Rows), ("episodes", Alerts::Episodes)]);
    let detector = detect.then_some(Detector { seed, profile, alerts });
    Some(Sensor { group: group?.0, source: source?, values, rate, detector })
}

#[cfg(feature = "vision")]
fn veil(section: &Section<'_>, wanted: bool) -> Option<Veil> {
    if !wanted && !section.is_present() {
        return None;
    }
    let model = section.required::<PathBuf>("model");
    let mut settings = edgeveil_veil::Settings::default();
    if let Some(Text(kind)) = section.get::<Text<ModelKind>>("kind") {
        settings.kind = kind;
    }
    if let Some(Text(profile)) = section.get::<Text<edgeveil_veil::Profile>>("profile") {
        settings.profile = profile;
    }
    settings.search_every = section.within("search_every", settings.search_every, 1..=100);
    if let Some(Text(cover)) = section.get::<Text<Cover>>("cover") {
        settings.cover = cover;
    }
    settings.long_side = section.within("long_side", settings.long_side, 160..=1920);
    if !settings.long_side.is_multiple_of(32) {
        section.problem("long_side", "wants a multiple of 32");
    }
    settings.threshold = section.within("threshold", f64::from(settings.threshold), 0.01..=0.99) as f32;
    settings.margin = section.within("margin", f64::from(settings.margin), 1.0..=4.0) as f32;
    settings.timeout =
        section.within("timeout", settings.timeout, Duration::from_millis(1)..=Duration::from_secs(600));
    settings.threads = section.within("threads", settings.threads, 1..=16);
    settings.max_side = section.get_within("max_side", 320..=8192);
    settings.hold_frames = section.within("hold_frames", settings.hold_frames, 0..=1000);
    let on_failure =
        choice(section, "on_failure", &[("drop", OnFailure::Drop), ("cover-all", OnFailure::CoverAll)]);
    settings.model = model?;
    Some(Veil { settings, on_failure })
}

/// One of a few words; the first is the default.
pub(super) fn choice<T: Copy>(section: &Section<'_>, key: &'static str, words: &[(&str, T)]) -> T {
    let Some(word) = section.get::<String>(key) else { return words[0].1 };
    if let Some((_, value)) = words.iter().find(|(known, _)| *known == word) {
        return *value;
    }
    let known: Vec<_> = words.iter().map(|(known, _)| format!("\"{known}\"")).collect();
    section.problem(key, format!("is \"{word}\"; it wants {}", known.join(" or ")));
    words[0].1
}

fn all<T>(root: &Section<'_>, key: &'static str, read: impl Fn(&Section<'_>) -> Option<T>) -> Vec<T> {
    root.sections(key).iter().filter_map(read).collect()
}

fn unique<'a>(root: &Section<'_>, key: &str, names: impl Iterator<Item = &'a Name>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            root.problem(key, format!("the name \"{name}\" is taken twice"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [link]
        host = "bridge.example"
        ca = "/etc/edgeveil/ca.pem"
        cert = "/etc/edgeveil/cert.pem"
        key = "/etc/edgeveil/key.pem"
    "#;

    fn problems(text: &str) -> Vec<(usize, String)> {
        let problems = parse(Path::new("agent.toml"), text).expect_err("these settings are wrong");
        problems.list().iter().map(|p| (p.line, p.key.clone())).collect()
    }

    #[test]
    fn the_least_that_is_needed_is_the_link() {
        let settings = parse(Path::new("agent.toml"), GOOD).unwrap();
        assert_eq!((settings.link.port, settings.link.window), (8883, 200));
        assert_eq!(settings.spool.max_bytes, 2 << 30);
        #[cfg(feature = "vision")]
        assert_eq!(settings.veil, None);
    }

    #[test]
    fn without_files_of_its_own_the_identity_is_in_a_folder() {
        let read = |text: &str| parse(Path::new("agent.toml"), text);
        let link = read("[link]\nhost = \"h\"\n").unwrap().link;
        assert_eq!(link.folder.as_deref(), Some(Path::new("/var/lib/edgeveil/identity")));
        assert_eq!(link.cert, Path::new("/var/lib/edgeveil/identity/current/cert.pem"));
        let link = read("[device]\ndata_dir = \"/d\"\n[link]\nhost = \"h\"\n").unwrap().link;
        assert_eq!(link.key, Path::new("/d/identity/current/key.pem"));
        let text = "[link]\nhost = \"h\"\nidentity = \"/i\"\n[renew]\nafter = 0.5\nurl = \"https://b:1\"\n";
        let settings = read(text).unwrap();
        assert_eq!(settings.link.ca, Path::new("/i/current/ca.pem"));
        assert_eq!(
            (settings.renew.after, settings.renew.url.unwrap().to_string().as_str()),
            (0.5, "https://b:1")
        );
        assert_eq!(read(GOOD).unwrap().link.folder, None);
        assert_eq!(problems(&format!("{GOOD}identity = \"/i\"\n")), [(7, "link.identity".to_owned())]);
        assert_eq!(problems(&format!("{GOOD}[renew]\nafter = 0.5\n")), [(8, "renew.after".to_owned())]);
        assert_eq!(
            problems("[link]\nhost = \"h\"\nca = \"a\"\n[renew]\nafter = 2\nurl = \"http://b\"\n"),
            [
                (1, "link.cert".to_owned()),
                (1, "link.key".to_owned()),
                (5, "renew.after".to_owned()),
                (6, "renew.url".to_owned())
            ]
        );
    }

    #[cfg(feature = "vision")]
    #[test]
    fn every_problem_is_named_at_once_with_its_line() {
        let text = "[link]\nhost = \"h\"\nport = \"x\"\nca = \"a\"\ncert = \"c\"\nkeep_alive = \"10\"\n\
                    [spool]\nmax_bytes = \"1 B\"\nmax_byte = 1\n[[camera]]\nname = \"a b\"\nsource = {}\n";
        assert_eq!(
            problems(text),
            [
                (1, "link.key".to_owned()),
                (3, "link.port".to_owned()),
                (6, "link.keep_alive".to_owned()),
                (8, "spool.max_bytes".to_owned()),
                (9, "spool.max_byte".to_owned()),
                (11, "camera[0].name".to_owned()),
                (12, "camera[0].source".to_owned()),
            ]
        );
    }

    #[cfg(not(feature = "vision"))]
    #[test]
    fn cameras_need_a_build_that_has_them() {
        let text = format!("{GOOD}[[camera]]\nname = \"a\"\n[veil]\nmodel = \"m\"\n");
        assert_eq!(problems(&text), [(7, "camera".to_owned()), (9, "veil".to_owned())]);
    }

    #[cfg(feature = "vision")]
    #[test]
    fn a_camera_needs_a_veil() {
        let text = format!("{GOOD}\n[[camera]]\nname = \"a\"\nsource = {{ replay = \"/tmp\" }}\n");
        assert_eq!(problems(&text), [(1, "veil.model".to_owned())]);
    }

    #[cfg(feature = "vision")]
    #[test]
    fn masks_are_polygons_in_shares_of_the_frame() {
        let camera = |masks: &str| {
            format!(
                "{GOOD}\n[veil]\nmodel = \"m\"\ntimeout = \"5 s\"\nmax_side = 1920\n[[camera]]\nname = \"a\"\n\
                 source = {{ replay = \"/tmp\" }}\nmasks = {masks}\n"
            )
        };
        let text = camera("[[[0, 0.5], [0.25, 0.5], [0.25, 1], [0, 1.0]], [[0, 0], [1, 0], [1, 0.1]]]");
        let settings = parse(Path::new("agent.toml"), &text).unwrap();
        let masks = &settings.cameras[0].masks;
        assert_eq!(masks[0].corners, [(0.0, 0.5), (0.25, 0.5), (0.25, 1.0), (0.0, 1.0)]);
        assert_eq!(masks[1].corners.len(), 3);
        let veil = settings.veil.unwrap().settings;
        assert_eq!((veil.timeout, veil.max_side), (Duration::from_secs(5), Some(1920)));
        for wrong in [
            "3",
            "[3]",
            "[[0, 0, 1, 1]]",
            "[[[0, 0], [1, 1]]]",
            "[[[0, 0], [1, 1], [1.1, 0]]]",
            "[[[0, 0], [1, 1], [-0.1, 0]]]",
            "[[[0, 0], [1, 1], [1, nan]]]",
            "[[[0, 0], [1, 1], [1, 0, 0]]]",
            "[[[0, 0], [1, 1], [\"1\", 0]]]",
            "[[]]",
        ] {
            assert_eq!(problems(&camera(wrong))[0].1, "camera[0].masks", "{wrong}");
        }
    }

    /// `EDGEVEIL_FUZZ_CASES` sets the number of cases.
    #[cfg(feature = "vision")]
    #[test]
    fn damaged_settings_are_problems_with_a_line() {
        let whole = format!(
            "{GOOD}\n[spool]\nmax_bytes = \"64 MiB\"\n[veil]\nmodel = \"m\"\nprofile = \"fast\"\ncover = \"solid\"\n\
             threshold = 0.4\nlong_side = 640\nmargin = 1.7\nhold_frames = 9\nthreads = 2\ntimeout = \"10 s\"\n\
             [[camera]]\nname = \"a\"\nsource = {{ replay = \"/tmp\" }}\nfps = 2.5\n\
             masks = [[[0, 0.5], [0.25, 0.5], [0.25, 1]]]\n[[sensor]]\ngroup = \"g\"\nsource = {{ csv = \"f\" }}\n"
        );
        assert!(parse(Path::new("agent.toml"), &whole).is_ok());
        let cases = std::env::var("EDGEVEIL_FUZZ_CASES").map_or(3_000, |v| v.parse().unwrap());
        let mut state = 7u64;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n.max(1)
        };
        const PIECES: &[&str] = &[
            "[",
            "]",
            "\"",
            "=",
            "\n",
            "-1",
            "1e999",
            "nan",
            "inf",
            "{",
            "}",
            ",",
            "\u{0}",
            "é",
            "99999999999999999999",
        ];
        for _ in 0..cases {
            let mut text: Vec<char> = whole.chars().collect();
            for _ in 0..=below(3) {
                let at = below(text.len());
                match below(4) {
                    0 => drop(text.drain(at..(at + below(12)).min(text.len()))),
                    1 => text.insert(at, char::from(32 + below(95) as u8)),
                    2 => drop(text.splice(at..at, PIECES[below(PIECES.len())].chars())),
                    _ => text.truncate(at),
                }
            }
            let text: String = text.into_iter().collect();
            if let Err(problems) = parse(Path::new("agent.toml"), &text) {
                assert!(!problems.list().is_empty(), "{text}");
            }
        }
    }

    #[test]
    fn a_detector_goes_by_the_rate_unless_it_is_told() {
        let sensor = |more: &str| {
            let text = format!("{GOOD}\n[[sensor]]\ngroup = \"a\"\nsource = {{ csv = \"f\" }}\n{more}");
            parse(Path::new("agent.toml"), &text).unwrap().sensors[0].detector.clone().unwrap()
        };
        for (more, profile) in [
            ("rate = 0.1", Profile::Default),
            ("", Profile::Default),
            ("rate = 10", Profile::Hz10),
            ("rate = 100", Profile::Hz100),
            ("rate = 100\nprofile = \"default\"", Profile::Default),
        ] {
            assert_eq!(sensor(more).profile, profile, "{more}");
        }
        assert_eq!(sensor("").alerts, Alerts::Rows);
        assert_eq!(sensor("alerts = \"episodes\"").alerts, Alerts::Episodes);
        let text = format!("{GOOD}\n[[sensor]]\ngroup = \"a\"\nsource = {{ csv = \"f\" }}\nprofile = \"x\"");
        assert_eq!(problems(&text)[0].1, "sensor[0].profile");
    }

    #[test]
    fn the_version_of_mqtt_is_one_of_two() {
        let link = |more: &str| parse(Path::new("agent.toml"), &format!("{GOOD}{more}")).unwrap().link;
        assert_eq!((link("").mqtt_version, link("").max_packet), (MqttVersion::V5, u32::MAX));
        let old = link("mqtt_version = \"3.1.1\"\nmax_packet = \"1 MiB\"\n");
        assert_eq!((old.mqtt_version, old.max_packet), (MqttVersion::V311, 1 << 20));
        assert!(!old.believes_blindly());
        assert!(link("mqtt_version = \"3.1.1\"\nacknowledgement = \"broker\"\n").believes_blindly());
        for wrong in
            ["mqtt_version = \"3.1\"", "mqtt_version = 5", "max_packet = \"1 B\"", "max_packet = \"1 GiB\""]
        {
            let key = format!("link.{}", wrong.split_once(' ').unwrap().0);
            assert_eq!(problems(&format!("{GOOD}{wrong}\n")), [(7, key)], "{wrong}");
        }
    }

    #[test]
    fn a_socket_has_a_short_path() {
        let device = |path: &str| format!("{GOOD}[device]\nstatus_socket = \"{path}\"\n");
        let longest = format!("/{}", "x".repeat(status::MAX_PATH - 1));
        let settings = parse(Path::new("agent.toml"), &device(&longest)).unwrap();
        assert_eq!(settings.device.status_socket.as_deref(), Some(Path::new(&longest)));
        assert_eq!(problems(&device(&format!("{longest}x"))), [(8, "device.status_socket".to_owned())]);
        assert_eq!(problems(&device("")), [(8, "device.status_socket".to_owned())]);
    }

    #[test]
    fn broken_toml_is_named_with_its_line() {
        assert_eq!(problems("[link]\nhost = \n")[0].0, 2);
    }

    #[cfg(feature = "vision")]
    #[test]
    fn two_cameras_cannot_share_a_name() {
        let camera = "\n[[camera]]\nname = \"a\"\nsource = { replay = \"/tmp\" }\n";
        let text = format!("{GOOD}{camera}{camera}[veil]\nmodel = \"m\"\n");
        assert_eq!(problems(&text)[0].1, "camera");
    }
}
