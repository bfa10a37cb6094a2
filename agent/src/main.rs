//! The program: reads the command line and hands over.

use clap::Parser;
use edgeveil_agent::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    Cli::parse().run()
}
