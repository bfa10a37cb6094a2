//! Values with their units: "10 s", "512 MiB", "640x480".

#[cfg(feature = "vision")]
use edgeveil_veil::Mask;
use std::{path::PathBuf, time::Duration};
use toml::de::DeValue;

/// A type that a settings value can become.
pub trait Unit: Sized {
    /// What the value should look like, for messages.
    const WANTED: &'static str;
    /// Reads it; the error says what is wrong.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String>;
}

/// A number of bytes, written with its unit: "512 MiB".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl std::fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// Width and height in pixels, written "640x480".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

/// A value that is written as text and read by `FromStr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<T>(pub T);

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn wrong<T: Unit>(value: &DeValue<'_>) -> String {
    format!("is {}; it wants {}", found(value), T::WANTED)
}

fn text<'a, T: Unit>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    match value {
        DeValue::String(text) => Ok(text.as_ref()),
        _ => Err(wrong::<T>(value)),
    }
}

impl Unit for String {
    const WANTED: &'static str = "text in quotes";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        text::<Self>(value).map(str::to_owned)
    }
}

impl Unit for PathBuf {
    const WANTED: &'static str = "a path in quotes";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match text::<Self>(value)? {
            "" => Err("is empty; it wants a path".to_owned()),
            path => Ok(path.into()),
        }
    }
}

/// An I2C bus, by its number or its device file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bus(pub PathBuf);

impl Unit for Bus {
    const WANTED: &'static str = "a bus's number, such as 1, or its device file in quotes";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Integer(_) => {
                u8::from_toml(value).map(|number| Self(format!("/dev/i2c-{number}").into()))
            }
            DeValue::String(_) => PathBuf::from_toml(value).map(Self),
            _ => Err(wrong::<Self>(value)),
        }
    }
}

/// A line of a GPIO chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineName {
    /// By its number on the chip.
    Offset(u32),
    /// By its name, such as "GPIO17".
    Name(String),
}

impl Unit for LineName {
    const WANTED: &'static str = "a line's number on its chip, such as 17, or its name in quotes";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Integer(_) => u32::from_toml(value).map(Self::Offset),
            DeValue::String(_) => String::from_toml(value).map(Self::Name),
            _ => Err(wrong::<Self>(value)),
        }
    }
}

impl std::fmt::Display for LineName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Offset(offset) => offset.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A broker's name and port: "localhost", "broker.lan:1884", "[fe80::1]:1883".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// TCP port, where one is given.
    pub port: Option<u16>,
}

impl std::str::FromStr for Broker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wants = "it wants a broker's name and port, such as \"localhost:1883\"";
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| format!("is \"{text}\"; {wants}"))?))
            }
            _ => (text, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
            return Err(format!("is \"{text}\"; {wants}"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl<T: std::str::FromStr<Err: std::fmt::Display>> Unit for Text<T> {
    const WANTED: &'static str = "text in quotes";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        text::<Self>(value)?.parse().map(Self).map_err(|error: T::Err| error.to_string())
    }
}

impl Unit for bool {
    const WANTED: &'static str = "true or false";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(wrong::<Self>(value)),
        }
    }
}

macro_rules! whole {
    ($($type:ty),*) => {$(
        impl Unit for $type {
            const WANTED: &'static str = "a whole number";
            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                let DeValue::Integer(number) = value else { return Err(wrong::<Self>(value)) };
                <$type>::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| format!("is {}; it wants a whole number from {} to {}", number.as_str(), <$type>::MIN, <$type>::MAX))
            }
        }
    )*};
}
whole!(u8, u16, u32, u64, usize);

impl Unit for f64 {
    const WANTED: &'static str = "a number";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let number = match value {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => return Err(wrong::<Self>(value)),
        };
        number
            .filter(|number: &f64| number.is_finite())
            .ok_or_else(|| format!("is no finite number; it wants {}", Self::WANTED))
    }
}

/// Static masks of a camera: a list of polygons, each a list of corners [x, y] in shares of width and height.
#[cfg(feature = "vision")]
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Masks(pub Vec<Mask>);

