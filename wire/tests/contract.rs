//! The types, the JSON Schemas, the golden files and docs/mqtt.md say the same.
//!
//! `EDGEVEIL_BLESS=1 cargo test -p edgeveil-wire` writes the golden files anew after an intended change.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edgeveil_wire::*;
use jiff::Timestamp;
use std::{collections::BTreeMap, fs, path::PathBuf};

fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn stamp(lane: Lane, seq: u64) -> Stamp {
    let boot = BootId::from_random([0x5e, 0x1f, 0x0c, 0xd2, 0x97, 0x3a, 0x44, 0xb0, 0x81, 0x6e]);
    Stamp::new(boot, lane, seq, time(), ClockState::Synced, 94_318)
}

fn time() -> Timestamp {
    "2026-11-21T08:15:30.250Z".parse().unwrap()
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn values(values: &[(&str, f64)]) -> Values {
    values.iter().map(|(key, value)| (name(key), *value)).collect()
}

fn reading() -> Reading {
    Reading {
        stamp: stamp(Lane::Reading, 812),
        score: Some(0.71),
        values: values(&[("sensor1", 20.13), ("sensor2", 1.74)]),
    }
}

fn alert() -> Alert {
    Alert {
        stamp: stamp(Lane::Alert, 3),
        reading: reading().stamp.id,
        anomaly: true,
        score: 0.71,
        threshold: 0.6,
        contributions: values(&[("sensor1", 0.04), ("sensor2", 0.96)]),
        severity: Severity::Warning,
        values: reading().values,
    }
}

fn event() -> Event {
    Event {
        stamp: stamp(Lane::Status, 1),
        event: EventKind::CameraLost,
        subject: Some("door".to_owned()),
        detail: "/dev/video0: gives no frame".to_owned(),
    }
}

fn status() -> Status {
    Status {
        state: DeviceState::Online,
        version: "0.1.0".to_owned(),
        boot: stamp(Lane::Status, 0).boot,
        timestamp: Some(time()),
        clock: ClockState::Synced,
        problems: vec!["camera door: /dev/video0: gives no frame".to_owned()],
    }
}

fn health() -> Health {
    let lane = |records, accepted| LaneHealth {
        records,
        bytes: records * 300,
        accepted,
        delivered: accepted - records,
        dropped: BTreeMap::new(),
    };
    let mut image = lane(2, 94);
    image.dropped = BTreeMap::from([("lane_full".to_owned(), 4)]);
    Health {
        boot: stamp(Lane::Status, 0).boot,
        timestamp: time(),
        clock: ClockState::Synced,
        uptime_ms: 94_318,
        version: "0.1.0".to_owned(),
        spool: BTreeMap::from([
            ("alert".to_owned(), lane(0, 4)),
            ("status".to_owned(), lane(0, 2)),
            ("reading".to_owned(), lane(10, 813)),
            ("image".to_owned(), image),
        ]),
        link: LinkHealth {
            connections: 1,
            published: 901,
            repeated: 0,
            refused: 0,
            bytes_today: Some(4_812_551),
        },
        cameras: BTreeMap::from([(
            name("door"),
            CameraHealth { running: true, frames: 97, skipped: 3, images: 94, faces: 12, failed: 0, lost: 0 },
        )]),
        sensors: BTreeMap::from([(name("env"), SensorHealth { readings: 813, alerts: 4, failed: 0 })]),
        board: Board {
            temperature_c: Some(51.2),
            load_1m: Some(0.8),
            memory_available_bytes: Some(612_000_000),
            resident_bytes: Some(152_000_000),
            disk_free_bytes: Some(21_000_000_000),
            throttling: Some(Throttling { now: vec![], since_boot: vec![Limit::UnderVoltage] }),
            wireless: Some(Wireless { interface: "wlan0".to_owned(), signal_dbm: -56.0, quality: 54.0 }),
        },
    }
}

fn image() -> ImageMeta {
    ImageMeta {
        stamp: stamp(Lane::Image, 93),
        device: name("edge-001"),
        camera: name("door"),
        faces: 2,
        cover: "deep-blur".to_owned(),
        software: "edgeveil-agent 0.1.0".to_owned(),
    }
}

fn ack() -> Ack {
    Ack { ids: vec![reading().stamp.id, alert().stamp.id] }
}

fn tuning() -> Tuning {
    let sensor = SensorTuning { rate: Some(2.0), detect: Some(true), alerts: Some("episodes".to_owned()) };
    let camera = CameraTuning { fps: Some(0.5), every: None, quality: Some(80) };
    Tuning {
        health: Some(HealthTuning { interval: Some("30 s".to_owned()) }),
        sensor: BTreeMap::from([(name("env"), sensor)]),
        camera: BTreeMap::from([(name("door"), camera)]),
    }
}

fn desired() -> Desired {
    let door = CameraTuning { fps: Some(0.5), ..CameraTuning::default() };
    let settings = Tuning { camera: BTreeMap::from([(name("door"), door)]), ..Tuning::default() };
    Desired { id: "2026-11-21-1".to_owned(), settings }
}

fn reported() -> Reported {
    Reported {
        boot: stamp(Lane::Status, 0).boot,
        timestamp: time(),
        clock: ClockState::Synced,
        settings: tuning(),
        desired: Some(DesiredAnswer { id: desired().id, state: Verdict::Applied, problems: vec![] }),
    }
}

/// Shortened: a schema looks at no PEM.
fn pem(label: &str) -> String {
    format!("-----BEGIN {label}-----\nMIIB...\n-----END {label}-----\n")
}

fn enroll() -> EnrollRequest {
    EnrollRequest {
        device: name("edge-001"),
        token: "7-m3kq8t5c2xw9hd4rz6vn1bpyj0gs7fea".to_owned(),
        csr: pem("CERTIFICATE REQUEST"),
    }
}

fn renew() -> RenewRequest {
    RenewRequest { csr: pem("CERTIFICATE REQUEST") }
}

fn enrolled() -> Enrolled {
    Enrolled { device: name("edge-001"), certificate: pem("CERTIFICATE"), ca: pem("CERTIFICATE") }
}

fn refusal() -> Refusal {
    Refusal {
        error: "token 7 has been used; make another with `edgeveil-bridge enroll token --device edge-001`"
            .to_owned(),
    }
}

/// The JSON that stands in an image's UserComment.
fn image_json() -> Vec<u8> {
    let block = image().to_exif();
    let start = block.windows(8).position(|bytes| bytes == b"ASCII\0\0\0").unwrap() + 8;
    let end = start + block[start..].iter().position(|byte| *byte == 0).unwrap_or(block.len() - start);
    let end = start + block[start..end].iter().rposition(|byte| *byte == b'}').unwrap() + 1;
    block[start..end].to_vec()
}

fn examples() -> [(&'static str, Vec<u8>); 13] {
    [
        ("reading", reading().to_json()),
        ("alert", alert().to_json()),
        ("event", event().to_json()),
        ("status", status().to_json()),
        ("health", health().to_json()),
        ("ack", ack().to_json()),
        ("desired", desired().to_json()),
        ("reported", reported().to_json()),
        ("image", image_json()),
        ("enroll", enroll().to_json()),
        ("renew", renew().to_json()),
        ("enrolled", enrolled().to_json()),
        ("refusal", refusal().to_json()),
    ]
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn payloads_are_as_the_golden_files() {
    for (kind, payload) in examples() {
        let path = here(&format!("golden/{kind}.json"));
        if std::env::var_os("EDGEVEIL_BLESS").is_some() {
            fs::write(&path, [payload.as_slice(), b"\n"].concat()).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap();
        assert_eq!(golden.trim_end(), String::from_utf8(payload).unwrap(), "{kind}");
    }
}

#[test]
fn golden_files_fit_their_schemas_and_the_schemas_can_refuse() {
    for (kind, payload) in examples() {
        let schema = json(&fs::read(here(&format!("schemas/{kind}.schema.json"))).unwrap());
        let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let mut payload = json(&payload);
        assert!(schema.is_valid(&payload), "{kind}: {:?}", schema.iter_errors(&payload).next());
        payload["schema"] = "edgeveil.other/1".into();
        assert!(!schema.is_valid(&payload), "{kind}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    assert_eq!(Reading::from_json(&reading().to_json()).unwrap(), reading());
    assert_eq!(Alert::from_json(&alert().to_json()).unwrap(), alert());
    assert_eq!(Event::from_json(&event().to_json()).unwrap(), event());
    assert_eq!(Status::from_json(&status().to_json()).unwrap(), status());
    assert_eq!(Health::from_json(&health().to_json()).unwrap(), health());
    assert_eq!(Ack::from_json(&ack().to_json()).unwrap(), ack());
    assert_eq!(Desired::from_json(&desired().to_json()).unwrap(), desired());
    assert_eq!(Reported::from_json(&reported().to_json()).unwrap(), reported());
    assert_eq!(EnrollRequest::from_json(&enroll().to_json()).unwrap(), enroll());
    assert_eq!(RenewRequest::from_json(&renew().to_json()).unwrap(), renew());
    assert_eq!(Enrolled::from_json(&enrolled().to_json()).unwrap(), enrolled());
    assert_eq!(Refusal::from_json(&refusal().to_json()).unwrap(), refusal());
}

#[test]
fn a_token_does_not_get_into_logs() {
    let shown = format!("{:?}", enroll());
    assert!(shown.contains("edge-001") && !shown.contains("m3kq8t5c"), "{shown}");
}

/// The smallest JPEG that has the block: a reader of metadata looks at no pixels.
fn jpeg(exif: &[u8]) -> Vec<u8> {
    let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe1];
    jpeg.extend(u16::try_from(exif.len() + 8).unwrap().to_be_bytes());
    jpeg.extend(b"Exif\0\0");
    jpeg.extend(exif);
    jpeg.extend([0xff, 0xd9]);
    jpeg
}

#[test]
fn a_record_made_before_the_clock_was_set_gets_its_time_and_keeps_the_rest() {
    let later: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    let change = |stamp: &mut Stamp| stamp.timestamp = later;
    let mut wanted = reading();
    wanted.stamp.timestamp = later;
    let topic = Topic::Reading(name("env"));
    let restamped = restamp(&topic, &reading().to_json(), change).unwrap();
    assert_eq!(Reading::from_json(&restamped).unwrap(), wanted);

    let mut meta = image();
    meta.stamp.timestamp = later;
    let mut before = jpeg(&image().to_exif());
    before.extend(b"the picture");
    let restamped = restamp(&Topic::Image(name("door")), &before, change).unwrap();
    assert_eq!(ImageMeta::from_jpeg(&restamped).unwrap(), meta);
    assert!(restamped.ends_with(b"\xff\xd9the picture"));
    assert_eq!(restamp(&topic, &before, change), None, "of another topic");
}

#[test]
fn an_image_tells_what_it_is() {
    let jpeg = jpeg(&image().to_exif());
    assert_eq!(ImageMeta::from_jpeg(&jpeg).unwrap(), image());
    let exif = exif::Reader::new().read_from_container(&mut std::io::Cursor::new(&jpeg)).unwrap();
    let text =
        |tag| exif.get_field(tag, exif::In::PRIMARY).unwrap().display_value().to_string().replace('"', "");
    assert_eq!(text(exif::Tag::ImageUniqueID), image().stamp.id.to_string());
    assert_eq!(text(exif::Tag::DateTimeOriginal), "2026-11-21 08:15:30");
    assert_eq!(text(exif::Tag::SubSecTimeOriginal), "250");
    assert_eq!(text(exif::Tag::OffsetTimeOriginal), "+00:00");
    assert_eq!(text(exif::Tag::BodySerialNumber), "edge-001");
    assert_eq!(text(exif::Tag::Model), "door");
    assert_eq!(text(exif::Tag::ImageDescription), "2 faces covered");
}

#[test]
fn later_minor_versions_are_read_and_other_majors_are_not() {
    let mut later = json(&reading().to_json());
    later["unit_of_sensor1"] = "C".into();
    later["tags"] = serde_json::json!(["a"]);
    assert_eq!(Reading::from_json(later.to_string().as_bytes()).unwrap(), reading());
    later["schema"] = "edgeveil.reading/2".into();
    let error = Reading::from_json(later.to_string().as_bytes()).unwrap_err();
    assert!(matches!(error, PayloadError::Version { .. }), "{error}");
    assert!(error.to_string().contains("edgeveil.reading/2"), "{error}");
    later["schema"] = "edgeveil.alert/2".into();
    let error = Reading::from_json(later.to_string().as_bytes()).unwrap_err();
    assert!(matches!(error, PayloadError::Schema { .. }), "{error}");
    let mut later = jpeg(&image().to_exif());
    let version = later.windows(8).position(|bytes| bytes == b".image/1").unwrap() + 7;
    later[version] = b'2';
    let error = ImageMeta::from_jpeg(&later).unwrap_err();
    assert!(matches!(error, ImageError::Payload(PayloadError::Version { .. })), "{error}");
    assert_eq!(ImageMeta::id_in_jpeg(&later), Some(image().stamp.id));
    let mut event = json(&event().to_json());
    event["event"] = "moved".into();
    let event = Event::from_json(event.to_string().as_bytes()).unwrap();
    assert_eq!(event.event, EventKind::Other("moved".to_owned()));
}

#[test]
fn contradictions_and_excess_are_refused() {
    let change = |key: &str, value: serde_json::Value| {
        let mut reading = json(&reading().to_json());
        reading[key] = value;
        Reading::from_json(reading.to_string().as_bytes()).map(|_| ())
    };
    assert!(matches!(change("seq", 813.into()), Err(PayloadError::Stamp(_))));
    assert!(matches!(change("seq", (-1).into()), Err(PayloadError::Json { .. })));
    assert!(matches!(change("id", alert().stamp.id.to_string().into()), Err(PayloadError::Stamp(_))));
    assert!(matches!(change("a/b", 1.into()), Err(PayloadError::ValueName(_))));
    assert!(matches!(change("note", "x".repeat(MAX_JSON_BYTES).into()), Err(PayloadError::TooLong { .. })));
    let mut many = json(&reading().to_json());
    for i in 0..MAX_VALUES {
        many[format!("v{i}")] = 1.into();
    }
    assert!(matches!(Reading::from_json(many.to_string().as_bytes()), Err(PayloadError::TooManyValues(_))));
    let ids = vec![reading().stamp.id; MAX_ACK_IDS + 1];
    assert!(matches!(Ack::from_json(&Ack { ids }.to_json()), Err(PayloadError::TooManyIds(_))));
    assert!(matches!(ImageMeta::from_jpeg(b"GIF89a"), Err(ImageError::NotJpeg)));
    assert!(matches!(ImageMeta::from_jpeg(&[0xff, 0xd8, 0xff, 0xd9]), Err(ImageError::Exif(_))));
}

#[test]
fn a_wish_that_would_have_no_effect_is_refused() {
    let change = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut desired = json(&desired().to_json());
        change(&mut desired);
        Desired::from_json(desired.to_string().as_bytes()).map(drop)
    };
    assert!(change(&|_| {}).is_ok());
    // A later minor version of the message may say more; of the settings it may not.
    assert!(change(&|desired| desired["note"] = "x".into()).is_ok());
    for bad in [
        (|desired: &mut serde_json::Value| desired["settings"]["veil"] = serde_json::json!({}))
            as fn(&mut serde_json::Value),
        |desired| desired["settings"]["camera"]["door"]["masks"] = serde_json::json!([]),
        |desired| desired["settings"]["sensor"] = serde_json::json!({ "a b": {} }),
        |desired| desired["id"] = "".into(),
        |desired| desired["id"] = "a b".into(),
        |desired| desired["id"] = "x".repeat(MAX_TUNING_ID + 1).into(),
        |desired| desired["note"] = "x".repeat(MAX_DESIRED_BYTES).into(),
    ] {
        assert!(change(&bad).is_err());
    }
}

/// Every example in docs/mqtt.md and docs/enroll.md is a golden file.
#[test]
fn the_documentation_shows_the_golden_files() {
    let text =
        ["../docs/mqtt.md", "../docs/enroll.md"].map(|path| fs::read_to_string(here(path)).unwrap()).concat();
    for (kind, payload) in examples() {
        let heading = format!("<!-- golden: {kind} -->\n```json\n");
        let start = text.find(&heading).unwrap_or_else(|| panic!("docs show no {kind}")) + heading.len();
        let shown = &text[start..start + text[start..].find("```").unwrap()];
        assert_eq!(json(shown.as_bytes()), json(&payload), "{kind}");
    }
}

proptest::proptest! {
    /// Whatever comes from the network, readers answer and do not panic.
    #[test]
    fn no_payload_makes_a_reader_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
        let _ = (Reading::from_json(&bytes), Alert::from_json(&bytes), Ack::from_json(&bytes), ImageMeta::from_jpeg(&bytes));
        let _ = ImageMeta::from_jpeg(&jpeg(&bytes));
    }

    /// Nor when it is nearly right.
    #[test]
    fn no_damaged_image_makes_a_reader_panic(at in 0usize..700, byte in proptest::prelude::any::<u8>()) {
        let mut jpeg = jpeg(&image().to_exif());
        let at = at % jpeg.len();
        jpeg[at] = byte;
        let _ = ImageMeta::from_jpeg(&jpeg);
    }
}
