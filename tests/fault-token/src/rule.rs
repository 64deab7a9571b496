//! The control file's language.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

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
    /// By label.
    pub(crate) hidden_keys: BTreeMap<String, Line>,
    /// By label; `None` hides every token.
    pub(crate) hidden_tokens: BTreeMap<Option<String>, Line>,
    /// The functions whose calls are written into the journal.
    journal: Vec<Function>,
    pub(crate) objects_at_initialize: Option<Line>,
    pub(crate) pin_lock: Option<PinLock>,
    pub(crate) renumber_at_initialize: Option<Line>,
    pub(crate) renumber_on_session_loss: Option<Line>,
    pub(crate) session_limit: Option<SessionLimit>,
    pub(crate) slot_offset: Option<(CK_SLOT_ID, Line)>,
    pub(crate) slot_offset_at_initialize: Option<(CK_SLOT_ID, Line)>,
    /// Whether a rule asks for the key of a call.
    pub(crate) name_keys: bool,
    /// Whether a rule asks for the number of its session.
    pub(crate) number_sessions: bool,
}

/// The rule as it stands in the file: what it is counted by when it acts.
pub(crate) type Line = String;

/// A rule about single calls, with its counters.
pub(crate) struct Fault {
    pub(crate) line: Line,
    /// `None` is every function.
    functions: Option<Vec<Function>>,
    pub(crate) what: What,
    /// Whether the real module does the call first.
    pub(crate) is_after: bool,
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

/// After how many wrong PINs the token locks, and whether its info tells.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct PinLock {
    pub(crate) tries: u64,
    pub(crate) has_flags: bool,
    pub(crate) line: Line,
}

/// How many sessions there may be.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct SessionLimit {
    pub(crate) most: u64,
    pub(crate) scope: Scope,
    /// Token info says it.
    pub(crate) is_reported: bool,
    pub(crate) line: Line,
}

/// Whose sessions count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scope {
    /// Those of all processes, and those that ended without C_Finalize as well.
    Leaking,
    /// Those of all processes that run.
    Shared,
    /// Those of the process that asks.
    Process,
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

impl Event {
    /// The rule as it stands in the file, but for blanks.
    pub(crate) fn line(&self) -> Line {
        let words = match self.what {
            Happening::LoginLost => "login lost",
            Happening::Renumbered => "renumber handles",
            Happening::SessionsLost => "sessions lost",
        };
        format!("{words} {}", self.word)
    }
}

