//! Readings from a program: a line of JSON with numbers for each row.

use super::{Sensor, SensorError};
use crate::program::Program;
use edgeveil_wire::{MAX_VALUES, ValueName, Values};
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    process::ChildStdout,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A longer line is no row of numbers.
const MAX_LINE: u64 = 64 << 10;
/// Lines that have come and were not read; when there are more, the oldest go.
const MAX_WAITING: usize = 64;
/// A program that says nothing for ten rows, and for so long at least, hangs.
const LEAST_SILENCE: Duration = Duration::from_secs(30);

/// A running program. It and all that it has started end when this is dropped.
pub struct Command {
    program: Program,
    lines: Arc<Mutex<Lines>>,
    patience: Duration,
    heard: Instant,
}

#[derive(Default)]
struct Lines {
    waiting: VecDeque<String>,
    is_over: bool,
}

impl Command {
    /// Starts it. Its lines are read at `rate` a second at most.
    pub fn open(command: &[String], rate: f64) -> Result<Self, SensorError> {
        let error = |source: std::io::Error| SensorError::Program {
            program: command.first().cloned().unwrap_or_default(),
            what: format!("cannot be started: {source}; install it, or name it with its whole path"),
        };
        let (program, out) = Program::start(command).map_err(error)?;
        let lines = Arc::<Mutex<Lines>>::default();
        let bring = lines.clone();
        thread::Builder::new().name("stdout".to_owned()).spawn(move || read(out, &bring)).map_err(error)?;
        let patience = LEAST_SILENCE.max(Duration::from_secs_f64(10.0 / rate));
        Ok(Self { program, lines, patience, heard: Instant::now() })
    }

    fn error(&self, what: impl Into<String>) -> SensorError {
        SensorError::Program { program: self.program.name().to_owned(), what: what.into() }
    }

    fn gone(&self, what: String) -> SensorError {
        SensorError::Gone { program: self.program.name().to_owned(), what }
    }
}

fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads until the program and all that have its output are gone.
fn read(out: ChildStdout, lines: &Mutex<Lines>) {
    let mut out = BufReader::new(out);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut out).take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                let mut lines = lock(lines);
                if !line.is_empty() {
                    lines.waiting.push_back(line);
                }
                if lines.waiting.len() > MAX_WAITING {
                    lines.waiting.pop_front();
                }
            }
        }
    }
    lock(lines).is_over = true;
}

impl Sensor for Command {
    fn is_ready(&mut self) -> bool {
        let lines = lock(&self.lines);
        !lines.waiting.is_empty() || lines.is_over || self.heard.elapsed() > self.patience
    }

    fn read(&mut self) -> Result<Values, SensorError> {
        let (line, is_over) = {
            let mut lines = lock(&self.lines);
            (lines.waiting.pop_front(), lines.is_over)
        };
        match line {
            Some(line) => {
                self.heard = Instant::now();
                values(&line).map_err(|what| self.error(what))
            }
            None if is_over => {
                let what = self.program.last_words();
                Err(self.gone(what))
            }
            None => {
                let said = self.program.said();
                let last = if said.is_empty() { String::new() } else { format!("; its last words: {said}") };
                Err(self.gone(format!(
                    "has given no line for {} s (does it flush each one?){last}",
                    self.patience.as_secs()
                )))
            }
        }
    }
}

/// What a row looks like, for messages.
const ROW: &str = r#"a row is one line such as {"moisture": 41.5, "salt": 3}"#;

/// The numbers at the top level of a JSON object. What is no number is left out.
fn values(line: &str) -> Result<Values, String> {
    let shown = || line.chars().filter(|c| !c.is_control()).take(60).collect::<String>();
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line)
        .map_err(|_| format!("gives `{}`, which is no JSON object; {ROW}", shown()))?;
    let mut values = Values::new();
    for (name, value) in object {
        let Some(value) = value.as_f64().filter(|value| value.is_finite()) else { continue };
        match name.parse::<ValueName>() {
            Ok(name) => _ = values.insert(name, value),
            // Its own time stamp is none of the values.
            Err(edgeveil_wire::NameError::Reserved(_)) => {}
            Err(error) => return Err(format!("names a value wrongly: {error}; rename it in the program")),
        }
    }
    match values.len() {
        0 => Err(format!("gives `{}`, which has no number in it; {ROW}", shown())),
        1..=MAX_VALUES => Ok(values),
        many => Err(format!(
            "gives {many} values in a row, and {MAX_VALUES} are possible; leave some out, or run it for several groups"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        Command::open(&["sh".to_owned(), "-c".to_owned(), script.to_owned()], 1.0).unwrap()
    }

    fn next(command: &mut Command) -> Result<String, String> {
        let end = Instant::now() + Duration::from_secs(60);
        while !command.is_ready() {
            assert!(Instant::now() < end, "nothing came");
            thread::sleep(Duration::from_millis(5));
        }
        let row = command.read().map_err(|error| error.to_string())?;
        Ok(row.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_line_is_a_row_and_a_bad_one_costs_only_itself() {
        let mut command = shell(
            r#"echo '{"timestamp": 17, "soil": 3, "ok": true, "air": 21.5}'; echo; echo nonsense; echo '{"soil": 4}'; echo out of order >&2; exit 2"#,
        );
        assert_eq!(next(&mut command).unwrap(), "air=21.5 soil=3");
        assert!(next(&mut command).unwrap_err().contains("`nonsense`"));
        assert_eq!(next(&mut command).unwrap(), "soil=4");
        let end = next(&mut command).unwrap_err();
        assert!(end.contains("exit status: 2") && end.contains("out of order"), "{end}");
    }

    #[test]
    fn a_program_that_is_faster_than_it_is_read_costs_its_oldest_lines() {
        let mut command = shell("seq 1 1000 | sed 's/.*/{\"n\": &}/'");
        while !lock(&command.lines).is_over {
            thread::sleep(Duration::from_millis(5));
        }
        let rows: Vec<_> = (0..MAX_WAITING).map(|_| next(&mut command).unwrap()).collect();
        assert_eq!((rows[0].as_str(), rows[MAX_WAITING - 1].as_str()), ("n=937", "n=1000"));
    }

    #[test]
    fn a_program_that_hangs_is_told() {
        let mut command = shell("echo waiting for the bus >&2; sleep 1000");
        assert!(!command.is_ready());
        while command.program.said().is_empty() {
            thread::sleep(Duration::from_millis(5));
        }
        command.patience = Duration::ZERO;
        let error = next(&mut command).unwrap_err();
        assert!(error.contains("no line") && error.contains("waiting for the bus"), "{error}");
    }

    #[test]
    fn lines_that_are_no_rows_are_named() {
        for (line, what) in [
            ("[1]", "no JSON object"),
            ("{}", "no number"),
            (r#"{"a b": 1}"#, "names a value wrongly"),
            (r#"{"a": "1"}"#, "no number"),
            (r#"{"a": 1"#, "no JSON object"),
        ] {
            let error = values(line).unwrap_err();
            assert!(error.contains(what), "{line}: {error}");
        }
        let many = format!("{{{}}}", (0..65).map(|i| format!("\"v{i}\": {i}")).collect::<Vec<_>>().join(","));
        assert!(values(&many).unwrap_err().contains("65"));
        // Deeply nested, very long: an error or a row, and never a panic.
        assert!(values(&"[".repeat(60_000)).is_err());
    }
}
