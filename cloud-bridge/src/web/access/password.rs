//! A password from whoever sits at the terminal, unseen.

use anyhow::{Context, Result, ensure};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Write, stdin};

/// From the terminal, twice; else the first line of standard input.
pub fn read(name: &str) -> Result<String> {
    if !stdin().is_terminal() {
        return line();
    }
    let first = ask(&format!("password of {name}: "))?;
    ensure!(first == ask("once more: ")?, "these were two different ones");
    Ok(first)
}

fn line() -> Result<String> {
    let mut text = String::new();
    stdin().lock().read_line(&mut text).context("cannot read a password")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask(question: &str) -> Result<String> {
    eprint!("{question}");
    let _ = std::io::stderr().flush();
    let shown = tcgetattr(stdin()).context("the terminal")?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(stdin(), OptionalActions::Flush, &hidden).context("the terminal")?;
    let text = line();
    let _ = tcsetattr(stdin(), OptionalActions::Flush, &shown);
    eprintln!();
    text
}
