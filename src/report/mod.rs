//! Output for people and programs: progress during a run, and a report at its end.
//!
//! This module formats numbers and texts. It must not depend on how they are computed.

mod counting;
mod inventory;
mod outcome;
mod output;
pub mod page;
mod progress;
mod runner_command;
mod signs;
mod summary;
mod text;
mod usage;
mod usage_page;

pub use counting::Counting;
pub use inventory::{Amount, Copies, Cost, EntryRow, Eviction, Part, Usage};
pub use outcome::{
    BaseUse, Bytes, Cut, Growth, Hit, Items, Outcome, Profile, Quarantined, Required, Seconds,
};
pub use output::{answer, answer_command, answer_exact, answer_json, command, note, report_panics};
pub use progress::Progress;
pub use runner_command::RunnerCommand;
pub use signs::{ready, stopping, tell_signs};
pub use summary::{Job, render};
pub use text::{age, binary, bytes, columns, parse_bytes, plural, seconds, table};
