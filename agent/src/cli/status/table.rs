//! The document as a table for a terminal of 80 columns.

use crate::status::{CameraNow, Document, LinkState, SensorNow};
use edgeveil_wire::{Board, CameraHealth, Lane, Limit, SensorHealth};
use std::fmt::Write as _;

const COLUMNS: usize = 80;
/// Longer names of cameras and sensors are cut.
const MAX_NAME: usize = 20;

/// The whole table.
pub fn table(document: &Document) -> String {
    let mut lines = Lines::default();
    let Document { device, version, boot, pid, uptime_ms, started_at, .. } = document;
    lines.wrapped("", &format!("{device}: edgeveil-agent {version}, process {pid}, boot {boot}"));
    let started = started_at.strftime("%Y-%m-%d %H:%M:%S");
    lines.wrapped("running    ", &format!("for {}, since {started} UTC", time(*uptime_ms)));
    lines.wrapped("connection ", &link(document));
    lines.wrapped("disk       ", &disk(document));
    if let Some(board) = board(&document.health.board) {
        lines.wrapped("board      ", &board);
    }
    if document.problems.is_empty() {
        lines.line("problems   none");
    } else {
        lines.line("\nproblems");
        for (part, what) in &document.problems {
            lines.wrapped("  ", &format!("{part}: {what}"));
        }
    }
    lanes(document, &mut lines);
    cameras(document, &mut lines);
    sensors(document, &mut lines);
    lines.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    /// Problems hold what others have said: a terminal is to obey none of it.
    fn line(&mut self, line: &str) {
        let printed = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
        self.0.extend(line.trim_end_matches(' ').chars().map(printed));
        self.0.push('\n');
    }

    /// Breaks lines between words; what follows is set in by the width of `head`.
    fn wrapped(&mut self, head: &str, text: &str) {
        let (mut line, indent) = (head.to_owned(), head.chars().count());
        let mut width = indent;
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if width > indent && width + 1 + length > COLUMNS {
                self.line(&line);
                (line, width) = (" ".repeat(indent), indent);
            }
            if width > indent {
                line.push(' ');
                width += 1;
            }
            line.push_str(word);
            width += length;
        }
        self.line(&line);
    }
}

fn link(document: &Document) -> String {
    let link = &document.link;
    let (broker, time) = (&link.broker, time(link.for_ms));
    match link.state {
        LinkState::Connected => format!("connected to {broker} for {time}"),
        LinkState::Connecting => format!("connecting to {broker} for {time}"),
        // Why is among the problems.
        LinkState::Disconnected => format!("not connected to {broker} for {time}"),
    }
}

fn disk(document: &Document) -> String {
    let used = document.health.spool.values().map(|lane| lane.bytes).sum();
    let mut text = format!("spool {} of {}", bytes(used), bytes(document.spool.max_bytes));
    if let Some(free) = document.health.board.disk_free_bytes {
        let _ = write!(text, ", {} free in {}", bytes(free), document.data_dir.display());
    }
    text
}

/// What it tells of itself, if anything.
fn board(board: &Board) -> Option<String> {
    let limit = |limit: &Limit| match limit {
        Limit::UnderVoltage => "low voltage".to_owned(),
        Limit::FrequencyCapped => "capped clock".to_owned(),
        Limit::Throttled => "throttled".to_owned(),
        Limit::TemperatureLimit => "hot".to_owned(),
        Limit::Other(other) => other.clone(),
    };
    let limits = board.throttling.iter().flat_map(|throttling| &throttling.now).map(limit);
    let said: Vec<String> = [
        board.temperature_c.map(|celsius| format!("{celsius:.1} °C")),
        board.load_1m.map(|load| format!("load {load:.2}")),
        board.memory_available_bytes.map(|free| format!("memory {} free", bytes(free))),
        board.resident_bytes.map(|used| format!("agent {}", bytes(used))),
        board.wireless.as_ref().map(|w| format!("{} {:.0} dBm", w.interface, w.signal_dbm)),
    ]
    .into_iter()
    .flatten()
    .chain(limits)
    .collect();
    (!said.is_empty()).then(|| said.join(", "))
}

fn lanes(document: &Document, lines: &mut Lines) {
    lines.line(&format!(
        "\n{:<10}{:>9}{:>11}{:>12}{:>12}{:>10}",
        "lane", "waiting", "size", "accepted", "delivered", "dropped"
    ));
    let mut reasons = Vec::new();
    let known = Lane::ALL.map(Lane::as_str);
    let others = document.health.spool.keys().map(String::as_str).filter(|name| !known.contains(name));
    for name in known.into_iter().chain(others) {
        let Some(lane) = document.health.spool.get(name) else { continue };
        let dropped: u64 = lane.dropped.values().sum();
        lines.line(&format!(
            "{:<10}{:>9}{:>11}{:>12}{:>12}{dropped:>10}",
            name,
            lane.records,
            bytes(lane.bytes),
            lane.accepted,
            lane.delivered
        ));
        if dropped > 0 {
            let counts: Vec<_> =
                lane.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            reasons.push(format!("{name}: {}", counts.join(", ")));
        }
    }
    if !reasons.is_empty() {
        lines.wrapped("  ", &format!("dropped of {}", reasons.join("; ")));
    }
}

