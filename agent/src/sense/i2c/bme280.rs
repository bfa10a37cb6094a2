//! Bosch BME280: temperature, humidity, air pressure; and the BMP280, which has no humidity. By the data sheet BST-BME280-DS002,
//! with its formulas in double precision (8.1).
//!
//! Each row is measured in the forced mode and brings all settings with it, so the chip sleeps in between and does not warm
//! itself, and one that has lost its supply is none the worse.

use super::{Bus, Chip, Port, SensorError, Values, rounded, row};
use std::time::Duration;

const ID: u8 = 0xd0;
const BME280: u8 = 0x60;
const BMP280: u8 = 0x58;
const CTRL_HUM: u8 = 0xf2;
const STATUS: u8 = 0xf3;
const CTRL_MEAS: u8 = 0xf4;
const CONFIG: u8 = 0xf5;
/// Behind CTRL_HUM, STATUS, CTRL_MEAS, CONFIG and a reserved one.
#[cfg(test)]
const DATA: u8 = 0xf7;
const CALIBRATION: u8 = 0x88;
const CALIBRATION_OF_HUMIDITY: u8 = 0xe1;
const FORCED: u8 = 1;
/// It measures, or copies its calibration.
const IS_BUSY: u8 = 0b1001;
/// What stands in the data before anything was measured.
const NOTHING: u32 = 0x8_0000;

/// The driver.
pub struct Bme280 {
    /// 1, 2, 4, 8 or 16 samples a value.
    oversampling: u8,
    calibration: Option<Calibration>,
}

/// What the factory has measured of this one chip.
#[derive(Debug, Clone)]
struct Calibration {
    temperature: [f64; 3],
    pressure: [f64; 9],
    humidity: Option<[f64; 6]>,
}

impl Bme280 {
    /// With so many samples a value.
    pub fn new(oversampling: u8) -> Self {
        Self { oversampling, calibration: None }
    }

    /// The longest that a row takes (appendix B), milliseconds.
    fn duration(&self, has_humidity: bool) -> Duration {
        let one = 2.3 * f64::from(self.oversampling);
        let humidity = if has_humidity { one + 0.575 } else { 0.0 };
        Duration::from_secs_f64((1.25 + one + one + 0.575 + humidity) / 1000.0)
    }

    fn calibrate<B: Bus>(&self, port: &mut Port<B>) -> Result<Calibration, SensorError> {
        let [id] = port.registers(ID)?;
        if id != BME280 && id != BMP280 {
            return Err(port.other_chip(id));
        }
        wait_until_idle(port, Duration::from_millis(2))?;
        let dig: [u8; 26] = port.registers(CALIBRATION)?;
        let word = |i: usize| u16::from_le_bytes([dig[2 * i], dig[2 * i + 1]]);
        let signed = |i: usize| f64::from(word(i).cast_signed());
        if [word(0), word(3)].iter().any(|word| [0, 0xffff].contains(word)) {
            return Err(port.wrong("it gives no calibration; look at its wires, or it is damaged"));
        }
        let humidity = if id == BME280 {
            let [h2_low, h2_high, h3, h4, h45, h5, h6] = port.registers(CALIBRATION_OF_HUMIDITY)?;
            let nibble = |high: u8, low: u8| f64::from(i16::from(high.cast_signed()) * 16 + i16::from(low));
            Some([
                f64::from(dig[25]),
                f64::from(i16::from_le_bytes([h2_low, h2_high])),
                f64::from(h3),
                nibble(h4, h45 & 15),
                nibble(h5, h45 >> 4),
                f64::from(h6.cast_signed()),
            ])
        } else {
            None
        };
        let mut pressure = std::array::from_fn(|i| signed(3 + i));
        pressure[0] = f64::from(word(3));
        Ok(Calibration { temperature: [f64::from(word(0)), signed(1), signed(2)], pressure, humidity })
    }
}

