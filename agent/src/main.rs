//! The program: reads the command line and hands over.

use clap::Parser;
use edgeveil_agent::{allocator, cli::Cli};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::process::ExitCode;

fn main() -> ExitCode {
    // A core dump would put raw frames on the disk. Where the limit cannot be set, it is as the system has it.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    allocator::set_up();
    Cli::parse().run()
}
