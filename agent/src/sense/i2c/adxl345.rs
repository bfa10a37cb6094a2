//! Analog Devices ADXL345: acceleration. By the data sheet, revision G.

use super::{Bus, Chip, GRAVITY, Port, SensorError, Values, rounded, row};
use std::time::Duration;

const DEVID: u8 = 0x00;
const ID: u8 = 0xe5;
/// From here to the data's end: BW_RATE, POWER_CTL, INT_ENABLE, INT_MAP, INT_SOURCE, DATA_FORMAT, X, Y, Z.
const BW_RATE: u8 = 0x2c;
const POWER_CTL: u8 = 0x2d;
const DATA_FORMAT: u8 = 0x31;
const MEASURE: u8 = 0x08;
const FULL_RESOLUTION: u8 = 0x08;
/// In full resolution whatever the range is, typical.
const STEPS_PER_G: f64 = 256.0;
/// The fastest output data rate, which halves with each step of the code below 15.
const FASTEST: f64 = 3200.0;

/// The driver.
pub struct Adxl345 {
    /// Of DATA_FORMAT.
    format: u8,
    /// Of BW_RATE.
    rate: u8,
}

impl Adxl345 {
    /// Up to 2, 4, 8 or 16 g. It measures at least as often as it is read: twice as often would halve what aliases.
    pub fn new(range: u8, rate: f64) -> Self {
        let steps = (FASTEST / rate).log2().floor().clamp(0.0, 15.0);
        Self { format: FULL_RESOLUTION | (range.trailing_zeros() as u8 - 1), rate: 15 - steps as u8 }
    }
}

impl<B: Bus> Chip<B> for Adxl345 {
    fn set_up(&mut self, port: &mut Port<B>) -> Result<(), SensorError> {
        let [id] = port.registers(DEVID)?;
        if id != ID {
            return Err(port.other_chip(id));
        }
        port.write(&[DATA_FORMAT, self.format])?;
        port.write(&[BW_RATE, self.rate])?;
        port.write(&[POWER_CTL, MEASURE])?;
        // The first values come after 1.1 ms and a period.
        let period = f64::from(1 << (15 - self.rate)) / FASTEST;
        port.wait(Duration::from_secs_f64(0.0011 + period));
        Ok(())
    }

    fn measure(&mut self, port: &mut Port<B>) -> Result<Values, SensorError> {
        // In one go, so that the three are of one moment.
        let all: [u8; 12] = port.registers(BW_RATE)?;
        if [all[0], all[1], all[5]] != [self.rate, MEASURE, self.format] {
            return Err(port.has_forgotten());
        }
        let axis = |i: usize| {
            let steps = i16::from_le_bytes([all[6 + 2 * i], all[7 + 2 * i]]);
            rounded(f64::from(steps) / STEPS_PER_G * GRAVITY, 3)
        };
        Ok(row([("accel_x", axis(0)), ("accel_y", axis(1)), ("accel_z", axis(2))]))
    }

    fn unit(&self, _: &str) -> &'static str {
        "m/s²"
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::{self, Registers, Site};
    use super::*;
    use crate::settings::ChipKind;

    struct Simulated {
        registers: [u8; 64],
        steps: [i16; 3],
    }

    impl Simulated {
        fn new(steps: [i16; 3]) -> Self {
            let mut chip = Self { registers: [0; 64], steps };
            chip.registers[usize::from(DEVID)] = ID;
            chip.lose_power();
            chip
        }
    }

    impl Registers for Simulated {
        fn write(&mut self, register: u8, value: u8, _: Duration) {
            self.registers[usize::from(register)] = value;
        }

        fn read(&mut self, register: u8, _: Duration) -> u8 {
            let measures = self.registers[usize::from(POWER_CTL)] & MEASURE != 0;
            match register {
                0x32..0x38 if measures => {
                    let at = usize::from(register - 0x32);
                    self.steps[at / 2].to_le_bytes()[at % 2]
                }
                _ => self.registers[usize::from(register)],
            }
        }

        /// To its standby, with the register map's reset values.
        fn lose_power(&mut self) {
            self.registers[usize::from(BW_RATE)] = 0x0a;
            self.registers[usize::from(POWER_CTL)] = 0;
            self.registers[usize::from(DATA_FORMAT)] = 0;
        }
    }

    fn site(range: u8, steps: [i16; 3]) -> Site {
        Site::new(ChipKind::Adxl345 { range }, 0x53, Box::new(Simulated::new(steps)))
    }

    #[test]
    fn steps_become_metres_a_second_squared() {
        for range in [2, 4, 8, 16] {
            let row = sim::row(site(range, [256, -128, 0]).open(10.0).unwrap().as_mut());
            assert_eq!(row, "accel_x=9.8070m/s² accel_y=-4.9030m/s² accel_z=0.0000m/s²", "{range}");
        }
    }

    #[test]
    fn it_measures_as_often_as_it_is_read_or_oftener() {
        for (rate, code) in [(1000.0, 14), (800.0, 13), (100.0, 10), (99.0, 10), (101.0, 11), (0.001, 0)] {
            assert_eq!(Adxl345::new(2, rate).rate, code, "{rate}");
        }
        assert_eq!([2, 4, 8, 16].map(|range| Adxl345::new(range, 1.0).format), [0x08, 0x09, 0x0a, 0x0b]);
    }

    #[test]
    fn faults_are_told_and_over_with_the_next_row() {
        site(16, [1, 2, 3]).survives_faults();
    }
}
