//! `edgeveil-agent simulate`

use super::Failure;
use crate::{
    settings::MqttVersion,
    simulate::{self, Authority, Fleet, Latency, Picture, Report, Until},
};
use anyhow::{Context, anyhow, bail};
use edgeveil_veil::{Frame, Limits, Settings, Veil};
use edgeveil_wire::{MAX_IMAGE_BYTES, Topics};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    fs,
    net::SocketAddr,
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The broker's name or address; its certificate must be made out to it
    #[arg(long, default_value = "localhost")]
    host: String,
    /// Its TCP port
    #[arg(long, default_value_t = 8883)]
    port: u16,
    /// A folder of `edgeveil-bridge certs`, with the CA's key: each device gets a certificate of it, in memory
    #[arg(long, value_name = "DIR", required_unless_present = "certs", conflicts_with = "certs")]
    dev_ca: Option<PathBuf>,
    /// In place of it: a folder with NAME.crt and NAME.key of each device
    #[arg(long, value_name = "DIR", requires = "ca")]
    certs: Option<PathBuf>,
    /// With --certs: the CA of the broker's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "certs")]
    ca: Option<PathBuf>,
    /// How the devices are called, with --dev-ca: sim-0001 and so on
    #[arg(long, value_name = "NAME", default_value = "sim")]
    name: String,
    /// Topic prefix
    #[arg(long, default_value = "edgeveil")]
    prefix: String,
    /// Version of MQTT: 5 or 3.1.1
    #[arg(long, value_name = "VERSION", default_value = "5", value_parser = version)]
    mqtt: MqttVersion,
    /// Devices, with a connection each
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    devices: u32,
    /// Readings a second, of all devices together
    #[arg(long, value_name = "RATE", default_value_t = 10.0, value_parser = rate)]
    readings: f64,
    /// Share of the readings that an alert is raised over
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    alerts: f64,
    /// Images a second, of all devices together
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = rate)]
    images: f64,
    /// What the images show: a photo, which is veiled once
    #[arg(long, value_name = "FILE", requires = "model")]
    photo: Option<PathBuf>,
    /// The folder with the detectors that veil it (`veil/fetch-models`)
    #[arg(long, value_name = "DIR", env = "EDGEVEIL_MODELS")]
    model: Option<PathBuf>,
    /// JPEG quality of the images
    #[arg(long, value_name = "1..100", default_value_t = 85, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// The connections are made one after the other within so long, before the first record
    #[arg(long, value_name = "TIME", default_value = "5 s", value_parser = time)]
    ramp: Duration,
    /// How long records are made
    #[arg(long, value_name = "TIME", default_value = "60 s", value_parser = time, conflicts_with = "count")]
    duration: Duration,
    /// In place of it: how many records are made
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// All connections break at once so often, and come back within a second
    #[arg(long, value_name = "TIME", value_parser = time)]
    storm: Option<Duration>,
    /// Records of one device sent and not acknowledged, at most
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=5000))]
    window: u16,
    /// A record that was not acknowledged for so long is sent again
    #[arg(long, value_name = "TIME", default_value = "30 s", value_parser = time)]
    ack_timeout: Duration,
    /// How long acknowledgements are waited for at the end
    #[arg(long, value_name = "TIME", default_value = "60 s", value_parser = time)]
    wait: Duration,
    /// Listens there for the alerts that the bridge's forward.webhook posts, and prints how long they took
    #[arg(long, value_name = "ADDRESS:PORT")]
    webhook: Option<SocketAddr>,
    /// Writes JSON
    #[arg(long)]
    json: bool,
}

/// Files that the program has open besides the connections.
const FILES: u64 = 64;
const LIMITS: Limits = Limits { max_bytes: 64 << 20, max_pixels: 100_000_000 };

fn version(text: &str) -> Result<MqttVersion, String> {
    match text {
        "5" => Ok(MqttVersion::V5),
        "3.1.1" => Ok(MqttVersion::V311),
        _ => Err("wants 5 or 3.1.1".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| *rate == 0.0 || (0.001..=1e6).contains(rate));
    rate.ok_or_else(|| "wants 0, or 0.001 to 1000000 a second".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "wants 0 to 1".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(
                "wants a time with its unit, such as \"500 ms\", \"10 s\", \"5 min\" or \"2 h\"".to_owned()
            );
        }
    };
    let seconds = number.trim().parse::<f64>().ok().filter(|n| (0.0..=1e6).contains(n));
    seconds
        .map(|n| Duration::from_secs_f64(n * unit))
        .ok_or_else(|| "wants a number before its unit".to_owned())
}

/// The exit code is 1 when a record was not acknowledged.
pub fn simulate(arguments: Arguments) -> Result<(), Failure> {
    let (json, fleet) = (arguments.json, fleet(arguments)?);
    allow_files(fleet.members.len() as u64 + FILES)?;
    // The other processors are for what is measured, when that is on this machine.
    let threads = std::thread::available_parallelism().map_or(1, |all| (all.get() / 2).max(1));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let report = runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut ends = [SignalKind::interrupt(), SignalKind::terminate()]
            .map(signal)
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let token = stop.clone();
        tokio::spawn(async move {
            let (first, second) = ends.split_at_mut(1);
            tokio::select! {
                _ = first[0].recv() => {}
                _ = second[0].recv() => {}
            }
            token.cancel();
        });
        simulate::run(fleet, stop).await
    })?;
    runtime.shutdown_background();
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", text(&report));
    }
    if report.unacknowledged == 0 {
        return Ok(());
    }
    let trouble = report.trouble.map(|trouble| format!("; first trouble: {trouble}")).unwrap_or_default();
    Err(anyhow!("{} records were not acknowledged{trouble}; is a bridge behind the broker, and does its ACL let these devices write?", report.unacknowledged).into())
}

