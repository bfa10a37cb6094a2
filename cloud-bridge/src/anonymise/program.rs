//! `edgeveil-bridge worker`: the parts of a worker that is a process of its own, put together and taken apart.

use super::{
    Mender, Places,
    amqp::Foreign,
    veiler::Veiler,
    worker::{self, Worker},
};
use crate::{
    catalog::Catalog,
    metrics::Metrics,
    readiness::{Part, Readiness},
    serve::{DEADLINE, listen},
    settings::Settings,
    web::{self, Probes},
};
use anyhow::{Context, Result};
use std::{net::SocketAddr, sync::Arc};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// A running worker.
pub struct Program {
    /// Where its probes are, if anywhere.
    pub http: Option<SocketAddr>,
    catalog: Catalog,
    parts: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Program {
    /// Opens everything and starts. An error names the place and the remedy.
    pub async fn start(all: &Settings) -> Result<Self> {
        let settings = all
            .anonymise
            .clone()
            .context("there is no section [anonymise] in the settings; docs/anonymise.md has one")?;
        let (metrics, readiness) = (Arc::new(Metrics::default()), Arc::new(Readiness::default()));
        let probes = match settings.worker_listen {
            Some(address) => Some(listen(address, "anonymise.worker_listen").await?),
            None => None,
        };
        let http = probes.as_ref().and_then(|listener| listener.local_addr().ok());
        let veiler = Veiler::start(&settings)?;
        let places = Places::open(&settings).await?;
        let foreign = match &settings.amqp {
            Some(amqp) => {
                Some(Foreign::open(amqp.clone(), &settings, veiler.clone(), metrics.clone()).await?)
            }
            None => None,
        };
        let catalog = Catalog::open(&all.catalog).await?;
        // What a worker does not use is not missing.
        for part in [Part::Database, Part::Objects, Part::Source, Part::Pictures] {
            readiness.up(part);
        }
        let (stop, mut parts) = (CancellationToken::new(), JoinSet::new());
        let mender = Mender { settings: settings.clone(), catalog: catalog.clone(), places: places.clone() };
        // Nobody within this process tells of new jobs.
        let (_, woken) = watch::channel(());
        let worker = Worker {
            settings,
            catalog: catalog.clone(),
            places,
            veiler,
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            woken,
            name: worker::new_name()?,
        };
        let (of_mender, of_worker) = (stop.clone(), stop.clone());
        parts.spawn(async move {
            mender.run(of_mender).await;
            "mending"
        });
        parts.spawn(async move {
            worker.run(of_worker).await;
            "worker"
        });
        if let Some(foreign) = foreign {
            let (stop, readiness) = (stop.clone(), readiness.clone());
            parts.spawn(async move {
                foreign.run(&readiness, stop).await;
                "amqp"
            });
        }
        if let Some(listener) = probes {
            let probes = Probes { catalog: catalog.within(web::PATIENCE), metrics, readiness };
            let stop = stop.clone();
            parts.spawn(async move {
                web::serve_probes(listener, probes, stop).await;
                "probes"
            });
        }
        Ok(Self { http, catalog, parts, stop })
    }

    /// Ends when a part that should run for ever does not.
    pub async fn failed(&mut self) -> &'static str {
        match self.parts.join_next().await {
            Some(ended) => ended.unwrap_or("a part"),
            None => "all",
        }
    }

    /// Lets the job in hand come to its end, or be given back. Names whoever does not make the deadline.
    pub async fn stop(mut self) -> Vec<&'static str> {
        let deadline = Instant::now() + DEADLINE;
        self.stop.cancel();
        let mut late = Vec::new();
        let all = async { while self.parts.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline, all).await.is_err() {
            late.push("worker");
        }
        if tokio::time::timeout_at(deadline, self.catalog.close()).await.is_err() {
            late.push("catalog");
        }
        late
    }
}
