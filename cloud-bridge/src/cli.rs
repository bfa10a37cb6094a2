//! The command line.

use crate::{catalog::OutboxState, settings, web::access::Role};
use clap::{Args, Parser, Subcommand};
use edgeveil_wire::{DeviceName, Name};
use std::{path::PathBuf, time::Duration};

/// Edgeveil's bridge: receives devices, keeps their images and readings, forwards their alerts.
#[derive(Debug, Parser)]
#[command(name = "edgeveil-bridge", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the bridge. Without settings: an embedded broker on 127.0.0.1:8883, pages on http://127.0.0.1:8080.
    Serve(ConfigArgs),
    /// Veil the pictures that a bridge has taken in ([anonymise] in the settings).
    Worker(ConfigArgs),
    /// Check the settings and the files they name; exit code 64 for bad settings.
    Check(ConfigArgs),
    /// Make the catalog, or bring its tables up to date.
    Migrate(ConfigArgs),
    /// Check that catalog and objects agree, and print what arrived of each lane as JSON lines.
    Verify(VerifyArgs),
    /// Look at what goes on to others, try again what was set aside, send again what was sent.
    Outbox(OutboxArgs),
    /// Send an example message to people, to try [forward.notify].
    Notify(ConfigArgs),
    /// Make a film of a camera's images: H.264 by ffmpeg, or Motion JPEG.
    Timelapse(TimelapseArgs),
    /// Keep the file of users that may log in ([access] in the settings).
    Users(UsersArgs),
    /// Issue and list certificates.
    Certs(CertsArgs),
    /// Give devices their first certificate by a one-time token, and take it back.
    Enroll(EnrollArgs),
    /// Run a bridge and an agent on this machine, with fresh certificates and a stand-in for AWS IoT Core.
    Demo(DemoArgs),
}

/// What the demo is made of.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The agent's binary.
    #[arg(long, value_name = "FILE")]
    pub agent: PathBuf,
    /// The folder with the face detector and the photo (`veil/fetch-models`).
    #[arg(long, value_name = "DIR")]
    pub models: PathBuf,
    /// Where everything is written. Wiped at the start, if an earlier demo made it.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// End by itself once a veiled image and an alert have gone all the way, with a line of JSON.
    #[arg(long)]
    pub check: bool,
    /// How long --check waits for that.
    #[arg(long, value_name = "TIME", default_value = "120 s", value_parser = settings::time)]
    pub timeout: Duration,
}

/// Where the settings are.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// The settings file (TOML). Without it: defaults, and EDGEVEIL_BRIDGE_* of the environment.
    #[arg(long, value_name = "FILE", env = "EDGEVEIL_BRIDGE_CONFIG")]
    pub config: Option<PathBuf>,
}

/// What is verified.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Where the settings are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Fail also when a seq is missing.
    #[arg(long)]
    pub gapless: bool,
}

/// Certificates that devices ask for themselves.
#[derive(Debug, Args)]
pub struct EnrollArgs {
    /// Where the settings are: those that the bridge runs with.
    #[arg(long, global = true, value_name = "FILE", env = "EDGEVEIL_BRIDGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: EnrollCommand,
}

/// What to do about a device's certificate.
#[derive(Debug, Subcommand)]
pub enum EnrollCommand {
    /// Make a token for a device's first certificate, and print the command that uses it there.
    Token {
        /// Its name: 1 to 64 letters, digits, `-` and `_`.
        #[arg(long, value_name = "NAME")]
        device: DeviceName,
        /// How long it may be used.
        #[arg(long = "for", value_name = "TIME", default_value = "1 h", value_parser = settings::time)]
        lasts: Duration,
    },
    /// List tokens, the newest certificate of each device, and blocked names.
    List,
    /// Take back a token that was not used yet.
    Revoke {
        /// Its number, which is its first part.
        number: i64,
    },
    /// Give a name no certificate any more: no first one, and no next one.
    Block {
        /// The device.
        device: DeviceName,
    },
    /// Let it have certificates again.
    Unblock {
        /// The device.
        device: DeviceName,
    },
}

/// The outbox.
#[derive(Debug, Args)]
pub struct OutboxArgs {
    /// Where the settings are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// What to do with it.
    #[command(subcommand)]
    pub command: OutboxCommand,
}

