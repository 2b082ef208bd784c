//! Whether what is written is on the disk before it counts.

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
