//! `key simulate`: finds which key policy would have worked best for the past runs.

mod observations;
mod page;
mod text;
mod warnings;

use super::{Conclusion, html_file as pages, or_json};
use crate::config::{Simulate, Since};
use crate::report::{self, Counting};
use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use observations::Past;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use storecache_key::history::{Graph, Run, Runs, States, Watch};
use storecache_key::simulate::{
    Costs, Happening, KeyPart, KeyPolicy, Limits, PolicyInputs, Read, Simulation, Triggers,
    Workflow, best, replay,
};
use storecache_key::{Files, Repository, WorkflowMode};
use storecache_runtime::advice::WithAdvice;
use storecache_workflow::store_workflow;

const DAY: i64 = 86_400;

/// Prints the result of each policy, and names the best one.
pub fn simulate(options: &Simulate) -> Result<Conclusion> {
    or_json(&options.output, run(options))
}

fn run(options: &Simulate) -> Result<Conclusion> {
    let simulation = simulated(options)?;
    if let Some(path) = &options.html {
        pages::write(&page::page(&simulation), path)?;
        report::status(format!("the page is in {}", path.display()));
    }
    if options.output.json {
        let mut object = serde_json::to_value(&simulation).context("write the report")?;
        object["ok"] = true.into();
        report::answer_json(&object)?;
    } else {
        text::results(&simulation).iter().try_for_each(report::answer)?;
    }
    if !options.output.quiet {
        text::notes(&simulation).iter().for_each(report::note);
    }
    Ok(Conclusion::Done)
}

/// Runs the whole simulation.
fn simulated(options: &Simulate) -> Result<Simulation> {
    let repository = Repository::here()?;
    let graph = Graph::read(&repository, options.default_branch.as_deref())?;
    let newest = graph.newest().context("no branch has a commit")?;
    let files = Rc::new(repository.files(&graph.commits[newest].id)?);
    let file = named(options, &repository, &files)?;
    let workflow = file.as_ref().map(|file| workflow(file, options, &repository)).transpose()?;

    let policies = policies(options, workflow.is_some());
    let recipe = PolicyInputs::new(&policies, &options.truth, workflow.is_some())?;
    let triggers = workflow.as_ref().and_then(|it| triggers(it, &repository, &files));
    let mut runs = Runs::from_graph(&graph);
    if let Some(triggers) = triggers.as_ref().filter(|_| options.as_triggered) {
        runs = runs.only(|run, all| triggers.fire_for(run, all));
    }
    let asked = window(&runs.runs, options)?;
    let path = workflow.as_ref().map(|workflow| workflow.path.clone());
    let watch = Watch::new(&repository, &recipe.watched, path, &files);
    let states = states(&watch, &graph, asked, options.output.quiet)?;
    let bar = Counting::new(options.output.quiet, "workflows", states.workflows.len() as u64);
    let meaning = recipe.apply(&repository, workflow.as_ref(), &states, &mut || bar.advance());
    drop(bar);
    let state_of = |run: &Run| states.of.get(&run.commit).copied().unwrap_or_default();
    let fate = |run: &&Run| meaning.workflow[state_of(run)];
    // Commits without the workflow have no run.
    let there = |run: &&Run| workflow.is_none() || fate(run) != Read::Absent;
    let window: Vec<Run> = asked.iter().filter(there).cloned().collect();

    let past = Past::read(options.backend.as_ref(), &options.key.prefix);
    let costs = costs(options, &past);
    let limits = Limits { bytes: options.limit, idle: i64::from(options.idle_days) * DAY };
    let mut simulation = Simulation::new(&graph, &window);
    simulation.workflow = workflow.as_ref().map(|it| it.path.display().to_string());
    simulation.states = states.distinct.len();
    simulation.series_seconds = width(&window);
    simulation.assumptions = text::assumptions(options, &costs, &past);
    simulation.warnings = warnings::of_history(&graph);
    if let Some(workflow) = &workflow {
        let fates: Vec<Read> = asked.iter().map(|run| fate(&run)).collect();
        simulation.warnings.extend(warnings::of_workflow(&workflow.path, &fates)?);
    }
    let fires = |run: &&Run| triggers.as_ref().is_none_or(|it| it.fire_for(run, &runs));
    simulation.warnings.extend(warnings::untriggered(window.iter().filter(|run| !fires(run))));
    for (policy, keys) in policies.iter().zip(&meaning.keys) {
        let happening = |run| {
            let state = state_of(run);
            Happening { run, key: keys[state], needs: meaning.needs[state] }
        };
        let happenings: Vec<Happening> = window.iter().map(happening).collect();
        let mut outcome = replay(&happenings, limits, &costs, simulation.series_seconds);
        (outcome.policy, outcome.parts) = (policy.name.clone(), policy.parts.len());
        simulation.policies.push(outcome);
    }
    simulation.best = best(&simulation.policies);
    Ok(simulation)
}

