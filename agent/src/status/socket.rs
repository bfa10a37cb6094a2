//! The socket: made without taking it from anybody, and served within bounds.

use super::Teller;
use crate::state::State;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// So many are answered at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 4;
/// A connection that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(2);
/// A socket that cannot be made is tried again: whoever had it may be gone, or the disk may have room.
const RETRY: Duration = Duration::from_secs(30);
/// Its owner and their group may ask.
const MODE: u32 = 0o660;
/// What `status` calls it.
const PART: &str = "status socket";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("{}: another program serves it; end that one, or set device.status_socket to another path", .0.display())]
    Taken(PathBuf),
    /// Something else is there.
    #[error("{}: is no socket; remove it, or set device.status_socket to another path", .0.display())]
    NoSocket(PathBuf),
    /// The system refuses it.
    #[error("{}: cannot be made ({source}); `edgeveil-agent status` has nobody to ask: set device.status_socket to a path that the agent may write", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Answers until it is told to stop. What goes wrong is shown and holds up nothing else.
pub async fn serve(path: PathBuf, teller: Teller, state: Arc<State>, stop: CancellationToken) {
    let teller = Arc::new(teller);
    let mut talks = JoinSet::new();
    let work = async {
        loop {
            match Socket::bind(&path).await {
                Ok(socket) => {
                    state.solved(PART);
                    tracing::debug!(path = %path.display(), "status socket ready");
                    let tell = || {
                        let teller = teller.clone();
                        async move { teller.tell().await }
                    };
                    let error = socket.answer(&mut talks, PATIENCE, tell).await;
                    tracing::warn!(%error, "the status socket takes no connections");
                }
                Err(error) => {
                    if state.problem(PART, &error.to_string()) {
                        tracing::warn!(%error, "no status socket; it is tried again");
                    }
                }
            }
            sleep(RETRY).await;
        }
    };
    stop.run_until_cancelled(work).await;
    // They hold the spool, which the next start of this process wants to open.
    talks.shutdown().await;
    teller.rest().await;
}

