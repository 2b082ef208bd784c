//! `action`: one step of a job. The job continues whatever happens to the cache, unless an option says
//! otherwise.

use super::{Conclusion, lint, restore, save};
use crate::action::{Step, Verb};
use crate::config::{Restore, Save};
use crate::report;
use anyhow::{Error, Result};
use storecache_runtime::RunContext;

/// The command that a step runs, with its options.
pub enum StepCommand {
    Restore(Restore),
    Save(Save),
}

/// Runs the task and reports its result to the runner of the job.
pub fn step(context: &RunContext, step: &Step, task: StepCommand) -> Conclusion {
    match task {
        StepCommand::Restore(mut options) => {
            look_at_workflow(step);
            step.tell_of_key();
            options.output.in_job = true;
            options.key.in_job = true;
            let (outcome, done) = restore::attempt(context, &options);
            let ending = restore::ending(&outcome, options.fail_on_miss);
            let error = failure(done);
            step.report(Verb::Restore, &outcome, error.as_ref(), ending == Conclusion::Miss);
            if outcome.cancelled { Conclusion::Failed } else { ending }
        }
        StepCommand::Save(mut options) => {
            step.tell_of_key();
            options.output.in_job = true;
            options.key.in_job = true;
            let (outcome, done) = save::attempt(context, &options);
            let error = failure(done);
            step.report(Verb::Save, &outcome, error.as_ref(), false);
            if outcome.cancelled { Conclusion::Failed } else { Conclusion::Done }
        }
    }
}

/// Returns the error of a run that failed, and prints the events before it.
fn failure(done: Result<()>) -> Option<Error> {
    let error = done.err()?;
    report::print_last_events(true);
    Some(error)
}

/// Prints the lint findings of the workflow as warnings. They are advice only: nothing is printed if the
/// workflow cannot be read.
fn look_at_workflow(step: &Step) {
    let Some(file) = step.workflow() else { return };
    for finding in lint::findings(&file).unwrap_or_default() {
        let text = format!("{}; to do: {}", finding.message, finding.fix);
        step.tell_of_workflow(&file, finding.line, &text);
    }
}