fn wait_until_idle<B: Bus>(port: &mut Port<B>, look: Duration) -> Result<(), SensorError> {
    for _ in 0..5 {
        let [status] = port.registers(STATUS)?;
        if status & IS_BUSY == 0 {
            return Ok(());
        }
        port.wait(look);
    }
    Err(port.wrong("it does not come to an end with measuring; look at its supply and wires"))
}

impl<B: Bus> Chip<B> for Bme280 {
    fn set_up(&mut self, port: &mut Port<B>) -> Result<(), SensorError> {
        self.calibration = Some(self.calibrate(port)?);
        Ok(())
    }

    fn measure(&mut self, port: &mut Port<B>) -> Result<Values, SensorError> {
        let Some(calibration) = &self.calibration else { return Err(port.has_forgotten()) };
        let code = self.oversampling.trailing_zeros() as u8 + 1;
        // No filter: what smooths is the detector's or the user's. Humidity takes effect with the write of CTRL_MEAS.
        port.write(&[CONFIG, 0])?;
        if calibration.humidity.is_some() {
            port.write(&[CTRL_HUM, code])?;
        }
        port.write(&[CTRL_MEAS, code << 5 | code << 2 | FORCED])?;
        port.wait(self.duration(calibration.humidity.is_some()));
        wait_until_idle(port, Duration::from_millis(5))?;
        // Its settings with the data: one that has lost them would give plausible nonsense.
        let [hum, _, meas, _, _, data @ ..]: [u8; 13] = port.registers(CTRL_HUM)?;
        let is_set =
            meas & !3 == code << 5 | code << 2 && (calibration.humidity.is_none() || hum & 7 == code);
        let twenty = |i: usize| u32::from_be_bytes([0, data[i], data[i + 1], data[i + 2]]) >> 4;
        let (pressure, temperature) = (twenty(0), twenty(3));
        if !is_set || pressure == NOTHING || temperature == NOTHING {
            return Err(port.has_forgotten());
        }
        let (celsius, fine) = calibration.celsius(f64::from(temperature));
        let mut values = row([
            ("temperature", rounded(celsius, 2)),
            ("pressure", rounded(calibration.pascal(f64::from(pressure), fine) / 100.0, 3)),
        ]);
        if let Some(humidity) = &calibration.humidity {
            let raw = f64::from(u16::from_be_bytes([data[6], data[7]]));
            values.extend(row([("humidity", rounded(percent(humidity, raw, fine), 2))]));
        }
        Ok(values)
    }

    fn unit(&self, name: &str) -> &'static str {
        match name {
            "temperature" => "°C",
            "pressure" => "hPa",
            _ => "%",
        }
    }
}

impl Calibration {
    /// The temperature, and what the other two need of it.
    fn celsius(&self, raw: f64) -> (f64, f64) {
        let [t1, t2, t3] = self.temperature;
        let near = raw / 131_072.0 - t1 / 8_192.0;
        let fine = (raw / 16_384.0 - t1 / 1_024.0) * t2 + near * near * t3;
        (fine / 5_120.0, fine)
    }

    fn pascal(&self, raw: f64, fine: f64) -> f64 {
        let [p1, p2, p3, p4, p5, p6, p7, p8, p9] = self.pressure;
        let half = fine / 2.0 - 64_000.0;
        let offset = (half * half * p6 / 32_768.0 + half * p5 * 2.0) / 4.0 + p4 * 65_536.0;
        let slope = (1.0 + (p3 * half * half / 524_288.0 + p2 * half) / 524_288.0 / 32_768.0) * p1;
        let pressure = (1_048_576.0 - raw - offset / 4_096.0) * 6_250.0 / slope;
        pressure + (p9 * pressure * pressure / 2_147_483_648.0 + pressure * p8 / 32_768.0 + p7) / 16.0
    }
}

