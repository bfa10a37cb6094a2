//! Readings and the alerts that are raised over them.

use crate::{Lane, MAX_VALUES, PayloadError, RecordId, Schema, Stamp, ValueName, schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Measured values by name. They stand at the top level of the JSON object, so that
/// `mosquitto_sub | jq .sensor1` works. A value that could not be read is left out.
pub type Values = BTreeMap<ValueName, f64>;

/// One row of a sensor group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// Identity and time.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// Anomaly score in [0, 1]; none while the detector warms up, or where no detector runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The values by name.
    #[serde(flatten)]
    pub values: Values,
}

/// How far beyond its threshold a score is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Above the threshold.
    Warning,
    /// Above the middle between the threshold and 1.
    Critical,
}

impl Severity {
    /// Of a score above its threshold.
    pub fn of(score: f64, threshold: f64) -> Self {
        if score > (1.0 + threshold) / 2.0 { Self::Critical } else { Self::Warning }
    }
}

/// A reading that stood out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// Identity and time of the alert (its lane is not the reading's).
    #[serde(flatten)]
    pub stamp: Stamp,
    /// The reading it was raised over.
    pub reading: RecordId,
    /// Always true: the field that consumers of older publishers filter by.
    pub anomaly: bool,
    /// Anomaly score in [0, 1].
    pub score: f64,
    /// What the score was held against.
    pub threshold: f64,
    /// How much each value contributed to the score; shares that sum to 1.
    pub contributions: Values,
    /// How far beyond the threshold it is.
    pub severity: Severity,
    /// The values by name.
    #[serde(flatten)]
    pub values: Values,
}

impl Reading {
    /// As published on `reading/<group>`.
    pub fn to_json(&self) -> Vec<u8> {
        schema::write(Schema::Reading, self)
    }

    /// Reads what [`Self::to_json`] wrote, and whatever a later minor version may add.
    pub fn from_json(payload: &[u8]) -> Result<Self, PayloadError> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(flatten)]
            stamp: Stamp,
            score: Option<f64>,
        }
        let map = schema::object(Schema::Reading, payload)?;
        let values = values(&map)?;
        let Fields { stamp, score } = fields(Schema::Reading, map)?;
        stamp.check(Lane::Reading)?;
        Ok(Self { stamp, score, values })
    }
}

impl Alert {
    /// As published on `alert/<source>`.
    pub fn to_json(&self) -> Vec<u8> {
        schema::write(Schema::Alert, self)
    }

    /// Reads what [`Self::to_json`] wrote, and whatever a later minor version may add.
    pub fn from_json(payload: &[u8]) -> Result<Self, PayloadError> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(flatten)]
            stamp: Stamp,
            reading: RecordId,
            anomaly: bool,
            score: f64,
            threshold: f64,
            contributions: Values,
            severity: Severity,
        }
        let map = schema::object(Schema::Alert, payload)?;
        let values = values(&map)?;
        let f: Fields = fields(Schema::Alert, map)?;
        f.stamp.check(Lane::Alert)?;
        if f.contributions.len() > MAX_VALUES {
            return Err(PayloadError::TooManyValues(f.contributions.len()));
        }
        Ok(Self {
            stamp: f.stamp,
            reading: f.reading,
            anomaly: f.anomaly,
            score: f.score,
            threshold: f.threshold,
            contributions: f.contributions,
            severity: f.severity,
            values,
        })
    }
}

fn fields<T: serde::de::DeserializeOwned>(
    schema: Schema,
    map: Map<String, Value>,
) -> Result<T, PayloadError> {
    serde_json::from_value(Value::Object(map)).map_err(|source| PayloadError::Json { schema, source })
}

/// Every number at the top level that is not a field of the payload is a value; other unknown fields are ignored.
fn values(map: &Map<String, Value>) -> Result<Values, PayloadError> {
    let mut values = Values::new();
    for (key, value) in map {
        let Some(number) = value.as_f64() else { continue };
        match key.parse::<ValueName>() {
            Ok(name) => _ = values.insert(name, number),
            Err(crate::NameError::Reserved(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if values.len() > MAX_VALUES {
        return Err(PayloadError::TooManyValues(values.len()));
    }
    Ok(values)
}
