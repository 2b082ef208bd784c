//! Steps that should share entries but never do: the list of paths, including its order, is hashed into the
//! version of an entry. Source: actions/toolkit `packages/cache/src/internal/cacheUtils.ts`.

use super::diagnostic::Diagnostic;
use super::fix::Lines;
use super::{LintContext, rules};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::Step;
use storecache_workflow::yaml::Pair;

/// The relevant fields of a step of actions/cache.
struct Cache<'w> {
    step: &'w Step,
    paths: Vec<String>,
    key: &'w str,
    prefixes: Vec<&'w str>,
    restores: bool,
    saves: bool,
    of_a_store: bool,
}

impl<'w> Cache<'w> {
    /// Reads a step. Returns `None` if the file does not contain the paths.
    fn from_step(step: &'w Step) -> Option<Self> {
        let action = step.action().filter(|action| cache_steps::is_official(action))?;
        let paths = cache_steps::paths(step);
        if paths.is_empty() || paths.iter().any(|path| path.contains("${{")) {
            return None;
        }
        Some(Cache {
            step,
            paths,
            key: cache_steps::key(step)?.text.trim(),
            prefixes: cache_steps::restore_keys(step)
                .into_iter()
                .map(|(_, prefix)| prefix)
                .collect(),
            restores: !action.ends_with("/save"),
            saves: !action.ends_with("/restore"),
            of_a_store: cache_steps::of_a_store(step),
        })
    }

    /// Returns whether this step looks up the key of another step.
    fn reads(&self, other: &Cache) -> bool {
        let prefix = || self.prefixes.iter().any(|prefix| other.key.starts_with(prefix));
        self.restores && other.saves && (self.key == other.key || prefix())
    }
}

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut before: Vec<Cache> = Vec::new();
    for workflow in scene.all {
        let here = std::ptr::eq(*workflow, scene.workflow);
        let steps = workflow.jobs.iter().flat_map(|job| &job.steps);
        for cache in steps.filter_map(Cache::from_step) {
            if here && let Some(other) = before.iter().find(|other| differ(other, &cache)) {
                found.push(finding(scene, &cache, other));
            }
            before.push(cache);
        }
    }
    found
}

/// Returns whether only the paths prevent one of the steps from reading the entries of the other.
fn differ(one: &Cache, other: &Cache) -> bool {
    one.paths != other.paths
        && (one.of_a_store || other.of_a_store)
        && (one.reads(other) || other.reads(one))
}

fn finding(scene: &LintContext, cache: &Cache, other: &Cache) -> Diagnostic {
    let path = cache.step.node.get("with").and_then(|with| with.pair("path"));
    let line = path.map_or(cache.step.node.place.line, |path| path.place.line);
    let (same, paths) = (&other.paths, &cache.paths);
    let sorted = |paths: &[String]| {
        let mut paths = paths.to_vec();
        paths.sort();
        paths
    };
    let how = if sorted(same) == sorted(paths) {
        "with the paths in another order"
    } else {
        "with other paths"
    };
    let message = format!(
        "another step has this key {how}: the list of paths is part of the version of an entry, so \
         these steps never find each other's entries"
    );
    Diagnostic::error(rules::PATH_VERSION, line, message)
        .at("path")
        .fix(format!("give both the same list: {}", same.join(", ")))
        .lines(path.and_then(|path| put(scene, path, same)))
}

/// Writes new paths of a step.
fn put(scene: &LintContext, path: &Pair, paths: &[String]) -> Option<Lines> {
    let line = scene.page.line(path.place.line)?;
    let head = line.get(..line.find("path:")? + "path:".len())?;
    let indent = " ".repeat(path.place.column + 1);
    let lines = match paths {
        [one] => vec![format!("{head} {one}")],
        all => [format!("{head} |")]
            .into_iter()
            .chain(all.iter().map(|path| format!("{indent}{path}")))
            .collect(),
    };
    let end = scene.page.end_of(path.place.line, path.place.column + 1);
    scene.page.put(path.place.line, end, &lines)
}
