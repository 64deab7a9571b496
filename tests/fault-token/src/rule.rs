//! The control file's language.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use cryptoki_sys::{CK_RV, CK_SLOT_ID};

use crate::{codes, functions::Function, when::When};

/// What a control file says.
#[derive(Default)]
pub(crate) struct Rules {
    /// Set if a line could not be read: every call fails until it is mended.
    pub(crate) bad: Option<String>,
    /// What happens to single calls, in the file's order.
    pub(crate) faults: Vec<Arc<Fault>>,
    /// What happens once, in the file's order.
    pub(crate) events: Vec<Event>,
    pub(crate) hidden_keys: BTreeSet<String>,
    /// `None` in it hides every token.
    pub(crate) hidden_tokens: BTreeSet<Option<String>>,
    pub(crate) pin_lock: Option<u64>,
    pub(crate) renumber_at_initialize: bool,
    pub(crate) renumber_on_session_loss: bool,
    pub(crate) session_limit: Option<usize>,
    pub(crate) slot_offset: Option<CK_SLOT_ID>,
    pub(crate) slot_offset_at_initialize: Option<CK_SLOT_ID>,
}

/// A rule about single calls, with its counters.
pub(crate) struct Fault {
    line: String,
    /// `None` is every function.
    function: Option<Function>,
    pub(crate) what: What,
    pub(crate) when: When,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    Crash,
    Delay(Duration),
    Hang,
    Mac(WrongMac),
    Return(CK_RV),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WrongMac {
    FlippedBit,
    Truncated,
    WrongLength,
}

/// What happens once, and the word that says which time it is.
#[derive(Clone, Eq, Hash, PartialEq)]
pub(crate) struct Event {
    pub(crate) what: Happening,
    word: String,
}

#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub(crate) enum Happening {
    LoginLost,
    Renumbered,
    SessionsLost,
}

impl Fault {
    pub(crate) fn is_about(&self, function: Function) -> bool {
        self.function.is_none_or(|mine| mine == function)
    }
}

