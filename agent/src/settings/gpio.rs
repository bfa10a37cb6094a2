//! Inputs of a board's pins.

use super::{
    document::Section,
    parse::choice,
    units::{LineName, Text},
};
use edgeveil_wire::ValueName;
use std::time::Duration;

/// Inputs of one chip.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpio {
    /// Its name (`gpiochip0`), device file, or label.
    pub chip: String,
    /// Its lines.
    pub inputs: Vec<Input>,
    /// A row comes at each change, and at least so often.
    pub every: Duration,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Its number on the chip, or its name.
    pub line: LineName,
    /// What it is called in rows.
    pub name: ValueName,
    /// What holds it while nothing else does.
    pub pull: Pull,
    /// The level that counts as 1.
    pub active: Active,
    /// A change counts once it has lasted so long.
    pub debounce: Option<Duration>,
    /// What of it is a value.
    pub gives: Gives,
    /// Changes that are alerts.
    pub alert: Alert,
}

/// What holds a line while nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// As the board has set it.
    AsIs,
    /// The supply.
    Up,
    /// The ground.
    Down,
    /// Nothing.
    None,
}

/// The level that counts as 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Active {
    /// The supply's.
    High,
    /// The ground's.
    Low,
}

/// What of a line is a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// 0 or 1; each change makes a row.
    Level,
    /// How often it has become active since the row before; changes make no rows.
    Pulses,
}

/// Changes that are alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// None.
    Never,
    /// It becomes 1.
    Active,
    /// It becomes 0.
    Inactive,
    /// Both.
    Change,
}

pub(super) fn read(sensor: &Section<'_>, source: &Section<'_>) -> Option<Gpio> {
    let chip = source.get::<String>("gpio");
    let every = source.within(
        "every",
        Duration::from_secs(60),
        Duration::from_millis(100)..=Duration::from_secs(86_400),
    );
    let sections = sensor.sections("input");
    let inputs: Vec<_> = sections.iter().filter_map(input).collect();
    if sections.is_empty() {
        sensor.problem("input", "is missing; it wants one [[sensor.input]] or more, each with line and name");
    }
    for (i, input) in inputs.iter().enumerate() {
        let before = &inputs[..i];
        if before.iter().any(|other| other.name == input.name || other.line == input.line) {
            sensor.problem("input", format!("the line or name of \"{}\" is there twice", input.name));
        }
    }
    if inputs.len() > 64 {
        sensor.problem("input", "is there more than 64 times");
    }
    Some(Gpio { chip: chip?, inputs, every })
}

fn input(section: &Section<'_>) -> Option<Input> {
    let line = section.required::<LineName>("line");
    let name = section.required::<Text<ValueName>>("name").map(|Text(name)| name);
    let pull = choice(
        section,
        "pull",
        &[("as-is", Pull::AsIs), ("up", Pull::Up), ("down", Pull::Down), ("none", Pull::None)],
    );
    let active = choice(section, "active", &[("high", Active::High), ("low", Active::Low)]);
    let debounce = section.get_within("debounce", Duration::from_micros(1)..=Duration::from_secs(60));
    let gives = choice(section, "gives", &[("level", Gives::Level), ("pulses", Gives::Pulses)]);
    let alert = choice(
        section,
        "alert",
        &[
            ("never", Alert::Never),
            ("active", Alert::Active),
            ("inactive", Alert::Inactive),
            ("change", Alert::Change),
        ],
    );
    if gives == Gives::Pulses && alert != Alert::Never {
        section.problem("alert", "makes no sense for pulses: they make no rows of their own");
    }
    Some(Input { line: line?, name: name?, pull, active, debounce, gives, alert })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Problems, SensorSource, parse};
    use std::path::Path;

    fn gpio(text: &str) -> Result<crate::settings::Sensor, Problems> {
        let text = format!(
            "[link]\nhost = \"h\"\nca = \"a\"\ncert = \"c\"\nkey = \"k\"\n\
             [[sensor]]\ngroup = \"g\"\n{text}\n"
        );
        parse(Path::new("agent.toml"), &text).map(|settings| settings.sensors[0].clone())
    }

    const CHIP: &str = "source = { gpio = \"gpiochip0\" }\n";

    #[test]
    fn inputs_are_read() {
        let text = format!(
            "{CHIP}[[sensor.input]]\nline = 17\nname = \"door\"\npull = \"up\"\nactive = \"low\"\n\
             debounce = \"20 ms\"\nalert = \"active\"\n[[sensor.input]]\nline = \"GPIO4\"\nname = \"rain\"\ngives = \"pulses\"\n"
        );
        let sensor = gpio(&text).unwrap();
        assert_eq!((sensor.rate, sensor.detector), (10.0, None), "what is a switch has no distribution");
        let SensorSource::Gpio(Gpio { chip, inputs, every }) = sensor.source else { panic!("no GPIO") };
        assert_eq!((chip.as_str(), every), ("gpiochip0", Duration::from_secs(60)));
        let door = Input {
            line: LineName::Offset(17),
            name: "door".parse().unwrap(),
            pull: Pull::Up,
            active: Active::Low,
            debounce: Some(Duration::from_millis(20)),
            gives: Gives::Level,
            alert: Alert::Active,
        };
        assert_eq!(inputs[0], door);
        assert_eq!((&inputs[1].line, inputs[1].gives), (&LineName::Name("GPIO4".to_owned()), Gives::Pulses));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, key, what) in [
            (CHIP.to_owned(), "sensor[0].input", "is missing"),
            (format!("{CHIP}[[sensor.input]]\nname = \"a\""), "sensor[0].input[0].line", "is missing"),
            (
                format!(
                    "{CHIP}[[sensor.input]]\nline = 1\nname = \"a\"\ngives = \"pulses\"\nalert = \"change\""
                ),
                "sensor[0].input[0].alert",
                "no sense",
            ),
            (
                format!(
                    "{CHIP}[[sensor.input]]\nline = 1\nname = \"a\"\n[[sensor.input]]\nline = 1\nname = \"b\""
                ),
                "sensor[0].input",
                "twice",
            ),
            (
                "source = { simulate = {} }\n[[sensor.input]]\nline = 1\nname = \"a\"".to_owned(),
                "sensor[0].input",
                "not known",
            ),
        ] {
            let problems = gpio(&text).expect_err(&text);
            let [problem] = problems.list() else { panic!("{text}: {problems}") };
            assert!(problem.key == key && problem.what.contains(what), "{text}: {problem:?}");
        }
    }
}
