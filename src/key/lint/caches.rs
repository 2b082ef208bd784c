//! Which steps keep a store in a cache, and with which keys and paths.

use super::super::workflow::{Job, Step, Text};

/// Whether a step keeps a Nix or Guix store.
pub fn of_a_store(step: &Step) -> bool {
    let Some(action) = step.action() else { return false };
    if is_ours(action) || is_cache_nix(action) {
        return true;
    }
    is_official(action) && (!stores(step).is_empty() || is_named(step))
}

/// The parts of a store among the paths of a step.
pub fn stores(step: &Step) -> Vec<String> {
    let of_a_store = |path: &String| {
        ["nix/store", "gnu/store", "var/guix", "nix/var"].iter().any(|part| path.contains(part))
            || ["/nix", "/gnu", "/nix/", "/gnu/", "/nix/**", "/gnu/**"].contains(&path.as_str())
    };
    paths(step).into_iter().filter(of_a_store).collect()
}

/// Whether its name, key or path speaks of the store of Nix or Guix: it may hold a tarball of one.
fn is_named(step: &Step) -> bool {
    ["with.path", "with.key", "name", "id"].iter().any(|field| {
        let text = step.text(field).to_lowercase();
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
        words.contains(&"store") && ["nix", "guix", "gnu"].iter().any(|name| words.contains(name))
    })
}

/// Steps of a job that keep a store.
pub fn in_job(job: &Job) -> impl Iterator<Item = &Step> {
    job.steps.iter().filter(|step| of_a_store(step))
}

/// Whether it also saves, at the end of the job or at once.
pub fn saves(step: &Step) -> bool {
    let operation = step.fields.get("with.operation").map(|text| text.text.trim());
    let restores_only = step.action().is_some_and(|action| action.ends_with("/restore"));
    let save = step.fields.get("with.save").map(|text| text.text.trim());
    let looks_only = step.text("with.lookup-only").trim() == "true";
    let refused = matches!(save, Some("false" | "never")) || operation == Some("restore");
    of_a_store(step) && !restores_only && !refused && !looks_only
}

/// Whether it also restores.
pub fn restores(step: &Step) -> bool {
    let saves_only = step.action().is_some_and(|action| action.ends_with("/save"));
    of_a_store(step) && !saves_only && step.text("with.operation").trim() != "save"
}

/// The key that a step is given.
pub fn key(step: &Step) -> Option<&Text> {
    step.fields.get("with.key").or_else(|| step.fields.get("with.primary-key"))
}

/// The prefixes that it tries after its key, with their lines.
pub fn restore_keys(step: &Step) -> Vec<(usize, &str)> {
    let names = ["with.restore-keys", "with.restore-prefixes-first-match"];
    let Some(text) = names.iter().find_map(|name| step.fields.get(name)) else { return vec![] };
    let lines = text.text.split('\n').enumerate();
    let lines = lines.map(|(at, line)| (text.line + at, line.trim()));
    lines.filter(|(_, line)| !line.is_empty()).collect()
}

/// What a step of actions/cache keeps, in its order.
pub fn paths(step: &Step) -> Vec<String> {
    let names = ["with.path", "with.paths"];
    let text = names.iter().map(|name| step.text(name)).find(|text| !text.is_empty());
    let lines = text.unwrap_or_default().lines().map(str::trim);
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// `actions/cache` and the two below it.
pub fn is_official(action: &str) -> bool {
    matches!(action, "actions/cache" | "actions/cache/restore" | "actions/cache/save")
}

pub fn is_cache_nix(action: &str) -> bool {
    action.split('/').nth(1) == Some("cache-nix-action")
}

pub fn is_ours(action: &str) -> bool {
    action.split('/').nth(1) == Some("storecache")
}

/// Whether the step is ours, for a store of Nix or Guix.
pub fn ours(step: &Step) -> bool {
    step.action().is_some_and(is_ours)
}

/// Plain directories know no version.
pub fn is_plain(step: &Step) -> bool {
    ours(step) && step.text("with.store").trim() == "plain"
}

/// Whether the store is that of Guix, by whatever the step says.
pub fn is_of_guix(step: &Step) -> bool {
    step.fields.iter().any(|(_, text)| {
        let text = text.text.to_lowercase();
        text.contains("guix") || text.contains("gnu/store")
    })
}
