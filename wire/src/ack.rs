//! The end-to-end acknowledgement.

use crate::{MAX_ACK_IDS, PayloadError, RecordId, Schema, schema};
use serde::{Deserialize, Serialize};

/// Published by the bridge on `ack` after it has made these records durable. Only then does the agent forget them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// At most [`MAX_ACK_IDS`].
    pub ids: Vec<RecordId>,
}

impl Ack {
    /// As published on `ack`.
    pub fn to_json(&self) -> Vec<u8> {
        schema::write(Schema::Ack, self)
    }

    /// Reads what [`Self::to_json`] wrote.
    pub fn from_json(payload: &[u8]) -> Result<Self, PayloadError> {
        let ack: Self = schema::parse(Schema::Ack, payload)?;
        if ack.ids.len() > MAX_ACK_IDS {
            return Err(PayloadError::TooManyIds(ack.ids.len()));
        }
        Ok(ack)
    }
}
