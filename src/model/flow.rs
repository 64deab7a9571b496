//! Flows: whose calls wait together for a token, as in fair queueing.

/// The calls of one principal, or those that hsmac makes itself. A token serves all flows that have
/// calls waiting in turn, each as often as its weight says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow {
    number: u32,
    weight: u32,
    lane: Lane,
}

/// What of a principal waits: the two take turns within the principal's flow, so that a stream that is
/// always full holds up the principal's other calls no more than one other caller would.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lane {
    /// Calls, each with one question.
    Calls,
    /// The items of its streams, which come as fast as they are answered.
    StreamItems,
}

impl Flow {
    /// What hsmac asks for itself, and what changes a token: creations and deletions of keys, looks at
    /// keys. Also of callers that nobody has given a flow.
    pub const OWN: Self = Self {
        number: 0,
        weight: 1,
        lane: Lane::Calls,
    };

    /// The most that a flow can count: so many calls of it are served for one of a flow that counts 1.
    pub const MOST_WEIGHT: u32 = 100;

    /// Number so many, from 1 on and without gaps, since queues have a place for each; `weight` is
    /// brought into 1 to [`MOST_WEIGHT`](Self::MOST_WEIGHT).
    pub fn new(number: u32, weight: u32) -> Self {
        Self {
            number,
            weight: weight.clamp(1, Self::MOST_WEIGHT),
            lane: Lane::Calls,
        }
    }

    /// The same flow, for the items of a stream.
    #[must_use]
    pub fn of_stream_items(self) -> Self {
        Self {
            lane: Lane::StreamItems,
            ..self
        }
    }

    /// Whether these are calls or the items of streams.
    pub fn lane(self) -> Lane {
        self.lane
    }

    /// Its number, which no other flow of the process has.
    pub fn number(self) -> u32 {
        self.number
    }

    /// How many of its calls are served in one turn.
    pub fn weight(self) -> u32 {
        self.weight
    }
}