impl Rules {
    /// Reads a control file. Rules that stood in the one before keep their counters.
    pub(crate) fn parse(text: &str, control: &Path, before: &Self) -> Self {
        let mut rules = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(why) = rules.add(line, control, before) {
                let place = format!("{}:{}", control.display(), number + 1);
                return Self::bad(format!("{place}: {line:?}: {why}"));
            }
        }
        rules
    }

    /// No rules but the one that every call fails.
    pub(crate) fn bad(why: String) -> Self {
        Self {
            bad: Some(why),
            ..Self::default()
        }
    }

    /// Whether this very rule is still in force.
    pub(crate) fn have(&self, fault: &Arc<Fault>) -> bool {
        self.faults.iter().any(|mine| Arc::ptr_eq(mine, fault))
    }

    /// Whether the token with this label is hidden.
    pub(crate) fn hide_token(&self, label: impl FnOnce() -> Option<String>) -> bool {
        !self.hidden_tokens.is_empty()
            && (self.hidden_tokens.contains(&None) || self.hidden_tokens.contains(&label()))
    }

    fn add(&mut self, line: &str, control: &Path, before: &Self) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words {
            ["delay", function, time, ref when @ ..] => {
                let what = What::Delay(duration(time)?);
                self.fault(function, what, when, line, control, before)
            }
            ["return", function, code, ref when @ ..] => {
                let code = codes::code(code).ok_or_else(|| format!("{code}: no such CKR"))?;
                self.fault(function, What::Return(code), when, line, control, before)
            }
            ["hang", function, ref when @ ..] => {
                self.fault(function, What::Hang, when, line, control, before)
            }
            ["crash", function, ref when @ ..] => {
                self.fault(function, What::Crash, when, line, control, before)
            }
            ["mac", which, ref when @ ..] => {
                let which = match which {
                    "flipped-bit" => WrongMac::FlippedBit,
                    "truncated" => WrongMac::Truncated,
                    "wrong-length" => WrongMac::WrongLength,
                    _ => {
                        return Err(format!(
                            "{which}: not wrong-length, truncated or flipped-bit"
                        ));
                    }
                };
                self.fault("C_Sign", What::Mac(which), when, line, control, before)
            }
            ["sessions", "lost", word] => self.event(Happening::SessionsLost, word),
            ["login", "lost", word] => self.event(Happening::LoginLost, word),
            ["renumber", "handles", word] => self.event(Happening::Renumbered, word),
            ["renumber", "at-initialize"] => {
                self.renumber_at_initialize = true;
                Ok(())
            }
            ["renumber", "on-session-loss"] => {
                self.renumber_on_session_loss = true;
                Ok(())
            }
            ["slot", "offset", offset] => {
                self.slot_offset = Some(number(offset)?);
                Ok(())
            }
            ["slot", "offset", offset, "at-initialize"] => {
                self.slot_offset_at_initialize = Some(number(offset)?);
                Ok(())
            }
            ["session", "limit", limit] => {
                self.session_limit = Some(number(limit)?);
                Ok(())
            }
            ["pin", "lock", tries] => {
                self.pin_lock = Some(number(tries)?);
                Ok(())
            }
            ["hide", "token"] => {
                self.hidden_tokens.insert(None);
                Ok(())
            }
            ["hide", "token", ..] => {
                self.hidden_tokens.insert(Some(rest(line, 2)));
                Ok(())
            }
            ["hide", "key", _, ..] => {
                self.hidden_keys.insert(rest(line, 2));
                Ok(())
            }
            _ => Err("no such rule, or a word too few or too many".into()),
        }
    }

    fn fault(
        &mut self,
        function: &str,
        what: What,
        when: &[&str],
        line: &str,
        control: &Path,
        before: &Self,
    ) -> Result<(), String> {
        let kept = before.faults.iter().find(|fault| fault.line == line);
        if let Some(kept) = kept
            && !self.have(kept)
        {
            self.faults.push(kept.clone());
            return Ok(());
        }
        let named = match function {
            "*" => None,
            _ => Some(
                Function::named(function).ok_or_else(|| format!("{function}: no such function"))?,
            ),
        };
        let when = When::parse(when, line, control)?;
        if when.is_one() && what != What::Hang {
            return Err("one: only a hang can be of one thread at a time".into());
        }
        if when.is_about_messages() && named.is_some_and(|function| !function.takes_a_message()) {
            return Err(format!("{function} has no message"));
        }
        self.faults.push(Arc::new(Fault {
            line: line.to_owned(),
            function: named,
            what,
            when,
        }));
        Ok(())
    }

    fn event(&mut self, what: Happening, word: &str) -> Result<(), String> {
        let word = word.to_owned();
        self.events.push(Event { what, word });
        Ok(())
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text}: not a whole number"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (count, unit) = text.split_at(digits.unwrap_or(text.len()));
    let count: u64 = number(count)?;
    match unit {
        "us" => Ok(Duration::from_micros(count)),
        "ms" => Ok(Duration::from_millis(count)),
        "s" => Ok(Duration::from_secs(count)),
        _ => Err(format!("{text}: not a time such as 250us, 10ms or 2s")),
    }
}

