//! `edgeveil-agent run`

use super::{Failure, logs};
use crate::settings::Settings;
use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub fn run(settings: Settings) -> Result<(), Failure> {
    logs::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Each look into the spool hands a worker's place to another thread. Without a bound a drain on a busy machine
        // had 387 of them, which is 20 MB of stacks.
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let asked = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            asked.cancel();
        });
        crate::run::run(settings, stop, || {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        })
        .await
    });
    // A thread that hangs in a driver must not hold up the end.
    runtime.shutdown_background();
    Ok(result?)
}
