//! `key simulate`: which keys would have served the past best.

mod page;
mod past;
mod tell;

use super::{Ending, or_json, page as pages};
use crate::key::history::{Graph, Kind, Run, Runs, States, Watch};
use crate::key::simulate::{
    Costs, Happening, Limits, Read, Recipe, Simulation, Triggers, Workflow, best, replay,
};
use crate::key::{Repository, store_workflow};
use crate::options::{KeyPart, KeyPolicy, Simulate, Since, WorkflowMode};
use crate::report::{self, Counting};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use past::Past;
use std::rc::Rc;

const DAY: i64 = 86_400;

/// Prints what each policy comes to, and names the best.
pub fn simulate(options: &Simulate) -> Result<Ending> {
    or_json(&options.output, run(options))
}

fn run(options: &Simulate) -> Result<Ending> {
    let simulation = simulated(options)?;
    if let Some(path) = &options.html {
        pages::write(&page::page(&simulation, options.limit), path)?;
        report::note(format!("storecache: the page is in {}", path.display()));
    }
    if options.output.json {
        let mut object = serde_json::to_value(&simulation).context("write the report")?;
        object["ok"] = true.into();
        report::answer(object)?;
    } else {
        report::answer(tell::results(&simulation).trim_end())?;
    }
    if !options.output.quiet {
        tell::notes(&simulation).iter().for_each(report::note);
    }
    Ok(Ending::Done)
}

/// The whole simulation.
fn simulated(options: &Simulate) -> Result<Simulation> {
    let repository = Repository::here()?;
    let graph = Graph::read(&repository, options.default_branch.as_deref())?;
    let newest = graph.newest().context("no branch leads to a commit")?;
    let files = Rc::new(repository.files(&graph.commits[newest].id)?);
    let file = match (options.key.workflow_mode, &options.key.workflow) {
        (WorkflowMode::None, _) => None,
        (_, Some(file)) => Some(file.clone()),
        (_, None) => Some(store_workflow(&repository.tree("HEAD", Rc::clone(&files)))?),
    };
    let workflow = file.as_ref().map(|file| {
        let outside = || format!("the workflow {} is outside of the work tree", file.display());
        let path = repository.below_top(file).with_context(outside)?;
        anyhow::Ok(Workflow { file, path, options: &options.key })
    });
    let workflow = workflow.transpose()?;

    let policies = policies(options, workflow.is_some());
    let recipe = Recipe::new(&policies, &options.truth, workflow.is_some())?;
    let mut runs = Runs::of(&graph);
    let text = workflow.as_ref().and_then(|it| files.get(&it.path));
    let text = text.and_then(|blob| repository.content(&blob.id).ok());
    let triggers = text.and_then(|text| Triggers::of(&text));
    if let Some(triggers) = triggers.as_ref().filter(|_| options.as_triggered) {
        runs = runs.only(|run, all| triggers.fire_for(run, all));
        if runs.runs.is_empty() {
            bail!("the workflow of today has no trigger for any commit; leave out --as-triggered");
        }
    }
    let window = window(&runs.runs, options)?;
    let path = workflow.as_ref().map(|workflow| workflow.path.clone());
    let watch = Watch::new(&repository, &recipe.watched, path, &files);
    let states = states(&watch, &graph, window, options.output.quiet)?;
    let bar = Counting::new(options.output.quiet, "workflows", states.workflows.len() as u64);
    let meaning = recipe.apply(&repository, workflow.as_ref(), &states, &mut || bar.advance());
    drop(bar);
    let state_of = |run: &Run| states.of.get(&run.commit).copied().unwrap_or_default();

    let past = Past::read(options.backend.as_ref(), &options.key.prefix);
    let costs = costs(options, &past);
    let limits = Limits { bytes: options.limit, idle: i64::from(options.idle_days) * DAY };
    let mut simulation = Simulation::of(&graph, window);
    simulation.workflow = workflow.as_ref().map(|it| it.path.display().to_string());
    simulation.states = states.distinct.len();
    simulation.series_seconds = width(window);
    simulation.assumptions = tell::assumptions(options, &costs, &past);
    let fates: Vec<Read> = window.iter().map(|run| meaning.workflow[state_of(run)]).collect();
    simulation.warnings = warnings(&graph, &fates, workflow.as_ref())?;
    let fires = |run: &&Run| triggers.as_ref().is_none_or(|it| it.fire_for(run, &runs));
    simulation.warnings.extend(untriggered(window.iter().filter(|run| !fires(run))));
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

/// The built-in policies, then those that were asked for. Without a workflow two of them are none.
fn policies(options: &Simulate, with_workflow: bool) -> Vec<KeyPolicy> {
    let of_a_workflow = |part: &KeyPart| matches!(part, KeyPart::Bytes | KeyPart::Semantic);
    let mut policies = KeyPolicy::built_in();
    policies.retain(|policy| with_workflow || !policy.parts.iter().any(of_a_workflow));
    policies.extend(options.policies.iter().cloned());
    policies
}

/// The runs that are asked for.
fn window<'r>(runs: &'r [Run], options: &Simulate) -> Result<&'r [Run]> {
    let newest = runs.last().context("no branch leads to a commit")?.time;
    let begin = match options.since {
        Since::Time(time) => time.as_second(),
        Since::Age(age) => newest.saturating_sub(age),
    };
    let since = &runs[runs.partition_point(|run| run.time < begin)..];
    if since.is_empty() {
        bail!(
            "there is no commit since {}: the newest is of {}; begin earlier with --since",
            date(begin),
            date(newest)
        );
    }
    let first = since.len().saturating_sub(options.max.unwrap_or(usize::MAX));
    Ok(&since[first..])
}

