//! What `hsmac check` has found, as a page for people.

use std::fmt::Write as _;

use super::report::{
    Address, AuditFound, Certificate, FactsFound, GroupFound, KeyFound, Report, TokenFound,
};
use crate::cli::paint::{Colour, Paint};

/// A certificate that ends so soon is work for this week.
const SOON: i64 = 14;

/// The page; nothing if the configuration could not be read.
pub(super) fn render(report: &Report, paint: Paint) -> String {
    let mut page = Page {
        text: String::new(),
        paint,
    };
    if report.is_readable {
        page.report(report);
    }
    page.text
}

struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn warning(&mut self, indent: &str, text: &str) {
        let warning = self.paint.paint(Colour::Warning, "warning:");
        self.line(&format!("{indent}{warning} {text}"));
    }

    fn report(&mut self, report: &Report) {
        let good = self.paint.paint(Colour::Good, "good");
        self.line(&format!("configuration  {}: {good}", report.configuration));
        for warning in &report.warnings {
            self.warning("  ", warning);
        }
        for listener in &report.listeners {
            self.line(&format!("listener       {listener}"));
        }
        for address in &report.addresses {
            self.address(address);
        }
        for certificate in &report.certificates {
            self.certificate(certificate);
        }
        if let Some(store) = &report.store {
            let path = &store.path;
            let said = match store.revision {
                None => format!("{path}: not there yet"),
                Some(_) => format!("{path}, stored keys: {}, undamaged", store.stored_keys),
            };
            let used = store.used_by.map(|process| match process {
                0 => ", in use".to_owned(),
                process => format!(", in use by process {process}"),
            });
            self.line(&format!(
                "store          {said}{}",
                used.unwrap_or_default()
            ));
            if let Some(at) = &store.restored {
                let text = format!(
                    "restored at {at} and not confirmed: its keys are disabled until hsmac store confirm"
                );
                self.warning("  ", &text);
            }
            for warning in &store.warnings {
                self.warning("  ", warning);
            }
        }
        self.audit(report.audit.as_ref());
        if let Some(of) = &report.state_dir {
            self.line(&format!("state_dir      {of}"));
        }
        for token in &report.tokens {
            self.token(token);
        }
        for group in &report.groups {
            self.group(group);
        }
    }

    fn audit(&mut self, audit: Option<&AuditFound>) {
        let Some(audit) = audit else {
            return self.line("audit          none: nothing says later who did what ([audit])");
        };
        let directory = &audit.directory;
        let said = match (&audit.fault, audit.records) {
            (Some(fault), _) => {
                let wrong = self.paint.paint(Colour::Wrong, "wrong:");
                return self.line(&format!("audit          {wrong} {fault}"));
            }
            (None, None) => format!("{directory}: not there yet"),
            (None, Some(records)) => format!("{directory}, {records} records"),
        };
        let used = if audit.is_in_use { ", in use" } else { "" };
        let sealed = audit.sealed_by.as_ref();
        let sealed = sealed.map(|token| format!(", sealed by {token}"));
        self.line(&format!(
            "audit          {said}{used}{}",
            sealed.unwrap_or_default()
        ));
    }

    fn address(&mut self, address: &Address) {
        match &address.fault {
            None => {}
            Some(_) if address.is_in_use => {
                let text = format!(
                    "{}: {} is in use: by hsmac, if it runs; else by another process",
                    address.setting, address.address
                );
                self.warning("  ", &text);
            }
            Some(fault) => {
                let wrong = self.paint.paint(Colour::Wrong, "wrong:");
                self.line(&format!("  {wrong} {}: {fault}", address.setting));
            }
        }
    }

    fn certificate(&mut self, certificate: &Certificate) {
        let Certificate {
            setting,
            ends,
            days_left,
        } = certificate;
        if *days_left < 0 {
            let wrong = self.paint.paint(Colour::Wrong, "wrong:");
            self.line(&format!(
                "  {wrong} {setting} ended at {ends}: put a new file in its place"
            ));
        } else if *days_left < SOON {
            self.warning(
                "  ",
                &format!("{setting} ends in {days_left} days, at {ends}"),
            );
        }
    }

    fn token(&mut self, token: &TokenFound) {
        let of = token
            .group
            .as_ref()
            .map_or_else(String::new, |group| format!(" (group {group})"));
        let colour = match token.state {
            "up" => Colour::Good,
            "degraded" => Colour::Warning,
            _ => Colour::Wrong,
        };
        let name = self
            .paint
            .paint(Colour::Strong, &format!("token {}", token.name));
        let state = self.paint.paint(colour, &token.reason);
        self.line(&format!("\n{name}{of}: {state}"));
        if let Some(facts) = &token.facts {
            self.facts(facts);
        }
        for key in &token.keys {
            self.key(key);
        }
    }

    fn facts(&mut self, facts: &FactsFound) {
        let FactsFound {
            module,
            label,
            serial,
            manufacturer,
            model,
            algorithms,
            two_calls,
            sessions,
            warnings,
        } = facts;
        self.line(&format!("  module      {module}"));
        self.line(&format!(
            "  token       label {label:?}, serial {serial}, {manufacturer} {model}"
        ));
        self.line(&format!("  algorithms  {}", algorithms.join(", ")));
        let calls = if *two_calls {
            "2 (C_SignInit, C_Sign)"
        } else {
            "3: this module does not let us leave out the length query"
        };
        self.line(&format!("  calls/MAC   {calls}"));
        self.line(&format!("  sessions    {sessions} a host"));
        for warning in warnings {
            self.warning("  ", warning);
        }
        if !serial.is_empty() {
            self.line(&format!(
                "  to pin this very token, add ;serial={serial} to its uri"
            ));
        }
    }

    fn key(&mut self, key: &KeyFound) {
        let aliases = if key.aliases.is_empty() {
            String::new()
        } else {
            format!(" ({})", key.aliases.join(", "))
        };
        self.line(&format!(
            "\n  key {}{aliases}: {}, {}",
            key.key_id, key.key_spec, key.object
        ));
        if let Some(fault) = &key.fault {
            let fault = self.paint.paint(Colour::Wrong, fault);
            self.line(&format!("    {fault}"));
        }
        let (Some(value), Some(attributes)) = (&key.check_value, key.attributes) else {
            return;
        };
        let pinned = if key.is_pinned { "pinned" } else { "unpinned" };
        let made = self.paint.paint(Colour::Good, "MAC made");
        self.line(&format!("    {made}; check value {pinned}:"));
        self.line(&format!("    check_value = \"{value}\""));
        let mut line = format!(
            "    {}sensitive, {}extractable",
            if attributes.sensitive { "" } else { "NOT " },
            if attributes.extractable { "" } else { "not " },
        );
        if attributes.never_extractable {
            line.push_str(", was never extractable");
        }
        if attributes.local {
            line.push_str(", generated in the token");
        }
        self.line(&line);
        if attributes.extractable || !attributes.sensitive {
            self.warning("    ", "the token would give this key's value away");
        }
    }

    fn group(&mut self, group: &GroupFound) {
        let _ = writeln!(self.text, "\ngroup {}: {}", group.name, group.state);
        for key in &group.keys {
            let key_id = &key.key_id;
            let (with, without) = (key.present.join(", "), key.absent.join(", "));
            let said = match (key.present.is_empty(), key.absent.is_empty()) {
                (true, _) => "in none of its tokens".to_owned(),
                (false, true) => format!("in {with}"),
                (false, false) => format!("in {with}, not in {without}"),
            };
            self.line(&format!("  key {key_id}: {said}"));
            if key.differs {
                let wrong = "its tokens have different keys under this name: mend the wrong one, and set check_value";
                let wrong = self.paint.paint(Colour::Wrong, wrong);
                self.line(&format!("    {wrong}"));
            }
        }
    }
}