impl Fault {
    pub(crate) fn is_about(&self, function: Function) -> bool {
        self.functions
            .as_ref()
            .is_none_or(|mine| mine.contains(&function))
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
        rules.name_keys = rules.faults.iter().any(|fault| fault.when.is_about_keys())
            || rules.journal.contains(&Function::C_SignInit);
        let mut faults = rules.faults.iter();
        rules.number_sessions = faults.any(|fault| fault.when.is_about_sessions());
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

    /// Whether the journal wants this function's calls.
    pub(crate) fn journal(&self, function: Function) -> bool {
        self.journal.contains(&function)
    }

    /// The rule that hides the token with this label, if one does.
    pub(crate) fn hide_token(&self, label: impl FnOnce() -> Option<String>) -> Option<&Line> {
        if self.hidden_tokens.is_empty() {
            return None;
        }
        let all = self.hidden_tokens.get(&None);
        all.or_else(|| self.hidden_tokens.get(&label()))
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
                self.renumber_at_initialize = Some(line.to_owned());
                Ok(())
            }
            ["renumber", "on-session-loss"] => {
                self.renumber_on_session_loss = Some(line.to_owned());
                Ok(())
            }
            ["slot", "offset", offset] => {
                self.slot_offset = Some((number(offset)?, line.to_owned()));
                Ok(())
            }
            ["slot", "offset", offset, "at-initialize"] => {
                self.slot_offset_at_initialize = Some((number(offset)?, line.to_owned()));
                Ok(())
            }
            ["session", "limit", most, ref words @ ..] => {
                let (scope, is_reported) = match words {
                    [scope @ .., "reported"] => (scope, true),
                    scope => (scope, false),
                };
                self.session_limit = Some(SessionLimit {
                    most: number(most)?,
                    scope: match *scope {
                        [] => Scope::Process,
                        ["shared"] => Scope::Shared,
                        ["leaking"] => Scope::Leaking,
                        _ => return Err(format!("{:?}: not shared or leaking", scope.join(" "))),
                    },
                    is_reported,
                    line: line.to_owned(),
                });
                Ok(())
            }
            ["pin", "lock", tries, ref flags @ ..] => {
                self.pin_lock = Some(PinLock {
                    tries: number(tries)?,
                    has_flags: match *flags {
                        [] => true,
                        ["without-flags"] => false,
                        _ => return Err(format!("{:?}: not without-flags", flags.join(" "))),
                    },
                    line: line.to_owned(),
                });
                Ok(())
            }
            ["objects", "at-initialize"] => {
                self.objects_at_initialize = Some(line.to_owned());
                Ok(())
            }
            ["journal", function] => {
                let functions = functions(function)?.unwrap_or_else(|| Function::ALL.to_vec());
                self.journal.extend(functions);
                Ok(())
            }
            ["hide", "token"] => {
                self.hidden_tokens.insert(None, line.to_owned());
                Ok(())
            }
            ["hide", "token", ..] => {
                self.hidden_tokens
                    .insert(Some(rest(line, 2)), line.to_owned());
                Ok(())
            }
            ["hide", "key", _, ..] => {
                self.hidden_keys.insert(rest(line, 2), line.to_owned());
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
        let functions = functions(function)?;
        let (is_after, when) = match when {
            ["after", when @ ..] => (true, when),
            _ => (false, when),
        };
        if is_after && matches!(what, What::Mac(_)) {
            return Err("after: a MAC is wrong when it is made".into());
        }
        let when = When::parse(when, line, control)?;
        if when.is_one() && what != What::Hang {
            return Err("one: only a hang can be of one thread at a time".into());
        }
        let all = |are: fn(Function) -> bool| {
            let functions = functions.as_ref();
            functions.is_none_or(|functions| functions.iter().all(|function| are(*function)))
        };
        if when.is_about_messages() && !all(Function::takes_a_message) {
            return Err(format!("{function} has no message"));
        }
        if when.is_about_keys() && !all(Function::has_an_object) {
            return Err(format!("{function} has no key"));
        }
        if when.is_about_logins() && function != "C_Login" {
            return Err(format!("{function} is no login"));
        }
        self.faults.push(Arc::new(Fault {
            line: line.to_owned(),
            functions,
            what,
            is_after,
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

/// The functions of a name such as `C_Sign`, or of the beginning of names such as `C_FindObjects*`;
/// `None` is all of them.
fn functions(pattern: &str) -> Result<Option<Vec<Function>>, String> {
    let none = || format!("{pattern}: no such function");
    match pattern.strip_suffix('*') {
        Some("") => Ok(None),
        Some(beginning) => {
            let named = Function::beginning_with(beginning);
            if named.is_empty() {
                return Err(none());
            }
            Ok(Some(named))
        }
        None => Ok(Some(vec![Function::named(pattern).ok_or_else(none)?])),
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
    use crate::when::Subject;

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
             return C_Login 0x80000001 after when-attempt 2..4\n\
             delay C_FindObjects* 2s\n\
             hang C_Login after when-attempt 3..\n\
             return C_SignInit CKR_DEVICE_MEMORY when-key-label a key when-session 2\n\
             return C_Sign CKR_FUNCTION_FAILED when-message-begins 00ff when-key-id 0b\n\
             objects at-initialize\n\
             journal C_SignInit\n\
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
                What::Return(0x8000_0001),
                What::Delay(Duration::from_secs(2)),
                What::Hang,
                What::Return(cryptoki_sys::CKR_DEVICE_MEMORY),
                What::Return(cryptoki_sys::CKR_FUNCTION_FAILED),
            ]
        );
        assert_eq!(rules.events.len(), 3);
        let after: Vec<bool> = rules.faults.iter().map(|fault| fault.is_after).collect();
        assert_eq!(after[10..], [true, false, true, false, false]);
        assert!(rules.faults[11].is_about(Function::C_FindObjectsFinal));
        assert!(!rules.faults[11].is_about(Function::C_Finalize));
        assert!(rules.journal(Function::C_SignInit) && !rules.journal(Function::C_Sign));
        assert!(rules.name_keys && rules.objects_at_initialize.is_some());
        assert!(rules.renumber_at_initialize.is_some() && rules.renumber_on_session_loss.is_some());
        assert_eq!(rules.slot_offset.unwrap().0, 100);
        let line = "slot offset 7 at-initialize".to_owned();
        assert_eq!(rules.slot_offset_at_initialize, Some((7, line)));
        let limit = rules.session_limit.unwrap();
        assert_eq!((limit.most, limit.scope), (4, Scope::Process));
        let lock = rules.pin_lock.unwrap();
        assert_eq!((lock.tries, lock.has_flags), (3, true));
        assert!(
            rules
                .hidden_tokens
                .contains_key(&Some("two  words".to_owned()))
        );
        assert!(rules.hidden_keys.contains_key("a key"));
    }

    #[test]
    fn limits_and_locks_have_variants() {
        for (text, scope) in [
            ("session limit 4 shared", Scope::Shared),
            ("session limit 4 leaking", Scope::Leaking),
        ] {
            assert_eq!(parse(text).session_limit.unwrap().scope, scope);
        }
        assert!(
            !parse("pin lock 10 without-flags")
                .pin_lock
                .unwrap()
                .has_flags
        );
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
            ("\nreturn C_Find* CKR_OK sometimes", "sometimes"),
            ("\ndelay C_Nothing* 1s", "C_Nothing*: no such function"),
            ("\ncrash C_Sign when-attempt 1", "C_Sign is no login"),
            ("\ncrash C_Login when-attempt 2..1", "not N, N..M or N.."),
            ("\ncrash C_Login when-attempt 0", "not N, N..M or N.."),
            ("\ncrash C_Login when-key-id 01", "C_Login has no key"),
            ("\ncrash C_Sign when-key-label", "of what?"),
            ("\ncrash C_Sign when-session 0", "from 1"),
            ("\ncrash C_Sign when-idle 1", "when-idle: no such condition"),
            ("\nmac truncated after", "when it is made"),
            ("\nsession limit 3 apart", "not shared or leaking"),
            ("\npin lock 3 silently", "not without-flags"),
        ] {
            let bad = parse(text).bad.unwrap();
            assert!(bad.starts_with("/run/control:2: "), "{bad}");
            assert!(bad.contains(why), "{bad}");
        }
    }

    #[test]
    fn a_rule_that_stays_keeps_its_counter() {
        let first = parse("return C_Sign CKR_DEVICE_ERROR every 2");
        assert!(!first.faults[0].when.acts(&Subject::default()));
        let text = "delay * 1ms\nreturn C_Sign CKR_DEVICE_ERROR every 2";
        let second = Rules::parse(text, Path::new("/run/control"), &first);
        assert!(second.have(&first.faults[0]));
        assert!(second.faults[1].when.acts(&Subject::default()));
    }
}
