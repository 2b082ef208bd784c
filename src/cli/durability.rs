//! The flag `--sync`: whether data is flushed to disk before it is published.

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sync {
    /// Flush, except on GitHub-hosted runners, which end with the job
    Auto,
    Always,
    /// Leave flushing to the kernel
    Never,
}

impl Sync {
    /// Returns whether to flush. `RUNNER_ENVIRONMENT` is `github-hosted` on runners that end with the job.
    /// Source: docs.github.com, "Default environment variables".
    pub(super) fn wanted(self) -> bool {
        let ends_with_the_job =
            || std::env::var_os("RUNNER_ENVIRONMENT").is_some_and(|kind| kind == "github-hosted");
        match self {
            Sync::Auto => !ends_with_the_job(),
            Sync::Always => true,
            Sync::Never => false,
        }
    }
}
