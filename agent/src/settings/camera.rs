//! Cameras: where their frames come from, and when.

use super::{
    Size,
    document::Section,
    units::{Masks, Text},
};
use edgeveil_wire::Name;
use hyper::Uri;
use jiff::civil::Time;
use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

/// One camera.
#[derive(Debug, Clone, PartialEq)]
pub struct Camera {
    /// Last level of its topic.
    pub name: Name,
    /// Where its frames come from.
    pub source: CameraSource,
    /// Frames a second, at most.
    pub fps: f64,
    /// Frames a second, at most, while the board holds its processor back.
    pub throttled_fps: f64,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
    /// A stream that gives no picture for so long is opened anew.
    pub silence: Duration,
    /// When it takes pictures.
    pub schedule: Schedule,
    /// Covered in each of its frames.
    pub masks: Vec<edgeveil_veil::Mask>,
}

/// When a camera takes pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    /// It is opened for one picture in so long, and closed in between. None: it stays open.
    pub every: Option<Duration>,
    /// Opened for one picture, it looks so long before it takes it.
    pub warm_up: Duration,
    /// The part of the day, by local time.
    pub between: Option<Daily>,
}

/// Where frames come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameraSource {
    /// A JPEG or PNG file, or a folder of them in the order of their names, over and over.
    Replay(PathBuf),
    /// A V4L2 device such as `/dev/video0`.
    V4l2 {
        /// The device file.
        device: PathBuf,
        /// What is asked of it.
        size: Size,
    },
    /// A program that writes MJPEG to its standard output, with its arguments.
    Command(Vec<String>),
    /// A stream of JPEGs over HTTP.
    Http(HttpCamera),
    /// One JPEG for each request.
    Snapshot(HttpCamera),
    /// A folder into which others put pictures.
    Folder {
        /// The folder.
        path: PathBuf,
        /// What happens to a picture that is done with.
        then: Then,
    },
}

impl CameraSource {
    /// Whether it notices by itself, after `silence`, that nothing comes any more.
    pub fn tells_of_silence(&self) -> bool {
        matches!(self, Self::Command(_) | Self::Http(_) | Self::Snapshot(_))
    }
}

/// A camera that is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCamera {
    /// Its address.
    pub url: Url,
    /// A file with `user:password`.
    pub login: Option<PathBuf>,
    /// What its certificate is held against, PEM. None: the system's authorities.
    pub ca: Option<PathBuf>,
}

/// What happens to an upload whose veiled image is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It stays, and is remembered.
    Keep,
    /// It is deleted.
    Delete,
}

/// An address with `http://` or `https://`. It is shown without what stands behind its `?`, where cameras take passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    /// Name or address of the camera; an IPv6 one without its brackets.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// Whether it wants TLS.
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// What the `Host` header says.
    pub fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    /// What is asked for.
    pub fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.0.path())?;
        if self.0.query().is_some() { f.write_str("?…") } else { Ok(()) }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wants = "wants an address such as \"http://camera.lan/stream.mjpg\"";
        let uri: Uri = text.parse().map_err(|_| format!("is no address; it {wants}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(format!("{wants}; for rtsp:// use ffmpeg as a `command`"));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("holds a password, which would be seen in logs; put `user:password` into a file and name it as `login`".to_owned());
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(format!("names no host; it {wants}"));
        }
        Ok(Self(uri))
    }
}

/// A part of every day, by local time: "06:00-20:30". It may go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daily {
    from: Time,
    to: Time,
}

impl Daily {
    /// Whether a time of day lies in it; its end does not.
    pub fn contains(&self, time: Time) -> bool {
        if self.from <= self.to {
            (self.from..self.to).contains(&time)
        } else {
            time >= self.from || time < self.to
        }
    }
}

impl fmt::Display for Daily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.strftime("%H:%M"), self.to.strftime("%H:%M"))
    }
}

