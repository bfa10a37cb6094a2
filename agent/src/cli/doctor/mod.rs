//! `edgeveil-agent doctor`: looks at everything that the agent needs, and names the remedy for what is wrong.

mod broker;
mod device;
mod sources;

pub use device::{data_dir, identity};

use super::{BAD_SETTINGS, Failure};
use crate::settings::{self, Settings};
use serde::Serialize;
use std::{fmt, path::Path};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: super::SettingsFile,
    /// Writes JSON
    #[arg(long)]
    json: bool,
    /// Does not connect to the broker
    #[arg(long)]
    offline: bool,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and should be looked at.
    Warn,
    /// It does not work.
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    check: String,
    verdict: Verdict,
    said: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: impl Into<String>, said: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Ok, said: said.into(), remedy: None }
    }

    /// Something works, and should be looked at.
    pub fn warn(check: impl Into<String>, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Warn, said: said.into(), remedy: Some(remedy.into()) }
    }

    /// Something does not work. Messages of this program end with their remedy behind a semicolon; where one does not,
    /// `otherwise` is it.
    pub fn fail(check: impl Into<String>, error: impl fmt::Display, otherwise: &str) -> Self {
        let error = error.to_string();
        let (said, remedy) = error.split_once("; ").unwrap_or((error.as_str(), otherwise));
        let (said, remedy) = (said.to_owned(), Some(remedy.to_owned()));
        Self { check: check.into(), verdict: Verdict::Fail, said, remedy }
    }

    /// What is wrong with its remedy, on one line.
    pub fn whole(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}; {remedy}", self.said),
            None => self.said.clone(),
        }
    }

    /// Whether it does not work.
    pub fn is_fail(&self) -> bool {
        self.verdict == Verdict::Fail
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        write!(f, "{verdict:<5} {:<18} {}", self.check, self.said)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n{:24} -> {remedy}", ""),
            None => Ok(()),
        }
    }
}

/// All findings, as they are printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    version: &'static str,
    ok: usize,
    warn: usize,
    fail: usize,
    findings: Vec<Finding>,
}

/// Prints a line for each thing that was looked at. The exit code is 1 when one of them does not work, and 64 when it is
/// the settings.
pub fn doctor(arguments: &Arguments) -> Result<(), Failure> {
    let file = &arguments.settings.config;
    let mut report = Printer { json: arguments.json, findings: Vec::new() };
    let code = match read(file) {
        Ok(settings) => {
            report.tell(Finding::ok("settings", file.display().to_string()));
            examine(&settings, file, arguments.offline, &mut report)?;
            1
        }
        Err(problems) => {
            problems.into_iter().for_each(|problem| report.tell(problem));
            BAD_SETTINGS
        }
    };
    let fail = report.end()?;
    if fail == 0 {
        return Ok(());
    }
    Err(Failure { code, error: anyhow::anyhow!("{fail} of the checks failed") })
}

fn read(file: &Path) -> Result<Settings, Vec<Finding>> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let said = format!("{} cannot be read ({error})", file.display());
        vec![Finding::fail(
            "settings",
            said,
            "write it, or name another with --config; docs/settings.md has a whole one",
        )]
    })?;
    settings::parse(file, &text).map_err(|problems| {
        let finding = |p: &settings::Problem| {
            let said = format!("{}:{}: {}: {}", file.display(), p.line, p.key, p.what);
            Finding::fail("settings", said, "mend that line; docs/settings.md lists the keys")
        };
        problems.list().iter().map(finding).collect()
    })
}

fn examine(settings: &Settings, file: &Path, offline: bool, report: &mut Printer) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    device::versions().into_iter().for_each(|finding| report.tell(finding));
    device::permissions(settings, file).into_iter().for_each(|finding| report.tell(finding));
    report.tell(device::clock());
    let (identity, findings) = identity(settings);
    findings.into_iter().for_each(|finding| report.tell(finding));
    device::disk(settings).into_iter().for_each(|finding| report.tell(finding));
    if let Some(identity) = identity
        && !offline
    {
        let findings = runtime.block_on(broker::examine(settings, &identity));
        findings.into_iter().for_each(|finding| report.tell(finding));
    }
    #[cfg(feature = "vision")]
    sources::cameras(settings, &runtime, |finding| report.tell(finding));
    sources::sensors(settings, |finding| report.tell(finding));
    runtime.shutdown_background();
    Ok(())
}

/// Says each finding as it comes, since a camera may take its time; or all at the end, as JSON.
struct Printer {
    json: bool,
    findings: Vec<Finding>,
}

impl Printer {
    fn tell(&mut self, finding: Finding) {
        if !self.json {
            println!("{finding}");
        }
        self.findings.push(finding);
    }

    fn end(self) -> anyhow::Result<usize> {
        let count = |verdict| self.findings.iter().filter(|finding| finding.verdict == verdict).count();
        let (ok, warn, fail) = (count(Verdict::Ok), count(Verdict::Warn), count(Verdict::Fail));
        if self.json {
            let (schema, version) = ("edgeveil.doctor/1", env!("CARGO_PKG_VERSION"));
            let report = Report { schema, version, ok, warn, fail, findings: self.findings };
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            println!("{ok} ok, {warn} to look at, {fail} failed");
        }
        Ok(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_stands_behind_the_semicolon() {
        let finding = Finding::fail("x", "it is broken; mend it; or else", "buy another");
        assert_eq!(
            (finding.said.as_str(), finding.remedy.as_deref()),
            ("it is broken", Some("mend it; or else"))
        );
        let finding = Finding::fail("x", "it is broken", "buy another");
        assert_eq!(finding.remedy.as_deref(), Some("buy another"));
    }
}