fn fleet(arguments: Arguments) -> anyhow::Result<Fleet> {
    let authority = match (arguments.dev_ca, arguments.certs, arguments.ca) {
        (Some(folder), _, _) => Authority::Development(folder),
        (None, Some(folder), Some(ca)) => Authority::Issued { folder, ca },
        _ => bail!("where are the certificates from? name --dev-ca, or --certs and --ca"),
    };
    let picture = match (arguments.images > 0.0, &arguments.photo, arguments.model) {
        (false, ..) => None,
        (true, Some(photo), Some(model)) => Some(picture(photo, model, arguments.quality)?),
        (true, ..) => bail!("--images needs --photo and --model: images are veiled before they are sent"),
    };
    if arguments.readings == 0.0 && arguments.images == 0.0 {
        bail!("nothing would be sent; set --readings or --images");
    }
    if arguments.storm.is_some_and(|every| every < Duration::from_secs(2)) {
        bail!("--storm is shorter than devices need to come back; it wants 2 s at least");
    }
    Ok(Fleet {
        topics: Topics::new(&arguments.prefix)?,
        members: authority.members(arguments.devices as usize, &arguments.name)?,
        host: arguments.host,
        port: arguments.port,
        mqtt_version: arguments.mqtt,
        readings: arguments.readings,
        alerts: arguments.alerts,
        images: arguments.images,
        picture,
        ramp: arguments.ramp,
        until: arguments.count.map_or(Until::Time(arguments.duration), Until::Count),
        storm: arguments.storm,
        window: arguments.window.into(),
        ack_timeout: arguments.ack_timeout.max(Duration::from_secs(1)),
        wait: arguments.wait,
        webhook: arguments.webhook,
    })
}

/// The photo as a camera's frame would be sent.
fn picture(photo: &Path, model: PathBuf, quality: u8) -> anyhow::Result<Picture> {
    let settings = Settings { model, ..Settings::default() };
    let cover = settings.cover.to_string();
    let bytes = fs::read(photo).with_context(|| format!("cannot read --photo {}", photo.display()))?;
    let bad = || format!("--photo {}", photo.display());
    let frame = Frame::decode(&bytes, &LIMITS).with_context(bad)?;
    let image = Veil::open(&settings)?.veil_still(frame).with_context(bad)?;
    let jpeg = image.to_jpeg(quality, None).with_context(bad)?;
    if jpeg.as_bytes().len() > MAX_IMAGE_BYTES - (4 << 10) {
        bail!(
            "{}: {} bytes are more than a bridge takes; lower --quality, or take a smaller photo",
            bad(),
            jpeg.as_bytes().len()
        );
    }
    Ok(Picture::new(&jpeg, image.faces().len(), cover))
}

/// A connection is an open file, of which a process may often have 1024 only.
fn allow_files(wanted: u64) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < wanted) {
        bail!(
            "{wanted} files would be open, and the system allows {}; raise it (`ulimit -Hn {wanted}`), or lower --devices",
            maximum.unwrap_or_default()
        );
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        .context("cannot raise the bound of open files")
}

fn text(report: &Report) -> String {
    let latency = |latency: &Option<Latency>| match latency {
        None => format!("{:>9} {:>9} {:>9} {:>9} {:>9}", "-", "-", "-", "-", "-"),
        Some(Latency { p50, p90, p95, p99, max }) => {
            format!("{p50:>9.1} {p90:>9.1} {p95:>9.1} {p99:>9.1} {max:>9.1}")
        }
    };
    let mut text = format!(
        "{} devices made records for {:.1} s; milliseconds from the device's time to the bridge's acknowledgement\n\
         {:<10} {:>10} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        report.devices,
        report.seconds,
        "",
        "made",
        "delivered",
        "a second",
        "p50",
        "p90",
        "p95",
        "p99",
        "max"
    );
    for row in &report.records {
        let name = format!("{:?}", row.kind).to_lowercase();
        text += &format!(
            "{name:<10} {:>10} {:>10} {:>10.1} {}\n",
            row.made,
            row.delivered,
            row.per_second,
            latency(&row.latency_ms)
        );
    }
    if let Some(forwarded) = &report.forwarded {
        let (name, all) = ("forwarded", forwarded.alerts + forwarded.missing);
        text += &format!(
            "{name:<10} {all:>10} {:>10} {:>10} {}\n",
            forwarded.alerts,
            "",
            latency(&forwarded.latency_ms)
        );
    }
    text += &format!(
        "connections: {} came about, {} broke, {} did not come about\n\
         records: {} sent again, {} refused, {} held back, {} open when the last one was made, {} not acknowledged\n",
        report.connections,
        report.connections_lost,
        report.connections_failed,
        report.repeated,
        report.refused,
        report.held_back,
        report.backlog_at_end,
        report.unacknowledged
    );
    if let Some(trouble) = &report.trouble {
        text += &format!("first trouble: {trouble}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(time("500 ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1.5min"), Ok(Duration::from_secs(90)));
        for bad in ["", "10", "s", "-1 s", "1 d", "nan s", "1e9 h"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_and_shares_have_bounds() {
        assert_eq!((rate("0"), rate("2.5"), share("1")), (Ok(0.0), Ok(2.5), Ok(1.0)));
        for bad in ["-1", "nan", "inf", "1e7", "1e-9", "x"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert!(share("1.1").is_err() && share("nan").is_err());
    }
}
