//! The GitHub Actions face: what a job tells about itself.
//!
//! The room knows the variables of a runner. It must not know stores.

use crate::snapshot::Origin;

/// Where this run comes from, for the head of a snapshot; empty fields outside a job.
/// Source: github/docs `content/actions/reference/workflows-and-actions/variables.md`.
pub fn origin() -> Origin {
    let variable = |name| std::env::var(name).unwrap_or_default();
    Origin {
        repository: variable("GITHUB_REPOSITORY"),
        reference: variable("GITHUB_REF"),
        commit: variable("GITHUB_SHA"),
        run: variable("GITHUB_RUN_ID"),
        trigger: variable("GITHUB_EVENT_NAME"),
    }
}
