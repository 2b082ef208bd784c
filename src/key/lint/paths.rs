//! Steps that are meant to share entries and never do: the list of paths, with its order, is hashed into
//! the version of an entry. Source: actions/toolkit `packages/cache/src/internal/cacheUtils.ts`.

use super::super::workflow::Step;
use super::super::yaml::Pair;
use super::edit::Lines;
use super::found::Found;
use super::{Scene, caches, rules};

pub fn check(scene: &Scene) -> Vec<Found> {
    let official = |step: &&Step| step.action().is_some_and(caches::is_official);
    let mut found = Vec::new();
    let mut before: Vec<&Step> = Vec::new();
    for workflow in scene.all {
        let here = std::ptr::eq(*workflow, scene.workflow);
        for step in workflow.jobs.iter().flat_map(|job| &job.steps).filter(official) {
            if here && let Some(other) = before.iter().find(|other| differ(other, step)) {
                found.push(finding(scene, step, other));
            }
            before.push(step);
        }
    }
    found
}

/// Whether one of them may read what the other saves, but for their paths.
fn differ(one: &Step, other: &Step) -> bool {
    let (paths, others) = (caches::paths(one), caches::paths(other));
    if paths == others || paths.is_empty() || others.is_empty() {
        return false;
    }
    if !caches::of_a_store(one) && !caches::of_a_store(other) {
        return false;
    }
    let unknown = |paths: &[String]| paths.iter().any(|path| path.contains("${{"));
    !unknown(&paths) && !unknown(&others) && (reads(one, other) || reads(other, one))
}

/// Whether a step looks for the key of another one.
fn reads(reader: &Step, writer: &Step) -> bool {
    let (Some(key), Some(saved)) = (caches::key(reader), caches::key(writer)) else { return false };
    let restores = !reader.action().is_some_and(|action| action.ends_with("/save"));
    let saves = !writer.action().is_some_and(|action| action.ends_with("/restore"));
    let (key, saved) = (key.text.trim(), saved.text.trim());
    restores
        && saves
        && (key == saved
            || caches::restore_keys(reader).iter().any(|(_, prefix)| saved.starts_with(prefix)))
}

fn finding(scene: &Scene, step: &Step, other: &Step) -> Found {
    let path = step.node.get("with").and_then(|with| with.pair("path"));
    let line = path.map_or(step.node.place.line, |path| path.place.line);
    let (same, paths) = (caches::paths(other), caches::paths(step));
    let sorted = |paths: &[String]| {
        let mut paths = paths.to_vec();
        paths.sort();
        paths
    };
    let how = if sorted(&same) == sorted(&paths) { "in another order" } else { "with other paths" };
    let message = format!(
        "another step has this key {how}: the list of paths is part of the version of an entry, so they \
         never find each other's entries"
    );
    Found::error(rules::PATH_VERSION, line, message)
        .at("path")
        .fix(format!("give both the same list: {}", same.join(", ")))
        .lines(path.and_then(|path| put(scene, path, &same)))
}

/// Writes the paths of a step anew.
fn put(scene: &Scene, path: &Pair, paths: &[String]) -> Option<Lines> {
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
