//! What went through, for people and as a line of JSON.

use super::{say, stand_in::StandIn};
use crate::{catalog::Outbox, serve::Bridge};
use anyhow::{Context, Result};
use edgeveil_wire::{ImageMeta, Lane, Values};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use zune_jpeg::{JpegDecoder, zune_core::bytestream::ZCursor};

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    connected: bool,
    image: bool,
    alert: bool,
    forwarded: bool,
    health: bool,
}

impl Seen {
    /// Looks again, and tells what is new.
    pub async fn look(
        &mut self,
        bridge: &Bridge,
        stand_in: &StandIn,
        outbox: &Outbox,
        elapsed: Duration,
    ) -> Result<()> {
        let at = |text: String| say(&format!("{:.1} s: {text}", elapsed.as_secs_f64()));
        let devices = bridge.catalog.devices().await?;
        if !self.connected
            && let Some(device) = devices.iter().find(|device| device.state.as_deref() == Some("online"))
        {
            self.connected = true;
            at(format!("device {} is online", device.name));
        }
        if !self.health && devices.iter().any(|device| device.health.is_some()) {
            self.health = true;
        }
        if !self.image
            && let Some(text) = image(bridge).await?
        {
            self.image = true;
            at(text);
        }
        if self.alert && self.forwarded {
            return Ok(());
        }
        let (_, done) = outbox.counts().await?;
        for alert in bridge.catalog.latest_alerts(100).await? {
            let shares: Values =
                serde_json::from_str(&alert.contributions).context("contributions of an alert")?;
            if shares.is_empty() {
                continue;
            }
            if !self.alert {
                self.alert = true;
                let shares: Vec<_> =
                    shares.iter().map(|(name, share)| format!("{name} {:.0} %", share * 100.0)).collect();
                at(format!("first alert, score {:.2}, because of {}", alert.score, shares.join(", ")));
            }
            if !self.forwarded && done > 0 && stand_in.has(&alert.id) {
                self.forwarded = true;
                at("first alert is with the stand-in for AWS IoT Core, and done in the outbox".to_owned());
            }
        }
        Ok(())
    }

    /// Whether all of it went through.
    pub fn is_through(&self) -> bool {
        self.missing().is_empty()
    }

    /// What did not go through yet.
    pub fn missing(&self) -> Vec<&'static str> {
        let steps = [
            (self.connected, "the device online"),
            (self.image, "a veiled image with its object"),
            (self.alert, "an alert with contributions"),
            (self.forwarded, "an alert forwarded"),
            (self.health, "the device's health"),
        ];
        steps.into_iter().filter(|(seen, _)| !seen).map(|(_, name)| name).collect()
    }
}

/// The first image with a covered face whose object is a JPEG that says the same as its row.
async fn image(bridge: &Bridge) -> Result<Option<String>> {
    let images = bridge.catalog.latest_images(1).await?;
    let Some(image) = images.into_iter().find(|image| image.faces > 0) else { return Ok(None) };
    let jpeg = bridge.objects.get(&image.object).await?;
    let meta = ImageMeta::from_jpeg(&jpeg).with_context(|| format!("object {}", image.object))?;
    anyhow::ensure!(
        meta.stamp.id.to_string() == image.id && i64::from(meta.faces) == image.faces,
        "object {} and its row contradict each other",
        image.object
    );
    let mut decoder = JpegDecoder::new(ZCursor::new(jpeg.as_ref()));
    let pixels =
        decoder.decode().map_err(|error| anyhow::anyhow!("object {} is no JPEG: {error}", image.object))?;
    anyhow::ensure!(!pixels.is_empty(), "object {} has no pixels", image.object);
    let (width, height) = decoder.dimensions().unwrap_or_default();
    Ok(Some(format!(
        "first veiled image, {width}x{height}, {} face covered ({}), {} bytes",
        image.faces, image.cover, image.bytes
    )))
}

/// A line for whoever waits.
pub async fn progress(bridge: &Bridge, seen: &Seen, elapsed: Duration) -> Result<String> {
    let counts = counts(bridge).await?;
    let counts: Vec<_> = counts.iter().map(|(lane, count)| format!("{count} {lane}")).collect();
    let missing = seen.missing();
    let waits =
        if missing.is_empty() { String::new() } else { format!("; waiting for {}", missing.join(", ")) };
    Ok(format!("{:.0} s: {} so far{waits}", elapsed.as_secs_f64(), counts.join(", ")))
}

async fn counts(bridge: &Bridge) -> Result<BTreeMap<&'static str, i64>> {
    let gaps = bridge.catalog.gaps().await?;
    let of = |lane: Lane| gaps.iter().filter(|gap| gap.lane == lane.as_str()).map(|gap| gap.count).sum();
    Ok(Lane::ALL.into_iter().map(|lane| (lane.as_str(), of(lane))).collect())
}

/// All of it, as one line of JSON.
pub async fn line(bridge: &Bridge, stand_in: &StandIn, outbox: &Outbox) -> Result<String> {
    let (open, done) = outbox.counts().await?;
    let (messages, refused, records) = stand_in.counts();
    let gaps = bridge.catalog.gaps().await?;
    let mut latency = BTreeMap::new();
    for lane in Lane::ALL {
        let sorted = bridge.catalog.latencies(lane).await?;
        if let Some(max) = sorted.last() {
            latency.insert(lane.as_str(), json!({ "p50": sorted[sorted.len() / 2], "max": max }));
        }
    }
    let devices = bridge.catalog.devices().await?;
    let health = devices.iter().find_map(|device| device.health.as_deref());
    let health: Value =
        health.map(serde_json::from_str).transpose().context("a health message")?.unwrap_or_default();
    Ok(json!({
        "ok": true,
        "counts": counts(bridge).await?,
        "outbox": { "done": done, "open": open },
        "stand_in": { "messages": messages, "refused": refused, "records": records },
        "gaps": {
            "sequences": gaps.len(),
            "missing": gaps.iter().map(|gap| gap.missing()).sum::<i64>(),
        },
        "spool": health["spool"],
        "latency_ms": latency,
    })
    .to_string())
}
