//! What is written, and what an earlier run has written.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom, Write},
};

use csv::ByteRecord;
use serde_json::{Map, Value};

use super::{
    Format, StreamArguments,
    records::{Record, Source},
    verbs::Outcome,
};

/// The file of the answers.
pub(super) struct Output {
    writer: BufWriter<Box<dyn Write>>,
    /// The member that is added to JSON.
    added: &'static str,
    /// The column that the answers go to.
    column: usize,
}

/// What is there from an earlier run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Written {
    pub(super) records: u64,
}

impl Output {
    /// Opens the output, and writes the names of a table's columns, unless they are there.
    ///
    /// # Errors
    /// A sentence: it cannot be written, or is there already.
    pub(super) fn open(
        path: &str,
        asked: &StreamArguments,
        header: Option<&ByteRecord>,
        added: &'static str,
    ) -> Result<(Self, Written), String> {
        let is_csv = asked.format == Format::Csv;
        let mut written = Written::default();
        let (writer, mut has_header): (Box<dyn Write>, _) = if path == "-" {
            (Box::new(io::stdout()), false)
        } else {
            let failed = |error: io::Error| format!("{path}: {error}");
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            let mut file = options.open(path).map_err(failed)?;
            let facts = file.metadata().map_err(failed)?;
            // Of a pipe or a device nothing can be read back.
            let mut lines = 0;
            if facts.is_file() {
                if facts.len() > 0 && !asked.resume {
                    return Err(format!(
                        "{path} is there already: --resume goes on with it, or remove it"
                    ));
                }
                let (whole, end) = whole(&file, is_csv).map_err(failed)?;
                // A last line that is not whole is made again.
                file.set_len(end).map_err(failed)?;
                file.seek(SeekFrom::End(0)).map_err(failed)?;
                lines = whole;
            }
            let has_header = is_csv && lines > 0;
            written.records = lines - u64::from(has_header);
            (Box::new(file), has_header)
        };
        let mut output = Self {
            writer: BufWriter::with_capacity(64 << 10, writer),
            added,
            column: 0,
        };
        if let Some(header) = header {
            let name = match &asked.mac_column {
                Some(name) if added == "mac" => name,
                // verify-macs reads both columns, and writes none of them.
                Some(_) => added,
                None => asked.column.as_deref().unwrap_or_default(),
            };
            let mut columns = header.iter();
            let found = columns.position(|column| column == name.as_bytes());
            output.column = found.unwrap_or(header.len());
            if !std::mem::replace(&mut has_header, true) {
                let names = output.with(header, name.as_bytes());
                let wrote = output.row(&names);
                wrote.map_err(|error| format!("{path}: {error}"))?;
            }
        }
        Ok((output, written))
    }

    /// Writes what became of a line.
    pub(super) fn write(&mut self, record: &Record, outcome: &Outcome) -> io::Result<()> {
        let is_failed = matches!(outcome, Outcome::Failed(..));
        match &record.source {
            // A line of its own for each, so that they stay side by side.
            Source::Line if is_failed && self.added == "mac" => self.writer.write_all(b"\n"),
            Source::Line => writeln!(self.writer, "{}", outcome.text()),
            Source::Json(line) => self.json(line, outcome),
            Source::Csv(row) => {
                let text = match outcome {
                    Outcome::Mac(_) => outcome.text(),
                    Outcome::Valid => "true".to_owned(),
                    // Neither the message nor a word that could be taken for a MAC.
                    Outcome::Failed(..) if self.added == "mac" => String::new(),
                    Outcome::Failed(..) => "false".to_owned(),
                };
                let row = self.with(row, text.as_bytes());
                self.row(&row)
            }
        }
    }

    /// Adds a member to the object of a line, which may be none.
    fn json(&mut self, line: &[u8], outcome: &Outcome) -> io::Result<()> {
        let (name, value) = match outcome {
            Outcome::Mac(_) => (self.added, Value::from(outcome.text())),
            Outcome::Valid => (self.added, true.into()),
            Outcome::Failed(exception, text) => {
                let mut error = Map::new();
                if let Some(exception) = exception {
                    error.insert("exception".to_owned(), exception.clone().into());
                }
                error.insert("message".to_owned(), text.clone().into());
                ("error", error.into())
            }
        };
        let line = line.trim_ascii();
        // Members stay as they are and where they are, unless one has to go.
        let is_plain = match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(mut members)) => {
                let stale = [self.added, "error"];
                if stale.iter().any(|name| members.contains_key(*name)) || members.is_empty() {
                    members.retain(|name, _| !stale.contains(&name.as_str()));
                    members.insert(name.to_owned(), value.clone());
                    return writeln!(self.writer, "{}", Value::from(members));
                }
                true
            }
            Ok(_) | Err(_) => false,
        };
        match line.strip_suffix(b"}").filter(|_| is_plain) {
            Some(members) => {
                self.writer.write_all(members.trim_ascii_end())?;
                writeln!(self.writer, ",\"{name}\":{value}}}")
            }
            None => writeln!(self.writer, "{{\"{name}\":{value}}}"),
        }
    }

    /// A row with this text in the answers' column.
    fn with(&self, row: &ByteRecord, text: &[u8]) -> ByteRecord {
        let mut fields: Vec<&[u8]> = row.iter().collect();
        match fields.get_mut(self.column) {
            Some(field) => *field = text,
            None => fields.push(text),
        }
        ByteRecord::from(fields)
    }

    fn row(&mut self, row: &ByteRecord) -> io::Result<()> {
        let mut writer = csv::WriterBuilder::new().from_writer(&mut self.writer);
        writer.write_byte_record(row)?;
        writer.flush()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// How many lines of a file are whole, and where the last of them ends. In a table, a line within quotes is
/// none.
fn whole(file: &File, is_csv: bool) -> io::Result<(u64, u64)> {
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let (mut at, mut lines, mut end, mut is_quoted) = (0, 0, 0, false);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok((lines, end));
        }
        for byte in bytes {
            at += 1;
            match byte {
                b'"' if is_csv => is_quoted = !is_quoted,
                b'\n' if !is_quoted => (lines, end) = (lines + 1, at),
                _ => {}
            }
        }
        let read = bytes.len();
        reader.consume(read);
    }
}
