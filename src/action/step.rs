//! One step of a job: what it runs, and what it tells the runner.

use super::inputs::flags;
use super::job::{Job, WorkflowName};
use super::{files, orders, outputs};
use crate::report::{self, Hit, Outcome};
use crate::snapshot::Digest;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// Where in the job this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Where the step stands.
    Main,
    /// After all other steps.
    Post,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    RestoreAndSave,
    Restore,
    Save,
}

/// What a step may run.
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

/// The name under which the main part leaves its key to the post part. It is there, maybe empty, when
/// the restore came to an end.
const KEY: &str = "key";

/// Why the workflow of a job cannot go into its key.
enum NoWorkflow {
    /// The runner names none.
    Unnamed,
    /// It is not in the work tree, as that of another repository.
    Elsewhere(String),
    /// There is no work tree.
    NothingThere(String),
}

/// A step with its inputs.
pub struct Step {
    job: Job,
    moment: Moment,
    operation: Operation,
}

impl Step {
    /// # Errors
    /// When the inputs ask for an operation that there is none of.
    pub fn begin(job: Job, moment: Moment) -> Result<Self> {
        let operation = match job.input("operation")?.as_deref() {
            None | Some("restore-and-save") => Operation::RestoreAndSave,
            Some("restore") => Operation::Restore,
            Some("save") => Operation::Save,
            // The main part has said so, and done nothing that could go on here.
            Some(_) if moment == Moment::Post => Operation::Save,
            Some(other) => bail!(
                "input operation: there is no {other:?}, only restore-and-save, restore and save"
            ),
        };
        job.secrets().for_each(|secret| orders::mask(&secret));
        Ok(Step { job, moment, operation })
    }

    /// What to run now, and after it what the other part of this step will run: wrong inputs for that
    /// are better told now.
    pub fn verbs(&self) -> &'static [Verb] {
        match (self.moment, self.operation) {
            (Moment::Main, Operation::RestoreAndSave) => &[Verb::Restore, Verb::Save],
            (Moment::Main, Operation::Restore) => &[Verb::Restore],
            (Moment::Main, Operation::Save) => &[Verb::Save],
            (Moment::Post, Operation::RestoreAndSave) if self.may_save() => &[Verb::Save],
            (Moment::Post, _) => &[],
        }
    }

    /// Whether the main part has left a key. Says so when not.
    fn may_save(&self) -> bool {
        let why = match self.job.state(KEY) {
            Some(_) => return true,
            None => "the restore of this step did not get as far as a key",
        };
        report::note(format!("storecache: nothing is saved: {why}"));
        false
    }

    /// The command line of a verb, made from the inputs.
    pub fn words(&self, verb: Verb) -> Result<Vec<String>> {
        let key = match self.moment {
            Moment::Main => None,
            // The same as then, whatever has become of the files that it was made from.
            Moment::Post => self.job.state(KEY),
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

    /// The files that the halves of a job have in common, and the page that the runner shows.
    fn own_files(&self, verb: Verb) -> Result<Vec<String>> {
        let mut words = Vec::new();
        let state = self.state_file()?;
        // A save without a restore before it has nothing to go by.
        let state = state.filter(|path| verb == Verb::Restore || path.exists());
        words.extend(state.map(|path| format!("--state={}", path.display())));
        // Where both are done, the last one tells of both.
        let last = verb == Verb::Save || self.operation == Operation::Restore;
        let page = self.job.file("GITHUB_STEP_SUMMARY").filter(|_| last);
        words.extend(page.map(|path| format!("--summary={}", path.display())));
        Ok(words)
    }

    /// What a restore leaves for a save: one file for each store of a job, so that it is found where
    /// the two are steps of their own.
    fn state_file(&self) -> Result<Option<PathBuf>> {
        let Some(directory) = self.job.file("RUNNER_TEMP") else { return Ok(None) };
        let mut store = String::new();
        for name in ["store", "root", "path"] {
            store += &format!("{name}={}\n", self.job.input(name)?.unwrap_or_default());
        }
        let digest = Digest::of(store.as_bytes()).to_string();
        Ok(Some(directory.join(format!("storecache-{}.json", &digest[..16]))))
    }

    /// The workflow that this job is of, if the work tree has it, where the step stands.
    pub fn workflow(&self) -> Option<PathBuf> {
        self.own_workflow().ok().filter(|_| self.moment == Moment::Main)
    }

    /// Whether the workflow of this job is to go into the key, as no input says otherwise.
    fn wants_workflow(&self) -> Result<bool> {
        let mode = self.job.input("workflow-mode")?;
        let given = self.job.input("workflow")?.or(self.job.input("key")?);
        Ok(self.moment == Moment::Main && given.is_none() && mode.as_deref() != Some("none"))
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

    /// Says why the workflow is not in the key, where it would be.
    pub fn tell_of_key(&self) {
        if !self.wants_workflow().unwrap_or(false) {
            return;
        }
        let missing = "so the key stays the same whatever becomes of it";
        match self.own_workflow() {
            Ok(_) | Err(NoWorkflow::Unnamed) => {}
            Err(NoWorkflow::Elsewhere(file)) => report::note(format!(
                "storecache: the workflow, {file}, is not in the work tree, {missing}; name files \
                 that the store depends on with hash-files"
            )),
            Err(NoWorkflow::NothingThere(file)) => orders::warning(&format!(
                "nothing is checked out yet, not even the workflow {file}, {missing}; put \
                 actions/checkout before this step, or set workflow-mode: none"
            )),
        }
    }

    /// Tells of a mistake in the workflow.
    pub fn tell_of_workflow(&self, file: &Path, line: usize, text: &str) {
        let workspace = self.job.file("GITHUB_WORKSPACE").unwrap_or_default();
        let below = file.strip_prefix(workspace).unwrap_or(file);
        orders::warning_at(below, line, text);
    }

    /// Tells the runner how it went: outputs, state, and one annotation for each problem. `fatal` says
    /// that the step fails for it.
    pub fn tell(&self, verb: Verb, outcome: &Outcome, error: Option<&str>, fatal: bool) {
        if self.moment == Moment::Main && verb == Verb::Restore {
            self.leave(outcome);
        }
        let annotate = if fatal { orders::error } else { orders::warning };
        match error {
            Some(error) if outcome.cancelled => report::note(format!("storecache: {error}")),
            Some(error) => annotate(error),
            None if fatal && outcome.hit == Hit::Miss => {
                annotate(&format!("restore: {}", outcome.reason.as_deref().unwrap_or("a miss")));
            }
            None => {}
        }
        let wanting = outcome.required.iter().filter(|required| !required.complete);
        let wanting: Vec<_> = wanting.map(|required| required.pattern.as_str()).collect();
        if !wanting.is_empty() {
            annotate(&format!("restore: not complete in the store: {}", wanting.join(", ")));
        }
        outcome.warnings.iter().for_each(|warning| orders::warning(warning));
    }

    /// Outputs for the steps after this one, and what the post part has to know.
    fn leave(&self, outcome: &Outcome) {
        let mut told = files::append(&self.job, "GITHUB_OUTPUT", &outputs::of(outcome));
        // A run that was called off has nothing to add to the store, and the job is at its end.
        if !outcome.cancelled && !outcome.key.is_empty() {
            let key = [(KEY, outcome.key.clone())];
            told = told.and(files::append(&self.job, "GITHUB_STATE", &key));
        }
        if let Err(e) = told {
            orders::warning(&format!("tell the runner: {e:#}"));
        }
    }
}