fn states(watch: &Watch, graph: &Graph, window: &[Run], quiet: bool) -> Result<States> {
    let mut commits: Vec<usize> = window.iter().map(|run| run.commit).collect();
    // Parents first: whatever the clocks said.
    commits.sort_unstable();
    let bar = Counting::new(quiet, "commits", commits.len() as u64);
    States::read(watch, graph, &commits, &mut || bar.advance())
}

/// The length of a point of the series in seconds: a day, or as many weeks as make a plot that can be
/// looked at.
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
    /// Where nobody knows better.
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

/// What the result has to be read with.
fn warnings(graph: &Graph, fates: &[Read], workflow: Option<&Workflow>) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if graph.shallow {
        warnings.push(format!(
            "the clone is shallow: only {} of its history are here; fetch the rest with `git fetch \
             --unshallow`, or give actions/checkout `fetch-depth: 0`",
            report::plural(graph.commits.len() as u64, "commit"),
        ));
    }
    let Some(workflow) = workflow else { return Ok(warnings) };
    let name = workflow.path.display();
    let count = |fate: Read| fates.iter().filter(|it| **it == fate).count() as u64;
    let runs = |fate| report::plural(count(fate), "run");
    if count(Read::Absent) == fates.len() as u64 {
        bail!("no commit of these has the workflow {name}; name another with --workflow FILE");
    }
    if count(Read::Absent) > 0 {
        warnings
            .push(format!("{} had no {name}: they count as runs all the same", runs(Read::Absent)));
    }
    if count(Read::NotUnderstood) > 0 {
        warnings.push(format!(
            "in {} {name} is not understood: there all of its bytes count",
            runs(Read::NotUnderstood)
        ));
    }
    if count(Read::NotHere) > 0 {
        warnings.push(format!(
            "in {} the content of {name} is not in this clone: there any edit counts; fetch it with \
             `git fetch --refetch --no-filter`",
            runs(Read::NotHere)
        ));
    }
    Ok(warnings)
}

/// What is to be known of commits that a workflow of today would not run for.
fn untriggered<'r>(runs: impl Iterator<Item = &'r Run>) -> Option<String> {
    let (seeds, others): (Vec<&Run>, Vec<&Run>) =
        runs.partition(|run| run.kind == Kind::DefaultBranch);
    let unseeded = match seeds.is_empty() {
        true => "",
        false => ", among them those of the default branch, whose entries all others could read",
    };
    let count = seeds.len() + others.len();
    (count > 0).then(|| {
        format!(
            "for {} the workflow of today has no trigger{unseeded}: see --as-triggered",
            report::plural(count as u64, "run")
        )
    })
}

/// A day, as people write it.
fn date(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y-%m-%d").to_string()
}
