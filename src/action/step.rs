//! One step of a job: what it runs, and what it reports to the runner.

use super::inputs::{flags, words};
use super::job_environment::{Job, WorkflowName};
use super::{env_files, outputs, workflow_commands};
use crate::report::{self, Diagnostic, Outcome, incomplete, misses};
use anyhow::{Error, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use storecache_entry::Digest;
use storecache_runtime::advice::{Advice, WithAdvice, in_one_line};

/// The part of a step that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepPart {
    /// Runs at the position of the step in the job.
    Main,
    /// Runs after all other steps.
    Post,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    RestoreAndSave,
    Restore,
    Save,
}

/// The verbs that a step may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Restore,
    Save,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Verb::Restore => "restore",
            Verb::Save => "save",
        }
    }
}

/// The name of the state in which the main part saves its key for the post part. It exists if the restore was not
/// canceled and has a key.
const KEY: &str = "key";

/// Why the workflow of a job cannot be part of its key.
enum NoWorkflow {
    /// The runner does not name it.
    Unnamed,
    /// It is not in the work tree, for example because it belongs to another repository.
    Elsewhere(String),
    /// The work tree is empty or missing.
    NothingThere(String),
}

/// A step with its inputs.
pub struct Step {
    job: Job,
    moment: StepPart,
    operation: Operation,
}

impl Step {
    /// Creates a step, and masks the secrets of the job.
    ///
    /// # Errors
    /// If the inputs name an unknown operation.
    pub fn begin(job: Job, moment: StepPart) -> Result<Self> {
        let operation = match job.input("operation")?.as_deref() {
            None | Some("restore-and-save") => Operation::RestoreAndSave,
            Some("restore") => Operation::Restore,
            Some("save") => Operation::Save,
            // The main part has reported the error and restored nothing, so the post part has nothing to do.
            Some(_) if moment == StepPart::Post => Operation::Save,
            Some(other) => bail!(
                anyhow!("input operation: unknown value {other:?}")
                    .hint("use restore-and-save, restore or save")
            ),
        };
        job.secrets().for_each(|secret| workflow_commands::mask(&secret));
        Ok(Step { job, moment, operation })
    }

