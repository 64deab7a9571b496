//! How a line looks: text for people, one JSON object for collectors.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub enum Format {
    /// One line a record.
    #[default]
    Text,
    /// One JSON object a record.
    Json,
}

impl TryFrom<String> for Format {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no format; there are text and json")),
        }
    }
}

/// Writes records as lines, in a format that may change.
#[derive(Clone)]
pub(super) struct Lines {
    json: Arc<AtomicBool>,
    /// Short times and colours.
    terminal: bool,
}

impl Lines {
    pub(super) fn new(format: Format, terminal: bool) -> Self {
        Self {
            json: Arc::new(AtomicBool::new(format == Format::Json)),
            terminal,
        }
    }

    pub(super) fn set_format(&self, format: Format) {
        self.json.store(format == Format::Json, Ordering::Relaxed);
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // What the call around it is, such as its request ID.
        let spans = context.event_scope().into_iter().flatten();
        for span in spans {
            let extensions = span.extensions();
            if let Some(of_span) = extensions.get::<FormattedFields<N>>() {
                fields.put_missing(&of_span.fields);
            }
        }
        let level = *event.metadata().level();
        // Records of the crate `log` have one target for all of them, and their own beside it.
        let own = event.metadata().target();
        let target = fields.target.take().unwrap_or_else(|| own.to_owned());
        if self.json.load(Ordering::Relaxed) {
            json(writer, level, &target, fields)
        } else {
            text(writer, level, &fields, self.terminal)
        }
    }
}

/// Keeps the fields of a span as a JSON object.
pub(super) struct SpanFields;

impl<'writer> FormatFields<'writer> for SpanFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut kept = Fields::default();
        fields.record(&mut kept);
        let kept: Map<String, Value> = kept
            .others
            .into_iter()
            .map(|(name, value)| (name.into_owned(), value))
            .collect();
        write!(writer, "{}", Value::from(kept))
    }
}

/// Time, level and event first, so that lines under each other can be read; the target last.
fn json(mut writer: Writer<'_>, level: Level, target: &str, fields: Fields) -> fmt::Result {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let mut line = String::from("{");
    let mut put = |name: &str, value: &Value| {
        let comma = if line.len() > 1 { "," } else { "" };
        write!(line, "{comma}{}:{value}", Value::from(name))
    };
    put("timestamp", &time.into())?;
    put("level", &level.as_str().into())?;
    if let Some(event) = fields.event {
        put("event", &event.into())?;
    }
    put("message", &fields.message.into())?;
    // A field that calls itself as one of these does would hide it.
    let hidden = ["timestamp", "level", "event", "message", "target"];
    for (name, value) in &fields.others {
        if !hidden.contains(&&**name) {
            put(name, value)?;
        }
    }
    put("target", &target.into())?;
    line.push('}');
    writeln!(writer, "{line}")
}

fn text(mut writer: Writer<'_>, level: Level, fields: &Fields, terminal: bool) -> fmt::Result {
    let (dim, plain) = if terminal { (DIM, RESET) } else { ("", "") };
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    // 2026-01-31T03:04:05.678901Z: on a terminal, where today is known, the time of day to the millisecond.
    let time = match time.get(11..23) {
        Some(short) if terminal => short,
        Some(_) | None => &time,
    };
    let colour = if terminal { colour(level) } else { "" };
    write!(
        writer,
        "{dim}{time}{plain} {colour}{:>5}{plain} ",
        level.as_str()
    )?;
    writer.write_str(&one_line(&fields.message))?;
    for (name, value) in &fields.others {
        write!(writer, " {dim}{name}={plain}")?;
        match value.as_str() {
            Some(text) if needs_quotes(text) => write!(writer, "{text:?}")?,
            Some(text) => writer.write_str(text)?,
            None => write!(writer, "{value}")?,
        }
    }
    if let Some(event) = fields.event.as_ref().filter(|_| !terminal) {
        write!(writer, " event={}", one_line(event))?;
    }
    writeln!(writer)
}

/// Whether a value could be taken for more or less than it is, if it stood there bare.
fn needs_quotes(text: &str) -> bool {
    let parts = |letter: char| letter.is_whitespace() || letter.is_control();
    text.is_empty() || text.contains(['"', '=']) || text.contains(parts)
}

