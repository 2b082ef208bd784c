//! One file for each verb; each reads as the story of what it does.

mod cancel;
mod inspect;
mod key;
mod lookup;
mod restore;
mod save;
mod verify;

pub use inspect::inspect;
pub use key::key;
pub use restore::restore;
pub use save::save;
pub use verify::verify;

use crate::options::OutputOptions;
use crate::privileged::client::RootFailure;
use crate::report::{self, Outcome};
use anyhow::Result;

/// Books a failure on the report; gives back the one line that names phase and cause. The phase is
/// where the root half was, if it is the one that failed.
fn failure(outcome: &mut Outcome, error: anyhow::Error) -> anyhow::Error {
    if let Some(failure) = error.downcast_ref::<RootFailure>() {
        outcome.phase = failure.phase.name();
    }
    let line = format!("{}: {}: {error:#}", outcome.command, outcome.phase);
    outcome.reason = Some(line.clone());
    anyhow::anyhow!(line)
}

/// Names what was passed over, for people; all of it is in the report as JSON.
fn tell_skipped(outcome: &Outcome) {
    const SHOWN: usize = 10;
    for (name, reason) in outcome.skipped.iter().take(SHOWN) {
        report::note(format!("storecache: left out {name}: {reason}"));
    }
    if outcome.skipped.len() > SHOWN {
        report::note(format!(
            "storecache: left out {} more; --json names them",
            outcome.skipped.len() - SHOWN
        ));
    }
}

/// With `--json` an error is one object too, beside the line for people.
fn or_json(output: &OutputOptions, ending: Result<Ending>) -> Result<Ending> {
    if let (true, Err(e)) = (output.json, &ending) {
        report::answer(serde_json::json!({ "ok": false, "reason": format!("{e:#}") }))?;
    }
    ending
}

/// How a command ended, as far as the exit code tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Done,
    Failed,
    /// Nothing was found, and that was to be told.
    Miss,
}

impl Ending {
    /// The exit codes that scripts may rely on. Wrong usage is 2 and never gets this far.
    pub fn code(self) -> u8 {
        match self {
            Ending::Done => 0,
            Ending::Failed => 1,
            Ending::Miss => 3,
        }
    }
}
