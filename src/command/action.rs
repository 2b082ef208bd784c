//! `action`: one step of a job. It goes on whatever happens to the cache, unless it was told not to.

use super::{Ending, lint, restore, save};
use crate::action::{Step, Verb};
use crate::options::{Restore, Save};

/// What a step runs, with its options.
pub enum Task {
    Restore(Restore),
    Save(Save),
}

/// Runs the task and tells the runner of the job about it.
pub fn step(step: &Step, task: Task) -> Ending {
    match task {
        Task::Restore(mut options) => {
            look_at_workflow(step);
            step.tell_of_key();
            options.output.in_job = true;
            options.key.in_job = true;
            let (outcome, done) = restore::attempt(&options);
            let ending = restore::ending(&outcome, options.fail_on_miss);
            let error = done.err().map(|e| e.to_string());
            step.tell(Verb::Restore, &outcome, error.as_deref(), ending == Ending::Miss);
            if outcome.cancelled { Ending::Failed } else { ending }
        }
        Task::Save(mut options) => {
            step.tell_of_key();
            options.output.in_job = true;
            options.key.in_job = true;
            let (outcome, done) = save::attempt(&options);
            let error = done.err().map(|e| e.to_string());
            step.tell(Verb::Save, &outcome, error.as_deref(), false);
            if outcome.cancelled { Ending::Failed } else { Ending::Done }
        }
    }
}

/// Advice, and no more: where the workflow cannot be read, there is none.
fn look_at_workflow(step: &Step) {
    let Some(file) = step.workflow() else { return };
    for finding in lint::findings(&file).unwrap_or_default() {
        let text = format!("{}; to do: {}", finding.message, finding.fix);
        step.tell_of_workflow(&file, finding.line, &text);
    }
}
