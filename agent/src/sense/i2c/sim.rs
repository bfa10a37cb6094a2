//! Simulated chips for the drivers' tests: they answer on a bus by their registers or commands, in a time that passes only
//! where a driver waits, and the bus can fail in the ways that buses do.

use super::{Port, begin};
use crate::{
    sense::{Sensor, SensorError},
    settings::{Chip, ChipKind, Value},
};
use embedded_hal::i2c::{Error, ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

/// A chip with registers of a byte, whose number counts up while they are read or written.
pub trait Registers: Send {
    fn write(&mut self, register: u8, value: u8, now: Duration);
    fn read(&mut self, register: u8, now: Duration) -> u8;
    fn lose_power(&mut self);
}

/// A chip with registers of two bytes, the high one first.
pub trait Words: Send {
    fn write(&mut self, register: u8, value: u16, now: Duration);
    fn read(&mut self, register: u8, now: Duration) -> u16;
    fn lose_power(&mut self);
}

/// A chip that takes commands and then answers.
pub trait Commands: Send {
    /// Whether it acknowledges.
    fn command(&mut self, bytes: &[u8], now: Duration) -> bool;
    /// None: it does not acknowledge.
    fn answer(&mut self, now: Duration) -> Option<Vec<u8>>;
    fn lose_power(&mut self);
}

enum Simulated {
    Registers(Box<dyn Registers>),
    Words(Box<dyn Words>),
    Commands(Box<dyn Commands>),
}

struct World {
    chip: Simulated,
    address: u8,
    now: Duration,
    /// Transactions so far.
    count: usize,
    /// The one that goes wrong.
    fault: Option<(usize, Fault)>,
    /// The next read has only so many bytes of the chip; the rest is the bus at rest.
    torn: Option<usize>,
}

/// What goes wrong with a transaction.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// Nobody acknowledges.
    Nack,
    /// The adapter gives up.
    TimedOut,
    /// Fewer bytes come than were asked for.
    Short,
    /// The chip loses its supply right before, for a moment.
    PowerDip,
}

#[derive(Debug)]
pub struct Failed(Fault);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated {:?}", self.0)
    }
}

impl Error for Failed {
    fn kind(&self) -> ErrorKind {
        match self.0 {
            Fault::Nack => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown),
            Fault::TimedOut => ErrorKind::Bus,
            _ => ErrorKind::Other,
        }
    }
}

/// A bus with the one chip on it.
pub struct SimulatedBus(Arc<Mutex<World>>);

impl ErrorType for SimulatedBus {
    type Error = Failed;
}

impl I2c for SimulatedBus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Failed> {
        let mut world = self.0.lock().unwrap();
        let at = world.count;
        world.count += 1;
        match world.fault {
            Some((when, Fault::PowerDip)) if when == at => world.chip.lose_power(),
            Some((when, fault)) if when == at => return Err(Failed(fault)),
            _ => {}
        }
        if address != world.address {
            return Err(Failed(Fault::Nack));
        }
        world.transact(operations).ok_or(Failed(Fault::Nack))
    }
}

impl Simulated {
    fn lose_power(&mut self) {
        match self {
            Self::Registers(chip) => chip.lose_power(),
            Self::Words(chip) => chip.lose_power(),
            Self::Commands(chip) => chip.lose_power(),
        }
    }
}

impl World {
    fn transact(&mut self, operations: &mut [Operation<'_>]) -> Option<()> {
        let now = self.now;
        let mut pointer = 0u8;
        for operation in operations {
            match (operation, &mut self.chip) {
                (Operation::Write([first, values @ ..]), Simulated::Registers(chip)) => {
                    pointer = *first;
                    for value in values.iter() {
                        chip.write(pointer, *value, now);
                        pointer = pointer.wrapping_add(1);
                    }
                }
                (Operation::Read(into), Simulated::Registers(chip)) => {
                    for byte in into.iter_mut() {
                        *byte = chip.read(pointer, now);
                        pointer = pointer.wrapping_add(1);
                    }
                }
                (Operation::Write([register]), Simulated::Words(_)) => pointer = *register,
                (Operation::Write([register, high, low]), Simulated::Words(chip)) => {
                    chip.write(*register, u16::from_be_bytes([*high, *low]), now);
                }
                (Operation::Read(into), Simulated::Words(chip)) => {
                    into.copy_from_slice(&chip.read(pointer, now).to_be_bytes());
                }
                (Operation::Write(bytes), Simulated::Commands(chip)) => {
                    chip.command(bytes, now).then_some(())?;
                }
                (Operation::Read(into), Simulated::Commands(chip)) => {
                    let answer = chip.answer(now)?;
                    let torn = self.torn.take().unwrap_or(into.len());
                    for (i, byte) in into.iter_mut().enumerate() {
                        *byte = answer.get(i).filter(|_| i < torn).copied().unwrap_or(0xff);
                    }
                }
                _ => return None,
            }
        }
        Some(())
    }
}

/// A chip at its place, and the settings of its driver.
pub struct Site {
    world: Arc<Mutex<World>>,
    settings: Chip,
}

impl Site {
    pub fn new(kind: ChipKind, address: u8, chip: Box<dyn Registers>) -> Self {
        Self::of(kind, address, Simulated::Registers(chip))
    }

