//! What people and programs are told: progress while it runs, a report at the end.
//!
//! The room knows numbers and texts. It must not know how they come about.

mod counting;
mod outcome;
pub mod page;
mod progress;
mod speak;
mod summary;
mod text;

pub use counting::Counting;
pub use outcome::{BaseUse, Bytes, Growth, Hit, Items, Outcome, Profile, Required, Seconds};
pub use progress::Progress;
pub use speak::{answer, note, order};
pub use summary::{Job, render};
pub use text::{bytes, parse_bytes, plural, seconds, table};