fn percent([h1, h2, h3, h4, h5, h6]: &[f64; 6], raw: f64, fine: f64) -> f64 {
    let warm = fine - 76_800.0;
    let linear = (raw - (h4 * 64.0 + h5 / 16_384.0 * warm))
        * (h2 / 65_536.0 * (1.0 + h6 / 67_108_864.0 * warm * (1.0 + h3 / 67_108_864.0 * warm)));
    (linear * (1.0 - h1 * linear / 524_288.0)).clamp(0.0, 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::sim::{self, Registers, Site};
    use super::*;
    use crate::settings::ChipKind;

    /// The worked example of the BMP280's data sheet (BST-BMP280-DS001, 3.12), whose formulas the BME280 shares.
    const EXAMPLE: [i32; 12] = [27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000];
    /// Of a real BME280, as people have posted it: dig_H1 to dig_H6.
    const HUMIDITY: [i32; 6] = [75, 370, 0, 313, 50, 30];
    const RAW: (u32, u32, u16) = (519_888, 415_148, 30_000);

    /// A BME280 by its registers.
    pub(super) struct Simulated {
        registers: [u8; 256],
        /// What it would measure: temperature, pressure, humidity.
        raw: (u32, u32, u16),
        /// When it is done.
        busy_until: Option<Duration>,
    }

    impl Simulated {
        fn new(id: u8) -> Self {
            let mut chip = Self { registers: [0; 256], raw: RAW, busy_until: None };
            chip.registers[usize::from(ID)] = id;
            for (i, value) in EXAMPLE.iter().enumerate() {
                let at = usize::from(CALIBRATION) + 2 * i;
                chip.registers[at..at + 2].copy_from_slice(&(*value as u16).to_le_bytes());
            }
            let [h1, h2, h3, h4, h5, h6] = HUMIDITY;
            chip.registers[0xa1] = h1 as u8;
            chip.registers[0xe1..0xe3].copy_from_slice(&(h2 as u16).to_le_bytes());
            chip.registers[0xe3] = h3 as u8;
            chip.registers[0xe4] = (h4 >> 4) as u8;
            chip.registers[0xe5] = (h4 & 15) as u8 | ((h5 & 15) << 4) as u8;
            chip.registers[0xe6] = (h5 >> 4) as u8;
            chip.registers[0xe7] = h6 as u8;
            chip.lose_power();
            chip
        }

        fn put(&mut self, temperature: u32, pressure: u32, humidity: u16) {
            let at = usize::from(DATA);
            self.registers[at..at + 3].copy_from_slice(&(pressure << 4).to_be_bytes()[1..]);
            self.registers[at + 3..at + 6].copy_from_slice(&(temperature << 4).to_be_bytes()[1..]);
            self.registers[at + 6..at + 8].copy_from_slice(&humidity.to_be_bytes());
        }
    }

    impl Registers for Simulated {
        fn write(&mut self, register: u8, value: u8, now: Duration) {
            self.registers[usize::from(register)] = value;
            let samples = |code: u8| if code == 0 { 0.0 } else { f64::from(1u8 << (code.min(5) - 1)) };
            if register == CTRL_MEAS && value & 3 == FORCED {
                let times = [value >> 5, value >> 2 & 7, self.registers[usize::from(CTRL_HUM)] & 7];
                let took: f64 = 1.25 + times.iter().map(|code| 2.3 * samples(*code) + 0.4).sum::<f64>();
                self.busy_until = Some(now + Duration::from_secs_f64(took / 1000.0));
            }
        }

        fn read(&mut self, register: u8, now: Duration) -> u8 {
            if self.busy_until.is_some_and(|end| now >= end) {
                let (temperature, pressure, humidity) = self.raw;
                // What is not sampled is left as it was.
                let codes = self.registers[usize::from(CTRL_MEAS)];
                let of = |code: u8, raw| if code == 0 { NOTHING } else { raw };
                let skips = self.registers[usize::from(CTRL_HUM)] & 7 == 0;
                let humidity = if skips { 0x8000 } else { humidity };
                self.put(of(codes >> 5, temperature), of(codes >> 2 & 7, pressure), humidity);
                self.registers[usize::from(CTRL_MEAS)] &= !3;
                self.busy_until = None;
            }
            self.registers[usize::from(STATUS)] = u8::from(self.busy_until.is_some()) << 3;
            self.registers[usize::from(register)]
        }

        fn lose_power(&mut self) {
            for register in [CTRL_HUM, STATUS, CTRL_MEAS, CONFIG] {
                self.registers[usize::from(register)] = 0;
            }
            self.busy_until = None;
            self.put(NOTHING, NOTHING, 0x8000);
        }
    }

    fn site(oversampling: u8, id: u8) -> Site {
        let kind = ChipKind::Bme280 { oversampling };
        Site::new(kind, 0x76, Box::new(Simulated::new(id)))
    }

    #[test]
    fn the_data_sheets_example_comes_out() {
        for oversampling in [1, 2, 4, 8, 16] {
            let site = site(oversampling, BMP280);
            // 25.08 °C and 100,653.27 Pa; it has no humidity, and gives none.
            let row = sim::row(site.open(1.0).unwrap().as_mut());
            assert_eq!(row, "pressure=1006.5330hPa temperature=25.0800°C", "{oversampling}");
        }
    }

    /// The same by the data sheet's other formula, in 32 bits (4.2.3).
    fn percent_in_32_bits(raw: i32, fine: i32) -> f64 {
        let [h1, h2, h3, h4, h5, h6] = HUMIDITY;
        let v = fine - 76_800;
        let a = (((raw << 14) - (h4 << 20) - (h5 * v)) + 16_384) >> 15;
        let b = (((((v * h6) >> 10) * (((v * h3) >> 11) + 32_768)) >> 10) + 2_097_152) * h2 + 8_192;
        let v = a * (b >> 14);
        let v = v - (((((v >> 15) * (v >> 15)) >> 7) * h1) >> 4);
        f64::from(v.clamp(0, 419_430_400) >> 12) / 1024.0
    }

    #[test]
    fn humidity_is_that_of_both_formulas() {
        let site = site(1, BME280);
        let mut sensor = site.open(1.0).unwrap();
        let humidity = sensor.read().unwrap()[&"humidity".parse().unwrap()];
        let expected = percent_in_32_bits(i32::from(RAW.2), 128_422);
        assert!(
            (humidity - expected).abs() < 0.05 && (20.0..90.0).contains(&humidity),
            "{humidity} {expected}"
        );
        let units: Vec<_> = ["humidity", "pressure", "temperature"]
            .map(|name| sensor.unit(&name.parse().unwrap()).unwrap_or_default().to_owned())
            .into();
        assert_eq!(units, ["%", "hPa", "°C"]);
    }

    #[test]
    fn signs_of_the_humiditys_calibration_are_kept() {
        let site = site(1, BME280);
        // dig_H4 = -16 * 1 + 5, dig_H5 = -16 * 2 + 3
        for (register, value) in [(0xe4, 0xff), (0xe5, 0x35), (0xe6, 0xfe)] {
            site.poke(register, value);
        }
        let mut port = site.port();
        let humidity = Bme280::new(1).calibrate(&mut port).unwrap().humidity.unwrap();
        assert_eq!(humidity[3..5], [-11.0, -29.0]);
    }

    #[test]
    fn faults_are_told_and_over_with_the_next_row() {
        site(16, BME280).survives_faults();
    }

    #[test]
    fn another_chip_or_none_is_told() {
        let error = site(1, 0x61).open(1.0).map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            error,
            "bme280 at 0x76 of /dev/i2c-1: its id is 0x61: another chip is at this address; set `driver` or `address`"
        );
        let site = site(1, BME280);
        site.poke(CALIBRATION, 0);
        site.poke(CALIBRATION + 1, 0);
        assert!(site.open(1.0).map(|_| ()).unwrap_err().to_string().contains("calibration"));
    }
}
