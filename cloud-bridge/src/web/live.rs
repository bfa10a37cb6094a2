//! New alerts for open pages, by server-sent events.
//!
//! One task asks the catalog, when this process has committed an alert and every two seconds, since replicas commit too; it
//! asks nothing while nobody listens.

use super::{Failed, Web, alerts, html::View};
use crate::catalog::{AlertRow, Catalog};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt, stream};
use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, broadcast, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Pages that listen at the same time.
const LISTENERS: usize = 100;
/// Alerts that a slow page may be behind; then it misses some, and is told to look.
const BEHIND: usize = 64;
const LOOK: Duration = Duration::from_secs(2);
/// Replicas commit in another order than they received: those that arrived so long ago may be new.
const OVERLAP: i64 = 10_000;
/// How long one connection hears. Browsers connect anew by themselves, and are asked who they are again: so whoever is logged
/// out, or removed, hears no more than this.
const LISTENS: Duration = Duration::from_secs(300);
/// What came while a page was away is told to it, if that was no longer ago.
const MISSED: i64 = 3_600_000;
/// Alerts that are read at once, and how often in one look.
const AT_ONCE: u32 = 200;
const LOOKS: usize = 50;

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
        let mut last = since.unwrap_or(now);
        let mut after = (from, String::new(), String::new());
        // More than so many at once nobody reads; the next look goes on with them.
        for _ in 0..LOOKS {
            // The pages themselves tell when the catalog does not answer.
            let Ok(rows) = catalog.alerts_after((after.0, &after.1, &after.2), AT_ONCE).await else { break };
            let full = rows.len() == AT_ONCE as usize;
            for row in rows {
                last = last.max(row.received);
                after = (row.received, row.device.clone(), row.id.clone());
                if known.insert(after.clone()) {
                    let _ = alerts.send(Arc::new(row));
                }
            }
            if !full {
                break;
            }
        }
        known = known.split_off(&(last - 2 * OVERLAP, String::new(), String::new()));
        since = Some(last);
    }
}

pub async fn live(State(web): State<Web>, view: View, headers: HeaderMap) -> Result<Response, Failed> {
    let Ok(place) = web.live.places.clone().try_acquire_owned() else {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, "too many pages listen already\n").into_response());
    };
    let (receiver, stop) = (web.live.alerts.subscribe(), web.live.stop.clone());
    // Whoever comes back says what it heard last, and first hears what came since.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<i64>().ok());
    let missed = match last {
        Some(last) if (view.now - MISSED..=view.now).contains(&last) => {
            web.catalog.last_alerts_since(last - OVERLAP, AT_ONCE).await?
        }
        _ => Vec::new(),
    };
    let hello = Event::default().event("hello").id(view.now.to_string()).data(".");
    let mut first = vec![hello];
    first.extend(missed.iter().map(|alert| event(&view, alert)));
    if missed.len() == AT_ONCE as usize {
        first.push(too_fast());
    }
    let end = Instant::now() + LISTENS;
    let later =
        stream::unfold((receiver, stop, view, place), move |(mut receiver, stop, view, place)| async move {
            let event = tokio::select! {
                () = stop.cancelled() => return None,
                () = sleep_until(end) => return None,
                alert = receiver.recv() => match alert {
                    Ok(alert) => event(&view, &alert),
                    Err(broadcast::error::RecvError::Lagged(_)) => too_fast(),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            };
            Some((event, (receiver, stop, view, place)))
        });
    let events = stream::iter(first).chain(later).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response())
}

fn too_fast() -> Event {
    Event::default().event("missed").data("some")
}

fn event(view: &View, alert: &AlertRow) -> Event {
    let item = alerts::item(view, alert).into_string().replace(['\r', '\n'], " ");
    Event::default().event("alert").id(alert.received.to_string()).data(item)
}
