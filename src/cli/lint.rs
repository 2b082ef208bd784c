//! Flags of `lint`.

use super::OutputArgs;
use crate::config::{Lint, LintFormat};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct LintArgs {
    /// Workflow files [default: those in .github/workflows]
    files: Vec<PathBuf>,
    /// Output format; --json is the same as --format json
    #[arg(long, value_name = "FORMAT", default_value = "text", conflicts_with = "json")]
    format: LintFormat,
    /// Fail if there are findings of this level or above
    #[arg(long, value_name = "LEVEL", default_value = "warning")]
    level: Threshold,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Threshold {
    /// Any finding
    Warning,
    /// Only findings that make a cache useless
    Error,
}

impl LintArgs {
    pub fn options(self) -> Result<Lint> {
        let mut output = self.output.options();
        let format = if output.json { LintFormat::Json } else { self.format };
        output.json = format == LintFormat::Json;
        let errors_only = self.level == Threshold::Error;
        Ok(Lint { files: self.files, format, errors_only, output })
    }
}
