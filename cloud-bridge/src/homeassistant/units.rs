//! Units of values, which readings do not carry: by what the agent's own sensors call their values, or as it is set.

use edgeveil_wire::ValueName;
use std::collections::BTreeMap;

/// The first letters of a value's name and its unit, as agent/src/sense has them. A name goes on with a digit, `_` or `-`, or
/// ends there.
const KINDS: [(&str, &str); 16] = [
    ("temperature", "°C"),
    ("temp", "°C"),
    ("humidity", "%"),
    ("humidityrelative", "%"),
    ("pressure", "hPa"),
    ("voltage", "V"),
    ("in", "V"),
    ("current", "A"),
    ("curr", "A"),
    ("power", "W"),
    ("resistance", "Ω"),
    ("accel", "m/s²"),
    ("gyro", "rad/s"),
    ("magn", "µT"),
    ("illuminance", "lx"),
    ("fan", "rpm"),
];

/// Units that leave no doubt what is measured, by Home Assistant's names. `%` is one for what is called so only.
const CLASSES: [(&str, &str); 22] = [
    ("°C", "temperature"),
    ("°F", "temperature"),
    ("K", "temperature"),
    ("hPa", "pressure"),
    ("kPa", "pressure"),
    ("Pa", "pressure"),
    ("mbar", "pressure"),
    ("bar", "pressure"),
    ("V", "voltage"),
    ("mV", "voltage"),
    ("A", "current"),
    ("mA", "current"),
    ("W", "power"),
    ("kW", "power"),
    ("lx", "illuminance"),
    ("Hz", "frequency"),
    ("mm", "distance"),
    ("cm", "distance"),
    ("m", "distance"),
    ("km", "distance"),
    ("dBm", "signal_strength"),
    ("dB", "signal_strength"),
];

/// Units that an operator has set, by value name. An empty one: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Units(BTreeMap<ValueName, String>);

impl Units {
    /// From `NAME=UNIT` each.
    pub fn new<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, String> {
        let mut units = BTreeMap::new();
        for text in texts {
            let (name, unit) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`"))?;
            let name: ValueName = name.trim().parse().map_err(|error| format!("{error}"))?;
            let unit = unit.trim();
            if unit.chars().count() > 16 || unit.contains(char::is_control) {
                return Err(format!("`{unit}` is no unit of at most 16 characters"));
            }
            if units.insert(name, unit.to_owned()).is_some() {
                return Err(format!("`{text}` names a value that has its unit already"));
            }
        }
        Ok(Self(units))
    }

    /// Unit and device class of a value.
    pub fn of(&self, name: &ValueName) -> (Option<&str>, Option<&'static str>) {
        let kind = kind(name.as_str());
        let unit = match self.0.get(name) {
            Some(set) => Some(set.as_str()).filter(|unit| !unit.is_empty()),
            None => KINDS.iter().find(|(known, _)| *known == kind).map(|(_, unit)| *unit),
        };
        let class = match unit {
            Some("%") => kind.starts_with("humidity").then_some("humidity"),
            unit => CLASSES.iter().find(|(known, _)| Some(*known) == unit).map(|(_, class)| *class),
        };
        (unit, class)
    }
}

fn kind(name: &str) -> &str {
    let end = name.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(name.len());
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_plain_have_their_unit_and_others_none() {
        let units = Units::new(["level=cm", " temp_out = °F", "pressure="]).unwrap();
        let of = |name: &str| {
            let name: ValueName = name.parse().unwrap();
            let (unit, class) = units.of(&name);
            format!("{} {}", unit.unwrap_or("-"), class.unwrap_or("-"))
        };
        for (name, expected) in [
            ("temperature", "°C temperature"),
            ("temp1", "°C temperature"),
            ("humidity", "% humidity"),
            ("humidityrelative", "% humidity"),
            ("voltage0-voltage1", "V voltage"),
            ("in0", "V voltage"),
            ("accel_x", "m/s² -"),
            ("sensor1", "- -"),
            ("inside", "- -"),
            ("temperament", "- -"),
            ("level", "cm distance"),
            ("temp_out", "°F temperature"),
            ("pressure", "- -"),
        ] {
            assert_eq!(of(name), expected, "{name}");
        }
        for bad in ["temperature", "a b=m", "score=1", "x=12345678901234567", "x=a\nb"] {
            assert!(Units::new([bad]).is_err(), "{bad}");
        }
        assert!(Units::new(["x=m", "x=cm"]).is_err());
    }
}
