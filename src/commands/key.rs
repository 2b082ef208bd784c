//! `key`: prints the key, its ingredients, and warnings about them.

use super::{Conclusion, or_json, resolve};
use crate::action;
use crate::config::ShowKey;
use crate::report;
use anyhow::{Context, Result};
use jiff::Zoned;
use serde_json::{Value, json};
use storecache_entry::Rung;
use storecache_key::{
    FILES, Ingredient, IngredientContent, Key, OfStep, Repository, Volatiles, Warning, of_step,
    warnings_of,
};
use storecache_store::{StoreKind, system};
use storecache_workflow::{Canonical, Pattern, Tree, WorkTree};

/// Number of digits of an ingredient's digest that are shown to people.
const DIGITS: usize = 16;

/// Values of a workflow are shown up to this length, in characters.
const SHOWN: usize = 100;

/// Prints the key and its ladder.
pub fn key(options: &ShowKey) -> Result<Conclusion> {
    or_json(&options.output, run(options))
}

fn run(options: &ShowKey) -> Result<Conclusion> {
    let mut options = options.clone();
    if options.from_step {
        let OfStep { key, store, place } = of_step(&options.key, &WorkTree)?;
        options.key = key;
        options.store.kind = options.store.kind.or(named(store.as_deref())?);
        if !options.output.quiet {
            report::print_note(format!("with the inputs of the step at {place}"));
        }
    }
    let options = &options;
    let kind = resolve::kind(&options.store)?;
    let key = resolve::key(&options.store, &options.key, kind, None)?;
    let prefixes: Vec<&str> = key
        .ladder
        .rungs
        .iter()
        .filter_map(|rung| match rung {
            Rung::Prefix(prefix) => Some(prefix.as_str()),
            Rung::Exact(_) => None,
        })
        .collect();
    let looked = match options.explain || options.output.json {
        true => look(&key, options.key.key.as_deref())?,
        false => Looked::default(),
    };
    if options.output.json {
        let ingredients = key.ingredients.iter().zip(&looked.ingredients);
        let ingredients = ingredients.map(|(it, warnings)| as_json(it, warnings, options.explain));
        report::answer_json(&json!({
            "key": key.text,
            "restore_keys": prefixes,
            "store": kind.name(),
            "system": system(),
            "prefix": options.key.prefix,
            "version": key.version,
            "hash": key.hash,
            "ingredients": ingredients.collect::<Vec<_>>(),
            "warnings": looked.key,
        }))?;
        return Ok(Conclusion::Done);
    }
    report::answer(&key.text)?;
    prefixes.iter().try_for_each(report::answer)?;
    if options.explain {
        explain(options, &key, kind.name(), &looked);
    }
    Ok(Conclusion::Done)
}

/// The kind of store that a step names.
fn named(store: Option<&str>) -> Result<Option<StoreKind>> {
    let name = store.filter(|name| *name != "auto");
    name.map(StoreKind::parse).transpose().context("the step's input store")
}

/// Warnings about the key itself and about each of its ingredients.
#[derive(Default)]
struct Looked {
    key: Vec<Warning>,
    ingredients: Vec<Vec<Warning>>,
}

fn look(key: &Key, given: Option<&str>) -> Result<Looked> {
    let repository = Repository::here().ok();
    let origin = action::origin();
    let head = repository.as_ref().and_then(|repository| repository.commit("HEAD").ok());
    let commits = head
        .map(|head| head.as_str().to_owned())
        .into_iter()
        .chain([origin.commit.raw().to_owned()]);
    let today = Zoned::now().date().to_string();
    let volatiles = Volatiles::new(commits.filter(|it| !it.is_empty()), origin.run.raw(), &today);
    // Count all files only if there are patterns: a work tree may be large.
    let files = match key.ingredients.iter().any(|it| it.name.starts_with(FILES)) {
        true => WorkTree.matching(&Pattern::parse("**")?)?.len(),
        false => 0,
    };
    let of = |it| warnings_of(it, &WorkTree, files, repository.as_ref(), &volatiles);
    Ok(Looked {
        key: given.and_then(|given| volatiles.of_key(given)).into_iter().collect(),
        ingredients: key.ingredients.iter().map(of).collect::<Result<_>>()?,
    })
}

