//! The lines of the input, one at a time.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use csv::ByteRecord;
use serde::Deserialize;
use serde_json::error::Category;
use tokio::sync::mpsc;

use super::{
    Format, LONGEST_LINE, StreamArguments,
    verbs::{Asked, StreamVerb},
};

/// One line.
#[derive(Debug)]
pub(super) struct Record {
    /// Counted from 1.
    pub(super) line: u64,
    /// Where in the input it ends, in bytes.
    pub(super) end: u64,
    /// What it asks, or what is wrong with it.
    pub(super) asked: Result<Asked, String>,
    pub(super) source: Source,
}

/// What of a line is in the output again.
#[derive(Debug)]
pub(super) enum Source {
    Line,
    Json(Vec<u8>),
    Csv(ByteRecord),
}

/// Reads the input, as far as it is asked to.
pub(super) struct RecordReader {
    input: Input,
    has_mac: bool,
}

enum Input {
    Lines(LineReader),
    Ndjson(LineReader),
    Csv(Box<Table>),
}

struct LineReader {
    reader: BufReader<Box<dyn Read + Send>>,
    line: u64,
    end: u64,
}

struct Table {
    reader: csv::Reader<Limited>,
    /// How many bytes may come before the record that is read is whole.
    left: Arc<AtomicU64>,
    header: ByteRecord,
    message: usize,
    mac: Option<usize>,
}

/// A member of a line of NDJSON, that hsmac reads.
#[derive(Deserialize)]
struct Line {
    message: String,
    mac: Option<String>,
}

impl RecordReader {
    /// Opens the input; gives its length, if it is known.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn open<V: StreamVerb>(
        _: &V,
        asked: &StreamArguments,
    ) -> Result<(Self, Option<u64>), String> {
        let path = &asked.input;
        let (reader, length): (Box<dyn Read + Send>, _) = if path == "-" {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
            let facts = file.metadata();
            let length = facts.ok().filter(|it| it.is_file()).map(|it| it.len());
            (Box::new(file), length)
        };
        let lines = |reader| LineReader {
            reader: BufReader::with_capacity(64 << 10, reader),
            line: 0,
            end: 0,
        };
        let input = match asked.format {
            Format::Lines => Input::Lines(lines(reader)),
            Format::Ndjson => Input::Ndjson(lines(reader)),
            Format::Csv => Input::Csv(Box::new(Table::open(reader, asked, V::HAS_MAC)?)),
        };
        let has_mac = V::HAS_MAC;
        Ok((Self { input, has_mac }, length))
    }

    /// The names of a table's columns.
    pub(super) fn header(&self) -> Option<&ByteRecord> {
        match &self.input {
            Input::Csv(table) => Some(&table.header),
            Input::Lines(_) | Input::Ndjson(_) => None,
        }
    }

    /// The next line; none: there is no other.
    fn next(&mut self) -> Result<Option<Record>, String> {
        let has_mac = self.has_mac;
        let (lines, is_json) = match &mut self.input {
            Input::Csv(table) => return table.next(has_mac),
            Input::Lines(lines) => (lines, false),
            Input::Ndjson(lines) => (lines, true),
        };
        let Some(bytes) = lines.next()? else {
            return Ok(None);
        };
        Ok(Some(Record {
            line: lines.line,
            end: lines.end,
            asked: match is_json {
                true => json(&bytes, has_mac),
                false => plain(&bytes, has_mac),
            },
            source: match is_json {
                true => Source::Json(bytes),
                false => Source::Line,
            },
        }))
    }
}

impl LineReader {
    /// The next line without its end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut bytes = Vec::new();
        let mut limited = (&mut self.reader).take(LONGEST_LINE + 1);
        let read = limited.read_until(b'\n', &mut bytes);
        let read = read.map_err(|error| format!("the input cannot be read: {error}"))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.end += read as u64;
        if read as u64 > LONGEST_LINE {
            return Err(format!("line {} is longer than 1 MiB", self.line));
        }
        if bytes.pop_if(|last| *last == b'\n').is_some() {
            bytes.pop_if(|last| *last == b'\r');
        }
        Ok(Some(bytes))
    }
}

/// A message, or a MAC and a message.
fn plain(line: &[u8], has_mac: bool) -> Result<Asked, String> {
    if !has_mac {
        return Ok(Asked {
            message: Bytes::copy_from_slice(line),
            mac: Bytes::new(),
        });
    }
    let space = line.iter().position(|byte| *byte == b' ');
    let space = space.ok_or("it is no MAC in base64, a space, and the message")?;
    Ok(Asked {
        mac: decoded("the MAC", &line[..space])?,
        message: Bytes::copy_from_slice(&line[space + 1..]),
    })
}

