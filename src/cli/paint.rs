//! Colours, where a terminal reads them and nobody has asked for none (NO_COLOR, <https://no-color.org>).

use std::{
    env,
    io::{IsTerminal as _, stdout},
};

/// How a word is painted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Colour {
    Good,
    Warning,
    Wrong,
    /// A heading.
    Strong,
}

/// Paints, or does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// For stdout as it is.
    pub(super) fn for_stdout() -> Self {
        let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(stdout().is_terminal() && !is_unwanted)
    }

    #[cfg(test)]
    pub(super) const fn with(colours: bool) -> Self {
        Self(colours)
    }

    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Good => "32",
            Colour::Warning => "33",
            Colour::Wrong => "1;31",
            Colour::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_there_where_they_are_wanted_and_nowhere_else() {
        assert_eq!(Paint::with(false).paint(Colour::Wrong, "bad"), "bad");
        assert_eq!(
            Paint::with(true).paint(Colour::Wrong, "bad"),
            "\x1b[1;31mbad\x1b[0m"
        );
    }
}
