//! The commands, one file for each. Each file reads as the sequence of steps of its command.

mod annotated_entries;
mod cancel;
mod closed_pull_requests;
mod delta_base;
mod delta_dependents;
mod diff;
mod doctor;
mod dominators;
mod entry_fallback;
mod eviction_forecast;
mod guix_profiles;
mod html_file;
mod inspect;
mod job_state;
mod job_step;
mod key;
mod key_stem;
mod lint;
mod list;
mod open_entry;
mod open_error;
mod prune;
mod prune_plan;
mod quarantine;
mod require;
mod resolve;
mod restore;
mod retention;
mod run_error;
mod run_history;
mod save;
mod save_policy;
mod session;
mod simulate;
mod size_report;
mod suggest;
mod summary_file;
mod trust;
mod usage;
mod verify;

pub use diff::diff;
pub use doctor::doctor;
pub use inspect::inspect;
pub use job_step::{StepCommand, step};
pub use key::key;
pub use lint::lint;
pub use list::list;
pub use prune::prune;
pub use restore::restore;
pub use save::save;
pub use simulate::simulate;
pub use suggest::suggest;
pub use usage::usage;
pub use verify::verify;

use crate::config::OutputOptions;
use crate::report;
use anyhow::Result;
use storecache_runtime::advice::{Advice, causes};

/// With `--json`, prints an error as one JSON object too, in addition to the message for people.
fn or_json(output: &OutputOptions, ending: Result<Conclusion>) -> Result<Conclusion> {
    if let (true, Err(e)) = (output.json, &ending) {
        let mut object = serde_json::json!({ "ok": false, "reason": causes(e.as_ref()) });
        if let Some(Advice { notes, hint }) = Advice::find(e.as_ref()) {
            if !notes.is_empty() {
                object["notes"] = notes.clone().into();
            }
            if let Some(hint) = hint {
                object["hint"] = hint.clone().into();
            }
        }
        report::answer_json(&object)?;
    }
    ending
}

/// How a command ended, as far as the exit code shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    Done,
    Failed,
    /// Nothing was found, and the options ask for an exit code of its own for that.
    Miss,
}

impl Conclusion {
    /// The exit codes that scripts may rely on. Wrong usage exits with 2 before a command runs.
    pub fn code(self) -> u8 {
        match self {
            Conclusion::Done => 0,
            Conclusion::Failed => 1,
            Conclusion::Miss => 3,
        }
    }
}
