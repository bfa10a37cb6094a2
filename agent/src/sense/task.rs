//! A task for each sensor group.

use super::{Detector, Sensor, SensorError, open};
use crate::{
    clock::Clock,
    record::{AlertBody, Observation, Records},
    settings,
    state::State,
};
use edgeveil_wire::EventKind;
use std::{sync::Arc, time::Duration};
use tokio::{
    task::block_in_place,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

/// What a group's task needs.
pub struct Group {
    /// What it was told.
    pub settings: settings::Sensor,
    /// Where its rows go.
    pub records: Records,
    /// Where they are counted and problems are shown.
    pub state: Arc<State>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// A sensor that fails is read again at its rate, and opened again after so many failures in a row.
const FAILURES_BEFORE_REOPEN: u32 = 10;
const REOPEN: Duration = Duration::from_secs(10);

/// Reads until it is told to stop.
pub async fn watch(group: Group) {
    let stop = group.stop.clone();
    stop.run_until_cancelled(async {
        // The detector outlives the sensor's failures: what it has learned stays true.
        let mut detector = group.settings.detector.as_ref().map(Detector::new);
        let mut lost = false;
        loop {
            match block_in_place(|| open(&group.settings)) {
                Ok(mut sensor) => read_rows(&group, sensor.as_mut(), &mut detector, &mut lost).await,
                Err(error) => report_lost(&group, &error, &mut lost).await,
            }
            sleep(REOPEN).await;
        }
    })
    .await;
}

async fn read_rows(group: &Group, sensor: &mut dyn Sensor, detector: &mut Option<Detector>, lost: &mut bool) {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / group.settings.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0;
    while failures < FAILURES_BEFORE_REOPEN {
        ticks.tick().await;
        let moment = group.clock.now();
        match block_in_place(|| sensor.read()) {
            Ok(values) => {
                failures = 0;
                report_back(group, lost).await;
                let scored = detector.as_mut().and_then(|detector| detector.score(&values));
                let score = scored.as_ref().map(|scored| scored.score);
                let alert = scored.filter(|scored| scored.is_anomaly).map(|scored| AlertBody {
                    threshold: scored.threshold,
                    contributions: scored.contributions,
                });
                group.state.sensor(&group.settings.group, |health| {
                    health.readings += 1;
                    health.alerts += u64::from(alert.is_some());
                });
                let group_name = group.settings.group.clone();
                let observation = Observation { group: group_name, moment, values, score, alert };
                group.records.observation(observation).await;
            }
            Err(error) => {
                failures += 1;
                group.state.sensor(&group.settings.group, |health| health.failed += 1);
                report_lost(group, &error, lost).await;
            }
        }
    }
}

async fn report_lost(group: &Group, error: &SensorError, lost: &mut bool) {
    let name = &group.settings.group;
    group.state.problem(&format!("sensor {name}"), &error.to_string());
    if !std::mem::replace(lost, true) {
        tracing::error!(sensor = %name, %error, "sensor cannot be read; it is tried again");
        group.records.event_async(EventKind::SensorLost, Some(name.to_string()), error.to_string()).await;
    }
}

async fn report_back(group: &Group, lost: &mut bool) {
    if !std::mem::replace(lost, false) {
        return;
    }
    let name = &group.settings.group;
    tracing::info!(sensor = %name, "sensor is back");
    group.state.solved(&format!("sensor {name}"));
    group
        .records
        .event_async(EventKind::SensorBack, Some(name.to_string()), "it can be read again".to_owned())
        .await;
}
