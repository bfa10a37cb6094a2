//! Tells devices which settings are wanted of them.
//!
//! A wish is published retained when somebody has it, and again each minute while its device is there and has not answered: the
//! embedded broker forgets what it retains when the bridge ends, and RabbitMQ keeps nothing that does not come by MQTT.

use crate::{
    catalog::{Catalog, CatalogError},
    source::{Delivery, ToDevices},
};
use edgeveil_wire::{Desired, DeviceName, Topic, Topics};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const ROUND: Duration = Duration::from_secs(60);
/// Devices that are told in one round; more have to wait for the next.
const MOST: u32 = 500;

/// The way to the devices.
#[derive(Debug, Clone)]
pub struct Wishes {
    catalog: Catalog,
    devices: ToDevices,
    topics: Topics,
}

impl Wishes {
    /// By this way.
    pub fn new(catalog: Catalog, devices: ToDevices, topics: Topics) -> Self {
        Self { catalog, devices, topics }
    }

    /// Notes a wish and tells it. False when there is no such device.
    pub async fn want(
        &self,
        device: &DeviceName,
        desired: &Desired,
        who: &str,
        now: i64,
    ) -> Result<bool, CatalogError> {
        let known = self.catalog.want(device, desired, who, now).await?;
        if known {
            let topic = self.topics.of(device, &Topic::Desired);
            self.devices.publish(topic, desired.to_json(), Delivery::Retained).await;
        }
        Ok(known)
    }

    /// Until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let mut after = String::new();
            loop {
                sleep(ROUND).await;
                // The pages tell when the catalog does not answer.
                let Ok(wishes) = self.catalog.unanswered_wishes(&after, MOST).await else { continue };
                let last = wishes.last().filter(|_| wishes.len() == MOST as usize);
                after = last.map_or_else(String::new, |(device, _)| device.clone());
                for (device, desired) in wishes {
                    let Ok(device) = device.parse::<DeviceName>() else { continue };
                    let topic = self.topics.of(&device, &Topic::Desired);
                    self.devices.publish_at_leisure(topic, desired.into_bytes(), Delivery::Retained).await;
                }
            }
        })
        .await;
    }
}
