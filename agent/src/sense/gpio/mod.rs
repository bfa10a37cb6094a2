//! Inputs of a board's pins: switches, contacts, pulses. A row for each change of a level, with the time at which the kernel saw
//! it, and one now and then without any.

mod kernel;

use super::{Sensor, SensorError};
use crate::settings::{Gives, Gpio as Settings, GpioAlert, Input};
use edgeveil_wire::{ValueName, Values};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Changes that have not been read; when there are more, the oldest go.
const MAX_WAITING: usize = 64;

/// Opens a chip's lines.
pub fn open(settings: &Settings) -> Result<Box<dyn Sensor>, SensorError> {
    let lines = kernel::KernelLines::open(settings)
        .map_err(|what| SensorError::Lines { chip: settings.chip.clone(), what })?;
    Ok(Box::new(Inputs::new(settings, lines)?))
}

/// Lines of a chip. Errors say what is wrong, and the remedy.
trait Lines: Send {
    /// Whether each is active, in the order of the settings.
    fn levels(&mut self) -> Result<Vec<bool>, String>;

    /// The oldest change that was not taken yet.
    fn change(&mut self) -> Result<Option<Change>, String>;
}

/// A line has changed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Change {
    /// Which, by its place in the settings.
    input: usize,
    is_active: bool,
    /// How long ago.
    age: Duration,
    /// Counts the changes of all lines, from 1: a gap shows that the kernel had no room for some.
    number: u32,
    /// Counts those of this line, from 1.
    of_line: u32,
}

/// A level line's change that waits to become a row.
struct Waiting {
    levels: Vec<bool>,
    at: Instant,
    alert: Option<usize>,
}

/// The sensor.
struct Inputs<L> {
    chip: String,
    inputs: Vec<Input>,
    every: Duration,
    lines: L,
    levels: Vec<bool>,
    /// Of each line, since the last row.
    pulses: Vec<u32>,
    /// Of each line, the number of its last change.
    seen: Vec<u32>,
    /// Of all changes, the number of the last.
    last: u32,
    waiting: VecDeque<Waiting>,
    due: Instant,
    trouble: Option<String>,
    age: Duration,
    alert: Option<usize>,
}

impl<L: Lines> Inputs<L> {
    fn new(settings: &Settings, mut lines: L) -> Result<Self, SensorError> {
        let count = settings.inputs.len();
        let levels =
            lines.levels().map_err(|what| SensorError::Lines { chip: settings.chip.clone(), what })?;
        Ok(Self {
            chip: settings.chip.clone(),
            inputs: settings.inputs.clone(),
            every: settings.every,
            lines,
            levels,
            pulses: vec![0; count],
            seen: vec![0; count],
            last: 0,
            waiting: VecDeque::new(),
            due: Instant::now(),
            trouble: None,
            age: Duration::ZERO,
            alert: None,
        })
    }

