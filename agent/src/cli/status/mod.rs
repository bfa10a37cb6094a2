//! `edgeveil-agent status`: what the agent that runs on this device says of itself.

mod ask;
mod table;

use super::{BAD_SETTINGS, Failure};
use crate::status::{Document, SCHEMA};
use anyhow::anyhow;
use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    thread::sleep,
    time::Duration,
};

/// EX_UNAVAILABLE of sysexits.h: nobody answers.
const UNAVAILABLE: u8 = 69;
/// EX_DATAERR: who answers is no agent that this program understands.
const BAD_DATA: u8 = 65;
const EVERY: Duration = Duration::from_secs(2);
/// Of a terminal: home, and clear to the end.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The settings' file, which says where the socket is [default: /etc/edgeveil/agent.toml, if it can be read]
    #[arg(short, long, value_name = "FILE", env = "EDGEVEIL_CONFIG")]
    config: Option<PathBuf>,
    /// The agent's socket, in place of the settings
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Prints the JSON document as the agent gives it
    #[arg(long)]
    json: bool,
    /// Goes on, every two seconds
    #[arg(long)]
    watch: bool,
}

/// Prints what the agent says. The exit code is 1 when it has problems, and 69 when there is none.
pub fn status(arguments: &Arguments) -> Result<(), Failure> {
    if !arguments.watch {
        let (text, result) = look(arguments);
        // A reader that has gone has seen enough.
        let _ = io::stdout().write_all(text.as_bytes());
        return result;
    }
    let mut out = io::stdout();
    let is_terminal = out.is_terminal();
    loop {
        let (mut text, result) = look(arguments);
        if let Err(failure) = &result
            && text.is_empty()
        {
            if failure.code == BAD_SETTINGS {
                return result;
            }
            // It may be starting anew.
            if arguments.json {
                eprintln!("{failure}");
            } else {
                text = format!("{failure}\n");
            }
        }
        let before = if is_terminal { CLEAR } else { "" };
        let after = if is_terminal || arguments.json { "" } else { "\n" };
        let said = write!(out, "{before}{text}{after}").and_then(|()| out.flush());
        if said.is_err() {
            return result;
        }
        sleep(EVERY);
    }
}

/// What is printed, and what comes of it.
fn look(arguments: &Arguments) -> (String, Result<(), Failure>) {
    let said = ask::places(arguments.config.as_deref(), arguments.socket.as_deref())
        .and_then(|places| ask::ask(&places).map_err(|error| Failure { code: UNAVAILABLE, error }));
    let said = match said {
        Ok(said) => said,
        Err(failure) => return (String::new(), Err(failure)),
    };
    let document = match read(&said) {
        Ok(document) => document,
        Err(failure) if arguments.json => return (said, Err(failure)),
        Err(failure) => return (String::new(), Err(failure)),
    };
    let result = match document.problems.len() {
        0 => Ok(()),
        1 => Err(anyhow!("the agent tells of a problem").into()),
        count => Err(anyhow!("the agent tells of {count} problems").into()),
    };
    (if arguments.json { said } else { table::table(&document) }, result)
}

fn read(said: &str) -> Result<Document, Failure> {
    let bad = |error| Failure { code: BAD_DATA, error };
    let value: serde_json::Value = serde_json::from_str(said)
        .map_err(|error| bad(anyhow!("what answers is no agent ({error}); name its socket with --socket")))?;
    match &value["schema"] {
        serde_json::Value::String(schema) if schema == SCHEMA => {}
        other => {
            let what = format!(
                "the agent that runs answers with {other}, this program knows {SCHEMA}; restart the agent, so that both are of one version, or use --json"
            );
            return Err(bad(anyhow!(what)));
        }
    }
    serde_json::from_value(value).map_err(|error| {
        bad(anyhow!("what the agent answers cannot be read ({error}); restart it, so that both are of one version, or use --json"))
    })
}
