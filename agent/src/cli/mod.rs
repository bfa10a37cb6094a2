//! The command line.

mod check;
mod doctor;
mod enroll;
mod logs;
mod run;
mod score;
#[cfg(feature = "simulate")]
mod simulate;
mod spool;
mod status;
#[cfg(feature = "vision")]
mod veil;

use crate::settings::{self, Settings};
use clap::{CommandFactory, Parser, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Exit code for settings that are wrong: EX_USAGE of sysexits.h, so that systemd can be told not to restart.
const BAD_SETTINGS: u8 = 64;

/// Captures, covers faces, scores sensors, and delivers over MQTT without losing anything.
#[derive(Debug, Parser)]
#[command(name = "edgeveil-agent", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs as a daemon until SIGTERM or SIGINT; SIGHUP makes it read its settings anew
    Run(SettingsFile),
    /// Reads the settings and everything they name, says what is wrong, and starts nothing
    Check {
        #[command(flatten)]
        file: SettingsFile,
        /// Only reads the settings, and opens nothing that they name
        #[arg(long)]
        settings_only: bool,
    },
    /// Looks at settings, certificate, broker, disk, models, cameras and sensors, and names the remedy for what is wrong
    Doctor(doctor::Arguments),
    /// Asks the agent that runs on this device how it is: connection, spool, cameras, sensors, problems
    Status(status::Arguments),
    /// Gets this device its certificate from a bridge, with a one-time token
    Enroll(enroll::Arguments),
    /// Writes veiled copies of pictures
    #[cfg(feature = "vision")]
    Veil(veil::Arguments),
    /// Scores CSV rows from standard input, a line for each row at once
    Score(score::Arguments),
    /// Looks into the spool of a stopped agent, and gets records out of it
    Spool(spool::Arguments),
    /// Simulates a fleet of devices against a broker and a bridge, and prints throughput and latencies
    #[cfg(feature = "simulate")]
    Simulate(simulate::Arguments),
    /// Writes a shell's completion script to standard output
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages into a folder
    Man {
        /// An existing folder
        folder: PathBuf,
    },
}

/// Where the settings are.
#[derive(Debug, clap::Args)]
struct SettingsFile {
    /// The settings' file
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/edgeveil/agent.toml",
        env = "EDGEVEIL_CONFIG"
    )]
    config: PathBuf,
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Run(SettingsFile { config }) => run::run(config),
            Command::Check { file: SettingsFile { config }, settings_only } => read_settings(&config)
                .and_then(|settings| if settings_only { Ok(()) } else { check::check(&settings) }),
            Command::Doctor(arguments) => doctor::doctor(&arguments),
            Command::Status(arguments) => status::status(&arguments),
            Command::Enroll(arguments) => enroll::enroll(&arguments),
            #[cfg(feature = "vision")]
            Command::Veil(arguments) => veil::veil(&arguments),
            Command::Score(arguments) => score::score(&arguments),
            Command::Spool(arguments) => spool::spool(&arguments),
            #[cfg(feature = "simulate")]
            Command::Simulate(arguments) => simulate::simulate(arguments),
            Command::Completions { shell } => {
                clap_complete::generate(
                    shell,
                    &mut Self::command(),
                    "edgeveil-agent",
                    &mut std::io::stdout(),
                );
                Ok(())
            }
            Command::Man { folder } => clap_mangen::generate_to(Self::command(), &folder)
                .map_err(|error| anyhow::anyhow!("cannot write to {}: {error}", folder.display()).into()),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("{failure:#}");
                ExitCode::from(failure.code)
            }
        }
    }
}

/// Why a command ends, and with which code.
#[derive(Debug)]
struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "edgeveil-agent: {:#}", self.error)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: 1, error: error.into() }
    }
}

fn read_settings(file: &Path) -> Result<Settings, Failure> {
    read(file).map(|(settings, _)| settings)
}

/// With the file's text.
fn read(file: &Path) -> Result<(Settings, String), Failure> {
    let bad = |error: anyhow::Error| Failure { code: BAD_SETTINGS, error };
    let text = std::fs::read_to_string(file).map_err(|error| {
        bad(anyhow::anyhow!("cannot read settings {}: {error}; name them with --config", file.display()))
    })?;
    let settings = settings::parse(file, &text)
        .map_err(|problems| bad(anyhow::anyhow!("the settings are wrong:\n{problems}")))?;
    Ok((settings, text))
}
