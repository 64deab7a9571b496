//! What a simulation says, on one screen for people.

use std::fmt::Write as _;

use super::wording::{allowed_or_denied, because, effect, missing, says, title};
use crate::kms::{SimulatedRequest, Simulation};

/// One screen for people.
pub(super) fn page(asked: &SimulatedRequest, simulation: &Simulation) -> String {
    let mut page = format!(
        "{}: {} by {}\n",
        allowed_or_denied(simulation.is_allowed()),
        asked.operation.name(),
        asked.caller
    );
    for evaluation in &simulation.evaluations {
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "\n{} on {}: {}",
            evaluation.action,
            evaluation.resource.as_deref().unwrap_or("*"),
            allowed_or_denied(evaluation.is_allowed())
        );
        let _ = writeln!(page, "  because  {}", because(evaluation, &asked.caller));
        if let Some(missing) = missing(evaluation, &asked.caller) {
            let _ = writeln!(page, "  missing  {missing}");
        }
        if let Some((exception, say)) = &evaluation.told {
            let _ = writeln!(page, "  client   {exception}: {say}");
        }
        for policy in &evaluation.policies {
            let _ = writeln!(page, "  {}", title(policy));
            for (at, statement) in policy.statements.iter().enumerate() {
                let sid = statement.sid.as_ref();
                let sid = sid.map_or_else(String::new, |sid| format!(" {sid:?}"));
                let _ = writeln!(
                    page,
                    "    {}{sid} ({}) {}",
                    at + 1,
                    effect(statement.effect),
                    says(&statement.result)
                );
            }
            if policy.statements.is_empty() {
                page.push_str("    no statement\n");
            }
        }
    }
    if !simulation.notes.is_empty() {
        page.push('\n');
    }
    for note in &simulation.notes {
        let _ = writeln!(page, "note: {note}");
    }
    page
}