fn cameras(document: &Document, lines: &mut Lines) {
    if document.cameras.is_empty() {
        return;
    }
    let width = document.cameras.keys().map(|name| cut(name.as_str()).chars().count()).max();
    let width = width.unwrap_or_default().max("camera".len());
    lines.line(&format!(
        "\n{:<width$}{:>15}{:>17}{:>10}{:>10}{:>8}",
        "camera", "last frame", "rate", "images", "faces", "failed"
    ));
    let none = CameraHealth::default();
    for (name, CameraNow { last_frame_ms, fps }) in &document.cameras {
        let counted = document.health.cameras.get(name).unwrap_or(&none);
        lines.line(&format!(
            "{:<width$}{:>15}{:>17}{:>10}{:>10}{:>8}",
            cut(name.as_str()),
            ago(*last_frame_ms),
            fps.map_or_else(|| "-".to_owned(), rate),
            counted.images,
            counted.faces,
            counted.failed
        ));
    }
}

fn sensors(document: &Document, lines: &mut Lines) {
    if document.sensors.is_empty() {
        return;
    }
    let width = document.sensors.keys().map(|name| cut(name.as_str()).chars().count()).max();
    let width = width.unwrap_or_default().max("sensor".len());
    lines.line(&format!(
        "\n{:<width$}{:>15}{:>8}{:>8}{:>10}{:>8}{:>8}",
        "sensor", "last row", "values", "score", "rows", "alerts", "failed"
    ));
    let none = SensorHealth::default();
    for (name, SensorNow { last_row_ms, values, score }) in &document.sensors {
        let counted = document.health.sensors.get(name).unwrap_or(&none);
        lines.line(&format!(
            "{:<width$}{:>15}{:>8}{:>8}{:>10}{:>8}{:>8}",
            cut(name.as_str()),
            ago(*last_row_ms),
            values.map_or_else(|| "-".to_owned(), |values| values.to_string()),
            score.map_or_else(|| "-".to_owned(), |score| format!("{score:.2}")),
            counted.readings,
            counted.alerts,
            counted.failed
        ));
    }
}

fn cut(name: &str) -> String {
    if name.chars().count() <= MAX_NAME {
        return name.to_owned();
    }
    name.chars().take(MAX_NAME - 1).chain(['…']).collect()
}

fn ago(ms: Option<u64>) -> String {
    ms.map_or_else(|| "none yet".to_owned(), |ms| format!("{} ago", time(ms)))
}

/// Its two largest units.
fn time(ms: u64) -> String {
    let (s, min, h) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match () {
        () if ms < 10_000 => format!("{}.{} s", s, ms % 1000 / 100),
        () if s < 60 => format!("{s} s"),
        () if min < 60 => format!("{min} min"),
        () if h < 24 => format!("{h} h {} min", min % 60),
        () => format!("{} d {} h", h / 24, h % 24),
    }
}

fn rate(fps: f64) -> String {
    if fps >= 0.1 { format!("{fps:.1} fps") } else { format!("1 in {}", time((1000.0 / fps) as u64)) }
}

