//! Selects the jobs of a workflow that count.

use super::super::cache_steps::of_a_store;
use super::super::workflow::read_job;
use super::super::yaml::{Node, Pair};
use super::{Reader, Selection, Unreadable, below, expression, sorted};
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Maximum number of jobs that a message lists.
const LISTED: usize = 10;

impl Reader<'_> {
    pub(super) fn workflow(&mut self, top: &Node, selection: &Selection) -> Result<()> {
        let jobs = top.pair("jobs").filter(|jobs| !jobs.value.pairs().is_empty());
        let Some(Pair { value: jobs, .. }) = jobs else {
            let (file, what) = (self.file(), "not a workflow: it has no `jobs`".into());
            let line = top.pair("jobs").map_or(1, |jobs| jobs.place.line);
            return Err(Unreadable { file, line, column: 1, what }.into());
        };
        match selection.job {
            None => {
                self.rest_of_workflow("", top);
                self.keepers(jobs)?;
            }
            Some(wanted) if let Some(job) = jobs.get(wanted) => {
                self.rest_of_workflow("", top);
                self.job("job", job)?;
            }
            // The rest of the workflow does not affect a job of a called workflow.
            Some(wanted) => {
                if !self.called_jobs("caller", "called", jobs, wanted)? {
                    bail!(
                        "{} has no job {wanted:?}, and neither have the workflows that it calls by \
                         path; its jobs are {}",
                        self.file().display(),
                        listed(jobs.pairs().iter())
                    );
                }
            }
        }
        self.defaults_in_use(top);
        Ok(())
    }

    /// Adds the jobs that cache a store, or all jobs if no job caches one.
    fn keepers(&mut self, jobs: &Node) -> Result<()> {
        let keeps = |job: &&Pair| read_job(&job.value).steps.iter().any(of_a_store);
        let keepers: Vec<_> = jobs.pairs().iter().filter(keeps).collect();
        match keepers.as_slice() {
            [] => self.jobs("", jobs.pairs().iter()),
            [only] => self.job("job", &only.value),
            some => {
                self.found.notes.push(format!(
                    "the jobs {} of {} cache a store, but the key of a job covers only that job; \
                     choose it with --workflow-job",
                    listed(some.iter().copied()),
                    self.file().display()
                ));
                self.jobs("", some.iter().copied())
            }
        }
    }

    pub(super) fn jobs<'n>(
        &mut self,
        path: &str,
        jobs: impl Iterator<Item = &'n Pair>,
    ) -> Result<()> {
        for job in sorted(jobs) {
            self.job(&below(&below(path, "jobs"), &job.key), &job.value)?;
        }
        Ok(())
    }

    /// Adds the jobs of this name in workflows that one of these jobs calls. Returns whether there are any.
    fn called_jobs(
        &mut self,
        caller: &str,
        called: &str,
        jobs: &Rc<Node>,
        wanted: &str,
    ) -> Result<bool> {
        let mut any = false;
        for job in sorted(jobs.pairs().iter()) {
            let uses = job.value.get("uses").and_then(|uses| uses.text());
            let Some(file) = uses.and_then(|uses| self.workflow_at(uses)) else { continue };
            let before = (self.found.lines.len(), self.found.dropped.len(), self.found.files.len());
            let Some(top) = self.enter(&file, called)? else { continue };
            let hit = self.called_job(caller, called, (&job.value, &top), wanted)?;
            self.leave();
            if !hit {
                self.found.lines.truncate(before.0);
                self.found.dropped.truncate(before.1);
                self.found.files.truncate(before.2);
            }
            any |= hit;
        }
        Ok(any)
    }

    fn called_job(
        &mut self,
        caller: &str,
        called: &str,
        (job, top): (&Node, &Node),
        wanted: &str,
    ) -> Result<bool> {
        for pair in sorted(job.pairs().iter()) {
            match pair.key.as_str() {
                "with" => self.field(caller, pair),
                "strategy" => self.strategy(&below(caller, "strategy"), &pair.value),
                // The other fields of the caller only decide when it runs.
                _ => {}
            }
        }
        self.defaults(called, top);
        let Some(jobs) = top.get("jobs") else { return Ok(false) };
        match jobs.get(wanted) {
            Some(job) => {
                self.rest_of_workflow(called, top);
                self.job("job", job)?;
                Ok(true)
            }
            None => {
                let (caller, called) = (below(caller, "caller"), below(called, "called"));
                self.called_jobs(&caller, &called, jobs, wanted)
            }
        }
    }

    /// Adds the default values of those inputs that the lines refer to.
    fn defaults_in_use(&mut self, top: &Node) {
        let texts = self.found.lines.iter().map(|line| line.text.as_str());
        let named: BTreeSet<_> =
            texts.flat_map(|text| expression::names_of("inputs", text)).collect();
        let Some(on) = top.get("on") else { return };
        for trigger in ["workflow_call", "workflow_dispatch"] {
            let inputs = on.get(trigger).and_then(|trigger| trigger.get("inputs"));
            for input in sorted(inputs.iter().flat_map(|inputs| inputs.pairs())) {
                if named.contains(&input.key.to_lowercase())
                    && let Some(default) = input.value.pair("default")
                {
                    let path = ["on", trigger, "inputs", input.key.as_str()];
                    let path = path.iter().fold(String::new(), |path, key| below(&path, key));
                    self.pair(&path, default);
                }
            }
        }
    }
}

/// Returns the names of some jobs, for messages.
fn listed<'n>(jobs: impl ExactSizeIterator<Item = &'n Pair>) -> String {
    let all = jobs.len();
    let mut names: Vec<_> = jobs.take(LISTED).map(|job| job.key.clone()).collect();
    if all > LISTED {
        names.push(format!("{} more", all - LISTED));
    }
    names.join(", ")
}
