//! `key`: what the key is, and what it is made of.

use super::{Ending, lookup, or_json};
use crate::key::Rung;
use crate::options::ShowKey;
use crate::report;
use crate::store::system;
use anyhow::Result;
use serde_json::json;

/// Prints the key and its ladder.
pub fn key(options: &ShowKey) -> Result<Ending> {
    or_json(&options.output, run(options))
}

fn run(options: &ShowKey) -> Result<Ending> {
    let kind = lookup::kind(&options.store)?;
    let key = lookup::key(&options.store, &options.key, kind, None)?;
    let prefixes: Vec<&str> = key
        .ladder
        .rungs
        .iter()
        .filter_map(|rung| match rung {
            Rung::Prefix(prefix) => Some(prefix.as_str()),
            Rung::Exact(_) => None,
        })
        .collect();
    if options.output.json {
        let ingredients: Vec<_> = key
            .ingredients
            .iter()
            .map(|i| json!({ "name": i.name, "files": i.files, "digest": i.digest }))
            .collect();
        let object = json!({
            "key": key.text,
            "restore_keys": prefixes,
            "store": kind.name(),
            "system": system(),
            "ingredients": ingredients,
        });
        report::answer(object)?;
        return Ok(Ending::Done);
    }
    report::answer(&key.text)?;
    prefixes.iter().try_for_each(report::answer)?;
    if options.explain {
        report::note("\nfirst the exact key, then each prefix; the hash covers:");
        for ingredient in &key.ingredients {
            report::note(format!(
                "  {}  {}",
                &ingredient.digest.to_string()[..16],
                ingredient.name
            ));
            for file in &ingredient.files {
                report::note(format!("    {}", file.display()));
            }
        }
        if key.ingredients.is_empty() {
            report::note("  nothing: give --hash-files or --workflow to tell states apart");
        }
    }
    Ok(Ending::Done)
}