    /// Returns the verb to run now, followed by the verb of the post part, whose inputs are better checked now.
    pub fn verbs(&self) -> &'static [Verb] {
        match (self.moment, self.operation) {
            (StepPart::Main, Operation::RestoreAndSave) => &[Verb::Restore, Verb::Save],
            (StepPart::Main, Operation::Restore) => &[Verb::Restore],
            (StepPart::Main, Operation::Save) => &[Verb::Save],
            (StepPart::Post, Operation::RestoreAndSave) if self.may_save() => &[Verb::Save],
            (StepPart::Post, _) => &[],
        }
    }

    /// Returns whether the main part has saved a key. Prints a note if not.
    fn may_save(&self) -> bool {
        let why = match self.job.state(KEY) {
            Some(_) => return true,
            None => "the restore of this step did not determine a key",
        };
        report::print_note(format!("nothing is saved: {why}"));
        false
    }

    /// Returns the command line of a verb, made from the inputs.
    pub fn words(&self, verb: Verb) -> Result<Vec<String>> {
        let key = match self.moment {
            StepPart::Main => None,
            // Use the same key, even if the files that it was made from have changed.
            StepPart::Post => self.job.state(KEY),
        };
        let mut words = vec!["storecache".to_owned(), verb.name().to_owned()];
        words.extend(flags(&self.job, verb, key.as_deref())?);
        if self.wants_workflow()?
            && let Ok(file) = self.own_workflow()
        {
            words.push(format!("--workflow={}", file.display()));
            let job = self.job.name();
            words.extend(job.map(|job| format!("--workflow-job={job}")));
        }
        words.extend(self.own_files(verb)?);
        Ok(words)
    }

    /// Returns flags for the file that restore and save share, and for the job summary.
    fn own_files(&self, verb: Verb) -> Result<Vec<String>> {
        let mut words = Vec::new();
        let state = self.state_file()?;
        // Without a restore before it, a save has no state to read.
        let state = state.filter(|path| verb == Verb::Restore || path.exists());
        words.extend(state.map(|path| format!("--state={}", path.display())));
        // If the step runs both verbs, the save writes the summary of both.
        let last = verb == Verb::Save || self.operation == Operation::Restore;
        let page = self.job.file("GITHUB_STEP_SUMMARY").filter(|_| last);
        words.extend(page.map(|path| format!("--summary={}", path.display())));
        Ok(words)
    }

    /// Returns the path of the file that a restore leaves for a save: one file for each store of a job, so that the
    /// save finds it even if the two are separate steps.
    fn state_file(&self) -> Result<Option<PathBuf>> {
        let Some(directory) = self.job.file("RUNNER_TEMP") else { return Ok(None) };
        let mut store = String::new();
        for name in ["store", "root", "path"] {
            store += &format!("{name}={}\n", self.job.input(name)?.unwrap_or_default());
        }
        let digest = Digest::hash(store.as_bytes()).to_string();
        Ok(Some(directory.join(format!("storecache-{}.json", &digest[..16]))))
    }

    /// Returns the workflow file of this job, if the work tree has it. `None` in the post part of the
    /// step, because the main part has printed the findings about it.
    pub fn workflow(&self) -> Option<PathBuf> {
        self.own_workflow().ok().filter(|_| self.moment == StepPart::Main)
    }

    /// Returns whether the workflow of this job goes into the key, because no input says otherwise.
    fn wants_workflow(&self) -> Result<bool> {
        let mode = self.job.input("workflow-mode")?;
        let given = self.job.input("workflow")?.or(self.job.input("key")?);
        Ok(self.moment == StepPart::Main && given.is_none() && mode.as_deref() != Some("none"))
    }

    fn own_workflow(&self) -> Result<PathBuf, NoWorkflow> {
        let Some(WorkflowName { repository, path }) = self.job.workflow() else {
            return Err(NoWorkflow::Unnamed);
        };
        let here = self.job.repository();
        if here.is_some_and(|here| !here.eq_ignore_ascii_case(&repository)) {
            return Err(NoWorkflow::Elsewhere(format!("{path} of {repository}")));
        }
        let Some(workspace) = self.job.file("GITHUB_WORKSPACE") else {
            return Err(NoWorkflow::Unnamed);
        };
        let file = workspace.join(&path);
        if file.is_file() {
            return Ok(file);
        }
        match workspace.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            true => Err(NoWorkflow::Elsewhere(path)),
            false => Err(NoWorkflow::NothingThere(path)),
        }
    }

    /// Explains why the workflow is not in the key, if it should be.
    pub fn tell_of_key(&self) {
        if !self.wants_workflow().unwrap_or(false) {
            return;
        }
        let missing = "so changes to it do not change the key";
        match self.own_workflow() {
            Ok(_) | Err(NoWorkflow::Unnamed) => {}
            Err(NoWorkflow::Elsewhere(file)) => {
                report::print_note(format!(
                    "the workflow {file} is not in the work tree, {missing}"
                ));
                report::print_hint("name the files that the store depends on in hash-files");
            }
            Err(NoWorkflow::NothingThere(file)) => {
                let text =
                    format!("nothing is checked out yet, including the workflow {file}, {missing}");
                let hint = "put actions/checkout before this step, or set workflow-mode: none";
                workflow_commands::annotate(&Diagnostic::warning(text).advise(Advice::hint(hint)));
            }
        }
    }

    /// Reports a mistake in the workflow.
    pub fn tell_of_workflow(&self, file: &Path, line: usize, text: &str) {
        let workspace = self.job.file("GITHUB_WORKSPACE").unwrap_or_default();
        let below = file.strip_prefix(workspace).unwrap_or(file);
        workflow_commands::warning_at(below, line, text);
    }

    /// Reports the result to the runner: outputs, state, and one annotation for each problem. If `fatal` is set, the
    /// problem makes the step fail.
    pub fn report(&self, verb: Verb, outcome: &Outcome, error: Option<&Error>, fatal: bool) {
        if self.moment == StepPart::Main && verb == Verb::Restore {
            self.leave(outcome);
        }
        match error.map(|error| Diagnostic::from_error(error.as_ref())) {
            Some(error) if outcome.cancelled => error.print_in(words()),
            Some(error) if fatal => workflow_commands::annotate(&error),
            Some(error) => workflow_commands::annotate(&error.into_warning()),
            None => {}
        }
        match fatal {
            true => misses(outcome).iter().for_each(workflow_commands::annotate),
            false => incomplete(outcome).iter().for_each(|text| workflow_commands::warning(text)),
        }
        outcome.warnings.iter().for_each(|warning| workflow_commands::warning(warning));
    }

    /// Writes outputs for later steps, and state for the post part.
    fn leave(&self, outcome: &Outcome) {
        let mut told =
            env_files::append(&self.job, "GITHUB_OUTPUT", &outputs::output_values(outcome));
        // A canceled run has nothing to add to the store, and the job is at its end.
        if !outcome.cancelled && !outcome.key.is_empty() {
            let key = [(KEY, outcome.key.clone())];
            told = told.and(env_files::append(&self.job, "GITHUB_STATE", &key));
        }
        if let Err(e) = told {
            workflow_commands::warning(&format!(
                "write outputs for the runner: {}",
                in_one_line(e.as_ref())
            ));
        }
    }
}
