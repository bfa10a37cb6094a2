//! Chips on an I2C bus, by drivers of our own over `embedded_hal`'s `I2c` (which ones, and why: docs/adr/0008).
//!
//! A row stands for itself: whatever fails within it, the chip is set up anew for the next one, and no value is given that a
//! chip which has lost its supply in between could have made up.

mod ads1115;
mod adxl345;
mod bme280;
mod bus;
mod mpu6050;
mod sht3x;
#[cfg(test)]
mod sim;

use super::{Sensor, SensorError};
use crate::settings::{Chip as Settings, ChipKind, Value};
use ads1115::Ads1115;
use adxl345::Adxl345;
use bme280::Bme280;
use edgeveil_wire::{ValueName, Values};
use embedded_hal::i2c::{Error as _, ErrorKind, I2c};
use mpu6050::Mpu6050;
use sht3x::Sht3x;
use std::{fmt::Display, thread::sleep, time::Duration};

/// Standard gravity, m/s².
const GRAVITY: f64 = 9.80665;

/// A bus as the drivers want it.
pub trait Bus: I2c<Error: Display> + Send + 'static {}
impl<B: I2c<Error: Display> + Send + 'static> Bus for B {}

/// Opens the bus, and sets the chip up, so that a wrong address is known at once.
pub fn open(settings: &Settings, rate: f64, wanted: &[Value]) -> Result<Box<dyn Sensor>, SensorError> {
    let name = settings.kind.name();
    let bus = bus::open(&settings.bus, settings.address).map_err(|what| SensorError::Bus {
        chip: name,
        address: settings.address,
        bus: settings.bus.display().to_string(),
        what,
    })?;
    let port = Port::new(bus, settings, Box::new(sleep));
    begin(port, &settings.kind, rate, wanted)
}

/// The driver of a chip that is behind a port.
fn begin<B: Bus>(
    port: Port<B>,
    kind: &ChipKind,
    rate: f64,
    wanted: &[Value],
) -> Result<Box<dyn Sensor>, SensorError> {
    fn chip<B: Bus>(port: Port<B>, chip: impl Chip<B> + 'static) -> Result<Box<dyn Sensor>, SensorError> {
        let mut sensor = OnBus { port, chip, is_set_up: false };
        sensor.set_up()?;
        Ok(Box::new(sensor))
    }
    match kind {
        ChipKind::Bme280 { oversampling } => chip(port, Bme280::new(*oversampling)),
        ChipKind::Sht3x { repeatability } => chip(port, Sht3x::new(*repeatability)),
        ChipKind::Adxl345 { range } => chip(port, Adxl345::new(*range, rate)),
        ChipKind::Mpu6050 { range, gyro_range } => chip(port, Mpu6050::new(*range, *gyro_range, rate)),
        ChipKind::Ads1115 { range, samples } => chip(port, Ads1115::new(*range, *samples, wanted)?),
    }
}

/// What a driver does with its chip.
trait Chip<B: Bus>: Send {
    /// Looks whether it is the right one, and sets it up.
    fn set_up(&mut self, port: &mut Port<B>) -> Result<(), SensorError>;

    /// Measures once.
    fn measure(&mut self, port: &mut Port<B>) -> Result<Values, SensorError>;

    /// The unit of a value.
    fn unit(&self, name: &str) -> &'static str;
}

/// A chip and the way to it.
struct OnBus<B, C> {
    port: Port<B>,
    chip: C,
    is_set_up: bool,
}

impl<B: Bus, C: Chip<B>> OnBus<B, C> {
    fn set_up(&mut self) -> Result<(), SensorError> {
        if !self.is_set_up {
            self.chip.set_up(&mut self.port)?;
            self.is_set_up = true;
        }
        Ok(())
    }
}

impl<B: Bus, C: Chip<B>> Sensor for OnBus<B, C> {
    fn read(&mut self) -> Result<Values, SensorError> {
        self.set_up()?;
        let values = self.chip.measure(&mut self.port);
        self.is_set_up = values.is_ok();
        values
    }

    fn unit(&self, name: &ValueName) -> Option<&str> {
        Some(self.chip.unit(name.as_str()))
    }
}

/// The way to one chip.
struct Port<B> {
    bus: B,
    address: u8,
    chip: &'static str,
    /// The bus, for messages.
    place: String,
    wait: Box<dyn Fn(Duration) + Send>,
}

impl<B: Bus> Port<B> {
    fn new(bus: B, settings: &Settings, wait: Box<dyn Fn(Duration) + Send>) -> Self {
        let (address, chip) = (settings.address, settings.kind.name());
        Self { bus, address, chip, place: settings.bus.display().to_string(), wait }
    }

    /// Writes a command, or a register's number and what it is to hold.
    fn write(&mut self, bytes: &[u8]) -> Result<(), SensorError> {
        let written = self.bus.write(self.address, bytes);
        written.map_err(|error| self.failed(&error))
    }

    /// Reads what the last command has made.
    fn read<const N: usize>(&mut self) -> Result<[u8; N], SensorError> {
        let mut bytes = [0; N];
        let read = self.bus.read(self.address, &mut bytes);
        read.map(|()| bytes).map_err(|error| self.failed(&error))
    }

    /// Reads registers in a row.
    fn registers<const N: usize>(&mut self, first: u8) -> Result<[u8; N], SensorError> {
        let mut bytes = [0; N];
        let read = self.bus.write_read(self.address, &[first], &mut bytes);
        read.map(|()| bytes).map_err(|error| self.failed(&error))
    }

    fn wait(&self, time: Duration) {
        (self.wait)(time);
    }

    fn failed(&self, error: &B::Error) -> SensorError {
        let remedy = match error.kind() {
            ErrorKind::NoAcknowledge(_) => {
                ": it does not answer; look at its wires and supply, and with `i2cdetect` at its address"
            }
            ErrorKind::Bus | ErrorKind::ArbitrationLoss => {
                "; look at the bus's wires, length and pull-up resistors"
            }
            _ => "",
        };
        self.wrong(format!("{error}{remedy}"))
    }

    /// The chip, or the bus, does something wrong.
    fn wrong(&self, what: impl Into<String>) -> SensorError {
        SensorError::Bus {
            chip: self.chip,
            address: self.address,
            bus: self.place.clone(),
            what: what.into(),
        }
    }

    /// Another chip than the settings say.
    fn other_chip(&self, id: u8) -> SensorError {
        self.wrong(format!("its id is {id:#04x}: another chip is at this address; set `driver` or `address`"))
    }

    /// A chip that has forgotten its settings.
    fn has_forgotten(&self) -> SensorError {
        self.wrong("it has lost its settings, as after a dip of its supply; look at its supply and wires")
    }
}

fn row<const N: usize>(values: [(&str, f64); N]) -> Values {
    let value = |(name, value): (&str, f64)| (name.parse().expect("a legal name"), value);
    values.into_iter().map(value).collect()
}

/// As many decimals as the chip resolves: more would only be noise in the payload.
fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}
