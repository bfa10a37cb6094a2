//! Hours in which nobody wants to be disturbed.

use jiff::{
    Timestamp,
    civil::{Date, Time},
    tz::TimeZone,
};
use std::str::FromStr;

/// Times of the week, by the clock on the wall: `22:00-07:00, sat-sun 00:00-24:00`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuietHours(Vec<Span>);

/// From a time of some days to a later one, of the next day where that is earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    /// The days on which it begins, Monday first.
    days: [bool; 7],
    from: Time,
    /// Midnight at the day's end is the next day's first moment.
    to: Time,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Spans at the most.
const SPANS: usize = 32;

impl QuietHours {
    /// When the quiet that a moment is in ends; none when it is in none. Hours that follow each other are one quiet.
    pub fn end(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut end = moment;
        // Each step ends with another span, and more than a week's are the same ones again.
        for _ in 0..SPANS * 8 {
            let Some(later) = self.0.iter().filter_map(|span| span.end(end, zone)).max() else { break };
            end = later;
        }
        (end > moment).then_some(end)
    }

    /// Whether it never ends.
    fn is_always(&self) -> bool {
        let start = Timestamp::UNIX_EPOCH;
        let week = jiff::SignedDuration::from_hours(24 * 7);
        self.end(start, &TimeZone::UTC).is_some_and(|end| end.duration_since(start) >= week)
    }
}

impl Span {
    fn end(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let today = moment.to_zoned(zone.clone()).date();
        let candidates = [today.yesterday().ok(), Some(today)];
        candidates.into_iter().flatten().find_map(|day| {
            let (from, to) = self.on(day, zone)?;
            (from <= moment && moment < to).then_some(to)
        })
    }

    /// When it begins and ends, if it begins on this day.
    fn on(&self, day: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        if !self.days[usize::try_from(day.weekday().to_monday_zero_offset()).ok()?] {
            return None;
        }
        let last = if self.to > self.from { day } else { day.tomorrow().ok()? };
        let moment =
            |day: Date, time: Time| Some(day.to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp());
        Some((moment(day, self.from)?, moment(last, self.to)?))
    }
}

impl FromStr for QuietHours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let spans: Vec<Span> = text.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>()?;
        if spans.len() > SPANS {
            return Err(format!("has more than {SPANS} parts"));
        }
        let hours = Self(spans);
        if hours.is_always() { Err("leaves no time that is not quiet".to_owned()) } else { Ok(hours) }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no time of a day");
        let (days, hours) = match text.split_once(' ') {
            Some((days, hours)) => (days_of(days).ok_or_else(bad)?, hours.trim()),
            None => ([true; 7], text),
        };
        let (from, to) = hours.split_once('-').ok_or_else(bad)?;
        let from = time(from.trim()).ok_or_else(bad)?;
        let to = if to.trim() == "24:00" { Time::midnight() } else { time(to.trim()).ok_or_else(bad)? };
        if from == to && from != Time::midnight() {
            return Err(format!("`{text}` begins when it ends"));
        }
        Ok(Self { days, from, to })
    }
}

fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let two =
        |text: &str| (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok());
    Time::new(two(hour)??, two(minute)??, 0, 0).ok()
}

/// `sat`, or `mon-fri`.
fn days_of(text: &str) -> Option<[bool; 7]> {
    let place = |day: &str| DAYS.iter().position(|known| *known == day.to_ascii_lowercase());
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (place(first)?, place(last)?),
        None => (place(text)?, place(text)?),
    };
    let mut days = [false; 7];
    let mut day = first;
    loop {
        days[day] = true;
        if day == last {
            return Some(days);
        }
        day = (day + 1) % 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Thursday.
    fn end(hours: &str, at: &str) -> Option<String> {
        let hours: QuietHours = hours.parse().unwrap();
        let end = hours.end(format!("{at}Z").parse().unwrap(), &TimeZone::UTC)?;
        Some(end.to_string().trim_end_matches(":00Z").to_owned())
    }

    #[test]
    fn a_night_ends_in_the_morning() {
        for (at, wanted) in [
            ("2026-11-26T21:59:59", None),
            ("2026-11-26T22:00:00", Some("2026-11-27T07:00")),
            ("2026-11-27T03:00:00", Some("2026-11-27T07:00")),
            ("2026-11-27T06:59:59", Some("2026-11-27T07:00")),
            ("2026-11-27T07:00:00", None),
        ] {
            assert_eq!(end("22:00-07:00", at).as_deref(), wanted, "{at}");
        }
    }

    #[test]
    fn days_and_hours_that_follow_each_other_are_one_quiet() {
        let hours = "22:00-07:00, sat-sun 00:00-24:00";
        // From Friday's night through to Monday's morning.
        assert_eq!(end(hours, "2026-11-27T23:00:00").as_deref(), Some("2026-11-30T07:00"));
        assert_eq!(end(hours, "2026-11-28T12:00:00").as_deref(), Some("2026-11-30T07:00"));
        assert_eq!(end(hours, "2026-11-27T12:00:00"), None);
        assert_eq!(end("fri-mon 12:00-13:00", "2026-11-30T12:30:00").as_deref(), Some("2026-11-30T13:00"));
        assert_eq!(end("fri-mon 12:00-13:00", "2026-12-01T12:30:00"), None);
    }

    #[test]
    fn they_are_the_hours_of_the_zones_clock() {
        let Ok(zone) = TimeZone::get("Europe/Berlin") else { return };
        let hours: QuietHours = "22:00-07:00".parse().unwrap();
        // The night in which the clocks go back lasts ten hours.
        let end = hours.end("2026-10-24T20:00:00Z".parse().unwrap(), &zone).unwrap();
        assert_eq!(end.to_string(), "2026-10-25T06:00:00Z");
    }

    #[test]
    fn what_is_none_is_named() {
        for (text, why) in [
            ("", "is no time"),
            ("22-7", "is no time"),
            ("22:00-25:00", "is no time"),
            ("some 10:00-11:00", "is no time"),
            ("10:00-10:00", "begins when it ends"),
            ("00:00-24:00", "leaves no time"),
            ("00:00-12:00, 12:00-24:00", "leaves no time"),
        ] {
            let error = text.parse::<QuietHours>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
