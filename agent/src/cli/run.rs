//! `edgeveil-agent run`

use super::{Failure, logs, read};
use crate::{allocator, tuning::Tuner};
use anyhow::{Context, Result};
use sd_notify::NotifyState::{self, Ready, Reloading, Stopping};
use std::path::PathBuf;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

/// Runs until SIGTERM or SIGINT. At SIGHUP the settings are read anew: good ones are what it goes on with, bad ones are
/// told and change nothing.
pub fn run(config: PathBuf) -> Result<(), Failure> {
    let (mut settings, text) = read(&config)?;
    logs::start();
    let mut tuner = Tuner::open(config.clone(), text, &settings.device.data_dir);
    settings = tuner.settings(None).map_err(|problems| Failure::from(anyhow::anyhow!("{problems}")))?;
    #[cfg(feature = "vision")]
    let has_cameras = !settings.cameras.is_empty();
    #[cfg(not(feature = "vision"))]
    let has_cameras = false;
    if !has_cameras {
        allocator::keep_little();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Each look into the spool hands a worker's place to another thread. Without a bound a drain on a busy machine
        // had 387 of them, which is 20 MB of stacks.
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let signals = Signals::listen()?;
        // One request is enough: it reads the newest settings.
        let (stops, mut orders) = mpsc::channel(1);
        tokio::spawn(signals.obey(stops));
        loop {
            let stop = CancellationToken::new();
            let running = crate::run::run(settings, tuner.afar(), stop.clone(), || tell(&[Ready]));
            tokio::pin!(running);
            let next = loop {
                tokio::select! {
                    ended = &mut running => return ended,
                    () = tuner.wish() => break Some(None),
                    order = orders.recv() => match order {
                        Some(Order::ReadAnew) => match read(&config) {
                            Ok((_, text)) => {
                                tracing::info!(config = %config.display(), "starting anew with the settings as they are now");
                                break Some(Some(text));
                            }
                            Err(failure) => tracing::error!(%failure, "the new settings are not taken; the agent goes on as it was"),
                        },
                        Some(Order::Stop) | None => break None,
                    },
                }
            };
            if next.is_some() {
                match NotifyState::monotonic_usec_now() {
                    Ok(now) => tell(&[Reloading, now]),
                    Err(_) => tell(&[Reloading]),
                }
            }
            stop.cancel();
            running.await?;
            match next {
                // Only now, so that the link that has ended does not tell of what does not run yet.
                Some(text) => settings = tuner.settings(text).map_err(|problems| anyhow::anyhow!("{problems}"))?,
                None => return Ok(()),
            }
        }
    });
    // A thread that hangs in a driver must not hold up the end.
    runtime.shutdown_background();
    Ok(result?)
}

/// Without systemd nobody listens, which is no mistake.
fn tell(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}

enum Order {
    Stop,
    ReadAnew,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let on = |kind, name: &str| signal(kind).with_context(|| format!("cannot listen for {name}"));
        Ok(Self {
            terminate: on(SignalKind::terminate(), "SIGTERM")?,
            interrupt: on(SignalKind::interrupt(), "SIGINT")?,
            hang_up: on(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    async fn obey(mut self, orders: mpsc::Sender<Order>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hang_up.recv() => {
                    if orders.send(Order::ReadAnew).await.is_err() {
                        return;
                    }
                    continue;
                }
            }
            tell(&[Stopping]);
            let _ = orders.send(Order::Stop).await;
            return;
        }
    }
}