/// A socket that listens. Its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Socket {
    /// Makes it. One that was left behind by a killed agent is replaced; one that somebody serves is not.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        // Of two agents that find the same file left behind, one would take away what the other has just made.
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let lock = File::open(dir).map_err(failed)?;
        lock.try_lock().map_err(|error| failed(error.into()))?;
        Self::make_room(path).await?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let meta = fs::symlink_metadata(path).map_err(failed)?;
        let socket = Self { listener, path: path.to_owned(), file: (meta.dev(), meta.ino()) };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
        Ok(socket)
    }

    async fn make_room(path: &Path) -> Result<(), SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
            Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
            Ok(_) => {}
        }
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(error)),
            // One whose queue is full has somebody behind it as well.
            Ok(_) | Err(_) => Err(SocketError::Taken(path.to_owned())),
        }
    }

    /// Writes to each connection what `tell` gives, and closes it. Ends when no more can be taken.
    async fn answer<T>(&self, talks: &mut JoinSet<()>, patience: Duration, tell: impl Fn() -> T) -> io::Error
    where
        T: Future<Output = Option<Vec<u8>>> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            let mut stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => return error,
            };
            while talks.try_join_next().is_some() {}
            let telling = tell();
            talks.spawn(async move {
                let _place = place;
                let talk = async {
                    if let Some(text) = telling.await {
                        // Whoever asked may have gone.
                        let _ = stream.write_all(&text).await;
                    }
                };
                let _ = timeout(patience, talk).await;
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = |meta: fs::Metadata| (meta.dev(), meta.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::{
        io::AsyncReadExt,
        runtime::{Builder, Runtime},
        sync::Notify,
    };

    /// Bounds a test that has failed; it measures nothing.
    const LONG: Duration = Duration::from_secs(120);

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    async fn ask(path: &Path) -> String {
        let mut said = String::new();
        UnixStream::connect(path).await.unwrap().read_to_string(&mut said).await.unwrap();
        said
    }

    /// Serves this until the test is over.
    fn serving<T>(path: &Path, patience: Duration, tell: impl Fn() -> T + Send + 'static)
    where
        T: Future<Output = Option<Vec<u8>>> + Send + 'static,
    {
        let path = path.to_owned();
        let (ready, is_ready) = std::sync::mpsc::channel();
        tokio::spawn(async move {
            let socket = Socket::bind(&path).await.unwrap();
            ready.send(()).unwrap();
            socket.answer(&mut JoinSet::new(), patience, tell).await
        });
        tokio::task::block_in_place(|| is_ready.recv()).unwrap();
    }

    #[test]
    fn it_answers_and_goes_with_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        runtime().block_on(async {
            serving(&path, LONG, || async { Some(b"all is well\n".to_vec()) });
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
            assert_eq!(ask(&path).await, "all is well\n");
            assert_eq!(ask(&path).await, "all is well\n");
        });
        // The runtime has ended its tasks.
        assert!(!path.exists());
    }

    #[test]
    fn one_that_was_left_behind_is_replaced_and_one_that_is_served_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        runtime().block_on(async {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(path.exists(), "a listener of the standard library leaves its file behind");
            serving(&path, LONG, || async { Some(b"first".to_vec()) });
            assert!(matches!(Socket::bind(&path).await, Err(SocketError::Taken(_))));
            assert_eq!(ask(&path).await, "first", "it is still there");
        });
        fs::write(&path, "somebody's").unwrap();
        runtime().block_on(async {
            assert!(matches!(Socket::bind(&path).await, Err(SocketError::NoSocket(_))));
        });
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    }

    #[test]
    fn of_those_who_start_together_one_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let runtime = runtime();
        for _ in 0..50 {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let bind = || {
                let path = path.clone();
                runtime.spawn(async move { Socket::bind(&path).await })
            };
            let both = [bind(), bind()];
            let made: Vec<_> = both.into_iter().map(|task| runtime.block_on(task).unwrap().ok()).collect();
            let made: Vec<_> = made.into_iter().flatten().collect();
            assert_eq!(made.len(), 1);
            assert!(std::os::unix::net::UnixStream::connect(&path).is_ok(), "its file is there");
        }
    }

    #[test]
    fn a_file_that_is_not_its_own_any_more_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        runtime().block_on(async {
            let socket = Socket::bind(&path).await.unwrap();
            fs::rename(&path, dir.path().join("moved")).unwrap();
            fs::write(&path, "somebody's").unwrap();
            drop(socket);
        });
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    }

    #[test]
    fn only_so_many_are_answered_at_once_and_all_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let full = Arc::new(Notify::new());
        let go = CancellationToken::new();
        runtime().block_on(async {
            let tell = {
                let (now, most, full, go) = (now.clone(), most.clone(), full.clone(), go.clone());
                move || {
                    let (now, most, full, go) = (now.clone(), most.clone(), full.clone(), go.clone());
                    async move {
                        let count = now.fetch_add(1, SeqCst) + 1;
                        most.fetch_max(count, SeqCst);
                        if count == CONNECTIONS {
                            full.notify_one();
                        }
                        go.cancelled().await;
                        now.fetch_sub(1, SeqCst);
                        Some(b"x".to_vec())
                    }
                }
            };
            serving(&path, LONG, tell);
            let mut asking = JoinSet::new();
            for _ in 0..5 * CONNECTIONS {
                let path = path.clone();
                asking.spawn(async move { ask(&path).await });
            }
            full.notified().await;
            go.cancel();
            let said = asking.join_all().await;
            assert_eq!(said, vec!["x"; 5 * CONNECTIONS]);
        });
        assert_eq!(most.load(SeqCst), CONNECTIONS);
    }

    #[test]
    fn whoever_takes_too_long_is_hung_up_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        runtime().block_on(async {
            // More than the kernel keeps for somebody who does not read.
            let long = vec![b'x'; 16 << 20];
            serving(&path, Duration::from_millis(50), move || std::future::ready(Some(long.clone())));
            let idle: Vec<_> =
                (0..CONNECTIONS).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
            // All places are taken until the idle ones are hung up on.
            assert!(!timeout(LONG, ask(&path)).await.unwrap().is_empty());
            drop(idle);
        });
    }

    #[test]
    fn a_path_that_cannot_be_is_told_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            for path in [dir.path().join("x".repeat(200)), dir.path().join("none/agent.sock")] {
                let error = Socket::bind(&path).await.unwrap_err();
                assert!(matches!(error, SocketError::Io { .. }), "{error}");
                assert!(error.to_string().contains("set device.status_socket"), "{error}");
            }
        });
    }
}