/// Security: a module or a peer must not be able to end a line, or to send a terminal commands.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            line.extend(letter.escape_debug());
        } else {
            line.push(letter);
        }
    }
    line
}

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[1;31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// What a record holds, in the order in which it was written.
#[derive(Default)]
struct Fields {
    event: Option<String>,
    /// The target of a record of the crate `log`.
    target: Option<String>,
    message: String,
    others: Vec<(Cow<'static, str>, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("event", Value::String(event)) => self.event = Some(event),
            ("message", Value::String(message)) => self.message = message,
            ("log.target", Value::String(target)) => self.target = Some(target),
            (name, _) if name.starts_with("log.") => {}
            (name, value) => self.others.push((Cow::Borrowed(name), value)),
        }
    }

    /// Adds what a span says and the record does not.
    fn put_missing(&mut self, span: &str) {
        let Ok(Value::Object(fields)) = serde_json::from_str(span) else {
            return;
        };
        for (name, value) in fields {
            if !self.others.iter().any(|(known, _)| *known == name) {
                self.others.push((Cow::Owned(name), value));
            }
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use tracing::{error, info, subscriber::with_default};
    use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt as _};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// What is written, without the time.
    fn written(lines: Lines, say: impl FnOnce()) -> String {
        let to = Written::default();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(to.clone())
            .fmt_fields(SpanFields)
            .event_format(lines);
        with_default(tracing_subscriber::registry().with(layer), say);
        String::from_utf8(to.0.lock().unwrap().clone()).unwrap()
    }

    fn say() {
        let reason = "CKR_DEVICE_ERROR: \"gone\"\nand \x1b[31mred";
        info!(
            event = "host_serves",
            token = "primary",
            host = 3,
            "a host serves"
        );
        error!(event = "token_unavailable", %reason, is = true, "module: \x1b[2J\nhere");
    }

    #[test]
    fn text_is_one_line_a_record_and_shows_no_control_characters() {
        let said = written(Lines::new(Format::Text, false), say);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(!said.contains('\x1b'), "{said}");
        let (time, rest) = lines[0].split_once(' ').unwrap();
        assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
        assert_eq!(
            rest,
            " INFO a host serves token=primary host=3 event=host_serves"
        );
        assert!(
            lines[1].ends_with(
                r#"ERROR module: \u{1b}[2J\nhere reason="CKR_DEVICE_ERROR: \"gone\"\nand \u{1b}[31mred" is=true event=token_unavailable"#
            ),
            "{said}"
        );
    }

    #[test]
    fn a_terminal_gets_short_times_and_colours() {
        let said = written(Lines::new(Format::Text, true), say);
        let first = said.lines().next().unwrap();
        let rest = first.strip_prefix(DIM).unwrap();
        assert_eq!(rest.find(RESET), Some("03:04:05.678".len()), "{first}");
        assert!(first.contains("\x1b[32m INFO\x1b[0m a host serves \x1b[2mtoken=\x1b[0mprimary"));
        // What a module says has none.
        assert!(!said.contains("\x1b[2J") && !said.contains("\x1b[31mred"));
    }

    #[test]
    fn what_the_call_around_it_is_stands_in_the_record_too() {
        for (format, wanted) in [
            (
                Format::Text,
                " DEBUG denied action=Sign request_id=17 path=/x",
            ),
            (
                Format::Json,
                "\"action\":\"Sign\",\"path\":\"/x\",\"request_id\":\"17\"",
            ),
        ] {
            let said = written(Lines::new(format, false), || {
                let request_id = "17";
                let span = tracing::debug_span!("call", %request_id, path = "/x", action = "other");
                let _inside = span.enter();
                tracing::debug!(action = "Sign", "denied");
            });
            let sorted = said.replace("path=/x request_id=17", "request_id=17 path=/x");
            assert!(sorted.contains(wanted), "{said}");
        }
    }

    #[test]
    fn json_is_one_object_a_record_and_the_format_can_change() {
        let lines = Lines::new(Format::Text, true);
        lines.set_format(Format::Json);
        let said = written(lines, || {
            say();
            info!(level = "none", "said");
        });
        let read: Vec<Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read.len(), 3);
        assert_eq!(read[0]["event"], "host_serves");
        assert_eq!(read[0]["message"], "a host serves");
        assert_eq!(read[0]["host"], 3);
        assert_eq!(read[0]["level"], "INFO");
        assert_eq!(read[1]["is"], true);
        assert_eq!(
            read[1]["reason"],
            "CKR_DEVICE_ERROR: \"gone\"\nand \x1b[31mred"
        );
        assert_eq!(read[2]["level"], "INFO");
        assert!(said.starts_with("{\"timestamp\":\"2"), "{said}");
    }
}
