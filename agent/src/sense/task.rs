//! A task for each sensor group.

use super::{Detector, Scored, Sensor, SensorError, keeper::Keeper, memory::Memory, open};
use crate::{
    clock::{Clock, Moment},
    record::{AlertBody, Observation, Records},
    settings,
    state::State,
};
use edgeveil_wire::{EventKind, Values};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    task::block_in_place,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

/// What a group's task needs.
pub struct Group {
    /// What it was told.
    pub settings: settings::Sensor,
    /// Below it the detector's memory is kept.
    pub data_dir: PathBuf,
    /// How often it is written.
    pub save_interval: Duration,
    /// Where its rows go.
    pub records: Records,
    /// Where they are counted and problems are shown.
    pub state: Arc<State>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// A sensor that fails is read again at its rate. After so many failures in a row, or so long, it counts as lost; after
/// so many it is opened again.
const FAILURES_BEFORE_REOPEN: u32 = 10;
const FAILING_TOO_LONG: Duration = Duration::from_secs(10);
const REOPEN: Duration = Duration::from_secs(10);

/// Reads until it is told to stop.
pub async fn watch(group: Group) {
    let stop = group.stop.clone();
    // The detector outlives the sensor's failures: what it has learned stays true.
    let mut scorer = group.settings.detector.as_ref().map(|settings| Scorer::recall(&group, settings));
    stop.run_until_cancelled(async {
        let mut lost = false;
        loop {
            match block_in_place(|| open(&group.settings)) {
                Ok(mut sensor) => read_rows(&group, sensor.as_mut(), &mut scorer, &mut lost).await,
                Err(error) => report_lost(&group, &error, &mut lost).await,
            }
            sleep(REOPEN).await;
        }
    })
    .await;
    if let Some(Scorer { detector, keeper }) = scorer {
        keeper.finish(&detector).await;
    }
}

/// A group's detector, and what keeps its memory.
struct Scorer {
    detector: Detector,
    keeper: Keeper,
}

impl Scorer {
    fn recall(group: &Group, settings: &settings::Detector) -> Self {
        let name = &group.settings.group;
        let memory = Memory::new(&group.data_dir, name);
        let detector = block_in_place(|| {
            tracing::info_span!("sensor", group = %name).in_scope(|| Detector::recall(settings, &memory))
        });
        Self { detector, keeper: Keeper::new(memory, group.save_interval, name, group.state.clone()) }
    }

    async fn score(&mut self, moment: Moment, values: &Values) -> Option<Scored> {
        let scored = self.detector.score(values);
        self.keeper.tick(moment.uptime, &self.detector).await;
        scored
    }
}

async fn read_rows(group: &Group, sensor: &mut dyn Sensor, scorer: &mut Option<Scorer>, lost: &mut bool) {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / group.settings.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0;
    let mut failing_since = None;
    while failures < FAILURES_BEFORE_REOPEN {
        ticks.tick().await;
        let moment = group.clock.now();
        if !sensor.is_ready() {
            continue;
        }
        match block_in_place(|| sensor.read()) {
            Ok(values) => {
                (failures, failing_since) = (0, None);
                report_back(group, lost).await;
                let scored = match scorer {
                    Some(scorer) => scorer.score(moment, &values).await,
                    None => None,
                };
                let score = scored.as_ref().map(|scored| scored.score);
                let alert = scored.filter(|scored| scored.alert).map(|scored| AlertBody {
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
                let since: Duration = *failing_since.get_or_insert(moment.uptime);
                if error.is_gone() {
                    return report_lost(group, &error, lost).await;
                }
                if failures >= FAILURES_BEFORE_REOPEN
                    || moment.uptime.saturating_sub(since) >= FAILING_TOO_LONG
                {
                    report_lost(group, &error, lost).await;
                } else {
                    tracing::debug!(sensor = %group.settings.group, %error, "row left out");
                }
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
