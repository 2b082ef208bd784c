//! Output for people and programs: progress during a run, and a report at its end.
//!
//! This module formats numbers and texts. It must not depend on how they are computed.

mod counter_bar;
mod diagnostic;
mod entry_rows;
mod events;
mod format;
pub mod html;
mod job_summary;
mod output;
mod progress;
mod run_report;
mod runner_command;
mod systemd_notify;
mod usage_page;
mod usage_text;
mod words;

pub use counter_bar::Counting;
pub use diagnostic::{
    Diagnostic, incomplete, misses, print_hint, print_note, print_warning, status,
};
pub use entry_rows::{Amount, Copies, Cost, EntryRow, Eviction, Part, Usage};
pub use events::{print_last_events, start_events};
pub use format::{age, binary, bytes, columns, parse_bytes, plural, seconds, table};
pub use job_summary::{Job, render};
pub use output::{answer, answer_command, answer_exact, answer_json, command, report_panics};
pub use progress::Progress;
pub use run_report::{BaseUse, Bytes, Cut, Growth, Hit, Items, Outcome, Profile, Seconds};
pub use runner_command::RunnerCommand;
pub use storecache_runtime::standard_error::note;
pub use systemd_notify::{ready, stopping, tell_signs};
pub use words::{Word, Words};
