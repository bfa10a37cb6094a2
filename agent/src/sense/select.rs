//! The values that the settings ask for, by the names and in the units that they give them.

use super::{Sensor, SensorError};
use crate::settings::Value;
use edgeveil_wire::{ValueName, Values};
use std::time::Duration;

/// A source of which some values are taken. Each is multiplied by its scale, and then its offset is added.
pub struct Select {
    source: Box<dyn Sensor>,
    wanted: Vec<Value>,
    /// Whether any row had any of them: a row may lack a value, but a name that never comes is a mistake.
    has_matched: bool,
}

impl Select {
    /// Takes these values.
    pub fn new(source: Box<dyn Sensor>, wanted: &[Value]) -> Self {
        Self { source, wanted: wanted.to_vec(), has_matched: false }
    }
}

impl Sensor for Select {
    fn read(&mut self) -> Result<Values, SensorError> {
        let row = self.source.read()?;
        let mut values = Values::new();
        for Value { from, name, scale, offset, .. } in &self.wanted {
            match row.get(from) {
                Some(value) => _ = values.insert(name.clone(), value * scale + offset),
                None if self.has_matched => {}
                None => {
                    let known = row.keys().map(ToString::to_string).collect();
                    return Err(SensorError::NoValue { from: from.clone(), known });
                }
            }
        }
        self.has_matched = true;
        Ok(values)
    }

    fn is_ready(&mut self) -> bool {
        self.source.is_ready()
    }

    fn age(&self) -> Duration {
        self.source.age()
    }

    fn alert(&self) -> Option<&ValueName> {
        let alert = self.source.alert()?;
        self.wanted.iter().find(|value| value.from == *alert).map(|value| &value.name)
    }

    fn unit(&self, name: &ValueName) -> Option<&str> {
        let value = self.wanted.iter().find(|value| value.name == *name)?;
        value.unit.as_deref().or_else(|| self.source.unit(&value.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rows(Vec<Values>);

    impl Sensor for Rows {
        fn read(&mut self) -> Result<Values, SensorError> {
            Ok(self.0.remove(0))
        }
        fn unit(&self, _: &ValueName) -> Option<&str> {
            Some("V")
        }
    }

    fn row(values: &[(&str, f64)]) -> Values {
        values.iter().map(|(name, value)| (name.parse().unwrap(), *value)).collect()
    }

    fn value(from: &str, name: &str, unit: Option<&str>, scale: f64, offset: f64) -> Value {
        let (from, name) = (from.parse().unwrap(), name.parse().unwrap());
        Value { from, name, unit: unit.map(str::to_owned), scale, offset }
    }

    #[test]
    fn values_are_renamed_scaled_and_shifted_and_others_left_out() {
        let rows = Rows(vec![row(&[("in0", 2.0), ("in1", 7.0), ("in2", 1.0)]), row(&[("in1", 8.0)])]);
        let wanted = [value("in0", "soil", Some("%"), 50.0, -10.0), value("in1", "in1", None, 1.0, 0.0)];
        let mut select = Select::new(Box::new(rows), &wanted);
        assert_eq!(select.read().unwrap(), row(&[("soil", 90.0), ("in1", 7.0)]));
        assert_eq!(select.read().unwrap(), row(&[("in1", 8.0)]), "a row may lack a value");
        let units = ["soil", "in1", "in2"].map(|name| select.unit(&name.parse().unwrap()).map(str::to_owned));
        assert_eq!(units, [Some("%".to_owned()), Some("V".to_owned()), None]);
    }

    #[test]
    fn a_name_that_the_source_does_not_know_is_told_with_those_that_it_does() {
        let rows = Rows(vec![row(&[("temp1", 2.0), ("fan1", 7.0)])]);
        let mut select = Select::new(Box::new(rows), &[value("temp2", "cpu", None, 1.0, 0.0)]);
        let error = select.read().unwrap_err().to_string();
        assert!(error.contains("`temp2`") && error.contains("fan1, temp1"), "{error}");
    }
}
