//! Which steps keep a store in a cache.

use super::super::workflow::{Step, Text};

/// Whether a step keeps a Nix or Guix store.
pub fn of_a_store(step: &Step) -> bool {
    let Some(action) = step.action() else { return false };
    if is_ours(action) || action.ends_with("/cache-nix-action") {
        return true;
    }
    let path = step.fields.get("with.path").map(|text| text.text.as_str()).unwrap_or_default();
    let stores = ["nix/store", "gnu/store", "var/guix", "nix/var"];
    let named = stores.iter().any(|store| path.contains(store));
    is_official(action)
        && (named || path.lines().any(|line| line.trim() == "/nix") || is_named(step))
}

/// Whether its name, key or path speaks of the store of Nix or Guix: it may hold a tarball of one.
fn is_named(step: &Step) -> bool {
    ["with.path", "with.key", "name", "id"].iter().any(|field| {
        let text = step.fields.get(field).map(|text| text.text.to_lowercase()).unwrap_or_default();
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
        words.contains(&"store") && ["nix", "guix", "gnu"].iter().any(|name| words.contains(name))
    })
}

/// Whether it also saves, at the end of the job or at once.
pub fn saves(step: &Step) -> bool {
    let operation = step.fields.get("with.operation").map(|text| text.text.trim());
    let restores_only = step.action().is_some_and(|action| action.ends_with("/restore"));
    let save = step.fields.get("with.save").map(|text| text.text.trim());
    let refused = matches!(save, Some("false" | "never")) || operation == Some("restore");
    of_a_store(step) && !restores_only && !refused
}

/// The key that a step is given.
pub fn key(step: &Step) -> Option<&Text> {
    step.fields.get("with.key").or_else(|| step.fields.get("with.primary-key"))
}

/// `actions/cache` and the two below it.
pub fn is_official(action: &str) -> bool {
    matches!(action, "actions/cache" | "actions/cache/restore" | "actions/cache/save")
}

pub fn is_ours(action: &str) -> bool {
    action.split('/').nth(1) == Some("storecache")
}
