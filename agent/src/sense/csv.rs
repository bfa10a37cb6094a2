//! Rows of a CSV file, over and over. The first line names the values; an empty field is a value that is missing.

use super::{Sensor, SensorError};
use edgeveil_wire::{MAX_VALUES, ValueName, Values};
use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// An open file; it is read line by line, so it may be of any size.
pub struct Csv {
    path: PathBuf,
    reader: BufReader<File>,
    names: Vec<ValueName>,
    line: usize,
    rows_this_round: usize,
}

/// A longer line is no line of numbers.
const MAX_LINE: u64 = 16 << 10;

impl Csv {
    /// Opens the file and reads its first line.
    pub fn open(path: &Path) -> Result<Self, SensorError> {
        let file = File::open(path).map_err(|source| SensorError::Read { path: path.to_owned(), source })?;
        let mut csv = Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            names: Vec::new(),
            line: 0,
            rows_this_round: 0,
        };
        let header =
            csv.next_line()?.ok_or_else(|| csv.content("is empty; its first line names the values"))?;
        for name in header.split(',') {
            let name = name.trim().parse::<ValueName>().map_err(|error| csv.content(error.to_string()))?;
            if csv.names.contains(&name) {
                return Err(csv.content(format!("two columns are called {name}")));
            }
            csv.names.push(name);
        }
        if csv.names.len() > MAX_VALUES {
            return Err(csv.content(format!("has {} columns; {MAX_VALUES} are possible", csv.names.len())));
        }
        Ok(csv)
    }

    fn content(&self, what: impl Into<String>) -> SensorError {
        SensorError::Content { path: self.path.clone(), line: self.line.max(1), what: what.into() }
    }

    fn next_line(&mut self) -> Result<Option<String>, SensorError> {
        use std::io::Read;
        let mut text = String::new();
        let read = (&mut self.reader).take(MAX_LINE).read_line(&mut text);
        match read.map_err(|source| SensorError::Read { path: self.path.clone(), source })? {
            0 => Ok(None),
            _ => {
                self.line += 1;
                Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
            }
        }
    }

    fn rewind(&mut self) -> Result<(), SensorError> {
        if self.rows_this_round == 0 {
            return Err(self.content("has no rows below its first line"));
        }
        let read = |source| SensorError::Read { path: self.path.clone(), source };
        self.reader.seek(SeekFrom::Start(0)).map_err(read)?;
        (self.line, self.rows_this_round) = (0, 0);
        self.next_line().map(|_| ())
    }
}

impl Sensor for Csv {
    fn read(&mut self) -> Result<Values, SensorError> {
        let line = loop {
            match self.next_line()? {
                Some(line) if line.trim().is_empty() => {}
                Some(line) => break line,
                None => self.rewind()?,
            }
        };
        self.rows_this_round += 1;
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        if fields.len() != self.names.len() {
            let (found, wanted) = (fields.len(), self.names.len());
            return Err(self.content(format!("has {found} fields where the first line names {wanted}")));
        }
        let mut values = Values::new();
        for (name, field) in self.names.iter().zip(fields) {
            if field.is_empty() {
                continue;
            }
            match field.parse::<f64>() {
                Ok(value) if value.is_finite() => _ = values.insert(name.clone(), value),
                Ok(value) if value.is_nan() => {}
                _ => return Err(self.content(format!("`{field}` in column {name} is no number"))),
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(text: &str) -> (tempfile::TempDir, Result<Csv, SensorError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        std::fs::write(&path, text).unwrap();
        let csv = Csv::open(&path);
        (dir, csv)
    }

    #[test]
    fn rows_come_over_and_over() {
        let (_dir, csv) = csv("a,b\n1,2\n3,\n");
        let mut csv = csv.unwrap();
        let mut row =
            || csv.read().unwrap().into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ");
        assert_eq!([row(), row(), row()], ["a=1 b=2", "a=3", "a=1 b=2"]);
    }

    #[test]
    fn a_bad_row_is_named_and_the_next_one_comes() {
        let (_dir, csv) = csv("a,b\n1\n1,x\n5,6\n");
        let mut csv = csv.unwrap();
        assert!(csv.read().unwrap_err().to_string().contains(":2: has 1 fields"));
        assert!(csv.read().unwrap_err().to_string().contains(":3: `x` in column b"));
        assert_eq!(csv.read().unwrap().len(), 2);
    }

    #[test]
    fn a_header_must_name_the_values() {
        for bad in ["", "a,a\n", "seq\n", "1 2\n"] {
            assert!(csv(bad).1.is_err(), "{bad:?}");
        }
        assert!(csv("a\n").1.unwrap().read().is_err());
    }
}
