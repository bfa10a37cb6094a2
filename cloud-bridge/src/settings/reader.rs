//! Reads TOML so that every problem is found in one go, each with its file, line and key.
//!
//! serde would stop at the first one. A [`Section`] is asked for the keys it may have; what nobody asked for is an
//! unknown key. Each scalar can be overridden by an environment variable named after its path: `http.listen` by
//! `EDGEVEIL_BRIDGE_HTTP_LISTEN`.

use std::{cell::RefCell, collections::BTreeSet, fmt, ops::Range};
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `FILE:LINE`, or the environment variable.
    pub place: String,
    /// The key's full path; empty when the file as a whole cannot be read.
    pub key: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.text),
            key => write!(f, "{}: `{key}`: {}", self.place, self.text),
        }
    }
}

/// How the environment is read; a function so that tests need no process-wide variables.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// One settings file under reading.
pub struct Reader<'d> {
    file: &'d str,
    text: &'d str,
    env: Env<'d>,
    problems: RefCell<Vec<Problem>>,
}

impl<'d> Reader<'d> {
    /// Of a file's text; `file` is only for messages.
    pub fn new(file: &'d str, text: &'d str, env: Env<'d>) -> Self {
        Self { file, text, env, problems: RefCell::default() }
    }

    /// Parses the text. Where it is no TOML, every place is noted as a problem.
    pub fn parse(&self) -> DeTable<'d> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let place = error.span().map_or_else(|| self.file.to_owned(), |span| self.place(&span));
            self.note(place, String::new(), format!("no valid TOML: {}", error.message()));
        }
        table.into_inner()
    }

    /// What was wrong, in the order of the file where that is known.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn place(&self, span: &Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        format!("{}:{}", self.file, before.matches('\n').count() + 1)
    }

    fn note(&self, place: String, key: String, text: String) {
        self.problems.borrow_mut().push(Problem { place, key, text });
    }
}

/// A value as it stands in a settings file or an environment variable.
pub trait Setting: Sized {
    /// For messages: what is wanted, with an example.
    const WANTS: &'static str;
    /// From text, as in an environment variable.
    fn from_text(text: &str) -> Result<Self, String>;
    /// From TOML; by default only strings are taken.
    fn from_value(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::from_text(text),
            other => Err(format!("is {}", kind(other))),
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer without a unit",
        DeValue::Float(_) => "a number without a unit",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A table of the file, or its absence.
pub struct Section<'r, 'd> {
    reader: &'r Reader<'d>,
    path: String,
    table: Option<&'r DeTable<'d>>,
    span: Range<usize>,
    seen: RefCell<BTreeSet<&'static str>>,
}

impl<'r, 'd> Section<'r, 'd> {
    /// The file's top level.
    pub fn root(reader: &'r Reader<'d>, table: &'r DeTable<'d>) -> Self {
        Self { reader, path: String::new(), table: Some(table), span: 0..0, seen: RefCell::default() }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn variable(&self, key: &str) -> String {
        super::environment::variable(&self.key(key))
    }

    /// A table below this one.
    pub fn section(&self, key: &'static str) -> Section<'r, 'd> {
        self.seen.borrow_mut().insert(key);
        let found = self.table.and_then(|table| table.get(key));
        let span = found.map_or(self.span.clone(), |value| value.span());
        let table = match found.map(|value| value.get_ref()) {
            Some(DeValue::Table(table)) => Some(table),
            Some(other) => {
                let text = format!("is {}; wants a table [{}]", kind(other), self.key(key));
                self.reader.note(self.reader.place(&span), self.key(key), text);
                None
            }
            None => None,
        };
        Section { reader: self.reader, path: self.key(key), table, span, seen: RefCell::default() }
    }

    /// Whether the file has this table, or the environment one of the named keys of it.
    pub fn is_given(&self, keys: &[&str]) -> bool {
        self.table.is_some() || keys.iter().any(|key| (self.reader.env)(&self.variable(key)).is_some())
    }

    /// Whether a key is there, in the file or the environment.
    pub fn is_set(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
            || (self.reader.env)(&self.variable(key)).is_some()
    }

    /// The value of a key, when there is a usable one.
    pub fn get<T: Setting>(&self, key: &'static str) -> Option<T> {
        self.seen.borrow_mut().insert(key);
        let variable = self.variable(key);
        if let Some(text) = (self.reader.env)(&variable) {
            return T::from_text(&text)
                .map_err(|why| {
                    self.reader.note(variable, self.key(key), format!("{why}; wants {}", T::WANTS))
                })
                .ok();
        }
        let value = self.table?.get(key)?;
        T::from_value(value.get_ref())
            .map_err(|why| self.problem(key, format!("{why}; wants {}", T::WANTS)))
            .ok()
    }

    /// The value of a key, or a default. After a problem the default only stands in until the end of the reading.
    pub fn or<T: Setting>(&self, key: &'static str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// The value of a key that must be there.
    pub fn required<T: Setting>(&self, key: &'static str) -> Option<T> {
        if !self.is_set(key) {
            self.seen.borrow_mut().insert(key);
            self.problem(key, format!("is missing; wants {}", T::WANTS));
            return None;
        }
        self.get(key)
    }

    /// Notes a problem at a key: at its line when it is there, else at the table's.
    pub fn problem(&self, key: &str, text: String) {
        let variable = self.variable(key);
        let span = self.table.and_then(|table| table.get(key)).map(|value| value.span());
        let place = match span {
            _ if (self.reader.env)(&variable).is_some() => variable,
            Some(span) => self.reader.place(&span),
            None => self.reader.place(&self.span),
        };
        self.reader.note(place, self.key(key), text);
    }

    /// Every key that was not asked for is unknown.
    pub fn finish(self) {
        let seen = self.seen.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            if !seen.contains(key.get_ref().as_ref()) {
                let known: Vec<_> = seen.iter().map(|known| format!("`{known}`")).collect();
                let text = format!("is no setting; known here: {}", known.join(", "));
                self.reader.note(self.reader.place(&key.span()), self.key(key.get_ref()), text);
            }
        }
    }
}
