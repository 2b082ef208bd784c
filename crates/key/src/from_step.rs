//! Reads the key options of a storecache step in a workflow, so that a user can compute the same key at a
//! terminal without repeating them as flags.

use crate::{KeyOptions, WorkflowMode};
use anyhow::{Context, Result, anyhow, bail};
use std::path::Path;
use storecache_runtime::advice::WithAdvice;
use storecache_workflow::cache_steps::is_ours;
use storecache_workflow::file_source::Tree;
use storecache_workflow::store_workflow;
use storecache_workflow::workflow::{Fields, Step, fields, read_job, with_variable};
use storecache_workflow::yaml::{Node, Pair};

/// Options as the step gives them.
#[derive(Debug)]
pub struct OfStep {
    pub key: KeyOptions,
    /// Its input `store`.
    pub store: Option<String>,
    /// File, line and job of the step, to display.
    pub place: String,
}

/// Adds the options of the storecache step to those given on the command line, which take precedence.
///
/// # Errors
/// If there is no such step or more than one, or if an input depends on values that are only known in a job.
pub fn of_step(given: &KeyOptions, tree: &dyn Tree) -> Result<OfStep> {
    let file = match &given.workflow {
        Some(file) => file.clone(),
        None => store_workflow(tree)?,
    };
    let content = tree.read(&file)?.with_context(|| {
        format!("read the workflow {}: {} has no such file", file.display(), tree.describe())
    })?;
    let top = Node::parse(&String::from_utf8_lossy(&content))
        .map_err(|e| anyhow!("{}:{}:{}: {e}", file.display(), e.line, e.column))?;
    let jobs = top.get("jobs").map(|jobs| jobs.pairs()).unwrap_or_default();
    let named = |job: &&Pair| given.workflow_job.as_ref().is_none_or(|name| *name == job.key);
    let mut found = Vec::new();
    for job in jobs.iter().filter(named) {
        let read = read_job(&job.value);
        for step in read.steps.into_iter().filter(|step| step.action().is_some_and(is_ours)) {
            found.push((job, step));
        }
    }
    let (job, step) = match found.len() {
        1 => found.remove(0),
        0 => bail!(
            anyhow!("no step of {} uses storecache", file.display())
                .hint("give --workflow and --hash-files instead of --from-step")
        ),
        _ => bail!(
            anyhow!(
                "several steps of {} use storecache, in the jobs {}",
                file.display(),
                found.iter().map(|(job, _)| job.key.as_str()).collect::<Vec<_>>().join(", ")
            )
            .hint("choose one with --workflow-job")
        ),
    };
    let environments = [top.get("env"), job.value.get("env")];
    let environments = environments.into_iter().flatten().map(|node| fields(node));
    let line = step.fields.get("uses").map_or(job.place.line, |uses| uses.line);
    let place = format!("{}:{line}, job {}", file.display(), job.key);
    let inputs = Inputs { step, environments: environments.collect() };
    let (key, store) = inputs
        .fill(given, &file, &job.key)
        .with_context(|| format!("read the inputs of the step at {place}"))?;
    Ok(OfStep { key, store, place })
}

struct Inputs {
    step: Step,
    environments: Vec<Fields>,
}

impl Inputs {
    fn fill(
        &self,
        given: &KeyOptions,
        file: &Path,
        job: &str,
    ) -> Result<(KeyOptions, Option<String>)> {
        let mut key = given.clone();
        let or = |given: &Option<String>, name, flag| match given {
            Some(_) => Ok(given.clone()),
            None => self.text(name, flag),
        };
        key.key = or(&given.key, "key", "--key")?;
        key.version = or(&given.version, "version", "--version")?;
        if given.prefix == KeyOptions::PREFIX {
            key.prefix = self.text("key-prefix", "--key-prefix")?.unwrap_or(key.prefix);
        }
        for (flag, name, list) in [
            ("--restore-key", "restore-keys", &mut key.restore_keys),
            ("--hash-files", "hash-files", &mut key.hash_files),
            ("--workflow-steps", "workflow-steps", &mut key.workflow_steps),
            ("--ignore-pins", "ignore-pins", &mut key.ignore_pins),
        ] {
            if list.is_empty() {
                let text = self.text(name, flag)?.unwrap_or_default();
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                *list = lines.map(str::to_owned).collect();
            }
        }
        key.workflow_mode = match self.text("workflow-mode", "--workflow-mode")?.as_deref() {
            None => given.workflow_mode,
            Some("semantic") => WorkflowMode::Semantic,
            Some("bytes") => WorkflowMode::Bytes,
            Some("none") => WorkflowMode::None,
            Some(other) => bail!("not a valid workflow-mode: {other:?}"),
        };
        let other = self.text("workflow", "--workflow")?;
        key.workflow = match other {
            Some(other) => Some(other.into()),
            // As the step itself does.
            None => key.key.is_none().then(|| file.to_owned()),
        };
        key.workflow_job = Some(job.to_owned());
        Ok((key, self.text("store", "--store")?))
    }

    /// Returns the value of an input, with references to literal variables of `env` replaced.
    fn text(&self, name: &str, flag: &str) -> Result<Option<String>> {
        let Some(text) = self.step.fields.get(&format!("with.{name}")) else { return Ok(None) };
        let mut text = text.text.trim().to_owned();
        let own = self
            .step
            .fields
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("env.")?, value)));
        let outer = self.environments.iter().rev().flat_map(Fields::iter);
        for (name, value) in own.chain(outer) {
            text = with_variable(&text, name, value);
        }
        if text.contains("${{") {
            bail!(
                anyhow!("input {name} is known only in a job: {text:?}")
                    .hint(format!("give its value with {flag}"))
            );
        }
        Ok((!text.is_empty()).then_some(text))
    }
}
