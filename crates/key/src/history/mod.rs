//! The past runs of a workflow, reconstructed from git: the commits, the refs that they were pushed to, and
//! the files at that time that keys may be made from.
//!
//! Git does not record pushes and pull requests. So every commit counts as one run, at its commit time: the
//! first-parent chain of the default branch as pushes to it, commits that a merge brought in through its
//! second parent as runs of one pull request before the merge, and all other commits as pushes to their
//! branch. Squashed or rebased pull requests left no trace, and neither did scheduled runs. This module must
//! not depend on how caches work.

mod commit_graph;
mod commit_times;
mod file_states;
mod runs;

pub use commit_graph::{Commit, Graph};
pub use file_states::{FilePattern, FileState, StateId, States, Watch};
pub use runs::{Run, RunKind, Runs, Scope};