    /// Takes all changes that there are.
    fn take(&mut self) -> Result<(), String> {
        let mut has_gap = false;
        while let Some(change) = self.lines.change()? {
            has_gap |= change.number != self.last.wrapping_add(1);
            self.last = change.number;
            let new = change.of_line.wrapping_sub(self.seen[change.input]);
            self.seen[change.input] = change.of_line;
            match self.inputs[change.input].gives {
                // Those that the kernel had no room for are counted by the number.
                Gives::Pulses => self.pulses[change.input] += new,
                Gives::Level => self.set(change.input, change.is_active, change.age),
            }
        }
        if has_gap {
            tracing::warn!(chip = %self.chip, "some changes of its inputs were lost: they came too fast; set or raise `debounce`");
            for (input, is_active) in self.lines.levels()?.into_iter().enumerate() {
                if self.inputs[input].gives == Gives::Level && self.levels[input] != is_active {
                    self.set(input, is_active, Duration::ZERO);
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, input: usize, is_active: bool, age: Duration) {
        self.levels[input] = is_active;
        let alerts = match self.inputs[input].alert {
            GpioAlert::Never => false,
            GpioAlert::Active => is_active,
            GpioAlert::Inactive => !is_active,
            GpioAlert::Change => true,
        };
        let now = Instant::now();
        self.waiting.push_back(Waiting {
            levels: self.levels.clone(),
            at: now.checked_sub(age).unwrap_or(now),
            alert: alerts.then_some(input),
        });
        if self.waiting.len() > MAX_WAITING {
            self.waiting.pop_front();
        }
    }
}

impl<L: Lines> Sensor for Inputs<L> {
    fn is_ready(&mut self) -> bool {
        if let Err(trouble) = self.take() {
            self.trouble = Some(trouble);
        }
        self.trouble.is_some() || !self.waiting.is_empty() || Instant::now() >= self.due
    }

    fn read(&mut self) -> Result<Values, SensorError> {
        if let Some(what) = self.trouble.take() {
            return Err(SensorError::Lines { chip: self.chip.clone(), what });
        }
        self.due = Instant::now() + self.every;
        let levels = match self.waiting.pop_front() {
            Some(Waiting { levels, at, alert }) => {
                (self.age, self.alert) = (at.elapsed(), alert);
                levels
            }
            None => {
                (self.age, self.alert) = (Duration::ZERO, None);
                self.levels.clone()
            }
        };
        let value = |(i, input): (usize, &Input)| {
            let value = match input.gives {
                Gives::Level => f64::from(u8::from(levels[i])),
                Gives::Pulses => f64::from(std::mem::take(&mut self.pulses[i])),
            };
            (input.name.clone(), value)
        };
        Ok(self.inputs.iter().enumerate().map(value).collect())
    }

    fn age(&self) -> Duration {
        self.age
    }

    fn alert(&self) -> Option<&ValueName> {
        self.alert.map(|input| &self.inputs[input].name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Active, LineName, Pull};
    use std::sync::{Arc, Mutex};

    /// A chip's lines, played by hand, with the kernel's queue of a few changes.
    #[derive(Default)]
    struct Chip {
        levels: Vec<bool>,
        queue: VecDeque<Change>,
        number: u32,
        of_line: Vec<u32>,
        is_gone: bool,
    }

    const ROOM: usize = 4;

    #[derive(Clone, Default)]
    struct Hand(Arc<Mutex<Chip>>);

    impl Hand {
        /// Of a line that gives pulses only what becomes active is a change to the kernel.
        fn set(&self, input: usize, is_active: bool, counts: bool) {
            let mut chip = self.0.lock().unwrap();
            chip.levels[input] = is_active;
            if !counts {
                return;
            }
            chip.number += 1;
            chip.of_line[input] += 1;
            let (number, of_line) = (chip.number, chip.of_line[input]);
            let age = Duration::from_millis(250);
            if chip.queue.len() == ROOM {
                chip.queue.pop_front();
            }
            chip.queue.push_back(Change { input, is_active, age, number, of_line });
        }
    }

    impl Lines for Hand {
        fn levels(&mut self) -> Result<Vec<bool>, String> {
            let chip = self.0.lock().unwrap();
            if chip.is_gone { Err("is gone".to_owned()) } else { Ok(chip.levels.clone()) }
        }

        fn change(&mut self) -> Result<Option<Change>, String> {
            let mut chip = self.0.lock().unwrap();
            if chip.is_gone { Err("is gone".to_owned()) } else { Ok(chip.queue.pop_front()) }
        }
    }

    /// A door, a window and a rain gauge.
    fn inputs() -> (Hand, Inputs<Hand>) {
        let input = |name: &str, gives, alert| Input {
            line: LineName::Name(name.to_owned()),
            name: name.parse().unwrap(),
            pull: Pull::Up,
            active: Active::Low,
            debounce: None,
            gives,
            alert,
        };
        let settings = Settings {
            chip: "gpiochip0".to_owned(),
            inputs: vec![
                input("door", Gives::Level, GpioAlert::Active),
                input("window", Gives::Level, GpioAlert::Change),
                input("rain", Gives::Pulses, GpioAlert::Never),
            ],
            every: Duration::from_secs(3600),
        };
        let hand = Hand::default();
        *hand.0.lock().unwrap() = Chip { levels: vec![false; 3], of_line: vec![0; 3], ..Chip::default() };
        let mut inputs = Inputs::new(&settings, hand.clone()).unwrap();
        assert_eq!(next(&mut inputs).unwrap(), "door=0 rain=0 window=0", "one row at once");
        assert_eq!(next(&mut inputs), None);
        (hand, inputs)
    }

    fn next(inputs: &mut Inputs<Hand>) -> Option<String> {
        inputs.is_ready().then(|| {
            let row = inputs.read().unwrap();
            let alert = inputs.alert().map(|name| format!(" alert={name}")).unwrap_or_default();
            row.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ") + &alert
        })
    }

    #[test]
    fn each_change_is_a_row_with_its_time() {
        let (hand, mut inputs) = inputs();
        hand.set(0, true, true);
        hand.set(1, true, true);
        hand.set(0, false, true);
        assert_eq!(next(&mut inputs).unwrap(), "door=1 rain=0 window=0 alert=door");
        assert!(inputs.age() >= Duration::from_millis(250));
        assert_eq!(next(&mut inputs).unwrap(), "door=1 rain=0 window=1 alert=window");
        assert_eq!(next(&mut inputs).unwrap(), "door=0 rain=0 window=1", "that it closes is no alert");
        assert_eq!(next(&mut inputs), None);
    }

    #[test]
    fn pulses_are_counted_up_to_the_next_row_and_none_is_lost() {
        let (hand, mut inputs) = inputs();
        for _ in 0..3 {
            hand.set(2, true, true);
            hand.set(2, false, false);
        }
        assert_eq!(next(&mut inputs), None, "a pulse makes no row");
        hand.set(0, true, true);
        assert_eq!(next(&mut inputs).unwrap(), "door=1 rain=3 window=0 alert=door");
        // More than the kernel has room for.
        (0..100).for_each(|_| hand.set(2, true, true));
        assert_eq!(next(&mut inputs), None);
        inputs.due = Instant::now();
        assert_eq!(next(&mut inputs).unwrap(), "door=1 rain=100 window=0");
        assert_eq!(inputs.age(), Duration::ZERO);
    }

    #[test]
    fn after_too_many_changes_the_levels_are_right() {
        let (hand, mut inputs) = inputs();
        hand.set(0, true, true);
        (0..ROOM).for_each(|i| hand.set(1, i % 2 == 0, true));
        let mut rows = Vec::new();
        while let Some(row) = next(&mut inputs) {
            rows.push(row);
        }
        assert_eq!(rows.last().unwrap(), "door=1 rain=0 window=0 alert=door");
        // So many that nobody reads them.
        for i in 0..1000 {
            hand.set(1, i % 2 == 0, true);
            inputs.is_ready();
        }
        let rows = std::iter::from_fn(|| next(&mut inputs)).count();
        assert_eq!(rows, MAX_WAITING);
    }

    #[test]
    fn a_chip_that_goes_is_told_and_comes_back() {
        let (hand, mut inputs) = inputs();
        hand.0.lock().unwrap().is_gone = true;
        assert!(inputs.is_ready());
        assert_eq!(inputs.read().unwrap_err().to_string(), "gpiochip0: is gone");
        hand.0.lock().unwrap().is_gone = false;
        hand.set(0, true, true);
        assert_eq!(next(&mut inputs).unwrap(), "door=1 rain=0 window=0 alert=door");
    }
}
