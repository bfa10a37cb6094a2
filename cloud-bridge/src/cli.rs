//! The command line.

use crate::{catalog::OutboxState, settings};
use clap::{Args, Parser, Subcommand};
use edgeveil_wire::DeviceName;
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
