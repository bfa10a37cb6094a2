//! Texas Instruments ADS1115: four voltages, or differences of two, one after the other. By the data sheet SBAS444, revision E.

use super::{Bus, Chip, Port, SensorError, Values, rounded};
use crate::settings::Value;
use edgeveil_wire::ValueName;
use std::time::Duration;

const CONVERSION: u8 = 0;
const CONFIG: u8 = 1;
/// Written, it starts a conversion; read, none is under way.
const OS: u16 = 0x8000;
const ONE_SHOT: u16 = 0x0100;
const NO_COMPARATOR: u16 = 0x0003;

/// What can be measured, as it is called, and its code in the configuration.
const CHANNELS: [(&str, u16); 8] =
    [("a0", 4), ("a1", 5), ("a2", 6), ("a3", 7), ("a0-a1", 0), ("a0-a3", 1), ("a1-a3", 2), ("a2-a3", 3)];
/// Without being told, the first four.
const SINGLE: usize = 4;
/// Volts at the end of the range, by code.
pub const RANGES: [f64; 6] = [6.144, 4.096, 2.048, 1.024, 0.512, 0.256];
/// Samples a second, by code.
pub const RATES: [u16; 8] = [8, 16, 32, 64, 128, 250, 475, 860];

/// The driver.
pub struct Ads1115 {
    /// Volts at the end of the range.
    full: f64,
    samples: u16,
    /// What all conversions share.
    config: u16,
    channels: Vec<(ValueName, u16)>,
}

impl Ads1115 {
    /// Up to so many volts, at so many samples a second: one of [`RANGES`] and of [`RATES`].
    pub fn new(full: f64, samples: u16, wanted: &[Value]) -> Result<Self, SensorError> {
        let range = RANGES.iter().position(|known| *known == full).unwrap_or(1) as u16;
        let rate = RATES.iter().position(|known| *known == samples).unwrap_or(4) as u16;
        let mut channels: Vec<(ValueName, u16)> = Vec::new();
        for Value { from, .. } in wanted {
            let known = CHANNELS.iter().find(|(name, _)| *name == from.as_str());
            let (_, code) = known.ok_or_else(|| SensorError::NoValue {
                from: from.clone(),
                known: CHANNELS.iter().map(|(name, _)| (*name).to_owned()).collect(),
            })?;
            if channels.iter().all(|(name, _)| name != from) {
                channels.push((from.clone(), *code));
            }
        }
        if channels.is_empty() {
            let single = CHANNELS[..SINGLE].iter();
            channels.extend(single.map(|(name, code)| (name.parse().expect("a legal name"), *code)));
        }
        let config = ONE_SHOT | NO_COMPARATOR | range << 9 | rate << 5;
        Ok(Self { full, samples, config, channels })
    }

    fn convert<B: Bus>(&self, port: &mut Port<B>, channel: u16) -> Result<f64, SensorError> {
        let config = self.config | channel << 12;
        let [high, low] = (config | OS).to_be_bytes();
        port.write(&[CONFIG, high, low])?;
        // Its clock may be 10 % slow, and it takes 25 µs to wake.
        port.wait(Duration::from_secs_f64(1.1 / f64::from(self.samples) + 25e-6));
        let steps: [u8; 2] = port.registers(CONVERSION)?;
        // Read behind the conversion: so it is that of this configuration.
        let now = u16::from_be_bytes(port.registers(CONFIG)?);
        if now & !OS != config {
            return Err(port.has_forgotten());
        }
        if now & OS == 0 {
            return Err(port.wrong("it does not come to an end with measuring; look at its supply"));
        }
        Ok(rounded(f64::from(i16::from_be_bytes(steps)) / 32_768.0 * self.full, 6))
    }
}

impl<B: Bus> Chip<B> for Ads1115 {
    /// It has no id, and each conversion brings its settings.
    fn set_up(&mut self, port: &mut Port<B>) -> Result<(), SensorError> {
        port.registers(CONFIG).map(|_: [u8; 2]| ())
    }

    fn measure(&mut self, port: &mut Port<B>) -> Result<Values, SensorError> {
        let channels = self.channels.iter();
        channels.map(|(name, channel)| Ok((name.clone(), self.convert(port, *channel)?))).collect()
    }

    fn unit(&self, _: &str) -> &'static str {
        "V"
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::{self, Site, Words};
    use super::*;
    use crate::settings::ChipKind;

    /// One by its 16-bit registers (8.1).
    struct Simulated {
        conversion: u16,
        config: u16,
        busy_until: Duration,
        /// Volts at its four pins.
        pins: [f64; 4],
    }

    impl Words for Simulated {
        fn write(&mut self, register: u8, value: u16, now: Duration) {
            self.config = value;
            if register != CONFIG || value & OS == 0 {
                return;
            }
            let rate = RATES[usize::from(value >> 5 & 7)];
            self.busy_until = now + Duration::from_secs_f64(1.05 / f64::from(rate));
            let [a0, a1, a2, a3] = self.pins;
            let volts = match value >> 12 & 7 {
                0 => a0 - a1,
                1 => a0 - a3,
                2 => a1 - a3,
                3 => a2 - a3,
                pin => self.pins[usize::from(pin) - 4],
            };
            let full = RANGES[usize::from(value >> 9 & 7).min(5)];
            let steps = (volts / full * 32_768.0).round().clamp(-32_768.0, 32_767.0);
            self.conversion = (steps as i16).cast_unsigned();
        }

        fn read(&mut self, register: u8, now: Duration) -> u16 {
            match register {
                CONVERSION if now >= self.busy_until => self.conversion,
                CONVERSION => 0,
                _ => self.config & !OS | u16::from(now >= self.busy_until) << 15,
            }
        }

        fn lose_power(&mut self) {
            (self.conversion, self.config, self.busy_until) = (0, 0x8583, Duration::ZERO);
        }
    }

    fn site(range: f64, samples: u16) -> Site {
        let mut chip =
            Simulated { conversion: 0, config: 0, busy_until: Duration::ZERO, pins: [1.5, 0.25, 3.3, 2.0] };
        chip.lose_power();
        Site::of_words(ChipKind::Ads1115 { range, samples }, 0x48, Box::new(chip))
    }

    #[test]
    fn volts_are_those_at_its_pins() {
        for samples in RATES {
            let row = sim::row(site(4.096, samples).open(1.0).unwrap().as_mut());
            assert_eq!(row, "a0=1.5000V a1=0.2500V a2=3.3000V a3=2.0000V", "{samples}");
        }
        // At the end of its range, one step less.
        let row = sim::row(site(2.048, 128).open(1.0).unwrap().as_mut());
        assert_eq!(row, "a0=1.5000V a1=0.2500V a2=2.0479V a3=2.0000V");
    }

    #[test]
    fn what_is_asked_for_is_measured_and_nothing_else() {
        let site = site(2.048, 128);
        let mut sensor = site.open_with(&["a0-a1", "a2-a3", "a0"]).unwrap();
        assert_eq!(sim::row(sensor.as_mut()), "a0=1.5000V a0-a1=1.2500V a2-a3=1.3000V");
        let error = site.open_with(&["a4"]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("`a4`") && error.contains("a0-a3"), "{error}");
    }

    #[test]
    fn faults_are_told_and_over_with_the_next_row() {
        site(4.096, 128).survives_faults();
    }
}
