//! From the input over the stream into the output: as fast as the service takes items, and in order.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};
use tonic::{Code, Status, Streaming, codegen::tokio_stream::Stream};

use super::{
    StreamArguments, broken,
    output::Output,
    pace::Pace,
    progress::Progress,
    records::{Record, Records},
    verbs::{Outcome, StreamVerb},
};
use crate::{
    cli::{CliError, kms::KmsClient},
    proto::v1::ItemError,
};

/// One run.
pub(super) struct Pump<'a, V> {
    client: &'a KmsClient,
    verb: &'a V,
    output: Output,
    progress: Progress,
    /// Lines that are not written yet, in their order.
    window: VecDeque<Slot>,
    /// The ID of the first of them.
    first: u64,
    /// IDs of items to be sent again.
    again: VecDeque<u64>,
    in_flight: usize,
    is_read: bool,
    pace: Pace,
    /// When the service last did what it was asked, or was asked after a pause.
    good: Instant,
    /// Why it last did not.
    trouble: Option<String>,
    tally: Tally,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) written: u64,
    pub(super) failed: u64,
}

struct Slot {
    record: Record,
    state: State,
}

enum State {
    ToSend,
    Sent,
    Done(Outcome),
}

/// How a conversation with the service has ended.
enum End {
    AllDone,
    /// Another one may go better.
    Broken(Status),
}

impl<'a, V: StreamVerb> Pump<'a, V> {
    pub(super) fn new(
        client: &'a KmsClient,
        verb: &'a V,
        asked: &StreamArguments,
        output: Output,
        progress: Progress,
    ) -> Self {
        Self {
            client,
            verb,
            output,
            progress,
            window: VecDeque::new(),
            first: 0,
            again: VecDeque::new(),
            in_flight: 0,
            is_read: false,
            pace: Pace::new(asked.in_flight.into()),
            good: Instant::now(),
            trouble: None,
            tally: Tally::default(),
        }
    }

    /// Goes through all lines.
    ///
    /// # Errors
    /// What would fail for other lines too.
    pub(super) async fn run(&mut self, mut records: Records) -> Result<(), CliError> {
        self.good = Instant::now();
        loop {
            let (items, incoming) = mpsc::unbounded_channel();
            let opened = self
                .verb
                .open(self.client.mac_service(), Incoming(incoming));
            let opened = timeout(self.client.timeout, opened).await;
            let opened = opened.unwrap_or_else(|_| Err(Status::cancelled("it does not answer")));
            let ended = match opened {
                Ok(answers) => {
                    let answers = answers.into_inner();
                    self.converse(items, answers, &mut records).await?
                }
                Err(status) => End::Broken(status),
            };
            match ended {
                End::AllDone => return Ok(()),
                End::Broken(status) => self.pick_up(&status).await?,
            }
        }
    }

