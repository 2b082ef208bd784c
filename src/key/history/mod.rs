//! What git remembers of the runs of a workflow: commits, the refs that they were pushed to, and what
//! the files were then that keys may be made of.
//!
//! Git knows no pushes and no pull requests. So every commit counts as a run, at the time of its commit:
//! the first-parent chain of the default branch as pushes to that, what came into a branch through the
//! second parent of a merge as runs of one pull request before the merge, and all else as pushes to the
//! branch that it is on. What was squashed or rebased on merging left no trace, and neither did
//! schedules. It must not know what a cache is.

mod clock;
mod graph;
mod runs;
mod states;

pub use graph::{Commit, Graph};
pub use runs::{Kind, Run, Runs, Scope};
pub use states::{State, StateId, States, Watch, Watched};