    pub fn of_words(kind: ChipKind, address: u8, chip: Box<dyn Words>) -> Self {
        Self::of(kind, address, Simulated::Words(chip))
    }

    pub fn of_commands(kind: ChipKind, address: u8, chip: Box<dyn Commands>) -> Self {
        Self::of(kind, address, Simulated::Commands(chip))
    }

    fn of(kind: ChipKind, address: u8, chip: Simulated) -> Self {
        let world = World { chip, address, now: Duration::ZERO, count: 0, fault: None, torn: None };
        let settings = Chip { bus: "/dev/i2c-1".into(), address, kind };
        Self { world: Arc::new(Mutex::new(world)), settings }
    }

    pub fn port(&self) -> Port<SimulatedBus> {
        let world = self.world.clone();
        let wait = move |time| world.lock().unwrap().now += time;
        Port::new(SimulatedBus(self.world.clone()), &self.settings, Box::new(wait))
    }

    pub fn open(&self, rate: f64) -> Result<Box<dyn Sensor>, SensorError> {
        begin(self.port(), &self.settings.kind, rate, &[])
    }

    pub fn open_with(&self, wanted: &[&str]) -> Result<Box<dyn Sensor>, SensorError> {
        let value = |name: &&str| Value {
            from: name.parse().unwrap(),
            name: name.parse().unwrap(),
            unit: None,
            scale: 1.0,
            offset: 0.0,
        };
        let wanted: Vec<_> = wanted.iter().map(value).collect();
        begin(self.port(), &self.settings.kind, 1.0, &wanted)
    }

    /// Changes a register behind the driver's back.
    pub fn poke(&self, register: u8, value: u8) {
        let mut world = self.world.lock().unwrap();
        let now = world.now;
        let Simulated::Registers(chip) = &mut world.chip else { panic!("no registers of a byte") };
        chip.write(register, value, now);
    }

    pub fn tear_next_read(&self, bytes: usize) {
        self.world.lock().unwrap().torn = Some(bytes);
    }

    /// Each fault at each transaction of a row: it is an error that names the chip, or does no harm; it never makes a wrong
    /// value; and the next row is right.
    pub fn survives_faults(&self) {
        let mut sensor = self.open(10.0).unwrap();
        let count = || self.world.lock().unwrap().count;
        let before = count();
        let right = row(sensor.as_mut());
        let transactions = count() - before;
        assert!(transactions > 0);
        for fault in [Fault::Nack, Fault::TimedOut, Fault::Short, Fault::PowerDip] {
            let mut told = 0;
            for i in 0..transactions {
                self.world.lock().unwrap().fault = Some((count() + i, fault));
                match sensor.read() {
                    Ok(values) => {
                        assert_eq!(fault, Fault::PowerDip, "transaction {i} has failed, and nobody noticed");
                        let shown = shown(&values, sensor.as_ref());
                        assert_eq!(shown, right, "{fault:?} before transaction {i} makes a wrong value");
                    }
                    Err(error) => {
                        told += 1;
                        let error = error.to_string();
                        let name = self.settings.kind.name();
                        let place = format!("{name} at {:#04x} of /dev/i2c-1: ", self.settings.address);
                        assert!(error.starts_with(&place), "{error}");
                        let remedy = match fault {
                            Fault::Nack => "i2cdetect",
                            Fault::TimedOut => "pull-up",
                            _ => "",
                        };
                        assert!(error.contains(remedy), "{error}");
                    }
                }
                self.world.lock().unwrap().fault = None;
                assert_eq!(row(sensor.as_mut()), right, "after {fault:?} at transaction {i}");
            }
            assert!(told == transactions || fault == Fault::PowerDip, "{fault:?}: {told} of {transactions}");
        }
        // Nobody at the address: known when it is opened.
        let elsewhere = Chip { address: self.settings.address ^ 1, ..self.settings.clone() };
        let port = Port::new(SimulatedBus(self.world.clone()), &elsewhere, Box::new(|_| {}));
        let error = begin(port, &elsewhere.kind, 1.0, &[]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("does not answer"), "{error}");
    }
}

/// A row as `name=value unit`, of four decimals.
pub fn row(sensor: &mut dyn Sensor) -> String {
    let values = sensor.read().unwrap();
    shown(&values, sensor)
}

fn shown(values: &edgeveil_wire::Values, sensor: &dyn Sensor) -> String {
    let value = |(name, value)| format!("{name}={value:.4}{}", sensor.unit(name).unwrap_or_default());
    values.iter().map(value).collect::<Vec<_>>().join(" ")
}
