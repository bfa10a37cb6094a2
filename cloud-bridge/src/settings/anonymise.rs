//! The anonymisation service: pictures of cameras that run no agent.

use super::{ByteSize, ObjectSettings, read, reader::Section};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Pictures by HTTP, veiled by workers.
#[derive(Debug, Clone, PartialEq)]
pub struct AnonymiseSettings {
    /// Who may send pictures and read results.
    pub access: ImageAccess,
    /// Whether `POST /` takes a picture too.
    pub root: bool,
    /// Whether `serve` veils by itself.
    pub worker: bool,
    /// Where a worker that is a process of its own shows `/healthz`, `/readyz` and `/metrics`.
    pub worker_listen: Option<SocketAddr>,
    /// The largest picture.
    pub max_bytes: ByteSize,
    /// Its width times its height at the most.
    pub max_pixels: u64,
    /// Pictures that may wait for their veil; more are refused until some are done.
    pub queue: u32,
    /// How often one is tried.
    pub attempts: u32,
    /// How long a worker may be silent before another one takes its picture.
    pub lease: Duration,
    /// Whether raw pictures stay after success.
    pub keep_raw: bool,
    /// How long the raw picture of a failed job stays, and what is known of the job.
    pub keep_failed: Duration,
    /// How long results stay; none: for ever.
    pub keep_results: Option<Duration>,
    /// Where raw pictures are.
    pub input: ObjectSettings,
    /// Where veiled ones are.
    pub output: ObjectSettings,
    /// How faces are found and covered.
    pub veil: VeilSettings,
    /// A foreign queue, when there is one.
    pub amqp: Option<AmqpJobSettings>,
}

/// Who may send pictures and read results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageAccess {
    /// Who has one of the tokens in this file, a line each.
    Tokens(PathBuf),
    /// Anybody who reaches the address.
    Open,
}

/// How faces are found and covered. The words are checked when a worker starts, so that a bridge without one can read them.
#[derive(Debug, Clone, PartialEq)]
pub struct VeilSettings {
    /// The folder that `veil/fetch-models` filled; none for where it puts them by itself.
    pub model: Option<PathBuf>,
    /// `thorough`, `balanced` or `fast`.
    pub profile: String,
    /// `deep-blur`, `solid` or `mosaic`.
    pub cover: String,
    /// Of the result's JPEG.
    pub quality: u8,
    /// That share a search.
    pub threads: u32,
    /// How long a search may take.
    pub timeout: Duration,
}

/// A queue of somebody else's, with buckets of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct AmqpJobSettings {
    /// The broker's host name, as in its certificate.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its virtual host.
    pub vhost: String,
    /// Who we are.
    pub user: String,
    /// File with the user's password.
    pub password_file: PathBuf,
    /// Who the broker must have been certified by; none: the connection is without TLS.
    pub ca: Option<PathBuf>,
    /// The queue.
    pub queue: String,
    /// The queue for messages that cannot be worked on; none: they are dropped with a line in the log.
    pub dead_letter: Option<String>,
    /// Where the named pictures are.
    pub input: ObjectSettings,
    /// Where veiled ones go, under the same name.
    pub output: ObjectSettings,
}

/// Within which the section counts as given by the environment alone.
const GIVEN_BY: [&str; 3] = ["token_file", "without_token", "worker"];

