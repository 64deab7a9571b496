//! Flows: whose calls wait together for a token, as in fair queueing.

/// The calls of one principal, or those that hsmac makes itself. A token serves all flows that have
/// calls waiting in turn, each as often as its weight says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow {
    number: u32,
    weight: u32,
}

impl Flow {
    /// What hsmac asks for itself, and what changes a token: creations and deletions of keys, looks at
    /// keys. Also of callers that nobody has given a flow.
    pub const OWN: Self = Self {
        number: 0,
        weight: 1,
    };

    /// The most that a flow can count: so many calls of it are served for one of a flow that counts 1.
    pub const MOST_WEIGHT: u32 = 100;

    /// Number so many, from 1 on and without gaps, since queues have a place for each; `weight` is
    /// brought into 1 to [`MOST_WEIGHT`](Self::MOST_WEIGHT).
    pub fn new(number: u32, weight: u32) -> Self {
        Self {
            number,
            weight: weight.clamp(1, Self::MOST_WEIGHT),
        }
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
