//! What a job tells of itself: its variables.

use crate::snapshot::Origin;
use anyhow::{Result, anyhow};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The variables of the step that runs.
#[derive(Debug, Default)]
pub struct Job(HashMap<OsString, OsString>);

impl Job {
    pub fn of_environment() -> Self {
        Job(std::env::vars_os().collect())
    }

    /// A file that the runner has given, if it did.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        Some(PathBuf::from(self.variable(name)?))
    }

    /// What the main part of this step has left for its post part.
    pub fn state(&self, name: &str) -> Option<String> {
        Some(self.variable(&format!("STATE_{name}"))?.to_string_lossy().into_owned())
    }

    /// The value of an input without blanks around it, or nothing where it is empty: so GitHub hands
    /// over an input that nobody has set.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn input(&self, name: &str) -> Result<Option<String>> {
        // Source: actions/runner `src/Runner.Worker/Handlers/Handler.cs`: dashes stay.
        let variable = format!("INPUT_{}", name.replace(' ', "_").to_uppercase());
        let Some(value) = self.variable(&variable) else {
            return Ok(None);
        };
        let value = value.to_str().ok_or_else(|| anyhow!("input {name}: it is not UTF-8"))?;
        let value = value.trim();
        Ok((!value.is_empty()).then(|| value.to_owned()))
    }

    /// Secrets that the runner has given to this step.
    pub fn secrets(&self) -> impl Iterator<Item = String> {
        const NAMES: [&str; 5] = [
            "ACTIONS_RUNTIME_TOKEN",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            "INPUT_TOKEN",
            "GITHUB_TOKEN",
            "GH_TOKEN",
        ];
        NAMES.into_iter().filter_map(|name| Some(self.variable(name)?.to_str()?.to_owned()))
    }

    fn variable(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Job {
    fn from(variables: [(&str, &str); N]) -> Self {
        Job(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

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
