//! The environment variables of a job.

use anyhow::{Result, anyhow};
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use storecache_backend::options::SECRETS;
use storecache_snapshot::Origin;

/// GitHub's events have at most 25 MB (github/docs, webhook events and payloads).
const LONGEST_EVENT: u64 = 32 << 20;

/// The location of a workflow.
pub struct WorkflowName {
    /// `owner/name`
    pub repository: String,
    /// Path in the repository.
    pub path: String,
}

/// The environment variables of the running step.
#[derive(Debug, Default)]
pub struct Job(HashMap<OsString, OsString>);

impl Job {
    pub fn of_environment() -> Self {
        Job(std::env::vars_os().collect())
    }

    /// Returns the path of a file or directory that the runner names in a variable, if it is set.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        Some(PathBuf::from(self.variable(name)?))
    }

    /// Returns a value that the main part of this step saved for its post part.
    pub fn state(&self, name: &str) -> Option<String> {
        Some(self.variable(&format!("STATE_{name}"))?.to_string_lossy().into_owned())
    }

    /// Returns the trimmed value of an input, or `None` if it is empty: GitHub passes an input that is not set as an
    /// empty value.
    ///
    /// # Errors
    /// If the value is not UTF-8.
    pub fn input(&self, name: &str) -> Result<Option<String>> {
        // Source: actions/runner `src/Runner.Worker/Handlers/Handler.cs`: dashes stay.
        let variable = format!("INPUT_{}", name.replace(' ', "_").to_uppercase());
        let Some(value) = self.variable(&variable) else {
            return Ok(None);
        };
        let value = value.to_str().ok_or_else(|| anyhow!("input {name}: not UTF-8"))?;
        let value = value.trim();
        Ok((!value.is_empty()).then(|| value.to_owned()))
    }

    /// Returns the repository of the job, as `owner/name`.
    pub fn repository(&self) -> Option<&str> {
        self.variable("GITHUB_REPOSITORY")?.to_str()
    }

    /// Returns the id of this job in the workflow.
    pub fn name(&self) -> Option<&str> {
        self.variable("GITHUB_JOB")?.to_str()
    }

    /// Returns the workflow of the job. If one workflow calls another, that is the calling workflow.
    pub fn workflow(&self) -> Option<WorkflowName> {
        // As in `owner/repository/.github/workflows/ci.yml@refs/heads/main`; names and branches may contain an @ too.
        let text = self.variable("GITHUB_WORKFLOW_REF")?.to_str()?;
        let end = text.find("@refs/").or_else(|| text.rfind('@'))?;
        let mut parts = text[..end].splitn(3, '/');
        let (owner, name, path) = (parts.next()?, parts.next()?, parts.next()?);
        Some(WorkflowName { repository: format!("{owner}/{name}"), path: path.to_owned() })
    }

    /// Returns the default branch of the repository, if the event that started the job states it.
    pub fn default_branch(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Event {
            repository: Repository,
        }
        #[derive(Deserialize)]
        struct Repository {
            default_branch: String,
        }
        let read = |path| -> Option<Event> {
            let file = File::open(path).ok()?;
            serde_json::from_reader(BufReader::new(file.take(LONGEST_EVENT))).ok()
        };
        let event = self.file("GITHUB_EVENT_PATH").and_then(read);
        let told = event.map(|event| event.repository.default_branch);
        told.filter(|name| !name.is_empty()).or_else(|| self.scheduled_on())
    }

    /// Returns the branch of a scheduled job, which is the default branch. Its event need not state it.
    fn scheduled_on(&self) -> Option<String> {
        self.variable("GITHUB_EVENT_NAME").filter(|name| *name == "schedule")?;
        let reference = self.variable("GITHUB_REF")?.to_str()?;
        Some(reference.strip_prefix("refs/heads/")?.to_owned())
    }

    /// Returns the secrets that the runner passed to this step.
    pub fn secrets(&self) -> impl Iterator<Item = String> {
        const NAMES: [&str; 7] = [
            "ACTIONS_RUNTIME_TOKEN",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            "INPUT_TOKEN",
            "GITHUB_TOKEN",
            "GH_TOKEN",
            "INPUT_SIGN-KEY",
            "STORECACHE_SIGN_KEY",
        ];
        let names = NAMES.into_iter().chain(SECRETS);
        names.filter_map(|name| Some(self.variable(name)?.to_str()?.to_owned()))
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

/// Returns the origin of this run, for the head of a snapshot. Its fields are empty outside a job. Source:
/// github/docs `content/actions/reference/workflows-and-actions/variables.md`.
pub fn origin() -> Origin {
    let variable = |name| std::env::var(name).unwrap_or_default().into();
    Origin {
        repository: variable("GITHUB_REPOSITORY"),
        reference: variable("GITHUB_REF"),
        commit: variable("GITHUB_SHA"),
        run: variable("GITHUB_RUN_ID"),
        trigger: variable("GITHUB_EVENT_NAME"),
    }
}
