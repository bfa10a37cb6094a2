//! Programs that the agent runs for its sources: one whose output is a stream of pictures, or of readings.
//!
//! Each is the head of a process group of its own, and the whole group ends with its [`Program`]: a pipeline that a
//! user's shell starts leaves nothing behind. No shell is involved unless the settings name one.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::{
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Time to end after SIGTERM; then SIGKILL follows.
const GRACE: Duration = Duration::from_secs(1);
/// How long the end of a program is waited for that has closed its output.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// More of a line of standard error is left out.
const MAX_LINE: usize = 200;

/// A running program. It is ended when this is dropped.
pub struct Program {
    /// Its name, for messages. Its arguments may hold a password.
    name: String,
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Program {
    /// Starts it, and gives its standard output. Its standard error is read and its last line remembered.
    pub fn start(command: &[String]) -> io::Result<(Self, ChildStdout)> {
        let (name, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            // They are meant for the agent alone.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("CREDENTIALS_DIRECTORY")
            .spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let said = Arc::<Mutex<String>>::default();
        let program = Self { name: name.clone(), child, said: said.clone() };
        let (Some(out), Some(err)) = (out, err) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        thread::Builder::new().name("stderr".to_owned()).spawn(move || listen(err, &said))?;
        Ok((program, out))
    }

    /// How it ended, and the last that it said. For when its output is over.
    pub fn last_words(&mut self) -> String {
        let end = Instant::now() + LAST_WORDS;
        let mut how = "closed its output".to_owned();
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                how = format!("ended ({status})");
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        // Its standard error may be read a moment after its end.
        thread::sleep(Duration::from_millis(20));
        match self.said().as_str() {
            "" => how,
            said => format!("{how} and said: {said}"),
        }
    }

    /// The last line of its standard error that had something readable in it.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has ended, without freeing its number: the group that is named after it may live on.
    fn has_ended(pid: Pid) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        // When it was waited for, its number is free, and its group's too unless others of the group live on. The number
        // of a group that lives is given to nobody else.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(group, Signal::TERM);
            let end = Instant::now() + GRACE;
            while !Self::has_ended(group) && Instant::now() < end {
                thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Remembers the last line, until the program and all that have its standard error are gone.
fn listen(mut err: ChildStderr, said: &Mutex<String>) {
    let (mut line, mut bytes) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = err.read(&mut bytes) {
        for byte in &bytes[..length] {
            // ffmpeg ends the lines of its progress with CR.
            if !matches!(byte, b'\n' | b'\r') {
                if line.len() < 4 * MAX_LINE {
                    line.push(*byte);
                }
                continue;
            }
            remember(&line, said);
            line.clear();
        }
    }
    remember(&line, said);
}

fn remember(line: &[u8], said: &Mutex<String>) {
    if let Some(line) = readable(line) {
        *said.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

/// A line as it may stand in a log: without colours and passwords. What is no text may be a picture, and is nobody's
/// business.
fn readable(line: &[u8]) -> Option<String> {
    let whole = match std::str::from_utf8(line) {
        Ok(text) => text,
        // A long line was cut within a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&line[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let mut text = String::new();
    let mut rest = whole.chars();
    while let Some(c) = rest.next() {
        match c {
            // A terminal's colour: ESC [ .. letter.
            '\u{1b}' => _ = rest.by_ref().find(char::is_ascii_alphabetic),
            '\t' => text.push(' '),
            c if c.is_control() => return None,
            c => text.push(c),
        }
    }
    let text = without_passwords(text.trim());
    (!text.is_empty()).then(|| text.chars().take(MAX_LINE).collect())
}

/// `rtsp://anna:secret@camera/` without what stands before the `@`.
fn without_passwords(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || c == '\'' || c == '"')
            .unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                out.push('…');
                &after[at..]
            }
            None => after,
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Program, ChildStdout) {
        Program::start(&["sh".to_owned(), "-c".to_owned(), script.to_owned()]).unwrap()
    }

    fn is_alive(pid: &str) -> bool {
        // A zombie has no command line.
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    }

    #[test]
    fn the_whole_group_ends_with_it_even_when_it_does_not_want_to() {
        for script in [
            "sleep 1000 & echo $! $$; wait",
            "trap '' TERM; sleep 1000 & echo $! $$; while :; do sleep 1; done",
            // Its head has gone before.
            "sleep 1000 & echo $! $$",
        ] {
            let (program, mut out) = shell(script);
            let mut line = [0; 64];
            let length = out.read(&mut line).unwrap();
            let pids: Vec<_> = std::str::from_utf8(&line[..length]).unwrap().split_whitespace().collect();
            assert_eq!(pids.len(), 2, "{pids:?}");
            // Within its exec it has no command line for a moment.
            let end = Instant::now() + Duration::from_secs(30);
            while !is_alive(pids[0]) {
                assert!(Instant::now() < end, "{script}: {pids:?}");
                thread::sleep(Duration::from_millis(10));
            }
            drop(program);
            for pid in pids {
                // The kernel has the signal; the process may take a moment to be gone.
                let end = Instant::now() + Duration::from_secs(30);
                while is_alive(pid) {
                    assert!(Instant::now() < end, "{script}: {pid} lives");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    #[test]
    fn the_last_words_are_told() {
        let (mut program, mut out) =
            shell("echo first >&2; printf 'no camera\\r' >&2; printf '\\377\\330 ' >&2; exit 3");
        let _ = out.read_to_end(&mut Vec::new());
        assert_eq!(program.last_words(), "ended (exit status: 3) and said: no camera");
        let (mut program, mut out) = shell("exec >&-; sleep 1000");
        let _ = out.read_to_end(&mut Vec::new());
        assert_eq!(program.last_words(), "closed its output");
    }

    #[test]
    fn only_text_without_secrets_is_remembered() {
        for (line, expected) in [
            (b"  plain\ttext ".as_slice(), Some("plain text")),
            (b"\x1b[31;1mERROR\x1b[0m: none", Some("ERROR: none")),
            (
                b"rtsp://anna:s3c@ret@cam:554/a@b: refused, http://x/",
                Some("rtsp://…@cam:554/a@b: refused, http://x/"),
            ),
            (b"\xff\xd8\xff\xe0 raw", None),
            (b"\x01\x02", None),
            (b"", None),
        ] {
            assert_eq!(readable(line).as_deref(), expected);
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert!(Program::start(&["/nonexistent/program".to_owned()]).is_err());
    }
}
