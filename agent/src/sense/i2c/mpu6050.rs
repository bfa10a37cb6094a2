//! InvenSense MPU-6050: acceleration, angular velocity, temperature. By the register map RM-MPU-6000A, revision 4.2.

use super::{Bus, Chip, GRAVITY, Port, SensorError, Values, rounded, row};
use std::time::Duration;

const WHO_AM_I: u8 = 0x75;
const ID: u8 = 0x68;
/// SMPLRT_DIV, CONFIG, GYRO_CONFIG, ACCEL_CONFIG in a row.
const SMPLRT_DIV: u8 = 0x19;
const DATA: u8 = 0x3b;
const PWR_MGMT_1: u8 = 0x6b;
/// Awake, by the clock of the gyroscope's x axis, as the register map recommends.
const AWAKE: u8 = 0x01;
/// The gyroscope's start-up.
const START: Duration = Duration::from_millis(30);
/// The accelerometer's bandwidth in Hz by the code of its low pass.
const BANDWIDTHS: [f64; 7] = [260.0, 184.0, 94.0, 44.0, 21.0, 10.0, 5.0];

/// The driver.
pub struct Mpu6050 {
    settings: [u8; 4],
    /// Steps of the accelerometer in a g, of the gyroscope in a degree a second.
    per_g: f64,
    per_degree: f64,
}

impl Mpu6050 {
    /// Up to 2, 4, 8 or 16 g and 250, 500, 1000 or 2000 degrees a second. Its low pass follows the rate.
    pub fn new(range: u8, gyro_range: u16, rate: f64) -> Self {
        let (g, degrees) = (range.trailing_zeros() - 1, (gyro_range / 250).trailing_zeros());
        // The widest that half of the rate still holds; the narrowest is 5 Hz.
        let low_pass = BANDWIDTHS.iter().position(|width| *width <= rate / 2.0).unwrap_or(6);
        Self {
            settings: [0, low_pass as u8, (degrees as u8) << 3, (g as u8) << 3],
            per_g: f64::from(16_384 >> g),
            per_degree: 131.0 / f64::from(1 << degrees),
        }
    }
}

impl<B: Bus> Chip<B> for Mpu6050 {
    fn set_up(&mut self, port: &mut Port<B>) -> Result<(), SensorError> {
        let [id] = port.registers(WHO_AM_I)?;
        if id != ID {
            return Err(port.other_chip(id));
        }
        port.write(&[PWR_MGMT_1, AWAKE])?;
        for (register, value) in (SMPLRT_DIV..).zip(self.settings) {
            port.write(&[register, value])?;
        }
        port.wait(START);
        Ok(())
    }

    fn measure(&mut self, port: &mut Port<B>) -> Result<Values, SensorError> {
        let data: [u8; 14] = port.registers(DATA)?;
        let settings: [u8; 4] = port.registers(SMPLRT_DIV)?;
        let [power] = port.registers(PWR_MGMT_1)?;
        if settings != self.settings || power != AWAKE {
            return Err(port.has_forgotten());
        }
        let steps = |i: usize| f64::from(i16::from_be_bytes([data[2 * i], data[2 * i + 1]]));
        let accel = |i: usize| rounded(steps(i) / self.per_g * GRAVITY, 3);
        let gyro = |i: usize| rounded((steps(4 + i) / self.per_degree).to_radians(), 4);
        Ok(row([
            ("accel_x", accel(0)),
            ("accel_y", accel(1)),
            ("accel_z", accel(2)),
            ("temperature", rounded(steps(3) / 340.0 + 36.53, 2)),
            ("gyro_x", gyro(0)),
            ("gyro_y", gyro(1)),
            ("gyro_z", gyro(2)),
        ]))
    }

    fn unit(&self, name: &str) -> &'static str {
        match name.as_bytes()[0] {
            b'a' => "m/s²",
            b'g' => "rad/s",
            _ => "°C",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::{self, Registers, Site};
    use super::*;
    use crate::settings::ChipKind;

    struct Simulated {
        registers: [u8; 128],
        steps: [i16; 7],
    }

    impl Simulated {
        fn new(steps: [i16; 7]) -> Self {
            let mut chip = Self { registers: [0; 128], steps };
            chip.lose_power();
            chip
        }
    }

    impl Registers for Simulated {
        fn write(&mut self, register: u8, value: u8, _: Duration) {
            self.registers[usize::from(register)] = value;
        }

        fn read(&mut self, register: u8, _: Duration) -> u8 {
            let sleeps = self.registers[usize::from(PWR_MGMT_1)] & 0x40 != 0;
            match register {
                0x3b..0x49 if !sleeps => {
                    let at = usize::from(register - DATA);
                    self.steps[at / 2].to_be_bytes()[at % 2]
                }
                _ => self.registers[usize::from(register)],
            }
        }

        /// All zero, and asleep.
        fn lose_power(&mut self) {
            self.registers = [0; 128];
            self.registers[usize::from(PWR_MGMT_1)] = 0x40;
            self.registers[usize::from(WHO_AM_I)] = ID;
        }
    }

    fn site(range: u8, gyro_range: u16, steps: [i16; 7]) -> Site {
        let kind = ChipKind::Mpu6050 { range, gyro_range };
        Site::new(kind, 0x68, Box::new(Simulated::new(steps)))
    }

    #[test]
    fn steps_have_the_sensitivity_of_their_range() {
        // One g, and 100 degrees a second, by the tables of 4.4 and 4.5 of the register map.
        for (range, gyro_range, g, degrees) in
            [(2, 250, 16_384, 13_100), (4, 500, 8192, 6550), (8, 1000, 4096, 3280), (16, 2000, 2048, 1640)]
        {
            let site = site(range, gyro_range, [g, 0, -g, -521, degrees, 0, -degrees]);
            let values = site.open(100.0).unwrap().read().unwrap();
            let value = |name: &str| values[&name.parse().unwrap()];
            assert_eq!([value("accel_x"), value("accel_z")], [9.807, -9.807], "{range}");
            assert!((value("gyro_x") - 1.7453).abs() < 0.003, "{gyro_range}: {}", value("gyro_x"));
            assert_eq!(value("gyro_z"), -value("gyro_x"));
            assert_eq!(value("temperature"), 35.0);
        }
        let row = sim::row(site(2, 250, [0; 7]).open(1.0).unwrap().as_mut());
        assert!(row.contains("accel_z=0.0000m/s² gyro_x=0.0000rad/s") && row.contains("36.5300°C"), "{row}");
    }

    #[test]
    fn the_low_pass_lets_pass_what_the_rate_can_hold() {
        for (rate, code) in [(1000.0, 0), (400.0, 1), (200.0, 2), (100.0, 3), (50.0, 4), (1.0, 6)] {
            assert_eq!(Mpu6050::new(2, 250, rate).settings[1], code, "{rate}");
        }
    }

    #[test]
    fn faults_are_told_and_over_with_the_next_row() {
        site(8, 500, [1, 2, 3, 4, 5, 6, 7]).survives_faults();
    }
}