/// What to do with the outbox.
#[derive(Debug, Subcommand)]
pub enum OutboxCommand {
    /// Print rows as JSON lines, the oldest first.
    Ls {
        /// Rows in this state.
        #[arg(long, value_name = "STATE", default_value = "failed")]
        state: OutboxState,
        /// So many at the most.
        #[arg(long, value_name = "ROWS", default_value_t = 100)]
        limit: u32,
    },
    /// Let rows that were set aside wait again. A running bridge takes them up within 30 s.
    Retry {
        /// Their numbers, as `ls` prints them.
        #[arg(value_name = "NUMBER", required_unless_present = "all", conflicts_with = "all")]
        numbers: Vec<i64>,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
    /// Send again all alerts that were received within a time, also those that were never meant to be sent.
    Replay {
        /// From when, such as 2026-11-21T10:00:00Z.
        #[arg(long, value_name = "TIME")]
        from: jiff::Timestamp,
        /// Until before when; now, if it is not given.
        #[arg(long, value_name = "TIME")]
        to: Option<jiff::Timestamp>,
        /// To whom.
        #[arg(long, value_name = "TARGET", default_value = crate::forward::AWS, value_parser = crate::forward::TARGETS)]
        target: String,
    },
}

/// What a film is made of.
#[derive(Debug, Args)]
pub struct TimelapseArgs {
    /// Where the settings are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The device.
    #[arg(long, value_name = "NAME")]
    pub device: DeviceName,
    /// Its camera.
    #[arg(long, value_name = "NAME")]
    pub camera: Name,
    /// From when: a day such as 2026-11-21 (in --zone) or a moment such as 2026-11-21T10:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub from: String,
    /// Until when: the end of that day, or before that moment.
    #[arg(long, value_name = "TIME")]
    pub to: String,
    /// Of so much time one image.
    #[arg(long, value_name = "TIME", default_value = "1 s", value_parser = settings::time)]
    pub every: Duration,
    /// Frames a second of the film.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub fps: u32,
    /// Leave images out whose mean brightness is below this, 0 to 255: night.
    #[arg(long, value_name = "LEVEL", default_value_t = 0)]
    pub dark: u8,
    /// Leave images out in which neighbours along a line differ by less on average, 0 to 255: blurred ones. 1 is a good one.
    #[arg(long, value_name = "LEVEL", default_value_t = 0.0)]
    pub blurred: f64,
    /// Leave images out that look like the one before.
    #[arg(long)]
    pub distinct: bool,
    /// Do not write the time into the frames.
    #[arg(long)]
    pub no_stamp: bool,
    /// The zone of days and of the time in the frames.
    #[arg(long, default_value = "UTC")]
    pub zone: String,
    /// The larger side of a frame at the most, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 1920, value_parser = clap::value_parser!(u32).range(64..=8192))]
    pub side: u32,
    /// FILE.mp4 or FILE.avi. What is half made lies in FILE.parts, and is gone on with by the same command.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Users that may log in.
#[derive(Debug, Args)]
pub struct UsersArgs {
    /// The file (`access.users`).
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "edgeveil-data/users",
        env = "EDGEVEIL_BRIDGE_ACCESS_USERS"
    )]
    pub file: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: UsersCommand,
}

/// What to do with users.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// Add a user, or give one another password or role. The password is read from the terminal, or a line of standard input.
    Add {
        /// 1 to 64 letters, digits, `.`, `_`, `-` and `@`.
        name: String,
        /// Viewers look, operators act too.
        #[arg(long, value_name = "ROLE", default_value = "viewer")]
        role: Role,
    },
    /// List users and roles.
    Ls,
    /// Take a user out. Their sessions end with that.
    Rm {
        /// Who.
        name: String,
    },
}

/// Certificates.
#[derive(Debug, Args)]
pub struct CertsArgs {
    /// The folder of the CA and what it issued.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "edgeveil-data/certs",
        env = "EDGEVEIL_BRIDGE_CERTS"
    )]
    pub dir: PathBuf,
    /// Replace what is there.
    #[arg(long, global = true)]
    pub force: bool,
    /// What to issue.
    #[command(subcommand)]
    pub command: CertsCommand,
}

/// What to issue.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make a development CA (10 years).
    Init,
    /// Issue a device's certificate (1 year). Its name becomes the second level of its topics.
    Device {
        /// 1 to 64 letters, digits, `-` and `_`.
        name: String,
    },
    /// Issue a broker's certificate (1 year) for NAME, localhost, 127.0.0.1, ::1 and every --san.
    Broker {
        /// The broker's host name.
        name: String,
        /// Another name or address by which devices reach it.
        #[arg(long, value_name = "NAME")]
        san: Vec<String>,
    },
    /// Issue a certificate that may read everything and write nothing, for `mosquitto_sub` (1 year).
    Observer {
        /// 1 to 64 letters, digits, `-` and `_`.
        name: String,
    },
    /// List certificates and how long they last.
    List,
}
