//! Lines by the kernel's character device (Linux 5.10 and later), which debounces and takes the time of each change.

use super::{Change, Lines};
use crate::settings::{Active, Gives, Gpio, LineName, Pull};
use gpiocdev::{
    Chip, Request,
    line::{Bias, EdgeDetection, EdgeKind, Offset, Value, Values},
};
use sd_notify::NotifyState;
use std::{path::Path, time::Duration};

/// Changes that the kernel keeps until they are taken: as many as it can.
const ROOM: u32 = 1024;

/// Lines that were asked for.
pub struct KernelLines {
    request: Request,
    /// In the order of the settings.
    offsets: Vec<Offset>,
}

impl KernelLines {
    /// Asks for the lines: nobody else has them from then on.
    pub fn open(settings: &Gpio) -> Result<Self, String> {
        let chip = chip(&settings.chip)?;
        let mut offsets = Vec::new();
        for input in &settings.inputs {
            offsets.push(match &input.line {
                LineName::Offset(offset) => *offset,
                LineName::Name(name) => {
                    let missing = || format!("has no line `{name}`; `gpioinfo` lists those that it has");
                    chip.find_line_info(name).ok_or_else(missing)?.offset
                }
            });
        }
        if let Ok(info) = chip.info()
            && let Some(offset) = offsets.iter().find(|offset| **offset >= info.num_lines)
        {
            return Err(format!("has no line {offset}: it has {}, counted from 0", info.num_lines));
        }
        let mut builder = Request::builder();
        builder.on_chip(chip.path()).with_consumer("edgeveil").with_kernel_event_buffer_size(ROOM);
        for (input, offset) in settings.inputs.iter().zip(&offsets) {
            builder.with_line(*offset).as_input();
            builder.with_bias(match input.pull {
                Pull::AsIs => None,
                Pull::Up => Some(Bias::PullUp),
                Pull::Down => Some(Bias::PullDown),
                Pull::None => Some(Bias::Disabled),
            });
            match input.active {
                Active::High => builder.as_active_high(),
                Active::Low => builder.as_active_low(),
            };
            builder.with_debounce_period(input.debounce.unwrap_or_default());
            builder.with_edge_detection(match input.gives {
                Gives::Level => EdgeDetection::BothEdges,
                Gives::Pulses => EdgeDetection::RisingEdge,
            });
        }
        let request = builder.request().map_err(|error| {
            format!(
                "its lines cannot be had: {error}; `gpioinfo` shows who has them; where the chip cannot pull or debounce, leave out `pull` or `debounce`"
            )
        })?;
        Ok(Self { request, offsets })
    }
}

/// By its device file, its name, or its label.
fn chip(name: &str) -> Result<Chip, String> {
    let path = if name.starts_with('/') { name.to_owned() } else { format!("/dev/{name}") };
    if Path::new(&path).exists() {
        return Chip::from_path(&path)
            .map_err(|error| format!("cannot be opened: {error}; let the agent's user into the group gpio"));
    }
    let mut known = Vec::new();
    for path in gpiocdev::chip::chips().unwrap_or_default() {
        let Ok(chip) = Chip::from_path(&path) else { continue };
        let Ok(info) = chip.info() else { continue };
        if info.label == name {
            return Ok(chip);
        }
        known.push(format!("{} ({})", info.name, info.label));
    }
    let known =
        if known.is_empty() { "there is none".to_owned() } else { format!("there is: {}", known.join(", ")) };
    Err(format!("there is no such GPIO chip; {known}"))
}

fn failed(error: gpiocdev::Error) -> String {
    format!("cannot be read: {error}; is the chip still plugged in?")
}

/// How long ago the kernel's monotonic clock showed this. The standard library does not show that clock; systemd's protocol needs
/// it as well.
fn since(then: Duration) -> Duration {
    match NotifyState::monotonic_usec_now() {
        Ok(NotifyState::MonotonicUsec(now)) => {
            Duration::from_micros(u64::try_from(now).unwrap_or_default()).saturating_sub(then)
        }
        _ => Duration::ZERO,
    }
}

impl Lines for KernelLines {
    fn levels(&mut self) -> Result<Vec<bool>, String> {
        let mut values = Values::from_offsets(&self.offsets);
        self.request.values(&mut values).map_err(failed)?;
        Ok(self.offsets.iter().map(|offset| values.get(*offset) == Some(Value::Active)).collect())
    }

    fn change(&mut self) -> Result<Option<Change>, String> {
        while self.request.has_edge_event().map_err(failed)? {
            let event = self.request.read_edge_event().map_err(failed)?;
            let Some(input) = self.offsets.iter().position(|offset| *offset == event.offset) else {
                continue;
            };
            return Ok(Some(Change {
                input,
                is_active: event.kind == EdgeKind::Rising,
                age: since(Duration::from_nanos(event.timestamp_ns)),
                number: event.seqno,
                of_line: event.line_seqno,
            }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_by_the_kernels_clock() {
        // What the machine has been up for is shown with two decimals.
        let up = std::fs::read_to_string("/proc/uptime").unwrap();
        let up = Duration::from_secs_f64(up.split(' ').next().unwrap().parse().unwrap());
        // The two clocks are the same but for the time that the machine has slept.
        assert!(
            since(Duration::ZERO) > Duration::ZERO && since(Duration::ZERO) < up + Duration::from_secs(3600)
        );
        assert_eq!(since(up + Duration::from_secs(86_400)), Duration::ZERO);
    }

    #[test]
    fn a_chip_that_is_not_there_is_told() {
        let error = chip("gpiochip-none").map(|_| ()).unwrap_err();
        assert!(error.contains("no such GPIO chip"), "{error}");
        assert!(chip("/dev/null").is_err());
    }
}