fn bytes(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::SCHEMA;
    use serde_json::{Value, json};

    fn sample() -> Value {
        let lane = |records: u64, bytes: u64| json!({"records": records, "bytes": bytes, "accepted": 3_000_000 + records, "delivered": 3_000_000});
        json!({
            "schema": SCHEMA, "device": "edge-001", "version": "0.1.0", "pid": 4711, "boot": "1".repeat(20),
            "started_at": "2026-11-26T14:02:11.123Z", "uptime_ms": 8_000_000, "data_dir": "/var/lib/edgeveil",
            "problems": {},
            "link": {"state": "connected", "for_ms": 42_000, "broker": "bridge.example.org:8883"},
            "spool": {"max_bytes": 2_147_483_648u64, "min_free_bytes": 268_435_456},
            "cameras": {"desk": {"last_frame_ms": 234, "fps": 4.96}, "gate": {}, "yard": {"last_frame_ms": 3_540_000, "fps": 0.000278}},
            "sensors": {"env": {"last_row_ms": 999, "values": 3, "score": 0.4567}, "new": {}},
            "health": {
                "boot": "1".repeat(20), "timestamp": "2026-11-26T16:15:31Z", "clock": "synced", "uptime_ms": 8_000_000, "version": "0.1.0",
                "spool": {"alert": lane(0, 0), "status": lane(0, 0), "reading": lane(12, 3456), "image": lane(3, 1_572_864)},
                "link": {"connections": 1, "published": 9, "repeated": 0, "refused": 0},
                "cameras": {"desk": {"running": true, "frames": 97, "skipped": 3, "images": 94, "faces": 12, "failed": 1, "lost": 0}},
                "sensors": {"env": {"readings": 813, "alerts": 4, "failed": 2}},
                "board": {"temperature_c": 54.25, "load_1m": 0.421, "memory_available_bytes": 1_288_490_189u64,
                    "resident_bytes": 157_286_400, "disk_free_bytes": 13_206_994_124u64,
                    "throttling": {"now": ["under_voltage"]},
                    "wireless": {"interface": "wlan0", "signal_dbm": -58.0, "quality": 52.0}}
            }
        })
    }

    fn shown(document: Value) -> String {
        table(&serde_json::from_value(document).unwrap())
    }

    #[test]
    fn all_of_it_is_there_and_fits_a_terminal() {
        let text = shown(sample());
        let expected = "\
edge-001: edgeveil-agent 0.1.0, process 4711, boot 11111111111111111111
running    for 2 h 13 min, since 2026-11-26 14:02:11 UTC
connection connected to bridge.example.org:8883 for 42 s
disk       spool 1.5 MiB of 2.0 GiB, 12.3 GiB free in /var/lib/edgeveil
board      54.2 °C, load 0.42, memory 1.2 GiB free, agent 150.0 MiB, wlan0 -58
           dBm, low voltage
problems   none

lane        waiting       size    accepted   delivered   dropped
alert             0        0 B     3000000     3000000         0
status            0        0 B     3000000     3000000         0
reading          12    3.4 KiB     3000012     3000000         0
image             3    1.5 MiB     3000003     3000000         0

camera     last frame             rate    images     faces  failed
desk        0.2 s ago          5.0 fps        94        12       1
gate         none yet                -         0         0       0
yard       59 min ago      1 in 59 min         0         0       0

sensor       last row  values   score      rows  alerts  failed
env         0.9 s ago       3    0.46       813       4       2
new          none yet       -       -         0       0       0
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_wrong_is_told_in_whole_and_a_terminal_obeys_none_of_it() {
        let mut document = sample();
        let why = "bridge.example.org:8883: nothing listens there; is the bridge running, and does the network let this device reach that port?";
        document["link"] = json!({"state": "disconnected", "for_ms": 180_000, "broker": "bridge.example.org:8883", "why": why});
        document["problems"] =
            json!({"camera desk": "ended and said: \u{1b}[2Jgone\u{7}\nforged line", "link": why});
        document["health"]["spool"]["image"]["dropped"] = json!({"oldest": 7, "too_old": 2});
        let text = shown(document);
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for said in [
            "connection not connected to bridge.example.org:8883 for 3 min disk",
            &format!("link: {why}"),
            "camera desk: ended and said: \u{fffd}[2Jgone\u{fffd} forged line",
            "3000003 3000000 9",
            "dropped of image: 7 oldest, 2 too_old",
        ] {
            assert!(flat.contains(said), "no `{said}` in:\n{text}");
        }
        assert!(!flat.contains("problems none"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }

    #[test]
    fn the_largest_figures_fit() {
        let mut document = sample();
        let name = "n".repeat(64);
        document["cameras"] = json!({ name.clone(): {"last_frame_ms": 10_000_000_000u64, "fps": 0.00001} });
        document["sensors"] =
            json!({ name.clone(): {"last_row_ms": 10_000_000_000u64, "values": 999, "score": 1.0} });
        document["health"]["cameras"] = json!({ name.clone(): {"running": true, "frames": 1, "skipped": 0,
            "images": 99_999_999, "faces": 99_999_999, "failed": 999_999, "lost": 0} });
        document["health"]["sensors"] =
            json!({ name: {"readings": 99_999_999, "alerts": 999_999, "failed": 999_999} });
        let text = shown(document);
        assert!(text.contains("115 d 17 h ago"), "{text}");
        assert!(text.contains("nnn…"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }

    #[test]
    fn times_sizes_and_rates_have_units() {
        for (ms, said) in [
            (0, "0.0 s"),
            (9_999, "9.9 s"),
            (10_000, "10 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (3_600_000, "1 h 0 min"),
            (86_399_999, "23 h 59 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(time(ms), said);
        }
        assert_eq!([bytes(1023), bytes(1024), bytes(5 << 30)], ["1023 B", "1.0 KiB", "5.0 GiB"]);
        assert_eq!([rate(29.97), rate(0.5), rate(0.05)], ["30.0 fps", "0.5 fps", "1 in 20 s"]);
    }
}
