//! The names of objects.

use edgeveil_wire::{DeviceName, ImageMeta, RecordId};
use jiff::{Timestamp, tz::TimeZone};
use object_store::path::Path;

/// How images are named: fixed text, and what is put in for `{device}`, `{camera}`, `{year}`, `{month}`, `{day}`, `{hour}`,
/// `{time}` (`20261126T081530.250Z`) and `{id}`. Times are UTC.
///
/// Valid by construction: it has the device and the id, so that no two images share a name, and no name is a dead letter's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Device,
    Camera,
    Year,
    Month,
    Day,
    Hour,
    Time,
    Id,
}

const FIELDS: [(&str, Field); 8] = [
    ("device", Field::Device),
    ("camera", Field::Camera),
    ("year", Field::Year),
    ("month", Field::Month),
    ("day", Field::Day),
    ("hour", Field::Hour),
    ("time", Field::Time),
    ("id", Field::Id),
];

/// With it a folder can be browsed, and a day be removed.
const DEFAULT: &str = "{device}/{camera}/{year}/{month}/{day}/{time}-{id}.jpg";
/// Where dead letters lie.
const DEAD: &str = "dead";
/// Of a template.
const MAX_BYTES: usize = 256;
/// S3 takes keys of 1,024 bytes, and a folder names of 255, of which object_store needs some while it writes. An image that has no
/// name that the store takes would hold all others up.
const MAX_KEY: usize = 1024;
const MAX_LEVEL: usize = 240;

impl Default for KeyTemplate {
    fn default() -> Self {
        DEFAULT.parse().expect("the default is one")
    }
}

impl std::str::FromStr for KeyTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("is longer than {MAX_BYTES} bytes"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("has a `{` without its `}`")?;
            let (_, field) =
                FIELDS.iter().find(|(known, _)| *known == name).ok_or(format!("has `{{{name}}}`"))?;
            parts.extend((!before.is_empty()).then(|| Part::Text(before.to_owned())));
            parts.push(Part::Field(*field));
            rest = after;
        }
        parts.extend((!rest.is_empty()).then(|| Part::Text(rest.to_owned())));
        let template = Self(parts);
        for (field, name) in [(Field::Device, "{device}"), (Field::Id, "{id}")] {
            if !template.0.contains(&Part::Field(field)) {
                return Err(format!("has no `{name}`, so that two images could have one name"));
            }
        }
        if !text.ends_with(".jpg") {
            return Err("does not end in `.jpg`".to_owned());
        }
        if text.split('/').next() == Some(DEAD) {
            return Err(format!("begins with `{DEAD}/`, where dead letters lie"));
        }
        if template.0.iter().any(|part| matches!(part, Part::Text(text) if text.contains('}'))) {
            return Err("has a `}` without its `{`".to_owned());
        }
        let longest = template.longest();
        if longest.len() > MAX_KEY || longest.split('/').any(|level| level.len() > MAX_LEVEL) {
            return Err(format!("can be longer than {MAX_KEY} bytes, or {MAX_LEVEL} between two slashes"));
        }
        // What is put in for the fields has none of these characters.
        let plain = text.replace(['{', '}'], "");
        match Path::parse(&plain) {
            Ok(path) if path.as_ref() == plain && !plain.contains('#') => Ok(template),
            _ => Err("is no path of an object: no empty level, no `.` or `..`, no `#`".to_owned()),
        }
    }
}

impl KeyTemplate {
    /// As long as a key can be.
    fn longest(&self) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => "x".repeat(field.most()),
        };
        self.0.iter().map(part).collect()
    }

    /// The name of an image.
    pub fn key(&self, device: &DeviceName, meta: &ImageMeta) -> String {
        let mut key = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => key += text,
                Part::Field(field) => key += &field.of(device, meta),
            }
        }
        key
    }
}

impl Field {
    /// Bytes that are put in for it.
    const fn most(self) -> usize {
        match self {
            Self::Device | Self::Camera => 64,
            Self::Year => 5,
            Self::Month | Self::Day | Self::Hour => 2,
            Self::Time => 21,
            Self::Id => 32,
        }
    }

    fn of(self, device: &DeviceName, meta: &ImageMeta) -> String {
        let at = |form| utc(meta.stamp.timestamp, form);
        match self {
            Self::Device => device.to_string(),
            Self::Camera => meta.camera.to_string(),
            Self::Year => at("%Y"),
            Self::Month => at("%m"),
            Self::Day => at("%d"),
            Self::Hour => at("%H"),
            Self::Time => {
                let millis = meta.stamp.timestamp.as_millisecond().rem_euclid(1000);
                format!("{}.{millis:03}Z", at("%Y%m%dT%H%M%S"))
            }
            Self::Id => meta.stamp.id.to_string(),
        }
    }
}

fn utc(time: Timestamp, form: &str) -> String {
    time.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

/// `dead/<device>/<id>.jpg`: a refused record, whole. An image that has such a key is of a device named `dead`; its id is
/// its own.
pub fn dead_key(device: &DeviceName, id: RecordId, extension: &str) -> String {
    format!("{DEAD}/{device}/{id}.{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeveil_wire::{BootId, ClockState, Lane, Stamp};

    fn key(template: &str) -> String {
        let time = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        let meta = ImageMeta {
            stamp: Stamp::new(BootId::from_random([7; 10]), Lane::Image, 9, time, ClockState::Synced, 5),
            device: "pi".parse().unwrap(),
            camera: "door".parse().unwrap(),
            faces: 0,
            cover: "deep-blur".to_owned(),
            software: "test".to_owned(),
        };
        template.parse::<KeyTemplate>().unwrap().key(&meta.device, &meta)
    }

    #[test]
    fn each_field_is_put_in() {
        let id = "07070707070707070707030000000009";
        assert_eq!(key(DEFAULT), format!("pi/door/2023/11/14/20231114T221320.123Z-{id}.jpg"));
        assert_eq!(key("{id}{device}.jpg"), format!("{id}pi.jpg"));
        assert_eq!(
            key("sites/a b/day={day}/{hour}-{device}-{id}.jpg"),
            format!("sites/a b/day=14/22-pi-{id}.jpg")
        );
    }

    #[test]
    fn what_would_lose_or_hide_an_image_is_refused() {
        let long = format!("{}/{{device}}-{{id}}.jpg", "x".repeat(256));
        let many = format!("{}{{id}}.jpg", "{device}/".repeat(20));
        for (template, why) in [
            ("{device}/{time}.jpg", "{id}"),
            ("{id}.jpg", "{device}"),
            ("{device}/{id}", ".jpg"),
            ("{device}/{id}.jpg/x", ".jpg"),
            ("{device}/{it}-{id}.jpg", "{it}"),
            ("{device}/{id.jpg", "without its"),
            ("dead/{device}/{id}.jpg", "dead letters"),
            ("/{device}/{id}.jpg", "no path"),
            ("a//{device}/{id}.jpg", "no path"),
            ("../{device}/{id}.jpg", "no path"),
            ("a/{device}/{id}#1.jpg", "no path"),
            ("{device}}/{id}.jpg", "without its `{`"),
            ("{device}{device}{device}{device}/{id}.jpg", "240"),
            (&many, "1024"),
            (&long, "256"),
        ] {
            let error = template.parse::<KeyTemplate>().unwrap_err();
            assert!(error.contains(why), "{template}: {error}");
        }
    }
}
