//! A task for each sensor group: what its thread reads is scored and recorded.

use super::{
    Detector, Scored, SensorError,
    keeper::Keeper,
    memory::Memory,
    reader::{News, Reader, Standing},
};
use crate::{
    clock::{Clock, Moment},
    pause::Pause,
    record::{AlertBody, Observation, Records},
    settings,
    state::State,
    status::Row,
};
use edgeveil_wire::{EventKind, ValueName, Values};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{runtime::Handle, task::block_in_place};
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

/// A row that the settings have alerted is held against this; its score is 1.
const ALERTED: f64 = 0.5;

/// Scores and records until it is told to stop, and the source is closed.
pub async fn watch(group: Group) {
    let stop = group.stop.clone();
    let pause = Pause::until(stop.clone(), Handle::current());
    let mut news = match Reader::start(group.settings.clone(), group.clock.clone(), pause) {
        Ok(news) => news,
        Err(error) => {
            tracing::error!(sensor = %group.settings.group, %error, "no thread for this sensor; free some memory");
            return;
        }
    };
    // The detector outlives the sensor's failures: what it has learned stays true.
    let mut scorer = group.settings.detector.as_ref().map(|settings| Scorer::recall(&group, settings));
    stop.run_until_cancelled(async {
        let mut lost = false;
        while let Some(heard) = news.recv().await {
            hear(&group, heard, &mut scorer, &mut lost).await;
        }
    })
    .await;
    if let Some(Scorer { detector, keeper }) = scorer {
        keeper.finish(&detector).await;
    }
    // A program has ended when its thread has. What comes now comes too late.
    while news.recv().await.is_some() {}
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

async fn hear(group: &Group, news: News, scorer: &mut Option<Scorer>, lost: &mut bool) {
    match news {
        News::Row { moment, values, alert } => {
            report_back(group, lost).await;
            record(group, moment, values, alert, scorer).await;
        }
        News::Failed(error, standing) => {
            group.state.sensor(&group.settings.group, |health| health.failed += 1);
            match standing {
                Standing::Lost => report_lost(group, &error, lost).await,
                Standing::MayRecover => {
                    tracing::debug!(sensor = %group.settings.group, %error, "row left out");
                }
            }
        }
        News::NotOpened(error) => report_lost(group, &error, lost).await,
    }
}

async fn record(
    group: &Group,
    moment: Moment,
    values: Values,
    alerted: Option<ValueName>,
    scorer: &mut Option<Scorer>,
) {
    let scored = match scorer {
        Some(scorer) => scorer.score(moment, &values).await,
        None => None,
    };
    let score = scored.as_ref().map(|scored| scored.score);
    let alert = match alerted {
        Some(name) => {
            Some(AlertBody { score: 1.0, threshold: ALERTED, contributions: Values::from([(name, 1.0)]) })
        }
        None => scored.filter(|scored| scored.alert).map(|scored| AlertBody {
            score: scored.score,
            threshold: scored.threshold,
            contributions: scored.contributions,
        }),
    };
    group.state.sensor(&group.settings.group, |health| {
        health.readings += 1;
        health.alerts += u64::from(alert.is_some());
    });
    let row = Row { at: moment.uptime, values: values.len(), score };
    group.state.row(&group.settings.group, row);
    let group_name = group.settings.group.clone();
    group.records.observation(Observation { group: group_name, moment, values, score, alert }).await;
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
