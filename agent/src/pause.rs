//! Waiting that ends when the agent is told to stop, for threads that are none of the runtime's.

use std::time::Duration;
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Ends the waits of plain threads.
#[derive(Debug, Clone)]
pub struct Pause {
    stop: CancellationToken,
    runtime: Handle,
}

impl Pause {
    /// Ends when the token does.
    pub fn until(stop: CancellationToken, runtime: Handle) -> Self {
        Self { stop, runtime }
    }

    /// Whether it is time to stop.
    pub fn is_over(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Does work of the runtime's kind, here and now. None when it is time to stop before it is done.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(self.stop.run_until_cancelled(work))
    }

    /// Hands work over to the runtime.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(work)
    }

    /// Waits so long, or until it is time to stop; tells whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        if !time.is_zero() && !self.is_over() {
            let _ = self.runtime.block_on(async { tokio::time::timeout(time, self.stop.cancelled()).await });
        }
        self.is_over()
    }
}