fn json(line: &[u8], has_mac: bool) -> Result<Asked, String> {
    let read: Line = serde_json::from_slice(line).map_err(|error| match error.classify() {
        // Security: the text of a data error may quote the line.
        Category::Data => "it has no \"message\" in base64, or no \"mac\" that is one".to_owned(),
        Category::Io | Category::Syntax | Category::Eof => "it is no JSON object".to_owned(),
    })?;
    let message = decoded("\"message\"", read.message.as_bytes())?;
    let mac = match (has_mac, read.mac) {
        (false, _) => Bytes::new(),
        (true, None) => return Err("it has no \"mac\"".to_owned()),
        (true, Some(mac)) => decoded("\"mac\"", mac.as_bytes())?,
    };
    Ok(Asked { message, mac })
}

fn decoded(what: &str, text: &[u8]) -> Result<Bytes, String> {
    let decoded = STANDARD.decode(text);
    decoded
        .map(Bytes::from)
        .map_err(|_| format!("{what} is no base64"))
}

impl Table {
    fn open(
        reader: Box<dyn Read + Send>,
        asked: &StreamArguments,
        has_mac: bool,
    ) -> Result<Self, String> {
        let left = Arc::new(AtomicU64::new(LONGEST_LINE));
        let mut reader = csv::ReaderBuilder::new().from_reader(Limited {
            reader,
            left: left.clone(),
        });
        let header = reader.byte_headers().cloned();
        let header = header.map_err(|error| format!("the first line: {error}"))?;
        let find = |name: &str| {
            let mut columns = header.iter();
            columns.position(|column| column == name.as_bytes())
        };
        let found = |name: &str| find(name).ok_or_else(|| format!("there is no column {name:?}"));
        let message = found(asked.column.as_deref().unwrap_or_default())?;
        let mac = match &asked.mac_column {
            Some(name) if has_mac => Some(found(name)?),
            Some(_) | None => None,
        };
        Ok(Self {
            reader,
            left,
            header,
            message,
            mac,
        })
    }

    fn next(&mut self, has_mac: bool) -> Result<Option<Record>, String> {
        self.left.store(LONGEST_LINE, Ordering::Relaxed);
        let mut row = ByteRecord::new();
        let before = self.reader.position().line();
        match self.reader.read_byte_record(&mut row) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => return Err(format!("line {before} and after: {error}")),
        }
        let field = |at: usize| row.get(at).unwrap_or_default();
        let mac = match self.mac {
            Some(at) if has_mac => decoded("the MAC", field(at)),
            Some(_) | None => Ok(Bytes::new()),
        };
        let message = Bytes::copy_from_slice(field(self.message));
        Ok(Some(Record {
            line: row.position().map_or(before, csv::Position::line),
            end: self.reader.position().byte(),
            asked: mac.map(|mac| Asked { message, mac }),
            source: Source::Csv(row),
        }))
    }
}

/// A reader that ends with an error when a record is too long.
struct Limited {
    reader: Box<dyn Read + Send>,
    left: Arc<AtomicU64>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        let fits = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if fits == 0 {
            return Err(io::Error::other("a record is longer than 1 MiB"));
        }
        let read = self.reader.read(&mut buffer[..fits])?;
        self.left.store(left - read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Lines that are read on a thread of its own: stdin waits for whoever writes there.
pub(super) struct Records(mpsc::Receiver<Result<Record, String>>);

impl Records {
    /// Begins to read, and leaves so many lines out.
    pub(super) fn begin(mut reader: RecordReader, left_out: u64) -> Self {
        let (sender, records) = mpsc::channel(AHEAD);
        thread::spawn(move || {
            for done in 0..left_out {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        let say = format!(
                            "the output has {left_out} lines, and the input {done}: it is another one's"
                        );
                        drop(sender.blocking_send(Err(say)));
                        return;
                    }
                    Err(error) => return drop(sender.blocking_send(Err(error))),
                }
            }
            // What cannot be read ends it. Nobody asks any more when sending fails.
            while let Some(record) = reader.next().transpose() {
                let is_last = record.is_err();
                if sender.blocking_send(record).is_err() || is_last {
                    return;
                }
            }
        });
        Self(records)
    }

    /// The next line; none: there is no other.
    pub(super) async fn next(&mut self) -> Option<Result<Record, String>> {
        self.0.recv().await
    }
}

/// So many lines are read ahead.
const AHEAD: usize = 64;
