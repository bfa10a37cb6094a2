//! Sensors: where their values come from, and what is made of them.

use super::{
    Chip, Gpio, chip,
    document::Section,
    gpio,
    units::{Broker, Text},
};
use edgeveil_wire::{Name, ValueName};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Where values come from.
#[derive(Debug, Clone, PartialEq)]
pub enum SensorSource {
    /// A CSV file whose first line names the values, over and over.
    Csv(PathBuf),
    /// `sensor1` ~ N(20, 0.5) and `sensor2` ~ N(0.5, 0.05) with outliers.
    Simulate {
        /// The same seed gives the same stream.
        seed: u64,
        /// Share of outliers in `sensor2`.
        outliers: f64,
    },
    /// A Linux thermal zone, degrees Celsius.
    Thermal {
        /// Its folder, such as `/sys/class/thermal/thermal_zone0`.
        zone: PathBuf,
        /// Name of the value.
        value: ValueName,
    },
    /// A chip of the kernel's hardware monitoring.
    Hwmon(Device),
    /// A device of the kernel's industrial I/O.
    Iio(Device),
    /// A thermometer on a 1-wire bus, such as a DS18B20, degrees Celsius.
    OneWire(Device),
    /// A program that writes a JSON object a line, with its arguments.
    Command(Vec<String>),
    /// A chip on an I2C bus.
    Chip(Chip),
    /// Inputs of the board's pins.
    Gpio(Gpio),
    /// What others publish.
    Mqtt(MqttSource),
}

impl SensorSource {
    /// Rows a second at most, where the settings do not say: of those that bring their rows by themselves, so that no change
    /// waits for long.
    pub(super) fn default_rate(&self) -> f64 {
        if self.brings_rows() { 10.0 } else { 1.0 }
    }

    /// Whether rows come when something happens, and not at a rate.
    pub(super) fn brings_rows(&self) -> bool {
        matches!(self, Self::Gpio(_) | Self::Mqtt(_))
    }
}

/// A topic of a broker nearby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttSource {
    /// The broker.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// Topic filter.
    pub topic: String,
    /// A file with `user:password`.
    pub login: Option<PathBuf>,
    /// With TLS: what its certificate is held against, PEM.
    pub ca: Option<PathBuf>,
    /// After so long without a message the sensor counts as lost.
    pub silence: Option<Duration>,
}

impl MqttSource {
    /// The broker, for messages.
    pub fn broker(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn mqtt(section: &Section<'_>) -> Option<MqttSource> {
    let broker = section.get::<Text<Broker>>("mqtt").map(|Text(broker)| broker);
    let topic = section.or("topic", "sensor/data".to_owned());
    let (login, ca) = (section.get("login"), section.get::<PathBuf>("ca"));
    let silence = section.get_within("silence", Duration::from_secs(1)..=Duration::from_secs(30 * 86_400));
    if !rumqttc::valid_filter(&topic) {
        section.problem("topic", "wants a topic or a filter, such as \"sensor/data\" or \"zigbee2mqtt/+\"");
    }
    let Broker { host, port } = broker?;
    let port = port.unwrap_or(if ca.is_some() { 8883 } else { 1883 });
    Some(MqttSource { host, port, topic, login, ca, silence })
}

/// A device that the kernel shows below `/sys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where `/sys` is.
    pub sysfs: PathBuf,
    /// Its name, or its whole path.
    pub name: String,
}

/// One value that is taken from a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// What the source calls it.
    pub from: ValueName,
    /// What it is called in readings.
    pub name: ValueName,
    /// Its unit, where that is not the source's.
    pub unit: Option<String>,
    /// What is read is multiplied by this first.
    pub scale: f64,
    /// Then this is added.
    pub offset: f64,
}

pub(super) fn source(sensor: &Section<'_>, sysfs: &Path) -> Option<SensorSource> {
    let table = sensor.section("source");
    let device = |key| {
        let name: PathBuf = table.get(key)?;
        Some(Device { sysfs: sysfs.to_owned(), name: name.to_str()?.to_owned() })
    };
    match table
        .one_of(&["csv", "simulate", "thermal", "hwmon", "iio", "w1", "command", "driver", "gpio", "mqtt"])?
    {
        "csv" => table.get("csv").map(SensorSource::Csv),
        "simulate" => {
            let simulate = table.section("simulate");
            let seed = simulate.or("seed", 0);
            Some(SensorSource::Simulate { seed, outliers: simulate.within("outliers", 0.08, 0.0..=1.0) })
        }
        "thermal" => {
            let zone = table.get::<PathBuf>("thermal")?;
            // A bare name is one of the kernel's own zones.
            let zone = if zone.is_absolute() { zone } else { sysfs.join("class/thermal").join(zone) };
            let value =
                "temperature".parse().map_err(|error| table.problem("thermal", format!("{error}"))).ok()?;
            Some(SensorSource::Thermal { zone, value })
        }
        "hwmon" => device("hwmon").map(SensorSource::Hwmon),
        "iio" => device("iio").map(SensorSource::Iio),
        "w1" => device("w1").map(SensorSource::OneWire),
        "driver" => chip::read(&table).map(SensorSource::Chip),
        "gpio" => gpio::read(sensor, &table).map(SensorSource::Gpio),
        "mqtt" => mqtt(&table).map(SensorSource::Mqtt),
        _ => table.get("command").map(SensorSource::Command),
    }
}

pub(super) fn values(sensor: &Section<'_>) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    for section in sensor.sections("value") {
        let from = section.required::<Text<ValueName>>("from").map(|Text(name)| name);
        let name = section.get::<Text<ValueName>>("name").map(|Text(name)| name);
        let unit = section.get::<String>("unit");
        let scale = section.within("scale", 1.0, -1e12..=1e12);
        let offset = section.within("offset", 0.0, -1e12..=1e12);
        if unit.as_ref().is_some_and(|unit| unit.chars().count() > 16) {
            section.problem("unit", "wants at most 16 characters, such as \"°C\"");
        }
        let Some(from) = from else { continue };
        let name = name.unwrap_or_else(|| from.clone());
        if values.iter().any(|value| value.name == name) {
            section.problem("name", format!("the value \"{name}\" is there twice"));
        }
        values.push(Value { from, name, unit, scale, offset });
    }
    if values.len() > edgeveil_wire::MAX_VALUES {
        sensor.problem("value", format!("is there more than {} times", edgeveil_wire::MAX_VALUES));
    }
    values
}

/// One group of values that are read together.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensor {
    /// Last level of its topics.
    pub group: Name,
    /// Where the values come from.
    pub source: SensorSource,
    /// The values that are taken. None: all that the source has.
    pub values: Vec<Value>,
    /// Rows a second.
    pub rate: f64,
    /// Whether rows are scored.
    pub detector: Option<super::Detector>,
}
