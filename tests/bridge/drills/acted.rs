//! What a fault token tells of itself: whether a fault has acted, who logged in, what was signed.

use super::*;

impl Member {
    /// How often a rule has acted, in all hosts together.
    pub(super) fn applied(&self, rule: &str) -> usize {
        self.lines("control.applied")
            .iter()
            .filter(|line| *line == rule)
            .count()
    }

    /// Waits until a rule has acted more often than `before`.
    pub(super) async fn acts(&self, rule: &str, before: usize) {
        until(rule, || (self.applied(rule) > before).then_some(())).await;
    }

    /// The calls that the rule `journal` asks for, each from its time on.
    pub(super) fn journal(&self) -> Vec<String> {
        self.lines("control.journal")
    }

    /// How many logins the hosts have tried with a PIN.
    pub(super) fn logins(&self) -> usize {
        self.number("logins")
    }

    /// How many of them the token itself has judged, whatever it said then.
    pub(super) fn judged(&self) -> usize {
        self.number("judged")
    }

    fn number(&self, name: &str) -> usize {
        let file = self.token.path(&format!("control.{name}"));
        // The file is empty for the moment in which it is written.
        fs::read_to_string(file).map_or(0, |text| text.trim().parse().unwrap_or(0))
    }

    /// Lines less the process ID at their beginning.
    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.token.path(file)).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.map(|(_, line)| line.to_owned()).collect()
    }
}

/// Whether a rule must act in a drill: a journal is no fault, and a limit need not be reached.
pub(super) fn is_fault(rule: &str) -> bool {
    let other = ["journal ", "pin lock ", "session limit ", "objects "];
    !rule.is_empty() && !other.iter().any(|words| rule.starts_with(words))
}

/// Looks again and again, for so long, that something does not happen.
pub(super) async fn throughout(time: Duration, mut holds: impl FnMut()) {
    let began = Instant::now();
    while began.elapsed() < time {
        holds();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    holds();
}

/// The settings before the tokens, of a configuration whose tokens and keys follow.
pub(super) fn head(member: &Member) -> String {
    let usual = member.token.config();
    let (head, _) = usual.split_once("[token.primary]").unwrap();
    head.to_owned()
}