/// The line without its first words: labels have blanks in them.
fn rest(line: &str, words: usize) -> String {
    let mut rest = line;
    for _ in 0..words {
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        rest = rest[word..].trim_start();
    }
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Rules {
        Rules::parse(text, Path::new("/run/control"), &Rules::default())
    }

    #[test]
    fn nothing_is_no_rule() {
        for text in ["", "\n", "# a remark\n\n   \n"] {
            let rules = parse(text);
            assert_eq!(rules.bad, None, "{text:?}");
            assert!(
                rules.faults.is_empty() && rules.events.is_empty(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn every_rule_is_read() {
        let rules = parse(
            "delay * 10ms\n\
             delay C_Sign 250us every 3\n\
             return C_Sign CKR_DEVICE_ERROR always\n\
             return C_Sign 0x80000001 once\n\
             return C_Login CKR_GENERAL_ERROR once again\n\
             return C_Sign CKR_DEVICE_ERROR probability 0.01\n\
             hang C_Sign\n\
             hang C_Sign one\n\
             crash C_Sign once when-message-contains 00ff\n\
             mac truncated every 100\n\
             sessions lost 1\n\
             login lost 1\n\
             renumber handles 1\n\
             renumber at-initialize\n\
             renumber on-session-loss\n\
             slot offset 100\n\
             slot offset 7 at-initialize\n\
             session limit 4\n\
             pin lock 3\n\
             hide token\n\
             hide token two  words\n\
             hide key a key\n",
        );
        assert_eq!(rules.bad, None);
        let what: Vec<What> = rules.faults.iter().map(|fault| fault.what).collect();
        assert_eq!(
            what,
            [
                What::Delay(Duration::from_millis(10)),
                What::Delay(Duration::from_micros(250)),
                What::Return(cryptoki_sys::CKR_DEVICE_ERROR),
                What::Return(0x8000_0001),
                What::Return(cryptoki_sys::CKR_GENERAL_ERROR),
                What::Return(cryptoki_sys::CKR_DEVICE_ERROR),
                What::Hang,
                What::Hang,
                What::Crash,
                What::Mac(WrongMac::Truncated),
            ]
        );
        assert_eq!(rules.events.len(), 3);
        assert!(rules.renumber_at_initialize && rules.renumber_on_session_loss);
        assert_eq!(rules.slot_offset, Some(100));
        assert_eq!(rules.slot_offset_at_initialize, Some(7));
        assert_eq!(rules.session_limit, Some(4));
        assert_eq!(rules.pin_lock, Some(3));
        assert!(rules.hidden_tokens.contains(&Some("two  words".to_owned())));
        assert!(rules.hidden_keys.contains("a key"));
    }

    #[test]
    fn a_bad_rule_says_where_and_why() {
        for (text, why) in [
            ("delay C_Sign 10ms\nretrun C_Sign CKR_OK", "no such rule"),
            ("\nreturn C_Sing CKR_OK", "C_Sing: no such function"),
            ("\nreturn C_Sign CKR_BAD", "CKR_BAD: no such CKR"),
            ("\ndelay C_Sign 10", "10: not a time"),
            ("\ndelay C_Sign fast", "not a whole number"),
            ("\nreturn C_Sign CKR_OK every 0", "every 0"),
            ("\nreturn C_Sign CKR_OK probability 2", "probability 2"),
            ("\nreturn C_Sign CKR_OK one", "one: only a hang"),
            ("\nreturn C_Sign CKR_OK sometimes", "sometimes"),
            ("\ncrash C_Login when-message-contains 00", "no message"),
            ("\ncrash C_Sign when-message-contains 0", "hex digits"),
            ("\nmac wrong", "wrong: not"),
            ("\nsessions lost", "no such rule"),
            ("\nsession limit many", "many: not a whole number"),
            ("\nhide key", "no such rule"),
        ] {
            let bad = parse(text).bad.unwrap();
            assert!(bad.starts_with("/run/control:2: "), "{bad}");
            assert!(bad.contains(why), "{bad}");
        }
    }

    #[test]
    fn a_rule_that_stays_keeps_its_counter() {
        let first = parse("return C_Sign CKR_DEVICE_ERROR every 2");
        assert!(!first.faults[0].when.acts(b""));
        let text = "delay * 1ms\nreturn C_Sign CKR_DEVICE_ERROR every 2";
        let second = Rules::parse(text, Path::new("/run/control"), &first);
        assert!(second.have(&first.faults[0]));
        assert!(second.faults[1].when.acts(b""));
    }
}
