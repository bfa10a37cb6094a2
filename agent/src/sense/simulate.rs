//! A stream to try things with: `sensor1` ~ N(20, 0.5); `sensor2` ~ N(0.5, 0.05), of which a share lies 0.5 to 1.5 away.

use super::{Sensor, SensorError};
use edgeveil_wire::{ValueName, Values};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// The same seed gives the same stream on every machine.
pub struct Simulator {
    random: Xoshiro256PlusPlus,
    outliers: f64,
    names: [ValueName; 2],
}

impl Simulator {
    /// `outliers` is their share in [0, 1].
    pub fn new(seed: u64, outliers: f64) -> Self {
        let name = |name: &str| name.parse().expect("a legal name");
        let names = [name("sensor1"), name("sensor2")];
        Self { random: Xoshiro256PlusPlus::seed_from_u64(seed), outliers, names }
    }

    /// Box and Muller, 1958.
    fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.random.r#gen::<f64>()).ln()).sqrt();
        mean + deviation * radius * (std::f64::consts::TAU * self.random.r#gen::<f64>()).cos()
    }
}

impl Sensor for Simulator {
    fn read(&mut self) -> Result<Values, SensorError> {
        let sensor1 = self.normal(20.0, 0.5);
        let mut sensor2 = self.normal(0.5, 0.05);
        if self.random.gen_bool(self.outliers) {
            let sign = if self.random.r#gen() { 1.0 } else { -1.0 };
            sensor2 += sign * self.random.gen_range(0.5..1.5);
        }
        // Sensors have a resolution; a ten-thousandth keeps the payloads short.
        let rounded = |value: f64| (value * 1e4).round() / 1e4;
        let [first, second] = self.names.clone();
        Ok(Values::from([(first, rounded(sensor1)), (second, rounded(sensor2))]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_has_the_moments_it_promises() {
        let mut simulator = Simulator::new(7, 0.08);
        let rows: Vec<Vec<f64>> =
            (0..20_000).map(|_| simulator.read().unwrap().into_values().collect()).collect();
        let mean = |column: usize| rows.iter().map(|row| row[column]).sum::<f64>() / rows.len() as f64;
        assert!((mean(0) - 20.0).abs() < 0.02 && (mean(1) - 0.5).abs() < 0.02);
        let away = rows.iter().filter(|row| (row[1] - 0.5).abs() > 0.3).count() as f64 / rows.len() as f64;
        assert!((away - 0.08).abs() < 0.01, "{away}");
        let mut again = Simulator::new(7, 0.08);
        assert_eq!(again.read().unwrap().into_values().collect::<Vec<_>>(), rows[0]);
    }
}
