//! An S3 server that a test can make slow or failing: as much of S3 as the bridge uses, its objects as files in a folder.

use crate::free_port;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, sleep},
    time::Duration,
};

/// What it does to one PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutDeed {
    /// Stores it.
    Store,
    /// Stores it after so long.
    Slow(Duration),
    /// Answers 503 and stores nothing.
    Refuse,
    /// Ends the connection within the request and stores nothing.
    Cut,
    /// Stores it, and ends the connection before it has answered.
    StoreAndCut,
}

/// Decides what is done to the `n`-th PUT.
pub type PutScript = Box<dyn FnMut(u64) -> PutDeed + Send>;

/// The running server; it ends with the test's process.
pub struct Bucket {
    /// Where it listens.
    pub port: u16,
    script: Arc<Mutex<(u64, PutScript)>>,
}

impl Bucket {
    /// Starts one whose bucket `images` has its objects below a folder.
    pub fn start(folder: &Path, script: PutScript) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let script = Arc::new(Mutex::new((0, script)));
        let (folder, its_script) = (folder.to_owned(), script.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, script) = (folder.clone(), its_script.clone());
                thread::spawn(move || serve(stream, &folder, &script));
            }
        });
        Self { port, script }
    }

    /// Follows another script from now on.
    pub fn follow(&self, script: PutScript) {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).1 = script;
    }

    /// PUTs so far.
    pub fn puts(&self) -> u64 {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

/// One request a connection. None when it ends early.
fn serve(stream: TcpStream, folder: &Path, script: &Mutex<(u64, PutScript)>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = path.strip_prefix("/images")?.trim_start_matches('/');
    let place = folder.join(key);
    match method.as_str() {
        "PUT" => {
            let deed = {
                let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
                script.0 += 1;
                let n = script.0;
                (script.1)(n)
            };
            let mut body = vec![0; if deed == PutDeed::Cut { length / 2 } else { length }];
            reader.read_exact(&mut body).ok()?;
            match deed {
                PutDeed::Cut => return None,
                PutDeed::Refuse => {
                    return answer(stream, "503 Slow Down", "<Error><Code>SlowDown</Code></Error>");
                }
                PutDeed::Slow(wait) => sleep(wait),
                PutDeed::Store | PutDeed::StoreAndCut => {}
            }
            fs::create_dir_all(place.parent()?).ok()?;
            fs::write(&place, &body).ok()?;
            if deed == PutDeed::StoreAndCut { None } else { answer(stream, "200 OK", "") }
        }
        "GET" if key.is_empty() => answer(stream, "200 OK", &list(folder, query)),
        "GET" => match fs::read_to_string(&place) {
            Ok(text) => answer(stream, "200 OK", &text),
            Err(_) => answer(stream, "404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"),
        },
        "DELETE" => {
            let _ = fs::remove_file(&place);
            answer(stream, "204 No Content", "")
        }
        _ => answer(stream, "405 Method Not Allowed", ""),
    }
}

fn answer(mut stream: TcpStream, status: &str, body: &str) -> Option<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"1\"\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).ok()
}

/// One level of the folder, as `list-type=2` with a delimiter has it.
fn list(folder: &Path, query: &str) -> String {
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or_default();
    let prefix = prefix.replace("%2F", "/").replace("%2f", "/");
    let mut found = String::new();
    for entry in fs::read_dir(folder.join(&prefix)).into_iter().flatten().flatten() {
        let (path, name): (PathBuf, _) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            found += &format!("<CommonPrefixes><Prefix>{prefix}{name}/</Prefix></CommonPrefixes>");
        } else {
            let size = entry.metadata().map_or(0, |meta| meta.len());
            found += &format!(
                "<Contents><Key>{prefix}{name}</Key><LastModified>2026-11-25T00:00:00.000Z</LastModified><ETag>\"1\"</ETag><Size>{size}</Size></Contents>"
            );
        }
    }
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><Name>images</Name><Prefix>{prefix}</Prefix><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
    )
}