/// None inside: not wanted. None outside: a problem.
pub(super) fn anonymise(
    section: Section<'_, '_>,
    data_dir: &Path,
    http: SocketAddr,
) -> Option<Option<AnonymiseSettings>> {
    if !section.is_given(&GIVEN_BY) {
        return Some(None);
    }
    let access = access(&section, http);
    let between = |key: &'static str, default: Duration, least: Duration, most: Duration, wants: &str| {
        let time = section.or(key, default);
        if time < least || time > most {
            section.problem(key, format!("wants {wants}"));
        }
        time
    };
    let number = |key: &'static str, default: u32, least: u32, most: u32| {
        let number = section.or(key, default);
        if number < least || number > most {
            section.problem(key, format!("wants {least} to {most}"));
        }
        number
    };
    let day = Duration::from_secs(86_400);
    let hour = Duration::from_secs(3600);
    let keep_failed = between("keep_failed", 7 * day, hour, 365 * day, "\"1 h\" to \"365 d\"");
    let lease = between("lease", Duration::from_secs(60), Duration::from_secs(2), hour, "\"2 s\" to \"1 h\"");
    let max_bytes = section.or("max_bytes", ByteSize(16 << 20));
    if max_bytes < ByteSize(1 << 10) || max_bytes > ByteSize(64 << 20) {
        section.problem("max_bytes", "wants \"1 KiB\" to \"64 MiB\"".to_owned());
    }
    let keep_results: Option<Duration> = section.get("keep_results");
    if keep_results.is_some_and(|kept| kept < hour) {
        section.problem("keep_results", "wants \"1 h\" or more".to_owned());
    }
    let (max_pixels, queue) =
        (number("max_pixels", 24_000_000, 1_000, 200_000_000), number("queue", 1_000, 1, 100_000));
    let attempts = number("attempts", 5, 1, 100);
    let input = read::objects(section.section("input"), data_dir.join("anonymise/input"));
    let output = read::objects(section.section("output"), data_dir.join("anonymise/output"));
    apart(&section, "output", input.as_ref(), output.as_ref());
    let veil = veil(section.section("veil"));
    let amqp = section.section("amqp");
    let amqp = if amqp.is_given(&["host"]) { amqp_queue(amqp, data_dir).map(Some) } else { Some(None) };
    let settings = AnonymiseSettings {
        access: access?,
        root: section.or("root", false),
        worker: section.or("worker", false),
        worker_listen: section.get("worker_listen"),
        max_bytes,
        max_pixels: u64::from(max_pixels),
        queue,
        attempts,
        lease,
        keep_raw: section.or("keep_raw", false),
        keep_failed,
        keep_results,
        input: input?,
        output: output?,
        veil,
        amqp: amqp?,
    };
    section.finish();
    Some(Some(settings))
}

fn access(section: &Section<'_, '_>, http: SocketAddr) -> Option<ImageAccess> {
    let open = section.or("without_token", false);
    match section.get("token_file") {
        Some(_) if open => {
            let text = "stands beside token_file; keep one of them".to_owned();
            section.problem("without_token", text);
            None
        }
        Some(file) => Some(ImageAccess::Tokens(file)),
        None if open || http.ip().is_loopback() => Some(ImageAccess::Open),
        None => {
            let text = format!(
                "is missing, and http.listen = \"{http}\" is reached from elsewhere; name a file with a token a line, or set without_token = true if anybody may send pictures and read results"
            );
            section.problem("token_file", text);
            None
        }
    }
}

/// A raw picture must never lie where veiled ones are looked for.
fn apart(
    section: &Section<'_, '_>,
    key: &'static str,
    input: Option<&ObjectSettings>,
    output: Option<&ObjectSettings>,
) {
    let within = match (input, output) {
        (Some(ObjectSettings::Folder(input)), Some(ObjectSettings::Folder(output))) => {
            input.starts_with(output) || output.starts_with(input)
        }
        (Some(ObjectSettings::S3(input)), Some(ObjectSettings::S3(output))) => {
            input.bucket == output.bucket && input.endpoint == output.endpoint
        }
        _ => false,
    };
    if within {
        section.problem(key, "is the place of `input` too; name another folder or bucket".to_owned());
    }
}

fn veil(section: Section<'_, '_>) -> VeilSettings {
    let word = |key: &'static str, words: [&str; 3]| {
        let word: String = section.or(key, words[0].to_owned());
        if !words.contains(&word.as_str()) {
            let [first, second, third] = words;
            section.problem(key, format!("`{word}`; wants \"{first}\", \"{second}\" or \"{third}\""));
        }
        word
    };
    let settings = VeilSettings {
        model: section.get("model"),
        profile: word("profile", ["balanced", "thorough", "fast"]),
        cover: word("cover", ["deep-blur", "solid", "mosaic"]),
        quality: u8::try_from(section.or("quality", 85_u16)).unwrap_or(u8::MAX),
        threads: section.or("threads", 1),
        timeout: section.or("timeout", Duration::from_secs(30)),
    };
    if !(1..=100).contains(&settings.quality) {
        section.problem("quality", "wants 1 to 100".to_owned());
    }
    if !(1..=16).contains(&settings.threads) {
        section.problem("threads", "wants 1 to 16".to_owned());
    }
    if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&settings.timeout) {
        section.problem("timeout", "wants \"1 s\" to \"10 min\"".to_owned());
    }
    section.finish();
    settings
}

