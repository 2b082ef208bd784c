//! What people and programs are told: progress while it runs, a report at the end.
//!
//! The room knows numbers and texts. It must not know how they come about.

mod counting;
mod inventory;
mod outcome;
pub mod page;
mod progress;
mod speak;
mod summary;
mod text;
mod usage;
mod usage_page;

pub use counting::Counting;
pub use inventory::{Amount, Copies, Cost, EntryRow, Eviction, Part, Usage};
pub use outcome::{
    BaseUse, Bytes, Growth, Hit, Items, Outcome, Profile, Quarantined, Required, Seconds,
};
pub use progress::Progress;
pub use speak::{answer, note, order};
pub use summary::{Job, render};
pub use text::{age, binary, bytes, columns, parse_bytes, plural, printable, seconds, table};
