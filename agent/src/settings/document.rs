//! Reads a TOML document so that every problem in it is found in one go, each with its line and key.

use crate::settings::units::Unit;
use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: usize,
    /// The key with its tables, such as `link.port`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// All that is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    file: PathBuf,
    list: Vec<Problem>,
}

impl Problems {
    /// The problems in the order of their lines.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(
                f,
                "{newline}{}:{}: {}: {}",
                self.file.display(),
                problem.line,
                problem.key,
                problem.what
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Parses a document, lets `read` take what it needs and gives its result only when nothing was wrong.
pub fn read<T>(file: &Path, text: &str, read: impl FnOnce(&Section<'_>) -> Option<T>) -> Result<T, Problems> {
    let lines = Lines::of(text);
    let found = RefCell::new(Vec::new());
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map_or(1, |span| lines.at(span.start));
        let what = error.message().to_owned();
        found.borrow_mut().push(Problem { line, key: "TOML".to_owned(), what });
    }
    let result = if errors.is_empty() {
        let section = Section::new(Some(root.get_ref()), String::new(), 1, &lines, &found);
        read(&section)
    } else {
        None
    };
    let mut list = found.into_inner();
    list.sort_by_key(|problem| problem.line);
    match result {
        Some(result) if list.is_empty() => Ok(result),
        _ if list.is_empty() => {
            let what = "could not be read".to_owned();
            Err(Problems {
                file: file.to_owned(),
                list: vec![Problem { line: 1, key: "settings".to_owned(), what }],
            })
        }
        _ => Err(Problems { file: file.to_owned(), list }),
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i).collect())
    }
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

/// A table of the document. When it is dropped, keys that nobody asked for are reported.
pub struct Section<'a> {
    table: Option<&'a DeTable<'a>>,
    path: String,
    line: usize,
    lines: &'a Lines,
    asked: RefCell<Vec<&'static str>>,
    open: Cell<bool>,
    found: &'a RefCell<Vec<Problem>>,
}

impl<'a> Section<'a> {
    fn new(
        table: Option<&'a DeTable<'a>>,
        path: String,
        line: usize,
        lines: &'a Lines,
        found: &'a RefCell<Vec<Problem>>,
    ) -> Self {
        Self { table, path, line, lines, asked: RefCell::default(), open: Cell::new(false), found }
    }

    /// Whether the file has this table at all.
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the table has this key.
    pub fn has(&self, key: &'static str) -> bool {
        self.ask(key).is_some()
    }

    /// Reports a problem with a key of this table.
    pub fn problem(&self, key: &str, what: impl Into<String>) {
        let line = self.entry(key).map_or(self.line, |(line, _)| line);
        self.found.borrow_mut().push(Problem { line, key: self.key(key), what: what.into() });
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn entry(&self, key: &str) -> Option<(usize, &'a DeValue<'a>)> {
        let (name, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some((self.lines.at(name.span().start), value.get_ref()))
    }

    fn ask(&self, key: &'static str) -> Option<(usize, &'a DeValue<'a>)> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        self.entry(key)
    }

    /// A table inside of this one; an empty one when the file has none.
    pub fn section(&self, key: &'static str) -> Section<'a> {
        let (line, table) = match self.ask(key) {
            None => (self.line, None),
            Some((line, DeValue::Table(table))) => (line, Some(table)),
            Some((line, _)) => {
                self.problem(key, format!("wants a table, written as [{}]", self.key(key)));
                (line, None)
            }
        };
        Section::new(table, self.key(key), line, self.lines, self.found)
    }

    /// The tables of an array of tables, written as `[[key]]`.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some((_, value)) = self.ask(key) else { return Vec::new() };
        let DeValue::Array(array) = value else {
            self.problem(key, format!("wants tables, each written as [[{}]]", self.key(key)));
            return Vec::new();
        };
        let section = |(i, element): (usize, &'a Spanned<DeValue<'a>>)| {
            let line = self.lines.at(element.span().start);
            let path = format!("{}[{i}]", self.key(key));
            let DeValue::Table(table) = element.get_ref() else {
                self.problem(key, format!("wants tables, each written as [[{}]]", self.key(key)));
                return None;
            };
            Some(Section::new(Some(table), path, line, self.lines, self.found))
        };
        array.iter().enumerate().filter_map(section).collect()
    }

    /// Keys of this table that nobody asks for are not reported: what it is about is not known.
    pub fn leave(&self) {
        self.open.set(true);
    }

    /// Reports a key that this build of the program can do nothing with.
    #[cfg(not(feature = "vision"))]
    pub fn refuse(&self, key: &'static str, what: &str) {
        if self.ask(key).is_some() {
            self.problem(key, what);
        }
    }

    /// A value, when the file has one and it is right.
    pub fn get<T: Unit>(&self, key: &'static str) -> Option<T> {
        let (_, value) = self.ask(key)?;
        T::from_toml(value).map_err(|what| self.problem(key, what)).ok()
    }

    /// A value or its default.
    pub fn or<T: Unit>(&self, key: &'static str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// A value that must be there.
    pub fn required<T: Unit>(&self, key: &'static str) -> Option<T> {
        if self.entry(key).is_none() {
            self.asked.borrow_mut().push(key);
            self.problem(key, format!("is missing; it wants {}", T::WANTED));
            return None;
        }
        self.get(key)
    }

    /// A value or its default, within bounds.
    pub fn within<T: Unit + PartialOrd + fmt::Debug>(
        &self,
        key: &'static str,
        default: T,
        bounds: RangeInclusive<T>,
    ) -> T {
        self.get_within(key, bounds).unwrap_or(default)
    }

    /// A value within bounds, when the file has one.
    pub fn get_within<T: Unit + PartialOrd + fmt::Debug>(
        &self,
        key: &'static str,
        bounds: RangeInclusive<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        if !bounds.contains(&value) {
            self.problem(key, format!("is {value:?}, outside of {:?} to {:?}", bounds.start(), bounds.end()));
        }
        Some(value)
    }

    /// The one key that is set of several that exclude each other.
    pub fn one_of(&self, keys: &[&'static str]) -> Option<&'static str> {
        let set: Vec<_> = keys.iter().copied().filter(|key| self.entry(key).is_some()).collect();
        match set[..] {
            [one] => Some(one),
            _ => {
                let many = if set.is_empty() { "none is there" } else { "more than one is there" };
                self.found.borrow_mut().push(Problem {
                    line: self.line,
                    key: self.path.clone(),
                    what: format!("wants exactly one of {}; {many}", keys.join(", ")),
                });
                self.open.set(true);
                None
            }
        }
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.borrow();
        for name in table.keys() {
            if self.open.get() || asked.contains(&name.get_ref().as_ref()) {
                continue;
            }
            let known = asked.join(", ");
            let what = format!("is not known here; known are: {known}");
            let line = self.lines.at(name.span().start);
            self.found.borrow_mut().push(Problem { line, key: self.key(name.get_ref()), what });
        }
    }
}