    /// Sends what there is and takes the answers, until one side ends.
    async fn converse(
        &mut self,
        items: mpsc::UnboundedSender<V::Item>,
        mut answers: Streaming<V::Answer>,
        records: &mut Records,
    ) -> Result<End, CliError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.send_again(&items);
            if self.is_read && self.window.is_empty() {
                return Ok(End::AllDone);
            }
            let has_room = self.pace.has_room(self.in_flight) && self.window.len() < WINDOW;
            let reads = !self.is_read && self.again.is_empty() && has_room;
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => self.take(answer)?,
                    Ok(None) => return Ok(End::Broken(Status::unavailable("the stream has ended"))),
                    Err(status) => return Ok(End::Broken(status)),
                },
                record = records.next(), if reads => match record {
                    Some(record) => self.accept(record.map_err(broken)?, &items),
                    None => self.is_read = true,
                },
                () = sleep_until(self.pace.until().into()), if self.pace.is_paused() => {}
                _ = tick.tick() => {
                    self.output.flush().map_err(unwritten)?;
                    self.give_up_in_time()?;
                }
            }
            self.write()?;
        }
    }

    /// A new line.
    fn accept(&mut self, record: Record, items: &mpsc::UnboundedSender<V::Item>) {
        let state = match &record.asked {
            Ok(_) => State::ToSend,
            Err(text) => State::Done(Outcome::Failed(None, text.clone())),
        };
        self.window.push_back(Slot { record, state });
        self.send(self.first + self.window.len() as u64 - 1, items);
    }

    fn send(&mut self, id: u64, items: &mpsc::UnboundedSender<V::Item>) {
        let Some(slot) = slot(&mut self.window, self.first, id) else {
            return;
        };
        let (State::ToSend, Ok(asked)) = (&slot.state, &slot.record.asked) else {
            return;
        };
        let item = self.verb.item(id, asked);
        slot.state = State::Sent;
        if self.in_flight == 0 && self.trouble.is_none() {
            // It has had nothing to do until now.
            self.good = Instant::now();
        }
        self.in_flight += 1;
        // A stream that has ended says so itself.
        let _ = items.send(item);
    }

    fn send_again(&mut self, items: &mpsc::UnboundedSender<V::Item>) {
        while self.pace.has_room(self.in_flight)
            && let Some(id) = self.again.pop_front()
        {
            self.send(id, items);
        }
    }

    /// An answer.
    fn take(&mut self, answer: V::Answer) -> Result<(), CliError> {
        let damaged = || self.client.intact(false);
        let Some((id, answer)) = V::answer(answer) else {
            return damaged();
        };
        let Some(slot) = slot(&mut self.window, self.first, id) else {
            return damaged();
        };
        if !matches!(slot.state, State::Sent) {
            return damaged();
        }
        self.in_flight -= 1;
        let outcome = match answer {
            Ok(outcome) => outcome,
            Err(error) if is_of_line(&error) => {
                Outcome::Failed(Some(error.exception), error.message)
            }
            Err(error) if is_passing(&error) => {
                slot.state = State::ToSend;
                self.again.push_back(id);
                self.pace.slow_down(pause_of(&error));
                self.trouble = Some(worded::<V>(&error));
                return self.give_up_in_time();
            }
            Err(error) => {
                let (line, said) = (slot.record.line, worded::<V>(&error));
                let text = format!("line {line}: {said}\nrequest ID: {}", error.request_id);
                return Err(CliError::Client(254, text));
            }
        };
        slot.state = State::Done(outcome);
        (self.good, self.trouble) = (Instant::now(), None);
        self.pace.speed_up();
        Ok(())
    }

    /// Writes the lines whose turn it is.
    fn write(&mut self) -> Result<(), CliError> {
        while let Some(Slot {
            record,
            state: State::Done(outcome),
        }) = self.window.front()
        {
            if let Outcome::Failed(exception, text) = outcome {
                self.tally.failed += 1;
                let exception = exception.as_deref();
                self.progress.failed(record.line, exception, text);
            }
            self.output.write(record, outcome).map_err(unwritten)?;
            self.tally.written += 1;
            self.progress.written(self.tally.written, record.end);
            self.window.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    /// Prepares another conversation, if there is a point in one.
    async fn pick_up(&mut self, status: &Status) -> Result<(), CliError> {
        let error = self.client.error(V::NAME, status);
        let is_passing = matches!(
            status.code(),
            Code::Unavailable
                | Code::Cancelled
                | Code::Unknown
                | Code::ResourceExhausted
                // Lines that come hours apart: a stream in which nothing moves ends.
                | Code::DeadlineExceeded
        );
        if !is_passing {
            return Err(error);
        }
        self.trouble = Some(error.to_string());
        self.again.clear();
        for (id, slot) in (self.first..).zip(&mut self.window) {
            if !matches!(slot.state, State::Done(_)) {
                slot.state = State::ToSend;
                self.again.push_back(id);
            }
        }
        self.in_flight = 0;
        if self.again.is_empty() {
            // Nothing was asked for, so that nothing went badly.
            (self.good, self.trouble) = (Instant::now(), None);
        }
        self.pace.slow_down(REOPEN);
        self.give_up_in_time()?;
        sleep_until(self.pace.until().into()).await;
        Ok(())
    }

    /// # Errors
    /// For so long nothing has gone well.
    fn give_up_in_time(&self) -> Result<(), CliError> {
        let asks = self.in_flight > 0 || !self.again.is_empty() || self.trouble.is_some();
        let latest = self.good + self.client.timeout;
        if !asks || (Instant::now() < latest && self.pace.until() < latest) {
            return Ok(());
        }
        let endpoint = self.client.server.endpoint();
        let late = || format!("Read timeout on endpoint URL: \"{endpoint}\"");
        let text = self.trouble.clone().unwrap_or_else(late);
        Err(CliError::Client(255, text))
    }

    /// Ends the output; gives what was done.
    pub(super) fn finish(&mut self) -> Result<Tally, CliError> {
        self.progress.end();
        self.output.flush().map_err(unwritten)?;
        Ok(self.tally)
    }
}

fn slot(window: &mut VecDeque<Slot>, first: u64, id: u64) -> Option<&mut Slot> {
    let at = usize::try_from(id.checked_sub(first)?).ok()?;
    window.get_mut(at)
}

/// Whether it is this line alone that the service does not like.
fn is_of_line(error: &ItemError) -> bool {
    let mut violations = error.field_violations.iter();
    error.reason == "KMS_INVALID_MAC"
        || error.reason == "VALIDATION"
            && violations.all(|it| matches!(it.field.as_str(), "message" | "mac"))
}

/// Whether the same item may go well a little later.
fn is_passing(error: &ItemError) -> bool {
    let reasons = [
        "THROTTLING",
        "KEY_UNAVAILABLE",
        "DEPENDENCY_TIMEOUT",
        "KMS_INTERNAL",
    ];
    reasons.contains(&error.reason.as_str())
}

fn pause_of(error: &ItemError) -> Duration {
    Duration::from_millis(error.retry_delay_ms.unwrap_or_default())
}

/// In the words of `aws`.
fn worded<V: StreamVerb>(error: &ItemError) -> String {
    let ItemError {
        exception, message, ..
    } = error;
    let operation = V::NAME;
    format!("An error occurred ({exception}) when calling the {operation} operation: {message}")
}

fn unwritten(error: io::Error) -> CliError {
    broken(format!("the output cannot be written: {error}"))
}

/// Lines that wait for those before them, and for their answers.
const WINDOW: usize = 1024;
/// Before a stream is opened again.
const REOPEN: Duration = Duration::from_millis(100);
/// What is written is seen after so long.
const TICK: Duration = Duration::from_millis(100);

/// What comes over a channel, as the stream of a client.
struct Incoming<T>(mpsc::UnboundedReceiver<T>);

impl<T> Stream for Incoming<T> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}