/// The workflow that the flags name; `None` if keys do not include a workflow.
fn named(
    options: &Simulate,
    repository: &Repository,
    files: &Rc<Files>,
) -> Result<Option<PathBuf>> {
    match (options.key.workflow_mode, &options.key.workflow) {
        (WorkflowMode::None, _) => Ok(None),
        (_, Some(file)) => Ok(Some(file.clone())),
        (_, None) => store_workflow(&repository.tree("HEAD", Rc::clone(files))).map(Some),
    }
}

fn workflow<'o>(
    file: &'o Path,
    options: &'o Simulate,
    repository: &Repository,
) -> Result<Workflow<'o>> {
    let outside = || format!("the workflow {} is outside the work tree", file.display());
    let path = repository.below_top(file).with_context(outside)?;
    Ok(Workflow { file, path, options: &options.key })
}

/// The triggers that the workflow has today.
fn triggers(workflow: &Workflow, repository: &Repository, files: &Files) -> Option<Triggers> {
    Triggers::parse(&repository.content(&files.get(&workflow.path)?.id).ok()?)
}

/// The built-in policies, then the requested ones. Without a workflow, policies that depend on one are left
/// out.
fn policies(options: &Simulate, with_workflow: bool) -> Vec<KeyPolicy> {
    let of_a_workflow = |part: &KeyPart| matches!(part, KeyPart::Bytes | KeyPart::Semantic);
    let mut policies = KeyPolicy::built_in();
    policies.retain(|policy| with_workflow || !policy.parts.iter().any(of_a_workflow));
    policies.extend(options.policies.iter().cloned());
    policies
}

/// The runs in the requested period.
fn window<'r>(runs: &'r [Run], options: &Simulate) -> Result<&'r [Run]> {
    let Some(newest) = runs.last().map(|run| run.time) else {
        bail!(
            anyhow!("the current workflow has no trigger for any commit")
                .hint("leave out --as-triggered")
        );
    };
    let begin = match options.since {
        Since::Time(time) => time.as_second(),
        Since::Age(age) => newest.saturating_sub(age),
    };
    let since = &runs[runs.partition_point(|run| run.time < begin)..];
    if since.is_empty() {
        bail!(
            anyhow!("there is no commit since {}: the newest is of {}", date(begin), date(newest))
                .hint("use an earlier --since")
        );
    }
    let first = since.len().saturating_sub(options.max.unwrap_or(usize::MAX));
    Ok(&since[first..])
}

fn states(watch: &Watch, graph: &Graph, window: &[Run], quiet: bool) -> Result<States> {
    let mut commits: Vec<usize> = window.iter().map(|run| run.commit).collect();
    // Parents come first, whatever the commit times are.
    commits.sort_unstable();
    let bar = Counting::new(quiet, "commits", commits.len() as u64);
    States::read(watch, graph, &commits, &mut || bar.advance())
}

/// The width of a point of the series in seconds: a day, or enough weeks to keep the page readable.
fn width(window: &[Run]) -> i64 {
    const POINTS: i64 = 160;
    let (Some(first), Some(last)) = (window.first(), window.last()) else { return DAY };
    let days = (last.time - first.time) / DAY + 1;
    match days {
        ..=60 => DAY,
        _ => ((days / 7 + 1) / POINTS + 1) * 7 * DAY,
    }
}

fn costs(options: &Simulate, past: &Past) -> Costs {
    /// Used if neither the options nor past snapshots give a value.
    const ENTRY: u64 = 1 << 30;
    const COLD_MINUTES: f64 = 10.0;
    let cold = options.cold_minutes.or(past.cold_minutes).unwrap_or(COLD_MINUTES);
    Costs {
        entry: options.entry_size.or(past.entry).unwrap_or(ENTRY),
        delta_share: options.delta_share,
        cold_minutes: cold.max(options.hit_minutes),
        hit_minutes: options.hit_minutes,
        prefix_share: options.prefix_share,
    }
}

/// A date for people.
fn date(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y-%m-%d").to_string()
}
