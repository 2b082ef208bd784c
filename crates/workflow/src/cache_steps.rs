//! Detects steps that cache a store, and reads their keys and paths.

use super::workflow::{Job, Step, Text};

/// Returns whether a step caches a Nix or Guix store.
pub fn of_a_store(step: &Step) -> bool {
    let Some(action) = step.action() else { return false };
    if is_ours(action) || is_cache_nix(action) {
        return true;
    }
    is_official(action) && (!stores(step).is_empty() || is_named(step))
}

/// Returns the paths of a step that are parts of a store.
pub fn stores(step: &Step) -> Vec<String> {
    let of_a_store = |path: &String| {
        ["nix/store", "gnu/store", "var/guix", "nix/var"].iter().any(|part| path.contains(part))
            || ["/nix", "/gnu", "/nix/", "/gnu/", "/nix/**", "/gnu/**"].contains(&path.as_str())
    };
    paths(step).into_iter().filter(of_a_store).collect()
}

/// Returns whether the name, key or path mentions the store of Nix or Guix: the step may cache a tarball of
/// it.
fn is_named(step: &Step) -> bool {
    ["with.path", "with.key", "name", "id"].iter().any(|field| {
        let text = step.text(field).to_lowercase();
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
        words.contains(&"store") && ["nix", "guix", "gnu"].iter().any(|name| words.contains(name))
    })
}

/// Returns the steps of a job that cache a store.
pub fn in_job(job: &Job) -> impl Iterator<Item = &Step> {
    job.steps.iter().filter(|step| of_a_store(step))
}

/// Returns whether the step also saves, immediately or at the end of the job.
pub fn saves(step: &Step) -> bool {
    let operation = step.fields.get("with.operation").map(|text| text.text.trim());
    let restores_only = step.action().is_some_and(|action| action.ends_with("/restore"));
    let save = step.fields.get("with.save").map(|text| text.text.trim());
    let looks_only = step.text("with.lookup-only").trim() == "true";
    let refused = matches!(save, Some("false" | "never")) || operation == Some("restore");
    of_a_store(step) && !restores_only && !refused && !looks_only
}

/// Returns whether the step also restores.
pub fn restores(step: &Step) -> bool {
    let saves_only = step.action().is_some_and(|action| action.ends_with("/save"));
    of_a_store(step) && !saves_only && step.text("with.operation").trim() != "save"
}

/// Returns the key that a step is given.
pub fn key(step: &Step) -> Option<&Text> {
    step.fields.get("with.key").or_else(|| step.fields.get("with.primary-key"))
}

/// Returns the prefixes that the step tries after its key, with their lines.
pub fn restore_keys(step: &Step) -> Vec<(usize, &str)> {
    let names = ["with.restore-keys", "with.restore-prefixes-first-match"];
    let Some(text) = names.iter().find_map(|name| step.fields.get(name)) else { return vec![] };
    let lines = text.text.split('\n').enumerate();
    let lines = lines.map(|(at, line)| (text.line + at, line.trim()));
    lines.filter(|(_, line)| !line.is_empty()).collect()
}

/// Returns the paths that a step of actions/cache caches, in order.
pub fn paths(step: &Step) -> Vec<String> {
    let names = ["with.path", "with.paths"];
    let text = names.iter().map(|name| step.text(name)).find(|text| !text.is_empty());
    let lines = text.unwrap_or_default().lines().map(str::trim);
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Returns whether this is `actions/cache` or one of its two sub-actions.
pub fn is_official(action: &str) -> bool {
    matches!(action, "actions/cache" | "actions/cache/restore" | "actions/cache/save")
}

pub fn is_cache_nix(action: &str) -> bool {
    action.split('/').nth(1) == Some("cache-nix-action")
}

pub fn is_ours(action: &str) -> bool {
    action.split('/').nth(1) == Some("storecache")
}

/// Returns whether the step uses storecache.
pub fn ours(step: &Step) -> bool {
    step.action().is_some_and(is_ours)
}

/// Returns whether the step caches a plain directory with storecache. Plain directories have no version.
pub fn is_plain(step: &Step) -> bool {
    ours(step) && step.text("with.store").trim() == "plain"
}

/// Returns whether the step mentions Guix, so that its store is that of Guix.
pub fn is_of_guix(step: &Step) -> bool {
    step.fields.iter().any(|(_, text)| {
        let text = text.text.to_lowercase();
        text.contains("guix") || text.contains("gnu/store")
    })
}
