//! The checks of a store and its daemon for `doctor`: one finding for each thing that a restore relies on.
//!
//! The checks change nothing. If the root helper cannot be started, the user process itself makes the checks that
//! need no root ([`without_root`]).

mod daemon_checks;
mod store_checks;

use super::connection::Conversation;
use super::protocol::{Finding, Light, Reply, StoreRequest};
use super::store_context::StoreTarget;
use anyhow::Result;
use storecache_runtime::RunContext;
use storecache_runtime::advice::in_one_line;

/// The number of names that a finding lists.
const NAMED: usize = 3;

/// A check: its name, whether it needs root, and its function.
type Check = (&'static str, bool, fn(&StoreTarget) -> Result<Finding>);

const CHECKS: [Check; 12] = [
    ("schema", false, store_checks::schema),
    ("database", true, store_checks::database),
    ("owners", true, store_checks::owners),
    ("locks", true, store_checks::locks),
    ("space", false, store_checks::space),
    ("daemon", false, daemon_checks::daemon),
    ("unit", false, daemon_checks::unit),
    ("journal", true, daemon_checks::journal),
    ("program", true, daemon_checks::program),
    ("socket", false, daemon_checks::socket),
    ("record", true, daemon_checks::record),
    // The last check, because it may move this thread into another mount namespace.
    ("mount", false, store_checks::mount),
];

/// Makes all checks and replies with the findings.
pub fn examine(talk: &Conversation, store: &StoreRequest) -> Result<()> {
    let target = StoreTarget::new(&talk.run, store)?;
    let mut found = Vec::new();
    for check in &CHECKS {
        talk.cancel.check()?;
        found.push(row(check, &target));
    }
    talk.reply(&Reply::Examined(found))
}

/// Makes the checks that need no root, as the current user. The last finding lists the checks that were left out.
///
/// # Errors
/// If the store is not found.
pub fn without_root(run: &RunContext, store: &StoreRequest) -> Result<Vec<Finding>> {
    let target = StoreTarget::new(run, store)?;
    let open = CHECKS.iter().filter(|(_, takes_root, _)| !takes_root);
    let mut found: Vec<Finding> = open.map(|check| row(check, &target)).collect();
    let closed = CHECKS.iter().filter(|(_, takes_root, _)| *takes_root);
    let names: Vec<&str> = closed.map(|(name, ..)| *name).collect();
    let left_out = Finding::yellow(format!("not checked without root: {}", names.join(", ")), None);
    found.push(Finding { check: "skipped".into(), ..left_out });
    Ok(found)
}

fn row((check, _, look): &Check, target: &StoreTarget) -> Finding {
    // A check that fails is a finding too.
    let finding = look(target).unwrap_or_else(|e| Finding::red(in_one_line(e.as_ref()), None));
    Finding { check: (*check).into(), ..finding }
}

fn some_of<T: ToString>(names: &[T]) -> String {
    let listed: Vec<String> = names.iter().take(NAMED).map(ToString::to_string).collect();
    let listed = listed.join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

impl Finding {
    pub fn green(found: impl Into<String>) -> Self {
        Finding { check: String::new(), light: Light::Green, found: found.into(), fix: None }
    }

    pub fn yellow(found: impl Into<String>, fix: Option<String>) -> Self {
        Finding { light: Light::Yellow, fix, ..Self::green(found) }
    }

    pub fn red(found: impl Into<String>, fix: Option<String>) -> Self {
        Finding { light: Light::Red, fix, ..Self::green(found) }
    }

    /// Sets the name of the check.
    pub fn named(self, check: &str) -> Self {
        Finding { check: check.into(), ..self }
    }
}
