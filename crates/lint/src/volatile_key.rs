//! Keys that never change, and keys that change in every run.

use super::diagnostic::Diagnostic;
use super::{Level, LintContext, key_system, rules, shell};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::{Job, Step, Text};

/// Files that determine the content of a Nix store, best first.
const NIX: [&str; 6] =
    ["flake.lock", "devbox.lock", "devenv.lock", "flake.nix", "shell.nix", "default.nix"];

/// Files that determine the content of a Guix store, best first.
const GUIX: [&str; 3] = ["channels.scm", "manifest.scm", "guix.scm"];

/// Expressions with a new value in each run or for each commit.
const VOLATILE: [&str; 7] = [
    "github.sha",
    "github.run_id",
    "github.run_number",
    "github.run_attempt",
    "github.event.after",
    "head_commit.",
    "head.sha",
];

/// Expressions that always have the same value in one workflow.
const CONSTANT: [&str; 6] = [
    "runner.os",
    "runner.arch",
    "github.repository",
    "github.workflow",
    "github.job",
    "github.repository_owner",
];

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for job in &scene.workflow.jobs {
        for step in cache_steps::in_job(job) {
            let Some(key) = cache_steps::key(step) else { continue };
            let text = key_system::resolved(scene, job, step, &key.text);
            if is_fixed(&text) && is_kept_for_ever(step) {
                found.push(fixed(scene, step, key));
            } else if let Some(what) = volatile(&text, job) {
                found.extend(changing(scene, job, step, key, what));
            }
        }
    }
    found
}

/// Returns whether a key has no part that could change: no version, no hash, no variable.
pub fn is_fixed(text: &str) -> bool {
    !key_system::has_version(text)
        && key_system::expressions(text).all(|it| CONSTANT.contains(&it.trim()))
}

/// Returns whether an entry of a step is never replaced. storecache saves a store that grew again under the
/// same key, and so does cache-nix-action if it purges.
fn is_kept_for_ever(step: &Step) -> bool {
    !cache_steps::ours(step) && cache_steps::saves(step) && step.text("with.purge").trim() != "true"
}

/// Returns the best file of the work tree that determines the content of the store.
fn lock(scene: &LintContext, step: &Step) -> Option<String> {
    let names: &[&str] = if cache_steps::is_of_guix(step) { &GUIX } else { &NIX };
    scene.files.first(names)
}

fn fixed(scene: &LintContext, step: &Step, key: &Text) -> Diagnostic {
    let lock = lock(scene, step).unwrap_or_else(|| "flake.lock".into());
    let old = key.text.trim();
    let new = format!("{old}-${{{{ hashFiles('{lock}') }}}}");
    Diagnostic::warning(
        rules::FIXED_KEY,
        key.line,
        "the key never changes: it is saved once, and later changes of the store are not saved",
    )
    .at_first_line(key)
    .fix("put the hash of a lock file into the key")
    .lines(scene.page.swap(&[(key.line, old, &new)]))
    .example(format!("key: {new}\nrestore-keys: {old}-"))
}

/// Returns the expression of a key that has a new value in each run.
fn volatile(text: &str, job: &Job) -> Option<String> {
    key_system::expressions(text).map(str::trim).find_map(|expression| {
        let named = VOLATILE.iter().any(|name| {
            expression
                .split(|c: char| !c.is_alphanumeric() && !"._".contains(c))
                .any(|word| word == *name || (name.starts_with("head") && word.contains(name)))
        });
        (named || is_time(expression, job)).then(|| expression.to_owned())
    })
}

/// Returns whether an output of a step is a time with minutes or finer. A key with the day or the week is
/// often intended.
fn is_time(expression: &str, job: &Job) -> bool {
    let Some(id) = expression.strip_prefix("steps.").and_then(|it| it.split('.').next()) else {
        return false;
    };
    let step = job.steps.iter().find(|step| step.text("id").eq_ignore_ascii_case(id));
    step.into_iter().flat_map(shell::commands).any(|command| {
        let finer = ["%s", "%S", "%M", "%T", "%N", "%R", "%c"];
        command.text.contains("date ") && finer.iter().any(|it| command.text.contains(it))
    })
}

fn changing(
    scene: &LintContext,
    job: &Job,
    step: &Step,
    key: &Text,
    what: String,
) -> Option<Diagnostic> {
    let same = |other: &Step| cache_steps::key(other).is_some_and(|it| it.text == key.text);
    let others = || scene.workflow.jobs.iter().flat_map(|job| &job.steps).filter(|it| same(it));
    // One job of a run passes its store to another job.
    let handed = step.action() != Some("actions/cache")
        && others().any(cache_steps::saves)
        && others().any(|other| {
            cache_steps::restores(other) && cache_steps::restore_keys(other).is_empty()
        });
    if handed {
        return None;
    }
    let own = !cache_steps::restore_keys(step).is_empty();
    let elsewhere =
        |other: &Step| cache_steps::restores(other) && !cache_steps::restore_keys(other).is_empty();
    let (level, why) = if !cache_steps::saves(step) {
        if own {
            return None;
        }
        (Level::Error, "no run finds its entry")
    } else if own || cache_steps::in_job(job).any(elsewhere) {
        (Level::Warning, "each run saves one more store, which evicts older entries")
    } else {
        (Level::Error, "no run finds an entry, and each saves one more store")
    };
    let lock = lock(scene, step);
    let swap = lock.as_ref().and_then(|lock| {
        let line = (0..=key.text.matches('\n').count()).map(|at| key.line + at).find(|line| {
            scene.page.line(*line).is_some_and(|it| it.to_lowercase().contains(&what))
        })?;
        let text = scene.page.line(line)?;
        let at = text.to_lowercase().find(&what)?;
        let old = text.get(at..at + what.len())?;
        scene.page.swap(&[(line, old, &format!("hashFiles('{lock}')"))])
    });
    let found = match level {
        Level::Error => Diagnostic::error,
        Level::Warning => Diagnostic::warning,
    };
    let message = format!("`{what}` in the key differs in each run: {why}");
    Some(
        found(rules::VOLATILE_KEY, key.line, message)
            .at_first_line(key)
            .fix("use a hash of the files that the store depends on instead")
            .lines(swap)
            .example("key: nix-2.30.1-${{ runner.arch }}-${{ hashFiles('flake.lock') }}"),
    )
}