#[cfg(feature = "vision")]
impl Unit for Masks {
    const WANTED: &'static str = "a list of polygons, each a list of three corners or more, such as [[[0, 0.5], [0.25, 0.5], [0, 1]]]; \
         a corner is [x, y] in shares of width and height, from 0 to 1";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let mut masks = Vec::new();
        let DeValue::Array(polygons) = value else { return Err(wrong::<Self>(value)) };
        for (i, polygon) in polygons.iter().enumerate() {
            let bad = |what: &str| format!("has in polygon {}: {what}; it wants {}", i + 1, Self::WANTED);
            let DeValue::Array(points) = polygon.get_ref() else { return Err(bad(found(polygon.get_ref()))) };
            let mut corners = Vec::new();
            for point in points {
                let DeValue::Array(point) = point.get_ref() else { return Err(bad(found(point.get_ref()))) };
                let numbers: Result<Vec<f64>, String> =
                    point.iter().map(|number| f64::from_toml(number.get_ref())).collect();
                match numbers.map_err(|_| bad("a corner that is no pair of numbers"))?[..] {
                    [x, y] if (0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y) => {
                        corners.push((x as f32, y as f32));
                    }
                    [_, _] => return Err(bad("a corner outside of 0 to 1")),
                    _ => return Err(bad("a corner that is no pair of numbers")),
                }
            }
            if !(3..=Mask::MOST_CORNERS).contains(&corners.len()) {
                return Err(bad(&format!(
                    "{} corners (3 to {} are possible)",
                    corners.len(),
                    Mask::MOST_CORNERS
                )));
            }
            masks.push(Mask { corners });
        }
        if masks.len() > Mask::MOST {
            return Err(format!("has {} polygons; it wants at most {}", masks.len(), Mask::MOST));
        }
        Ok(Self(masks))
    }
}

/// Splits "1.5 GiB" into number and unit.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().ok()?;
    Some((number, text[split..].trim()))
}

impl Unit for Vec<String> {
    const WANTED: &'static str = "a program and its arguments, such as [\"rpicam-vid\", \"-t\", \"0\"]";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let wrong = || format!("wants {}", Self::WANTED);
        let DeValue::Array(array) = value else { return Err(wrong()) };
        let words: Result<Vec<_>, _> =
            array.iter().map(|word| String::from_toml(word.get_ref()).map_err(|_| wrong())).collect();
        let words = words?;
        if words.first().is_none_or(String::is_empty) || words.iter().any(|word| word.contains('\0')) {
            return Err(wrong());
        }
        Ok(words)
    }
}

impl Unit for Duration {
    const WANTED: &'static str =
        "a time with its unit, such as \"500 ms\", \"10 s\", \"5 min\", \"2 h\" or \"7 d\"";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        let seconds = number_and_unit(text.trim()).and_then(|(number, unit)| {
            let seconds = match unit {
                "ms" => 1e-3,
                "s" => 1.0,
                "min" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return None,
            };
            Some(number * seconds)
        });
        seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| format!("is \"{text}\"; it wants {}", Self::WANTED))
    }
}

impl Unit for ByteSize {
    const WANTED: &'static str = "a size with its unit, such as \"64 KiB\", \"512 MiB\" or \"2 GiB\"";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        let bytes = number_and_unit(text.trim()).and_then(|(number, unit)| {
            let bytes = match unit {
                "B" => 1.0,
                "KiB" => 1024.0,
                "MiB" => 1024f64.powi(2),
                "GiB" => 1024f64.powi(3),
                "TiB" => 1024f64.powi(4),
                "kB" => 1e3,
                "MB" => 1e6,
                "GB" => 1e9,
                _ => return None,
            };
            Some((number * bytes) as u64)
        });
        bytes.map(Self).ok_or_else(|| format!("is \"{text}\"; it wants {}", Self::WANTED))
    }
}

impl Unit for Size {
    const WANTED: &'static str = "a size in pixels, such as \"640x480\"";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        let size = text.split_once('x').and_then(|(width, height)| {
            let size = Size { width: width.trim().parse().ok()?, height: height.trim().parse().ok()? };
            ((16..=8192).contains(&size.width) && (16..=8192).contains(&size.height)).then_some(size)
        });
        size.ok_or_else(|| format!("is \"{text}\"; it wants {}, each side from 16 to 8192", Self::WANTED))
    }
}