fn as_json(ingredient: &Ingredient, warnings: &[Warning], whole: bool) -> Value {
    let mut object = json!({
        "name": ingredient.name,
        "files": ingredient.files.iter().map(|it| it.display().to_string()).collect::<Vec<_>>(),
        "digest": ingredient.digest,
        "warnings": warnings,
    });
    if whole {
        // The bytes that are hashed, with the digest in hexadecimal digits.
        object["contribution"] = json!(format!("{}\0{}", ingredient.name, ingredient.digest));
        match &ingredient.part {
            IngredientContent::Whole(facts) => {
                let files = ingredient.files.iter().zip(facts);
                let content = files.map(|(path, (bytes, digest))| {
                    json!({ "path": path.display().to_string(), "bytes": bytes, "digest": digest })
                });
                object["contents"] = content.collect();
            }
            IngredientContent::Lines(Canonical { lines, dropped, .. }) => {
                object["values"] = json!(lines);
                object["dropped"] = json!(dropped);
            }
        }
        object["notes"] = json!(ingredient.notes);
    }
    object
}

fn explain(options: &ShowKey, key: &Key, kind: &str, looked: &Looked) {
    report::note("");
    report::note("first the exact key, then each prefix; the key is made of");
    let given = options.key.key.is_some();
    let mut rows = vec![("key", key.text.clone())];
    if !given {
        rows = vec![
            ("prefix", options.key.prefix.clone()),
            ("store", kind.to_owned()),
            ("system", system()),
            ("version", key.version.clone().unwrap_or_default()),
        ];
        rows.extend(key.hash.clone().map(|hash| ("hash", hash)));
    }
    report::table(&rows).iter().for_each(|row| report::note(format!("  {row}")));
    warn(&looked.key);
    if given {
        report::note(
            "  --key sets the whole key: other ingredients are only recorded in the snapshot",
        );
    } else if key.ingredients.is_empty() {
        report::note("  no hash: use --hash-files or --workflow to distinguish states");
        return;
    }
    report::note("");
    report::note("the hash covers");
    for (ingredient, warnings) in key.ingredients.iter().zip(&looked.ingredients) {
        let digest = ingredient.digest.to_string();
        report::note(format!("  {}  {}", &digest[..DIGITS], ingredient.name));
        match &ingredient.part {
            IngredientContent::Whole(facts) => {
                for (file, (bytes, digest)) in ingredient.files.iter().zip(facts) {
                    let (digest, size) = (digest.to_string(), report::bytes(*bytes));
                    let file = file.display();
                    report::note(format!("    {}  {file}, {size}", &digest[..DIGITS]));
                }
            }
            IngredientContent::Lines(canonical) => {
                let files = ingredient.files.iter().map(|file| file.display().to_string());
                report::note(format!("    from {}", files.collect::<Vec<_>>().join(", ")));
                values(canonical);
            }
        }
        warn(warnings);
    }
}

fn values(canonical: &Canonical) {
    for line in &canonical.lines {
        let mut rows = line.text.lines();
        let first = rows.next().unwrap_or_default();
        let mut shown: String = first.chars().take(SHOWN).collect();
        if shown.len() < first.len() {
            shown.push('…');
        }
        let more = rows.count() as u64;
        if more > 0 {
            shown += &format!(" … and {}", report::plural(more, "more line"));
        }
        report::note(format!("    {} = {shown}  (line {})", line.path, line.line));
    }
    report::note("    left out: comments, order of keys, quotes and white space");
    for (why, dropped) in canonical.reasons() {
        let each = dropped.iter().map(|it| format!("{} (line {})", it.path, it.line));
        report::note(format!("    left out: {}: {why}", each.collect::<Vec<_>>().join(", ")));
    }
}

fn warn(warnings: &[Warning]) {
    for Warning { kind, why } in warnings {
        report::note(format!("    warning: {}: {why}", kind.name()));
    }
}