fn amqp_queue(section: Section<'_, '_>, data_dir: &Path) -> Option<AmqpJobSettings> {
    let (host, password_file) = (section.required("host"), section.required("password_file"));
    let (ca, allow_plain) = (section.get("ca"), section.or("allow_plain", false));
    match &ca {
        None if !allow_plain => {
            let text = "is missing; wants the file of the CA that has certified the broker, or allow_plain = true for one without TLS";
            section.problem("ca", text.to_owned());
        }
        Some(_) if allow_plain => {
            section.problem("allow_plain", "stands beside ca; keep one of them".to_owned());
        }
        _ => {}
    }
    let input = read::objects(section.section("input"), data_dir.join("anonymise/infiles"));
    let output = read::objects(section.section("output"), data_dir.join("anonymise/outfiles"));
    apart(&section, "output", input.as_ref(), output.as_ref());
    let queue = section.or("queue", "images".to_owned());
    let dead_letter: Option<String> = section.get("dead_letter");
    for (key, name) in [("queue", Some(&queue)), ("dead_letter", dead_letter.as_ref())] {
        if name.is_some_and(|name| name.len() > 255) {
            section.problem(key, "is longer than 255 bytes".to_owned());
        }
    }
    if dead_letter.as_ref() == Some(&queue) {
        section.problem("dead_letter", "is the queue itself, so that its messages would go round".to_owned());
    }
    let settings = AmqpJobSettings {
        port: section.or("port", if allow_plain { 5672 } else { 5671 }),
        vhost: section.or("vhost", "/".to_owned()),
        user: section.or("user", "edgeveil".to_owned()),
        ca,
        queue,
        dead_letter,
        host: host?,
        password_file: password_file?,
        input: input?,
        output: output?,
    };
    section.finish();
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn parse(text: &str) -> Result<Settings, Vec<String>> {
        Settings::parse("b.toml", text, &|_| None)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn off_unless_it_is_named_and_whole_without_anything_more() {
        assert_eq!(parse("").unwrap().anonymise, None);
        let settings = parse("data_dir = \"d\"\n[anonymise]\n").unwrap().anonymise.unwrap();
        assert_eq!(settings.access, ImageAccess::Open, "pages are on the loopback interface");
        assert_eq!(settings.input, ObjectSettings::Folder("d/anonymise/input".into()));
        assert_eq!(settings.amqp, None);
        let amqp =
            parse("[anonymise.amqp]\nhost = \"h\"\npassword_file = \"p\"\nallow_plain = true\n").unwrap();
        let amqp = amqp.anonymise.unwrap().amqp.unwrap();
        assert_eq!((amqp.port, amqp.queue.as_str(), amqp.ca), (5672, "images", None));
    }

    #[test]
    fn an_address_for_others_wants_a_token_or_a_clear_word() {
        let elsewhere = "[http]\nlisten = \"0.0.0.0:8080\"\n[anonymise]\n";
        let problems = parse(elsewhere).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("b.toml:3: `anonymise.token_file`: is missing"), "{problems:?}");
        let open = parse(&format!("{elsewhere}without_token = true\n")).unwrap();
        assert_eq!(open.anonymise.unwrap().access, ImageAccess::Open);
        let tokens = parse(&format!("{elsewhere}token_file = \"t\"\n")).unwrap();
        assert_eq!(tokens.anonymise.unwrap().access, ImageAccess::Tokens("t".into()));
        assert!(parse(&format!("{elsewhere}token_file = \"t\"\nwithout_token = true\n")).is_err());
    }

    #[test]
    fn bounds_are_named_with_their_line() {
        let text = "[anonymise]\nqueue = 0\nlease = \"1 s\"\nmax_bytes = \"1 GiB\"\nmax_pixels = 1\nattempts = 0\n\
             keep_failed = \"1 s\"\nkeep_results = \"1 s\"\n[anonymise.veil]\nprofile = \"quick\"\nquality = 300\n\
             threads = 0\ntimeout = \"1 ms\"\ncover = \"blur\"\n[anonymise.output]\nfolder = \"edgeveil-data/anonymise\"\n";
        let problems = parse(text).unwrap_err();
        for (line, key) in [
            (2, "queue"),
            (3, "lease"),
            (4, "max_bytes"),
            (5, "max_pixels"),
            (6, "attempts"),
            (7, "keep_failed"),
            (8, "keep_results"),
            (10, "veil.profile"),
            (11, "veil.quality"),
            (12, "veil.threads"),
            (13, "veil.timeout"),
            (14, "veil.cover"),
            (15, "output"),
        ] {
            let start = format!("b.toml:{line}: `anonymise.{key}`: ");
            assert!(problems.iter().any(|problem| problem.starts_with(&start)), "{start} in {problems:#?}");
        }
        let problems =
            parse("[anonymise.amqp]\nhost = \"h\"\nqueue = \"q\"\ndead_letter = \"q\"\n").unwrap_err();
        for (place, key) in [(1, "password_file"), (1, "ca"), (4, "dead_letter")] {
            let start = format!("b.toml:{place}: `anonymise.amqp.{key}`");
            assert!(problems.iter().any(|problem| problem.starts_with(&start)), "{start} in {problems:#?}");
        }
    }
}
