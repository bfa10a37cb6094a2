//! Sensirion SHT30, SHT31, SHT35: temperature and humidity, each with a checksum. By the data sheet SHT3x-DIS, version 7.

use super::{Bus, Chip, Port, SensorError, Values, rounded, row};
use crate::settings::Repeatability;
use std::time::Duration;

/// The driver.
pub struct Sht3x(Repeatability);

impl Sht3x {
    /// Longer measurements vary less from one to the next.
    pub fn new(repeatability: Repeatability) -> Self {
        Self(repeatability)
    }

    /// A single shot without clock stretching (table 9), and the longest that it takes below 2.4 V (table 4).
    fn command(&self) -> ([u8; 2], Duration) {
        let (low, micros) = match self.0 {
            Repeatability::High => (0x00, 15_500),
            Repeatability::Medium => (0x0b, 6_500),
            Repeatability::Low => (0x16, 4_500),
        };
        ([0x24, low], Duration::from_micros(micros))
    }
}

/// CRC-8 with the polynomial 0x31, from 0xff (4.12).
fn checksum(bytes: [u8; 2]) -> u8 {
    bytes.iter().fold(0xff, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x31 })
    })
}

impl<B: Bus> Chip<B> for Sht3x {
    /// It has no id, so it is asked for its status, whose checksum shows that it is one.
    fn set_up(&mut self, port: &mut Port<B>) -> Result<(), SensorError> {
        port.write(&[0xf3, 0x2d])?;
        let [high, low, crc] = port.read()?;
        if checksum([high, low]) == crc { Ok(()) } else { Err(wrong_checksum(port)) }
    }

    fn measure(&mut self, port: &mut Port<B>) -> Result<Values, SensorError> {
        let (command, takes) = self.command();
        port.write(&command)?;
        port.wait(takes);
        let [t_high, t_low, t_crc, h_high, h_low, h_crc] = port.read()?;
        let (temperature, humidity) = ([t_high, t_low], [h_high, h_low]);
        if checksum(temperature) != t_crc || checksum(humidity) != h_crc {
            return Err(wrong_checksum(port));
        }
        let share = |bytes| f64::from(u16::from_be_bytes(bytes)) / 65_535.0;
        Ok(row([
            ("temperature", rounded(175.0 * share(temperature) - 45.0, 2)),
            ("humidity", rounded(100.0 * share(humidity), 2)),
        ]))
    }

    fn unit(&self, name: &str) -> &'static str {
        if name == "temperature" { "°C" } else { "%" }
    }
}

fn wrong_checksum<B: Bus>(port: &Port<B>) -> SensorError {
    port.wrong("its checksum is wrong; look at the wires and their length, and whether it is an SHT3x")
}

#[cfg(test)]
mod tests {
    use super::super::sim::{self, Commands, Site};
    use super::*;
    use crate::settings::ChipKind;

    #[test]
    fn the_data_sheets_checksum_comes_out() {
        assert_eq!(checksum([0xbe, 0xef]), 0x92);
    }

    /// One by its commands.
    struct Simulated {
        raw: [u16; 2],
        /// What is read next, and from when on.
        answer: Option<(Vec<u8>, Duration)>,
    }

    impl Commands for Simulated {
        fn command(&mut self, bytes: &[u8], now: Duration) -> bool {
            let words = |words: &[u16]| {
                words
                    .iter()
                    .flat_map(|word| [&word.to_be_bytes()[..], &[checksum(word.to_be_bytes())]].concat())
                    .collect()
            };
            let (answer, takes) = match bytes {
                [0xf3, 0x2d] => (words(&[0x8010]), 0),
                [0x24, 0x00] => (words(&self.raw), 15_000),
                [0x24, 0x0b] => (words(&self.raw), 6_000),
                [0x24, 0x16] => (words(&self.raw), 4_000),
                _ => return false,
            };
            self.answer = Some((answer, now + Duration::from_micros(takes)));
            true
        }

        /// Before it is done it does not acknowledge (4.4).
        fn answer(&mut self, now: Duration) -> Option<Vec<u8>> {
            self.answer.take_if(|(_, ready)| now >= *ready).map(|(bytes, _)| bytes)
        }

        fn lose_power(&mut self) {
            self.answer = None;
        }
    }

    fn site(repeatability: Repeatability, raw: [u16; 2]) -> Site {
        let chip = Simulated { raw, answer: None };
        Site::of_commands(ChipKind::Sht3x { repeatability }, 0x44, Box::new(chip))
    }

    #[test]
    fn values_are_those_of_the_formula() {
        // 4.13: -45 + 175 S / (2^16 - 1), 100 S / (2^16 - 1)
        for (raw, expected) in [
            ([0, 0], "humidity=0.0000% temperature=-45.0000°C"),
            ([0xffff, 0xffff], "humidity=100.0000% temperature=130.0000°C"),
            ([0x6666, 0x8000], "humidity=50.0000% temperature=25.0000°C"),
        ] {
            for repeatability in [Repeatability::High, Repeatability::Medium, Repeatability::Low] {
                assert_eq!(sim::row(site(repeatability, raw).open(1.0).unwrap().as_mut()), expected);
            }
        }
    }

    #[test]
    fn faults_are_told_and_over_with_the_next_row() {
        site(Repeatability::High, [0x6666, 0x8000]).survives_faults();
    }

    #[test]
    fn a_torn_answer_is_no_value() {
        let site = site(Repeatability::High, [0x6666, 0x8000]);
        let mut sensor = site.open(1.0).unwrap();
        site.tear_next_read(4);
        assert!(sensor.read().unwrap_err().to_string().contains("checksum"));
        assert_eq!(sim::row(sensor.as_mut()), "humidity=50.0000% temperature=25.0000°C");
    }
}
