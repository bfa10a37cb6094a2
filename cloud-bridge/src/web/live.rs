//! New alerts for open pages, by server-sent events.
//!
//! One task asks the catalog, when this process has committed an alert and every two seconds, since replicas commit too; it
//! asks nothing while nobody listens.

use super::{Web, alerts, html::View};
use crate::catalog::{AlertRow, Catalog};
use axum::{
    extract::State,
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;

/// Pages that listen at the same time.
const LISTENERS: usize = 100;
/// Alerts that a slow page may be behind; then it misses some, and is told to look.
const BEHIND: usize = 64;
const LOOK: Duration = Duration::from_secs(2);
/// Replicas commit in another order than they received: those that arrived so long ago may be new.
const OVERLAP: i64 = 10_000;
/// Alerts of one look.
const AT_ONCE: u32 = 200;

/// The way to new alerts.
#[derive(Debug, Clone)]
pub struct Live {
    alerts: broadcast::Sender<Arc<AlertRow>>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Live {
    /// Looks for alerts until it is stopped.
    pub fn start(catalog: Catalog, woken: watch::Receiver<()>, stop: CancellationToken) -> Self {
        let alerts = broadcast::Sender::new(BEHIND);
        let live =
            Self { alerts: alerts.clone(), places: Arc::new(Semaphore::new(LISTENERS)), stop: stop.clone() };
        tokio::spawn(async move {
            stop.run_until_cancelled(look(catalog, woken, alerts)).await;
        });
        live
    }
}

async fn look(catalog: Catalog, mut woken: watch::Receiver<()>, alerts: broadcast::Sender<Arc<AlertRow>>) {
    let mut known = BTreeSet::new();
    // The time from which on alerts are new; none while nobody listens.
    let mut since: Option<i64> = None;
    loop {
        tokio::select! {
            Ok(()) = woken.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        if alerts.receiver_count() == 0 {
            since = None;
            known.clear();
            continue;
        }
        let now = jiff::Timestamp::now().as_millisecond();
        let from = since.map_or(now - LOOK.as_millis() as i64, |since| since - OVERLAP);
        // The pages themselves tell when the catalog does not answer.
        let Ok(rows) = catalog.alerts_since(from, AT_ONCE).await else { continue };
        let mut last = since.unwrap_or(now);
        for row in rows {
            last = last.max(row.received);
            if known.insert((row.received, row.device.clone(), row.id.clone())) {
                let _ = alerts.send(Arc::new(row));
            }
        }
        known = known.split_off(&(last - 2 * OVERLAP, String::new(), String::new()));
        since = Some(last);
    }
}

pub async fn live(State(web): State<Web>, view: View) -> Response {
    let Ok(place) = web.live.places.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages listen already\n").into_response();
    };
    let (receiver, stop) = (web.live.alerts.subscribe(), web.live.stop.clone());
    let events = stream::unfold(
        (receiver, stop, view, place),
        |(mut receiver, stop, view, place)| async move {
            let event = tokio::select! {
                () = stop.cancelled() => return None,
                alert = receiver.recv() => match alert {
                    Ok(alert) => Event::default().event("alert").data(alerts::item(&view, &alert).into_string().replace(['\r', '\n'], " ")),
                    Err(broadcast::error::RecvError::Lagged(_)) => Event::default().event("missed").data("some"),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            };
            Some((Ok::<_, Infallible>(event), (receiver, stop, view, place)))
        },
    );
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}