impl FromStr for Daily {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = |text: &str| Time::strptime("%H:%M", text.trim()).ok();
        let parts = text.split_once('-').and_then(|(from, to)| Some((time(from)?, time(to)?)));
        match parts {
            Some((from, to)) if from != to => Ok(Self { from, to }),
            _ => Err(format!("is \"{text}\"; it wants two times of day, such as \"06:00-20:30\"")),
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> Option<Camera> {
    let name = section.required::<Text<Name>>("name");
    let source = source(section);
    let fps = section.within("fps", 1.0, 0.001..=120.0);
    let throttled_fps = section.within("throttled_fps", fps / 2.0, 0.0005..=fps);
    let quality = section.within("quality", 85, 1..=100);
    let seconds = Duration::from_secs;
    let silence = section.within("silence", seconds(10), seconds(1)..=seconds(86_400));
    let every = section.get_within("every", seconds(1)..=seconds(7 * 86_400));
    let warm_up = section.within("warm_up", Duration::ZERO, Duration::ZERO..=seconds(60));
    let between = section.get::<Text<Daily>>("between").map(|Text(between)| between);
    if every.is_some() && section.get::<f64>("fps").is_some() {
        section.problem("every", "cannot stand beside fps: one of the two is meant");
    }
    if every.is_none() && section.get::<Duration>("warm_up").is_some() {
        section.problem("warm_up", "needs every beside it: a camera that stays open has warmed up");
    }
    if every.is_some() && matches!(source, Some(CameraSource::Folder { .. })) {
        section.problem("every", "makes no sense for a folder: its pictures come when they come");
    }
    let schedule = Schedule { every, warm_up, between };
    let masks = section.get::<Masks>("masks").unwrap_or_default().0;
    Some(Camera { name: name?.0, source: source?, fps, throttled_fps, quality, silence, schedule, masks })
}

fn source(camera: &Section<'_>) -> Option<CameraSource> {
    let section = camera.section("source");
    let size = camera.get::<Size>("size").unwrap_or(Size { width: 640, height: 480 });
    match section.one_of(&["replay", "v4l2", "command", "http", "snapshot", "folder"])? {
        "replay" => section.get("replay").map(CameraSource::Replay),
        "v4l2" => section.get("v4l2").map(|device| CameraSource::V4l2 { device, size }),
        "command" => section.get("command").map(CameraSource::Command),
        "http" => http(&section, "http").map(CameraSource::Http),
        "snapshot" => http(&section, "snapshot").map(CameraSource::Snapshot),
        _ => {
            let path = section.get("folder");
            let then =
                super::parse::choice(&section, "then", &[("keep", Then::Keep), ("delete", Then::Delete)]);
            Some(CameraSource::Folder { path: path?, then })
        }
    }
}

fn http(section: &Section<'_>, key: &'static str) -> Option<HttpCamera> {
    let url = section.get::<Text<Url>>(key);
    let (login, ca) = (section.get("login"), section.get("ca"));
    Some(HttpCamera { url: url?.0, login, ca })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Problems, parse};
    use std::path::Path;

    fn camera(text: &str) -> Result<Camera, Problems> {
        let text = format!(
            "[link]\nhost = \"h\"\nca = \"a\"\ncert = \"c\"\nkey = \"k\"\n[veil]\nmodel = \"m\"\n\
             [[camera]]\nname = \"door\"\n{text}\n"
        );
        parse(Path::new("agent.toml"), &text).map(|settings| settings.cameras[0].clone())
    }

    #[test]
    fn each_source_is_read() {
        let source = |text: &str| camera(&format!("source = {{ {text} }}")).unwrap().source;
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            source(r#"command = ["rpicam-vid", "-t", "0"]"#),
            CameraSource::Command(words(&["rpicam-vid", "-t", "0"]))
        );
        let CameraSource::Http(http) = source(r#"http = "http://cam.lan:8080/a?user=x", login = "/l""#)
        else {
            panic!("not HTTP")
        };
        assert_eq!((http.url.host(), http.url.port(), http.url.path()), ("cam.lan", 8080, "/a?user=x"));
        assert_eq!(
            (http.url.to_string().as_str(), http.login),
            ("http://cam.lan:8080/a?…", Some("/l".into()))
        );
        let CameraSource::Snapshot(http) = source(r#"snapshot = "https://[fe80::1]/s.jpg", ca = "/c""#)
        else {
            panic!("no snapshot")
        };
        assert_eq!((http.url.host(), http.url.port(), http.url.authority()), ("fe80::1", 443, "[fe80::1]"));
        assert_eq!(
            source(r#"folder = "/srv/in", then = "delete""#),
            CameraSource::Folder { path: "/srv/in".into(), then: Then::Delete }
        );
    }

    #[test]
    fn a_board_that_is_held_back_takes_half_of_the_pictures() {
        let rates = |more: &str| {
            let camera = camera(&format!("source = {{ replay = \"/f\" }}\n{more}")).unwrap();
            (camera.fps, camera.throttled_fps)
        };
        assert_eq!(rates("fps = 8"), (8.0, 4.0));
        assert_eq!(rates("fps = 8\nthrottled_fps = 8"), (8.0, 8.0));
        let more = camera("source = { replay = \"/f\" }\nfps = 2\nthrottled_fps = 3").unwrap_err();
        assert_eq!(more.list()[0].key, "camera[0].throttled_fps");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, key, what) in [
            (
                "source = { command = \"rpicam-vid -t 0\" }",
                "camera[0].source.command",
                "a program and its arguments",
            ),
            ("source = { command = [] }", "camera[0].source.command", "a program and its arguments"),
            ("source = { http = \"rtsp://cam/\" }", "camera[0].source.http", "ffmpeg"),
            ("source = { http = \"http://anna:secret@cam/\" }", "camera[0].source.http", "login"),
            ("source = { http = \"cam/x\" }", "camera[0].source.http", "address"),
            ("source = { folder = \"/f\", then = \"burn\" }", "camera[0].source.then", "delete"),
            ("source = { folder = \"/f\" }\nevery = \"10 s\"", "camera[0].every", "no sense"),
            ("source = { replay = \"/f\" }\nevery = \"10 s\"\nfps = 2", "camera[0].every", "fps"),
            ("source = { replay = \"/f\" }\nwarm_up = \"2 s\"", "camera[0].warm_up", "every"),
            ("source = { replay = \"/f\" }\nbetween = \"6-20\"", "camera[0].between", "06:00-20:30"),
            ("source = { replay = \"/f\", login = \"/l\" }", "camera[0].source.login", "not known"),
        ] {
            let problems = camera(text).expect_err(text);
            let [problem] = problems.list() else { panic!("{text}: {problems}") };
            assert_eq!(problem.key, key, "{text}");
            assert!(problem.what.contains(what) && !problem.what.contains("secret"), "{text}: {problem:?}");
        }
    }

    #[test]
    fn a_part_of_the_day_may_go_over_midnight() {
        let time = |text: &str| Time::strptime("%H:%M", text).unwrap();
        let within = |part: &str, at: &str| part.parse::<Daily>().unwrap().contains(time(at));
        for (part, at, expected) in [
            ("06:00-20:30", "06:00", true),
            ("06:00-20:30", "20:29", true),
            ("06:00-20:30", "20:30", false),
            ("06:00-20:30", "05:59", false),
            ("22:00-05:00", "23:00", true),
            ("22:00-05:00", "04:59", true),
            ("22:00-05:00", "12:00", false),
        ] {
            assert_eq!(within(part, at), expected, "{at} in {part}");
        }
        assert_eq!("6:00 - 20:30".parse::<Daily>().unwrap().to_string(), "06:00-20:30");
        for bad in ["", "06:00", "06:00-06:00", "06:00-24:00", "06:00-20:60"] {
            assert!(bad.parse::<Daily>().is_err(), "{bad}");
        }
    }
}
